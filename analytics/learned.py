"""Learned paths: what programs that only speak OpenTelemetry measure, without a line of configuration.

Every entry span (a root, server or consumer span) of a service has a path `otel:SERVICE:NAME`: from its start to its
end, and a stage for each kind of span directly below it, from the first start to the last end within the entry. The
paths are read from the stamps that arrive (their points say service and name, see docs/otlp.md), kept in the table
`learned_paths`, and bounded in number; what does not fit is counted and said. Stages are only ever added, at the end:
stored messages have theirs by place.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec

from analytics.due import NS
from analytics.generations import Generations
from analytics.paths import END_TO_END, MAX_STAGES, UNATTRIBUTED, End, Path, Stage
from collector.points import CHILD_END, CHILD_START, SPAN_END, SPAN_START
from collector.settings import ConfigError, Section, duration_ns
from collector.store import Limits, Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

Origin = Literal["spans", "histogram"]
# `max_age` is the shortest of these that is at least twice the longest span seen.
_AGES = (("1s", NS), ("10s", 10 * NS), ("60s", 60 * NS), ("10m", 600 * NS), ("1h", 3_600 * NS), ("24h", 86_400 * NS))
_SLACK_NS = 120 * NS  # a batch's received time is taken when it comes in, its ledger row is written later
_SEEN_EVERY_NS = 600 * NS
_SAMPLE = 500_000  # stamps looked at in one pass; of more, the messages of a share
_LIMITS = Limits(seconds=30.0, memory_bytes=1 << 30)
_COLLECTOR = "otlp"


class LearnedSettings(Section, frozen=True, kw_only=True):
    """`[learned]`: how many paths are learned, how many stages each may have, and when an unseen one is forgotten."""

    max_paths: int = 12
    max_stages: int = 16
    forget: str = "7d"

    def validate(self) -> None:
        """Raise ConfigError naming the field that makes no sense."""
        if not 0 <= self.max_paths <= 1_000:
            raise ConfigError("max_paths", f"{self.max_paths} must be 0 to 1000; every path costs the window job")
        if not 0 <= self.max_stages <= MAX_STAGES - 1:
            raise ConfigError("max_stages", f"{self.max_stages} must be 0 to {MAX_STAGES - 1}")
        if duration_ns(self.forget, "forget") <= 0:
            raise ConfigError("forget", f"{self.forget!r} must be longer than nothing")


class LearnedPath(msgspec.Struct, frozen=True, kw_only=True):
    """A path that was learned, when it was first and last seen, and its longest message.

    `value_error` is what the source's own buckets add to every value, as a share of it; 0 for spans.
    """

    path: Path
    origin: Origin
    first_ns: int
    last_ns: int
    longest_ns: int = 0
    value_error: float = 0.0


@dataclass(slots=True)
class Seen:
    """What arrived of one operation: how often, how long at most, and the operations directly below it.

    `below[(service, name)]` is (how often, summed offset from the start in ns).
    """

    n: int = 0
    longest_ns: int = 0
    below: dict[tuple[str, str], tuple[int, int]] = field(default_factory=lambda: defaultdict(lambda: (0, 0)))


def path_name(service: str, operation: str) -> str:
    """The name of an operation's path."""
    return f"otel:{service}:{operation}"


def path_of(
    service: str, operation: str, known: LearnedPath | None, seen: Seen, settings: LearnedSettings
) -> tuple[Path, int]:
    """The operation's path with what was seen of it, and its longest message in ns.

    Stages that were known stay where they are; new ones follow, in the order in which they usually start, the most
    frequent first chosen.
    """
    longest = max(seen.longest_ns, known.longest_ns if known else 0)
    stages = list(known.path.stages) if known else []
    there = {(s.start.service, s.start.point.removeprefix(CHILD_START)) for s in stages}
    chosen = sorted((o for o in seen.below if o not in there), key=lambda o: -seen.below[o][0])
    chosen = chosen[: max(0, settings.max_stages - len(stages))]
    for below in sorted(chosen, key=lambda o: seen.below[o][1] / max(1, seen.below[o][0])):
        stages.append(_stage(service, below, {s.name for s in stages}))
    first = End(point=SPAN_START + operation, service=service)
    last = End(point=SPAN_END + operation, service=service, which="last")
    age = next((text for text, ns in _AGES if ns >= 2 * longest), _AGES[-1][0])
    path = Path(
        name=path_name(service, operation),
        max_age=age,
        stages=stages,
        description=f"learned from spans of {service}: {operation}",
        first=first,
        last=last,
    )
    return path, longest


