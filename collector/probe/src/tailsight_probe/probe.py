"""`Probe`: everything around the hot path. One per process is usual; `tailsight_probe` has it at module level.

Nothing here raises into the program (except for a call that does not fit a function's signature): a call that cannot
be recorded is counted under its reason in `stats()`, and leaves a void record so that the ledger counts it too.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from tailsight_probe import hashing, layout
from tailsight_probe.dictionary import Dictionary
from tailsight_probe.names import Cache, Mode, Outcome
from tailsight_probe.pauses import GcWatch
from tailsight_probe.pure import BAD_ARGUMENT, PureWriter
from tailsight_probe.rings import Lease, Ring, Rings, default_directory, reraise_foreign

_LIVE: weakref.WeakSet[Probe] = weakref.WeakSet()
_OFF = frozenset({"off", "0", "false", "no"})
_LARGEST_CAPACITY = 1 << 22


class Stage:
    """Context manager: one stamp on the way in, one on the way out; an exception passes and marks the outcome."""

    __slots__ = ("_end", "_key", "_stamp", "_start")

    def __init__(self, stamp: Callable[..., None], start: Any, end: Any, key: Any) -> None:
        self._stamp = stamp
        self._start = start
        self._end = end
        self._key = key

    def __enter__(self) -> Stage:
        self._stamp(self._start, self._key)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._stamp(self._end, self._key)
        else:
            self._stamp(self._end, self._key, None, Outcome.ERROR)


class _Waiting:
    """Stands in for a ring while it is being opened, and keeps what interrupted the opening."""

    def __init__(self) -> None:
        self.records: list[tuple[Any, ...]] = []

    def put(self, *fields: Any) -> None:
        """Keep one record, with the time it was made."""
        self.records.append((time.monotonic_ns() if fields[0] is None else fields[0], *fields[1:]))

    def written(self) -> int:
        """How many are kept."""
        return len(self.records)


class Probe:
    """Stamps of one program.

    `stamp` and `link` are functions bound to the writer (pure or compiled). Files are made when the first stamp is
    written, not before.

    Attributes:
        stamp: `stamp(point, key, depth=None, outcome=None, mode=None, cache=None, data_age_ns=None, labels=None)`:
            the message `key` passes `point` now. `point` is a handle from `point()` or a name; `key` an unsigned
            64-bit integer, bytes or text; `labels` a code from `labels()` or a mapping.
        link: `link(parent, child, parent_space="order", child_space="order")`: the message `child` comes from
            `parent`.
        implementation: "c" or "python".
    """

    def __init__(
        self,
        service: str | None = None,
        ring_dir: str | os.PathLike[str] | None = None,
        capacity: int = 65_536,
        *,
        max_rings: int = 128,
        spare_rings: int = 4,
        compiled: bool | None = None,
    ) -> None:
        self._settings = (service, ring_dir, capacity, max_rings, spare_rings)
        self._dictionary = Dictionary()
        self._refused: dict[str, int] = {}
        self._voids = 0  # records that stand for refused calls
        self._intervals = 0
        self._gc: GcWatch | None = None
        self._gc_codes: tuple[int, list[int]] | None = None
        self._points: dict[tuple[str, str], Any] = {}
        self._rings: Rings | None = None
        self._parents: list[Rings] = []  # of processes we were forked from: kept mapped, see Rings
        self._held = threading.local()
        self._lock = threading.RLock()
        self._on = os.environ.get("TAILSIGHT_PROBE", "").strip().lower() not in _OFF
        core = _core() if compiled is None else (_core(always=True) if compiled else None)
        kind: Any = PureWriter if core is None else core.Writer
        self._writer = kind(self._slow_stamp, self._slow_link, self._dictionary.known("space"))
        self._writer.switch(self._on)
        self.implementation: str = self._writer.implementation
        self.stamp: Callable[..., None] = self._writer.stamp
        self.link: Callable[..., None] = self._writer.link
        _LIVE.add(self)

    def init(
        self,
        service: str | None = None,
        ring_dir: str | os.PathLike[str] | None = None,
        capacity: int = 65_536,
        *,
        max_rings: int = 128,
        spare_rings: int = 4,
    ) -> None:
        """Say who this program is and where its rings go. Optional, and may be called again.

        Args:
            service: its name in every answer; TAILSIGHT_SERVICE or the program's file name otherwise.
            ring_dir: TAILSIGHT_PROBE_DIR or /dev/shm/tailsight-<uid> otherwise.
            capacity: slots per thread, 64 bytes each; rounded up to a power of two.
            max_rings: how many ring files the process may have.
            spare_rings: how many rings of ended threads rest before one is used again.
        """
        with self._lock:
            before, self._settings = self._settings, (service, ring_dir, capacity, max_rings, spare_rings)
            if self._rings is None:
                return
            if before[1:] != self._settings[1:]:
                self._reopen()
                self._dictionary.let_go()
            else:
                self._announce()

    def point(self, name: str, space: str = "order") -> Any:
        """A handle for a point whose keys are of key space `space`; make it once and keep it."""
        known = self._points.get((name, space)) if isinstance(name, str) and isinstance(space, str) else None
        if known is not None:
            return known
        code = space_code = 0
        prefix = b"\0"
        try:
            prefix = hashing.prefix(space)
            space_code = self._code("space", space)
            code = self._code("point", name)
        except (*BAD_ARGUMENT, OSError) as error:
            reraise_foreign(error)
            self._count(f"point: {error}")
        handle = self._writer.make_point(str(name), str(space), code, space_code, prefix)
        if code:
            self._points[name, space] = handle
        return handle

    def labels(self, **labels: Any) -> int:
        """The code of a label set, interned; values become text. 0 = no labels (also when the set is refused)."""
        return self._label_code(labels)

    def stamp_at(
        self,
        time_ns: int,
        clock_id: str,
        point: Any,
        key: Any,
        error_ns: int | None = None,
        *,
        depth: int | None = None,
        outcome: int | str | None = None,
        mode: int | str | None = None,
        cache: int | str | None = None,
        data_age_ns: int | None = None,
        labels: int | Mapping[str, Any] | None = None,
    ) -> None:
        """A stamp whose time was taken elsewhere.

        Args:
            time_ns: for clock "monotonic" a CLOCK_MONOTONIC time; for "realtime" and every other clock ("nic",
                "phc0", "tsc") nanoseconds since the Unix epoch, UTC: the caller converts.
            clock_id: which clock took it; stamps of one clock are compared without its distance to UTC.
            point: a handle or a name.
            key: as for `stamp`.
            error_ns: how far from UTC the time may be; None = not stated.
            depth: queue depth seen at this point.
            outcome: a word or number of `Outcome`.
            mode: a word or number of `Mode`.
            cache: a word or number of `Cache`.
            data_age_ns: how old the data was that this message was served from.
            labels: a code from `labels()` or a mapping.
        """
        if self._on:
            self._record((time_ns, clock_id, error_ns), point, key, (depth, outcome, mode, cache, data_age_ns, labels))

    def stage(self, start_point: Any, end_point: Any, key: Any) -> Stage:
        """`with stage(a, b, key): ...` stamps `a` before and `b` after, with outcome error on an exception."""
        return Stage(self.stamp, start_point, end_point, key)

    def watch_gc(self, min_duration_ns: int = 0) -> None:
        """Record every garbage collection of this interpreter from now on, as an interval of the thread that made it.

        Args:
            min_duration_ns: shorter collections are only counted, in `stats()["gc_short"]`.

        A thread that collects and has never stamped is given a ring of its own.
        """
        self.unwatch_gc()
        with contextlib.suppress(OSError):  # in the callback it is tried again, and counted
            self._gc_words()
        self._gc = GcWatch(self._collected, min_duration_ns)
        self._gc.on()

    def unwatch_gc(self) -> None:
        """Stop recording garbage collections."""
        if self._gc is not None:
            self._gc.off()
            self._gc = None

    def switch(self, on: bool) -> None:
        """Turn stamping on or off; off costs one call and one test."""
        self._on = on
        self._writer.switch(on)

    @property
    def enabled(self) -> bool:
        """Whether calls are recorded."""
        return self._on

    def stats(self) -> dict[str, Any]:
        """What was written, what was not, and why.

        `recorded` counts stamps and links in rings, `intervals` garbage collections there, `refused` calls by reason,
        `lost` calls without a ring (then `reason` says why there was none), `gc_short` collections that were too short.
        """
        rings = self._rings
        begun = sum(file.ring.written() for file in rings.files) if rings else 0
        lost = rings.scratch.written() if rings else 0
        return {
            "service": self._service(),
            "implementation": self.implementation,
            "enabled": self._on,
            "ring_dir": rings.directory if rings else self._directory(),
            "rings": len(rings.files) if rings else 0,
            "rings_handed_on": rings.handed_on if rings else 0,
            "recorded": begun - (rings.handed_on if rings else 0) - self._voids - self._intervals,
            "intervals": self._intervals,
            "gc_short": self._gc.short if self._gc else 0,
            "refused": dict(self._refused),
            "lost": lost,
            "reason": rings.reason if rings else "",
        }

    # -- what is not hot ------------------------------------------------------------------------------------------

    def _slow_stamp(
        self,
        point: Any,
        key: Any,
        depth: Any = None,
        outcome: Any = None,
        mode: Any = None,
        cache: Any = None,
        data_age_ns: Any = None,
        labels: Any = None,
        word: int = 0,
    ) -> None:
        self._record(None, point, key, (depth, outcome, mode, cache, data_age_ns, labels), word)

    def _record(
        self, when: tuple[Any, Any, Any] | None, point: Any, key: Any, rest: tuple[Any, ...], word: int = 0
    ) -> None:
        ring = self._ring()
        what = "point"
        try:
            handle = self.point(point) if isinstance(point, str) else point
            if not isinstance(handle, self._writer.make_point) or not handle.code:
                raise ValueError(f"{point!r:.80} is no point; use tailsight_probe.point(name)")
            what = "key"
            ident, space = _identify(key, handle.prefix, handle.space_code)
            what = "clock"
            time_ns, clock, error_ns = None, layout.MONOTONIC, layout.NO_ERROR
            if when is not None:
                time_ns, clock = operator.index(when[0]), self._code("clock", when[1])
                error_ns = _error(when[2])
            depth, outcome, mode, cache, age, labels = rest
            what = "depth"
            depth = layout.NO_DEPTH if depth is None else operator.index(depth)
            what = "outcome, mode or cache"
            words = (_word(outcome, Outcome), _word(mode, Mode), _word(cache, Cache))
            what = "data_age_ns"
            age = layout.NO_AGE if age is None else operator.index(age)
            if not -(1 << 63) <= age < 1 << 63:
                raise ValueError(f"{age} does not fit 64 bits")
            what = "labels"
            label_code = self._label_code(labels) if isinstance(labels, Mapping) else operator.index(labels or 0)
            what = "value out of range"
            ring.put(
                time_ns, ident, age, error_ns, depth, handle.code, space, clock, *words, 0, label_code, *_taken(word)
            )
        except (*BAD_ARGUMENT, OSError) as error:
            reraise_foreign(error)
            self._void(ring, f"{what}: {type(error).__name__}", word)

    def _slow_link(
        self, parent: Any, child: Any, parent_space: Any = "order", child_space: Any = "order", word: int = 0
    ) -> None:
        ring = self._ring()
        try:
            of_child = self._space(child_space)
            of_parent = self._space(parent_space)
            ident, space = _identify(child, hashing.prefix(child_space), of_child)
            value, from_space = _identify(parent, hashing.prefix(parent_space), of_parent)
            ring.put(
                None,
                ident,
                value,
                layout.NO_ERROR,
                layout.NO_DEPTH,
                layout.LINK_POINT,
                space,
                from_space,
                *(0, 0, 0, 0, 0),
                *_taken(word),
            )
        except (*BAD_ARGUMENT, OSError) as error:
            reraise_foreign(error)
            self._void(ring, f"link: {type(error).__name__}", word)

    def _space(self, space: str) -> int:
        hashing.prefix(space)  # refuses a NUL
        return self._code("space", space)

    def _collected(self, start_ns: int, duration_ns: int, generation: int) -> None:
        if not self._on:
            return
        ring = self._ring()
        try:
            kind, labels = self._gc_codes or self._gc_words()
            ring.put(
                start_ns, 0, duration_ns, layout.NO_ERROR, generation, kind, layout.HASHED_SPACE, layout.MONOTONIC,
                0, 0, 0, layout.FLAG_INTERVAL, labels[generation],
            )  # fmt: skip
            # Collections do not nest, so nobody else is here.
            self._intervals += ring is not (self._rings and self._rings.scratch)
        except (*BAD_ARGUMENT, OSError) as error:
            reraise_foreign(error)
            self._void(ring, f"gc: {type(error).__name__}", 0)

    def _gc_words(self) -> tuple[int, list[int]]:
        """The codes of the kind and of each generation's label; codes stay as long as the process."""
        service = self._service()
        labels = [self._label_code({"generation": generation, "service": service}) for generation in range(3)]
        self._gc_codes = (self._code("point", "gc"), labels)
        return self._gc_codes

    def _void(self, ring: Ring, reason: str, word: int) -> None:
        self._count(reason)
        with self._lock:
            self._voids += ring is not (self._rings and self._rings.scratch)
        ring.put(
            *(0, 0, layout.NO_AGE, layout.NO_ERROR, layout.NO_DEPTH),
            *(0, 0, 0, 0, 0, 0, layout.FLAG_VOID, 0),
            *_taken(word),
        )

    def _count(self, reason: str) -> None:
        with self._lock:
            self._refused[reason] = self._refused.get(reason, 0) + 1

    def _code(self, kind: str, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"{kind} must be text, got {type(text).__name__}")
        return self._dictionary.code(kind, text)

    def _label_code(self, labels: Mapping[str, Any]) -> int:
        if not labels:
            return 0
        try:
            texts = {str(name): str(value) for name, value in labels.items()}
            return self._code("labels", json.dumps(texts, sort_keys=True, ensure_ascii=False, separators=(",", ":")))
        except (*BAD_ARGUMENT, OSError) as error:
            reraise_foreign(error)
            self._count(f"labels: {type(error).__name__}")
            return 0

    def _ring(self) -> Ring:
        held = self._held
        lease: Lease | None = getattr(held, "lease", None)
        if lease is not None:
            return lease.ring
        waiting: _Waiting | None = getattr(held, "waiting", None)
        if waiting is not None:
            return waiting  # we are in a signal handler that interrupted the opening of this thread's ring
        held.waiting = waiting = _Waiting()
        try:
            lease = self._opened().lease()
            held.lease = lease
            self._writer.bind(lease.ring)
        finally:
            held.waiting = None
        for fields in waiting.records:
            lease.ring.put(*fields)
        return lease.ring

    def _opened(self) -> Rings:
        with self._lock:
            if self._rings is None:
                _, _, capacity, most, spare = self._settings
                self._announce()
                self._rings = Rings(
                    self._directory(),
                    self._dictionary,
                    self._writer.make_ring,
                    capacity=_power_of_two(capacity),
                    most=most,
                    spare=spare,
                )
            return self._rings

    def _announce(self) -> None:
        try:
            self._dictionary.announce(self._service())
        except (*BAD_ARGUMENT, OSError) as error:
            reraise_foreign(error)
            self._count(f"service: {type(error).__name__}")

    def _service(self) -> str:
        named = self._settings[0] or os.environ.get("TAILSIGHT_SERVICE")
        if named:
            return str(named)
        return os.path.basename((getattr(sys, "argv", None) or [""])[0]).removesuffix(".py") or "python"  # noqa: PTH119

    def _directory(self) -> str:
        named = self._settings[1] or os.environ.get("TAILSIGHT_PROBE_DIR")
        return os.path.abspath(os.fspath(named)) if named else default_directory()  # noqa: PTH100

    def _reopen(self) -> None:
        """Let go of the rings: every thread opens a new one at its next stamp."""
        if self._rings is not None:
            self._parents.append(self._rings)
        self._rings = None
        self._voids = self._intervals = 0
        self._held = threading.local()
        self._writer.forget()

    def after_fork(self) -> None:
        """In a forked child: files of its own from the next stamp on, under the same codes."""
        self._lock = threading.RLock()
        self._dictionary.after_fork()
        self._refused = {}
        self._reopen()


