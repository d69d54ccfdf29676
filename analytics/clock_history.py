"""What the clocks of the hosts said of themselves, and what the messages between hosts say of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np

from analytics.clock_pairs import bound_pair, verdict
from analytics.paths import End, Path
from collector.store import Store

MAX_EVENTS = 200
MAX_POINTS = 2_000  # per direction: the fastest message of each slot of time
MAX_PAIRS = 200


class ClockState(msgspec.Struct, frozen=True, kw_only=True):
    """One authority on one host's clock, in a time.

    `in_use` says that its bound was the smallest at the end, so that stamps got it. `error_ns` is the last bound and
    `max_error_ns` the largest stated one; null: it stated none. Losses and steps are counted.
    """

    host: str
    clock: str
    source: str
    last_ns: int
    in_use: bool
    error_ns: int | None
    max_error_ns: int | None
    offset_ns: int | None
    frequency_ppb: float | None
    samples: int
    without_bound: int
    steps: int
    losses: int


class ClockIncident(msgspec.Struct, frozen=True, kw_only=True):
    """A step of a clock, or an authority that lost or regained its reference."""

    ts_ns: int
    host: str
    clock: str
    source: str
    event: str
    error_ns: int | None
    step_ns: int | None


class ClockPair(msgspec.Struct, frozen=True, kw_only=True):
    """What the messages between two hosts say of `clock of b - clock of a` at the end of the time.

    It lies in [low_ns, high_ns]; `offset_ns` is the middle. `claim_ns` is the sum of the largest bounds that the two
    clocks stated, by `claims`. `verdict`: consistent, contradiction (both cannot be true), unknown.
    """

    a: str
    b: str
    forth: int
    back: int
    offset_ns: int | None
    low_ns: int | None
    high_ns: int | None
    drift_low_ppb: float | None
    drift_high_ppb: float | None
    linear: bool
    claim_ns: int | None
    claims: list[str]
    verdict: str


_RANGE = "ts >= fromUnixTimestamp64Nano({from:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to:Int64}, 'UTC')"
_STATES = f"""
SELECT host, clock, source, toUnixTimestamp64Nano(max(ts)) AS last_ns,
    tupleElement(argMax(tuple(error_ns), ts), 1) AS last_error, max(error_ns) AS max_error,
    tupleElement(argMax(tuple(offset_ns), ts), 1) AS last_offset,
    tupleElement(argMax(tuple(frequency_ppb), ts), 1) AS last_frequency,
    countIf(event IN ('sample', 'stated')) AS samples,
    countIf(event IN ('sample', 'stated') AND error_ns IS NULL) AS without_bound,
    countIf(event = 'step') AS steps, countIf(event = 'sync_lost') AS losses,
    argMaxIf(event, ts, event IN ('sample', 'stated')) AS last_said
FROM clock WHERE {_RANGE} GROUP BY host, clock, source ORDER BY host, clock, source
"""  # noqa: S608 - constants only
_EVENTS = f"""
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, host, clock, source, event, error_ns, step_ns FROM clock
WHERE {_RANGE} AND event NOT IN ('sample', 'stated') ORDER BY ts DESC, host, source LIMIT {MAX_EVENTS}
"""  # noqa: S608 - constants only
_CLAIMS = f"""
SELECT host, max(error_ns) AS claim, groupUniqArray(8)(source) AS sources FROM clock
WHERE {_RANGE} AND event = 'sample' AND error_ns IS NOT NULL GROUP BY host
"""  # noqa: S608 - constants only
_DELAYS = f"""
SELECT a.host AS host_a, b.host AS host_b, intDiv(a.at - {{from:Int64}}, {{slot:Int64}}) AS slot,
    argMin(a.at, b.at - a.at) AS at, min(b.at - a.at) AS delay, count() AS n
FROM (SELECT key, host, {{fold_a}}(toUnixTimestamp64Nano(ts)) AS at FROM stamps
      WHERE {_RANGE} AND point = {{point_a:String}} AND ({{service_a:String}} = '' OR service = {{service_a:String}})
      GROUP BY key, host) AS a
INNER JOIN (SELECT key, host, {{fold_b}}(toUnixTimestamp64Nano(ts)) AS at FROM stamps
      WHERE {_RANGE} AND point = {{point_b:String}} AND ({{service_b:String}} = '' OR service = {{service_b:String}})
      GROUP BY key, host) AS b ON a.key = b.key