def _stage(service: str, below: tuple[str, str], taken: set[str]) -> Stage:
    other, operation = below
    name = operation if other == service else f"{other}: {operation}"
    if name in (END_TO_END, UNATTRIBUTED) or name in taken:
        name = f"span {other}: {operation}"
    return Stage(
        name=name,
        start=End(point=CHILD_START + operation, service=other),
        end=End(point=CHILD_END + operation, service=other, which="last"),
        kind="compute" if other == service else "network",
        description=f"spans {operation} of {other} directly below, first start to last end",
    )


def load(store: Store, settings: LearnedSettings | None = None, now_ns: int | None = None) -> dict[str, LearnedPath]:
    """The learned paths by name; with `now_ns` only those that are not forgotten."""
    rows = store.query("SELECT name, argMax(body, version) AS body FROM learned_paths GROUP BY name ORDER BY name")
    found: dict[str, LearnedPath] = {}
    for name, body in rows.iter_rows():
        try:
            found[name] = msgspec.json.decode(body, type=LearnedPath)
        except msgspec.MsgspecError:  # written by another version: it is learned again
            continue
    if settings is None or now_ns is None:
        return found
    oldest = now_ns - duration_ns(settings.forget, "forget")
    return {name: one for name, one in found.items() if one.last_ns >= oldest}


def save(store: Store, paths: Mapping[str, LearnedPath], now_ns: int) -> None:
    """Write learned paths; the newest version of a name counts."""
    rows = [
        {
            "name": name, "origin": one.origin, "body": msgspec.json.encode(one).decode(),
            "last_seen": one.last_ns, "version": now_ns,
        }
        for name, one in paths.items()
    ]  # fmt: skip
    if rows:
        store.insert("learned_paths", from_rows(table_types()["learned_paths"], rows), token=f"learned#{now_ns}")