def _core(*, always: bool = False) -> Any:
    """The compiled core, or None when it did not build or TAILSIGHT_PROBE_PURE is set."""
    if os.environ.get("TAILSIGHT_PROBE_PURE") and not always:
        return None
    if always:
        from tailsight_probe import _core as core

        return core
    with contextlib.suppress(ImportError):
        from tailsight_probe import _core as core

        return core
    return None


def _identify(key: Any, prefix: bytes, space_code: int) -> tuple[int, int]:
    """The slot's id and space code: an integer as it is, anything else as its hash in space 0."""
    if isinstance(key, str):
        return hashing.xxh64(prefix + key.encode()), layout.HASHED_SPACE
    if isinstance(key, bytes | bytearray | memoryview):
        return hashing.xxh64(prefix + bytes(key)), layout.HASHED_SPACE
    ident = operator.index(key)
    if not 0 <= ident < 1 << 64:
        raise OverflowError("an integer identifier must fit an unsigned 64-bit integer; pass its bytes")
    return ident, space_code


def _word(value: Any, words: Any) -> int:
    return int(words[value.upper()]) if isinstance(value, str) and value else operator.index(value or 0)


def _error(error_ns: Any) -> int:
    if error_ns is None:
        return layout.NO_ERROR
    error = operator.index(error_ns)
    if error < 0:
        raise ValueError("an error bound is not negative")
    return min(error, layout.LARGE_ERROR)


def _taken(word: int) -> tuple[int, ...]:
    return (word,) if word else ()


def _power_of_two(capacity: Any) -> int:
    wanted = capacity if isinstance(capacity, int) else 65_536
    return 1 << max(3, min(wanted, _LARGEST_CAPACITY) - 1).bit_length() if wanted > 1 else 8


def _after_fork_in_child() -> None:
    for probe in list(_LIVE):
        probe.after_fork()


os.register_at_fork(after_in_child=_after_fork_in_child)
