"""The writer in pure Python: what `stamp` and `link` do on the hot path when the compiled core is not there.

Order inside one call: the sequence number is taken first, by one C call that nothing can interrupt, so a stamp made by
a signal handler or a garbage collection callback in the middle of another one has a slot of its own. The slot is then
written by one `pack_into`, which stores the fields in order: begin first, end last.
"""

from __future__ import annotations

import itertools
import struct
import sys
import threading
from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from tailsight_probe import layout
from tailsight_probe.hashing import xxh64

# Native order where it equals the layout: there every 8-byte word is one store. ("<" writes byte by byte.)
_ORDER = "@" if sys.byteorder == "little" else "<"
_FULL = struct.Struct(_ORDER + layout.SLOT_FIELDS)
_LINK = struct.Struct(_ORDER + layout.SLOT_FIELDS.replace("q", "Q"))  # parent ids are unsigned in the signed field
# A stamp with nothing but point and key, and one with a depth: the other fields are prepared in the handle.
_PLAIN = struct.Struct(_ORDER + "QqQ32sQ")
_DEPTH = struct.Struct(_ORDER + "QqQqIi16sQ")

# What bad arguments raise in pack_into. Not `Exception`: a signal handler of the program may raise here too, and that
# exception belongs to the program.
BAD_ARGUMENT = (struct.error, TypeError, ValueError, AttributeError, OverflowError, LookupError)


class Point:
    """A handle: the codes of a point and of its key space, ready to be written."""

    __slots__ = ("_tail", "_tail_depth", "_tail_hashed", "code", "name", "prefix", "space", "space_code")

    def __init__(self, name: str, space: str, code: int, space_code: int, prefix: bytes) -> None:
        self.name = name
        self.space = space
        self.code = code
        self.space_code = space_code
        self.prefix = prefix
        head = struct.pack("<qIi", layout.NO_AGE, layout.NO_ERROR, layout.NO_DEPTH)
        rest = struct.pack("<HHHBBBBHI", code, space_code, *(0,) * 7)
        hashed = struct.pack("<HHHBBBBHI", code, layout.HASHED_SPACE, *(0,) * 7)
        # Code 0 would be a link: a handle that could not be registered has no tail, and its stamps are refused.
        self._tail_depth = rest if code else None
        self._tail = head + rest if code else None
        self._tail_hashed = head + hashed if code else None

    def __repr__(self) -> str:
        return f"Point({self.name!r}, space={self.space!r})"