class PathLearner:
    """Looks at what the collector `otlp` brought since the last call. One per server; not thread-safe."""

    def __init__(self, settings: LearnedSettings | None = None) -> None:
        self._settings = settings or LearnedSettings()
        self._position_ns = 0
        self._looked: set[int] = set()  # batches received since the position, less the slack
        self.known: dict[str, LearnedPath] | None = None
        self._forgotten: dict[str, LearnedPath] = {}  # where their stages were, should they come back
        self.unlearned = 0  # operations that were seen and did not fit

    def learn(self, store: Store, now_ns: int) -> dict[str, LearnedPath]:
        """All learned paths now. Raises StoreError."""
        if self.known is None:
            self.known = load(store)
        oldest = now_ns - duration_ns(self._settings.forget, "forget")
        if gone := {name: one for name, one in self.known.items() if one.last_ns < oldest}:
            self._forgotten |= gone
            self.known = {name: one for name, one in self.known.items() if name not in gone}
        since = max(0, self._position_ns - _SLACK_NS)
        arrived = list(store.query(_ARRIVED, {"since": since, "name": _COLLECTOR}).iter_rows(named=True))
        fresh = [row for row in arrived if row["batch"] not in self._looked]
        if fresh:
            rows = sum(row["stored"] for row in fresh)
            low, high = min(row["low"] for row in fresh), max(row["high"] for row in fresh)
            changed = self._merge(observe(store, low, high, max(1, rows // _SAMPLE)), now_ns)
            received = min(row["received_ns"] for row in fresh)
            self._begin(store, [name for name in changed if name not in self.known], received, now_ns)
            save(store, changed, now_ns)
            self.known = {**self.known, **changed}
        # Only now: what failed before is looked at again.
        self._looked = {row["batch"] for row in arrived}
        self._position_ns = max((row["received_ns"] for row in arrived), default=self._position_ns or now_ns)
        return self.known

    def add(self, store: Store, learned: Mapping[str, LearnedPath], now_ns: int) -> None:
        """Take paths that were learned elsewhere (histograms), as far as they fit."""
        known = self.known if self.known is not None else load(store, self._settings, now_ns)
        learned = {
            name: one if (old := known.get(name)) is None else _joined(old, one) for name, one in learned.items()
        }
        fits = {n: p for n, p in learned.items() if n in known or len(known) < self._settings.max_paths}
        self.unlearned = max(self.unlearned, len(learned) - len(fits))
        changed = {n: p for n, p in fits.items() if _differs(known.get(n), p)}
        save(store, changed, now_ns)
        self.known = {**known, **changed}

    def _merge(self, seen: Mapping[tuple[str, str], Seen], now_ns: int) -> dict[str, LearnedPath]:
        known = self.known or {}
        changed: dict[str, LearnedPath] = {}
        unlearned = 0
        for (service, operation), what in sorted(seen.items(), key=lambda each: -each[1].n):
            name = path_name(service, operation)
            before = known.get(name)
            back = before or self._forgotten.get(name)
            if before is None and len(known) + len(changed.keys() - known.keys()) >= self._settings.max_paths:
                unlearned += 1
                continue
            path, longest = path_of(service, operation, back, what, self._settings)
            first = back.first_ns if back else now_ns
            one = LearnedPath(path=path, origin="spans", first_ns=first, last_ns=now_ns, longest_ns=longest)
            if _differs(before, one):
                changed[name] = one
        self.unlearned = unlearned
        return changed

    def _begin(self, store: Store, names: list[str], received_ns: int, now_ns: int) -> None:
        """Tell the window job that nothing before these batches is of these paths: it need not look there."""
        if not self._position_ns:
            return  # the first look after a start: the paths may be older than it knows
        position = max(0, received_ns - _SLACK_NS)
        for name in names:
            store.execute(
                _BEGIN,
                {
                    "path": name,
                    "now_s": now_ns // NS,
                    "generation": Generations(store, name, now_ns).next(),
                    "position": position,
                },
            )


def observe(store: Store, from_ns: int, to_ns: int, share: int = 1) -> dict[tuple[str, str], Seen]:
    """What operations there are in [from_ns, to_ns], by (service, name), from one in `share` messages."""
    params = {
        "from_ns": from_ns, "to_ns": to_ns, "share": share, "start": SPAN_START, "end": SPAN_END,
        "child": CHILD_START,
    }  # fmt: skip
    found: dict[tuple[str, str], Seen] = defaultdict(Seen)
    for row in store.query(_SEEN, params, limits=_LIMITS).iter_rows(named=True):
        one = found[(row["service"], row["operation"])]
        if not row["child_operation"]:
            one.n += row["n"]
            one.longest_ns = max(one.longest_ns, row["longest"])
            continue
        n, offset = one.below[(row["child_service"], row["child_operation"])]
        one.below[(row["child_service"], row["child_operation"])] = (n + row["n"], offset + row["offsets"])
    return dict(found)


def _joined(before: LearnedPath, after: LearnedPath) -> LearnedPath:
    """What is known of a histogram's path with what was seen now: the error only grows."""
    error = max(before.value_error, after.value_error)
    path = msgspec.structs.replace(after.path, value_error=error)
    return msgspec.structs.replace(after, first_ns=before.first_ns, path=path, value_error=error)


def _differs(before: LearnedPath | None, after: LearnedPath) -> bool:
    if before is None or before.path != after.path or before.value_error != after.value_error:
        return True
    return after.last_ns - before.last_ns > _SEEN_EVERY_NS


def shown_origin(learned: Mapping[str, LearnedPath], name: str) -> dict[str, Any]:
    """Where a path comes from, for answers: `configured`, or what it was learned from, and what that adds in error."""
    one = learned.get(name)
    if one is None:
        return {"origin": "configured", "learned_ns": None, "value_error": 0.0}
    return {"origin": one.origin, "learned_ns": one.first_ns, "value_error": one.value_error}


_ARRIVED = """
SELECT batch, toUnixTimestamp64Nano(first_ts) AS low, toUnixTimestamp64Nano(last_ts) AS high,
    toUnixTimestamp64Nano(received) AS received_ns, stored
FROM batches
WHERE received >= fromUnixTimestamp64Nano({since:Int64}, 'UTC') AND name = {name:String} AND has(tables, 'stamps')
"""

# Per operation one row with how often and how long, and one per operation below it with when it starts.
_SEEN = """
SELECT own AS service, operation, child.1 AS child_service, child.2 AS child_operation, count() AS n,
    max(took) AS longest, sum(child.3 - began) AS offsets
FROM (
    SELECT
        argMinIf(toString(service), ts, startsWith(point, {start:String})) AS own,
        argMinIf(substring(point, length({start:String}) + 1), ts, startsWith(point, {start:String})) AS operation,
        toUnixTimestamp64Nano(minIf(ts, startsWith(point, {start:String}))) AS began,
        greatest(0, toUnixTimestamp64Nano(maxIf(ts, startsWith(point, {end:String}))) - began) AS took,
        arrayConcat([('', '', began)], groupUniqArrayIf(64)(
            (toString(service), substring(point, length({child:String}) + 1), toUnixTimestamp64Nano(ts)),
            startsWith(point, {child:String}))) AS children
    FROM stamps
    WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
        AND startsWith(point, 'otel.') AND key % {share:UInt64} = 0
    GROUP BY key
    HAVING countIf(startsWith(point, {start:String})) > 0
) ARRAY JOIN children AS child
GROUP BY own, operation, child_service, child_operation
ORDER BY n DESC
LIMIT 20000
"""

_BEGIN = """
INSERT INTO windows (path, level, window, generation, state, messages, finished, unfinished, headless, stamps,
completeness, basis, computed)
SELECT {path:String}, 0, toDateTime({now_s:UInt32}, 'UTC'), {generation:UInt64}, 'provisional', 0, 0, 0, 0, 0, NULL, 0,
    fromUnixTimestamp64Nano({position:Int64}, 'UTC')
"""
