"""What kept the threads of messages from working: intervals joined to messages by thread and time.

A stage ends with a stamp of one thread. While the stage lasted, that thread may have waited for a CPU, been preempted,
been interrupted, waited for a lock or collected garbage; each is an interval of the thread. The stage is the sum of
these parts and of what remains, exactly (`overlap`). Where the stage began on another thread, time asleep is left out:
the thread may have had nothing to do yet.

Intervals shorter than the collector's threshold are in what remains, and so is everything on a host where nobody
measured: there the parts are unknown (null), not zero.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from analytics import overlap, scheduler
from analytics.generations import CURRENT
from analytics.messages import TimelineStamp
from analytics.paths import MAX_HOPS, End, Path
from collector.store import Store

NS = 1_000_000_000
# How long before a span an interval that reaches into it may begin.
LOOK_BACK_NS = 60 * NS
MOST_INTERVALS = 500_000
Pick = Literal["slowest", "sample"]
Place = tuple[str, int]  # host, thread


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Time of one kind and culprit inside a span."""

    kind: str
    culprit: str
    ns: int


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The time from the stamp before to this one, on this stamp's thread.

    `parts` is null where nobody measured the host; `handoff` says that the stamp before was another thread's.
    """

    step_ns: int
    handoff: bool
    parts: list[Part] | None
    remaining_ns: int | None


class StageBudget(msgspec.Struct, frozen=True, kw_only=True):
    """What kept one stage's threads from working, over the chosen messages.

    `messages` have the stage and lie on a measured host; `total_ns` is the sum of their latencies, and the sum of
    `kinds` and `remaining_ns` exactly. `unknown` have the stage on a host where nobody measured. `share` is the part of
    all kinds in the total.
    """

    stage: str
    messages: int
    unknown: int
    total_ns: int
    kinds: dict[str, int]
    remaining_ns: int
    share: float | None
    culprits: list[Part]


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """Budgets of all stages. `unmatched` stages of messages were left out, because their stamps are gone or changed.

    `not_placed` are garbage collections of the stages' services that are known as sums over periods only: whatever of
    them lay in a stage is in what remains, or, on a stopped thread, in what it was kept from working by.

    Shorter intervals than `threshold_ns` (the largest of any host) and the `intervals_lost` on the way in this time are
    in what remains.
    """

    path: str
    pick: str
    messages: int
    unmatched: int
    threshold_ns: int | None
    intervals_lost: int
    not_placed: list[scheduler.Collections]
    stages: list[StageBudget]


@dataclass(frozen=True, slots=True)
class Intervals:
    """Intervals of some threads: when, and what (`kind`, `culprit`) by code."""

    place: Mapping[Place, NDArray[np.int64]]  # rows of each thread
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    code: NDArray[np.int64]
    names: list[tuple[str, str]]  # kind and culprit of each code


@dataclass(frozen=True, slots=True)
class Spans:
    """Stages of messages as spans of threads: int64[n] each; `place` says which of `places` a span is on."""

    message: NDArray[np.int64]
    stage: NDArray[np.int64]
    start: NDArray[np.int64]
    end: NDArray[np.int64]
    place: NDArray[np.int64]
    handoff: NDArray[np.bool_]
    places: list[Place]


_INTERVALS = """
SELECT toString(host) AS host, thread, toUnixTimestamp64Nano(ts) AS start, start + duration_ns AS end,
    toString(kind) AS kind, toString(culprit) AS culprit