class PureRing:
    """Slots and their sequence."""

    __slots__ = ("_counter", "hot")

    def __init__(self, slots: memoryview) -> None:
        self._counter = itertools.count(1)
        self.hot = (self._counter.__next__, slots, len(slots) // layout.SLOT_BYTES - 1)

    def put(
        self,
        time_ns: int | None,
        ident: int,
        value: int,
        error_ns: int,
        depth: int,
        point: int,
        space: int,
        clock: int,
        outcome: int,
        mode: int,
        cache: int,
        flags: int,
        labels: int,
        word: int = 0,
    ) -> None:
        """Write one record of normalised fields; `time_ns` None = now, `word` != 0 = a number taken already.

        Raises one of `BAD_ARGUMENT` for a value that does not fit its field, before a number is taken.
        """
        take, slots, mask = self.hot
        fields = (ident, value, error_ns, depth, point, space, clock, outcome, mode, cache, flags, 0, labels)
        pack = _LINK if value >= 1 << 63 else _FULL
        pack.pack(0, time_ns or 0, *fields, 0)
        word = word or take()
        pack.pack_into(
            slots, ((word - 1) & mask) << 6, word, monotonic_ns() if time_ns is None else time_ns, *fields, word
        )

    def written(self) -> int:
        """How many numbers were taken."""
        # itertools.count can be looked at without taking a number only through its repr: count(N).
        return int(repr(self._counter)[6:-1]) - 1


class PureWriter:
    """`stamp` and `link` as closures over a thread-local ring.

    `slow_stamp` and `slow_link` take every call that is not plain (a first call of a thread, a text key, a point's
    name, a value that does not fit) with the number already taken, if one was.
    """

    implementation = "python"
    make_ring = PureRing
    make_point = Point

    stamp: Callable[..., None]
    link: Callable[..., None]
    bind: Callable[[PureRing], None]
    forget: Callable[[], None]
    switch: Callable[[bool], None]

    def __init__(self, slow_stamp: Callable[..., None], slow_link: Callable[..., None], spaces: dict[str, int]) -> None:
        local = threading.local()
        on = True
        now = monotonic_ns
        plain = _PLAIN.pack_into
        with_depth = _DEPTH.pack_into
        full = _FULL.pack_into
        link_into = _LINK.pack_into
        bad_argument = BAD_ARGUMENT
        no_age, no_error, no_depth = layout.NO_AGE, layout.NO_ERROR, layout.NO_DEPTH

        def stamp(
            point: Any,
            key: Any,
            depth: Any = None,
            outcome: Any = None,
            mode: Any = None,
            cache: Any = None,
            data_age_ns: Any = None,
            labels: Any = None,
        ) -> None:
            if not on:
                return
            word = 0
            try:
                # The usual call first, and short: jumps on None cost less than one chained comparison, and jumps over
                # little code less than jumps over much.
                if (
                    depth is None
                    and outcome is None
                    and labels is None
                    and data_age_ns is None
                    and mode is None
                    and cache is None
                ):
                    take, slots, mask = local.hot
                    word = take()
                    plain(slots, ((word - 1) & mask) << 6, word, now(), key, point._tail, word)
                    return
                take, slots, mask = local.hot
                if outcome is None and labels is None and data_age_ns is None and mode is None and cache is None:
                    tail = point._tail_depth
                    word = take()
                    at = ((word - 1) & mask) << 6
                    with_depth(slots, at, word, now(), key, no_age, no_error, depth, tail, word)
                    return
                code = point.code or None
                word = take()
                full(
                    slots,
                    ((word - 1) & mask) << 6,
                    word,
                    now(),
                    key,
                    no_age if data_age_ns is None else data_age_ns,
                    no_error,
                    no_depth if depth is None else depth,
                    code,
                    point.space_code,
                    0,
                    outcome or 0,
                    mode or 0,
                    cache or 0,
                    0,
                    0,
                    labels or 0,
                    word,
                )
                return
            except bad_argument:
                # Asking for the type first would cost every integer key what only text keys need.
                if word and type(key) is str and outcome is labels is data_age_ns is mode is cache is depth is None:
                    try:
                        ident = xxh64(point.prefix + key.encode())
                        plain(slots, ((word - 1) & mask) << 6, word, now(), ident, point._tail_hashed, word)
                        return
                    except bad_argument:
                        pass
            slow_stamp(point, key, depth, outcome, mode, cache, data_age_ns, labels, word)

        def link(parent: Any, child: Any, parent_space: Any = "order", child_space: Any = "order") -> None:
            if on:
                word = 0
                try:
                    take, slots, mask = local.hot
                    if type(parent) is int and type(child) is int:
                        of_parent = spaces.get(parent_space)
                        of_child = spaces.get(child_space)
                        if of_parent and of_child:
                            word = take()
                            link_into(
                                slots,
                                ((word - 1) & mask) << 6,
                                word,
                                now(),
                                child,
                                parent,
                                no_error,
                                no_depth,
                                0,
                                of_child,
                                of_parent,
                                0,
                                0,
                                0,
                                0,
                                0,
                                0,
                                word,
                            )
                            return
                except bad_argument:
                    pass
                slow_link(parent, child, parent_space, child_space, word)

        def bind(ring: PureRing) -> None:
            local.hot = ring.hot

        def forget() -> None:
            nonlocal local
            local = threading.local()

        def switch(value: bool) -> None:
            nonlocal on
            on = value

        self.stamp = stamp
        self.link = link
        self.bind = bind
        self.forget = forget
        self.switch = switch