WHERE a.host != b.host AND abs(b.at - a.at) <= {{max_age:Int64}}
GROUP BY host_a, host_b, slot ORDER BY host_a, host_b, slot LIMIT {MAX_PAIRS * MAX_POINTS}
"""  # noqa: S608 - constants only; the two folds are min or max


def clock_states(store: Store, from_ns: int, to_ns: int) -> list[ClockState]:
    """What each authority on each host said in a time, by host."""
    frame = store.query(_STATES, {"from": from_ns, "to": to_ns})
    return [
        ClockState(
            host=row["host"], clock=row["clock"], source=row["source"], last_ns=row["last_ns"],
            in_use=row["last_said"] == "sample", error_ns=row["last_error"], max_error_ns=row["max_error"],
            offset_ns=row["last_offset"], frequency_ppb=row["last_frequency"], samples=row["samples"],
            without_bound=row["without_bound"], steps=row["steps"], losses=row["losses"],
        )
        for row in frame.iter_rows(named=True)
    ]  # fmt: skip


def clock_incidents(store: Store, from_ns: int, to_ns: int) -> list[ClockIncident]:
    """Steps and losses of synchronisation in a time, newest first, at most MAX_EVENTS."""
    frame = store.query(_EVENTS, {"from": from_ns, "to": to_ns})
    return [ClockIncident(**row) for row in frame.iter_rows(named=True)]


def clock_pairs(store: Store, paths: Iterable[Path], from_ns: int, to_ns: int) -> list[ClockPair]:
    """Pairs of hosts between which stages of the paths lie, both ways, and what their messages say of their clocks.

    Which stamp comes first is taken from the stages, never from the times: those are what is in question. Only stages
    that keep one key count.
    """
    hosts = store.query(f"SELECT uniqExact(host) AS n FROM stamps WHERE {_RANGE}", {"from": from_ns, "to": to_ns})  # noqa: S608
    if hosts.item() < 2:
        return []
    slot = max(1, -(-(to_ns - from_ns) // MAX_POINTS))
    middle = (from_ns + to_ns) // 2
    delays: dict[tuple[str, str], list[tuple[int, int]]] = {}
    counts: dict[tuple[str, str], int] = {}
    for start, end, max_age_ns in _crossings(paths):
        # The folds are words of ours; everything else is bound.
        sql = _DELAYS.replace("{fold_a}", _fold(start)).replace("{fold_b}", _fold(end))
        params = {
            "from": from_ns, "to": to_ns, "slot": slot, "max_age": max_age_ns,
            "point_a": start.point, "service_a": start.service, "point_b": end.point, "service_b": end.service,
        }  # fmt: skip
        for row in store.query(sql, params).iter_rows(named=True):
            way = (row["host_a"], row["host_b"])
            delays.setdefault(way, []).append((row["at"] - middle, row["delay"]))
            counts[way] = counts.get(way, 0) + row["n"]
    claims = {
        row["host"]: (row["claim"], row["sources"])
        for row in store.query(_CLAIMS, {"from": from_ns, "to": to_ns}).iter_rows(named=True)
    }
    both = sorted({(min(way), max(way)) for way in delays})[:MAX_PAIRS]
    return [_pair(a, b, delays, counts, claims) for a, b in both]


def _crossings(paths: Iterable[Path]) -> list[tuple[End, End, int]]:
    """The ends of all stages with the longest age of a message, each once."""
    found: dict[tuple[End, End], int] = {}
    for path in paths:
        for stage in path.stages:
            ends = (stage.start, stage.end)
            found[ends] = max(found.get(ends, 0), path.max_age_ns)
    return [(start, end, age) for (start, end), age in found.items()]


def _fold(end: End) -> str:
    return "min" if end.which == "first" else "max"


def _pair(
    a: str,
    b: str,
    delays: Mapping[tuple[str, str], list[tuple[int, int]]],
    counts: Mapping[tuple[str, str], int],
    claims: Mapping[str, Any],
) -> ClockPair:
    forth, back = (np.array(delays.get(way, []), np.float64).reshape(-1, 2) for way in ((a, b), (b, a)))
    at = max(float(points[:, 0].max()) for points in (forth, back) if len(points))
    bound = bound_pair(forth, back, at)
    claim = claims[a][0] + claims[b][0] if a in claims and b in claims else None
    return ClockPair(
        a=a, b=b, forth=counts.get((a, b), 0), back=counts.get((b, a), 0), offset_ns=_whole(bound.offset_ns),
        low_ns=_whole(bound.low_ns), high_ns=_whole(bound.high_ns), drift_low_ppb=bound.drift_low_ppb,
        drift_high_ppb=bound.drift_high_ppb, linear=bound.linear, claim_ns=claim,
        claims=sorted({source for host in (a, b) if host in claims for source in claims[host][1]}),
        verdict=verdict(bound, claim),
    )  # fmt: skip


def _whole(value: float | None) -> int | None:
    return None if value is None else round(value)