FROM intervals
WHERE host IN {hosts:Array(String)} AND thread IN {threads:Array(UInt32)} AND kind != 'run_queue_sum'
    AND ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {back:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    AND end > {from_ns:Int64} AND duration_ns > 0
ORDER BY duration_ns DESC LIMIT {limit:UInt32}
"""
_CHOSEN = f"""
SELECT key, toUnixTimestamp64Nano(start) AS start_ns, stage_ns
FROM messages AS m
WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC')
    AND window < toDateTime({{to_s:UInt32}}, 'UTC')
    AND generation IN ({CURRENT}) AND m.mode NOT IN ('shadow', 'synthetic') AND e2e_ns IS NOT NULL
    AND start >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC')
    AND start < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
ORDER BY $order LIMIT {{limit:UInt32}}
"""  # noqa: S608 - fixed text
_LINKS = """
SELECT parent, child FROM links WHERE child IN {keys:Array(UInt64)}
    AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
"""
_STAMPS = """
SELECT key, toUnixTimestamp64Nano(ts) AS ts_ns, toString(point) AS point, toString(service) AS service,
    toString(host) AS host, thread
FROM stamps WHERE key IN {keys:Array(UInt64)} AND point IN {points:Array(String)}
    AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
"""
# A hash of the key in an order of its own, so that the sample is not one of neighbouring numbers.
_ORDERS: Mapping[Pick, str] = {"slowest": "e2e_ns DESC, start, key", "sample": "cityHash64(key), start, key"}


def steps(store: Store, stamps: Sequence[TimelineStamp]) -> list[Step]:
    """What the time between the stamps of one message was, in their order; the first stamp's step is empty."""
    if not stamps:
        return []
    places = {(stamp.host, stamp.thread) for stamp in stamps}
    first, last = stamps[0].ts_ns, stamps[-1].ts_ns
    found = intervals(store, places, first, last)
    measured = {one.host for one in mechanisms(store, first, last)}
    out = [Step(step_ns=0, handoff=False, parts=[], remaining_ns=0)]
    for before, stamp in itertools.pairwise(stamps):
        place, length = (stamp.host, stamp.thread), stamp.ts_ns - before.ts_ns
        handoff = (before.host, before.thread) != place
        if stamp.host not in measured and place not in found.place:
            out.append(Step(step_ns=length, handoff=handoff, parts=None, remaining_ns=None))
            continue
        start, end = np.array([before.ts_ns]), np.array([stamp.ts_ns])
        took = _parts_on(place, start, end, np.array([handoff]), found)[0]
        kept = [Part(kind=found.names[c][0], culprit=found.names[c][1], ns=int(took[c])) for c in np.flatnonzero(took)]
        kept.sort(key=lambda part: -part.ns)
        out.append(Step(step_ns=length, handoff=handoff, parts=kept, remaining_ns=length - int(took.sum())))
    return out


def stage_budgets(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    pick: Pick = "slowest",
    limit: int = 500,
    culprits: int = 5,
) -> Budget:
    """The budget of every stage over the `limit` slowest users' messages of `path` that start in [from_ns, to_ns).

    `pick="sample"` takes messages by a hash of their key instead: what the slowest are compared with.
    """
    messages = chosen(store, path, from_ns, to_ns, pick, limit)
    spans, unmatched = spans_of(store, path, messages)
    stages: list[StageBudget] = []
    how: list[scheduler.Mechanism] = []
    if len(spans.start):
        first, last = int(spans.start.min()), int(spans.end.max())
        found = intervals(store, spans.places, first, last)
        hosts = {host for host, _ in spans.places}
        how = [one for one in mechanisms(store, first, last) if one.host in hosts]
        measured = {one.host for one in how}
        known = np.array([place[0] in measured or place in found.place for place in spans.places])[spans.place]
        took = parts_of(spans, found)
        for number, stage in enumerate(path.stages):
            here = (spans.stage == number) & known
            unknown = int(((spans.stage == number) & ~known).sum())
            total = int((spans.end - spans.start)[here].sum())
            stages.append(
                _stage_budget(stage.name, int(here.sum()), unknown, total, took[here].sum(axis=0), found, culprits)
            )
    return Budget(
        path=path.name,
        pick=pick,
        messages=len(messages),
        unmatched=unmatched,
        threshold_ns=max((one.threshold_ns for one in how), default=None),
        intervals_lost=sum(one.records_lost for one in how),
        not_placed=_not_placed(store, path, from_ns, to_ns),
        stages=stages,
    )


def _not_placed(store: Store, path: Path, from_ns: int, to_ns: int) -> list[scheduler.Collections]:
    """Sums of the services that the path names; of all where it names none."""
    services = {end.service for stage in path.stages for end in (stage.start, stage.end)} - {""}
    found = scheduler.collections(store, from_ns, to_ns)
    return [one for one in found if not one.placed and (not services or one.service in services)]


def chosen(
    store: Store, path: Path, from_ns: int, to_ns: int, pick: Pick, limit: int
) -> list[tuple[int, int, list[int | None]]]:
    """Finished messages of `path`: key, start and stage latencies."""
    params = {
        "path": path.name, "level": 10, "from_ns": from_ns, "to_ns": to_ns, "limit": limit,
        "from_s": from_ns // NS // 10 * 10, "to_s": -(-to_ns // (10 * NS)) * 10,
    }  # fmt: skip
    rows = store.query(_CHOSEN.replace("$order", _ORDERS[pick]), params)
    return [(int(key), int(start), list(stages)) for key, start, stages in rows.iter_rows()]


def spans_of(store: Store, path: Path, messages: Sequence[tuple[int, int, list[int | None]]]) -> tuple[Spans, int]:
    """The stages of messages (key, start, stage latencies) as spans of the thread that ended them.

    Returns also how many stages were left out, because the stamps that are kept do not give the latency that was
    computed. Negative stages are no spans and are left out too.
    """
    if not messages:
        empty = np.zeros(0, dtype=np.int64)
        return Spans(empty, empty, empty, empty, empty, np.zeros(0, dtype=np.bool_), []), 0
    reach = {
        "from_ns": min(m[1] for m in messages) - path.reach_before_ns,
        "to_ns": max(m[1] for m in messages) + path.max_age_ns + 1,
    }
    family = _families(store, path, [m[0] for m in messages], reach)
    points = sorted({end.point for stage in path.stages for end in (stage.start, stage.end)})
    keys = sorted(set().union(*family.values()))
    stamps: dict[int, list[dict[str, Any]]] = {}
    for row in store.query(_STAMPS, {**reach, "keys": keys, "points": points}).iter_rows(named=True):
        stamps.setdefault(row["key"], []).append(row)
    places: dict[Place, int] = {}
    rows: list[tuple[int, int, int, int, int, bool]] = []
    unmatched = 0
    for number, (key, start, latencies) in enumerate(messages):
        mine = [
            stamp
            for one in family[key]
            for stamp in stamps.get(one, ())
            if start - path.skew_ns <= stamp["ts_ns"] <= start + path.max_age_ns
        ]
        for at, (stage, latency) in enumerate(zip(path.stages, latencies, strict=True)):
            if latency is None or latency < 0:
                continue
            a, b = _at(stage.start, mine), _at(stage.end, mine)
            if a is None or b is None or b["ts_ns"] - a["ts_ns"] != latency:
                unmatched += 1
                continue
            place = (b["host"], b["thread"])
            handoff = (a["host"], a["thread"]) != place
            rows.append((number, at, a["ts_ns"], b["ts_ns"], places.setdefault(place, len(places)), handoff))
    table = np.array([row[:5] for row in rows], dtype=np.int64).reshape(-1, 5).T
    handoffs = np.array([row[5] for row in rows], dtype=np.bool_)
    return Spans(table[0], table[1], table[2], table[3], table[4], handoffs, list(places)), unmatched


def intervals(store: Store, places: Iterable[Place], from_ns: int, to_ns: int) -> Intervals:
    """The intervals of these threads that touch [from_ns, to_ns); the longest MOST_INTERVALS of them."""
    wanted = set(places)
    params = {
        "hosts": sorted({host for host, _ in wanted}), "threads": sorted({thread for _, thread in wanted}),
        "from_ns": from_ns, "to_ns": to_ns, "back": LOOK_BACK_NS, "limit": MOST_INTERVALS,
    }  # fmt: skip
    names: dict[tuple[str, str], int] = {}
    rows: dict[Place, list[int]] = {}
    start: list[int] = []
    end: list[int] = []
    code: list[int] = []
    for host, thread, begins, ends, kind, culprit in store.query(_INTERVALS, params).iter_rows():
        if (host, thread) not in wanted:
            continue
        rows.setdefault((host, thread), []).append(len(start))
        start.append(begins)
        end.append(ends)
        code.append(names.setdefault((kind, culprit), len(names)))
    return Intervals(
        {place: np.array(at, dtype=np.int64) for place, at in rows.items()},
        np.array(start, dtype=np.int64),
        np.array(end, dtype=np.int64),
        np.array(code, dtype=np.int64),
        list(names),
    )


def parts_of(spans: Spans, found: Intervals) -> NDArray[np.int64]:
    """How much of each span each (kind, culprit) took: int64[spans, codes], the codes of `found.names`."""
    out = np.zeros((len(spans.start), len(found.names)), dtype=np.int64)
    for number, place in enumerate(spans.places):
        here = spans.place == number
        out[here] = _parts_on(place, spans.start[here], spans.end[here], spans.handoff[here], found)
    return out


def mechanisms(store: Store, from_ns: int, to_ns: int) -> list[scheduler.Mechanism]:
    """The hosts whose scheduler collector was at work then; it reports every few seconds, hence the margin."""
    return scheduler.mechanisms(store, from_ns - LOOK_BACK_NS, to_ns + LOOK_BACK_NS)


def _parts_on(
    place: Place, start: NDArray[np.int64], end: NDArray[np.int64], handoff: NDArray[np.bool_], found: Intervals
) -> NDArray[np.int64]:
    rows = found.place.get(place)
    if rows is None:
        return np.zeros((len(start), len(found.names)), dtype=np.int64)
    ranks = np.array([overlap.rank(kind) for kind, _ in found.names], dtype=np.int64)
    code = found.code[rows]
    cut = overlap.segments(found.start[rows], found.end[rows], ranks[code])
    took = overlap.parts(start, end, cut, code, len(found.names))
    asleep = np.array([kind in overlap.ASLEEP for kind, _ in found.names], dtype=np.bool_)
    took[np.ix_(handoff, asleep)] = 0
    return took


def _stage_budget(
    name: str, messages: int, unknown: int, total: int, took: NDArray[np.int64], found: Intervals, culprits: int
) -> StageBudget:
    kinds: dict[str, int] = {}
    for code in np.flatnonzero(took).tolist():
        kind = found.names[code][0]
        kinds[kind] = kinds.get(kind, 0) + int(took[code])
    kept = sum(kinds.values())
    worst = [code for code in np.argsort(-took, kind="stable").tolist() if took[code]][:culprits]
    return StageBudget(
        stage=name,
        messages=messages,
        unknown=unknown,
        total_ns=total,
        kinds=dict(sorted(kinds.items(), key=lambda item: -item[1])),
        remaining_ns=total - kept,
        share=kept / total if total else None,
        culprits=[Part(kind=found.names[c][0], culprit=found.names[c][1], ns=int(took[c])) for c in worst],
    )


def _families(store: Store, path: Path, keys: Sequence[int], reach: Mapping[str, int]) -> dict[int, set[int]]:
    """Each key with its ancestors up to the path's hops."""
    family = {key: {key} for key in keys}
    edge = {key: {key} for key in keys}
    for _ in range(min(path.hops, MAX_HOPS)):
        wanted = sorted(set().union(*edge.values()))
        if not wanted:
            break
        parents: dict[int, set[int]] = {}
        for parent, child in store.query(_LINKS, {**reach, "keys": wanted}).iter_rows():
            parents.setdefault(child, set()).add(parent)
        for key, known in family.items():
            edge[key] = set().union(*(parents.get(one, set()) for one in edge[key])) - known
            known |= edge[key]
    return family


def _at(end: End, stamps: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The stamp at an end of a stage."""
    there = [s for s in stamps if s["point"] == end.point and (not end.service or s["service"] == end.service)]
    if not there:
        return None
    pick = min if end.which == "first" else max
    return pick(there, key=lambda s: s["ts_ns"])
