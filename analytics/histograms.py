"""Exported histograms into windows: intervals from points, our buckets from theirs, and the error that this adds.

A point of delta temporality is an interval. A cumulative point is made one by what it adds to the point before it of
its series; a series that began anew, or was never seen before and began within `LOOK_BACK_NS`, counts from its start.
An interval lies in the 10 s window in which it ends. Windows are written whole from the stored points, under a new
generation and with their commit last: a killed or repeated run changes nothing.

Each of their buckets counts in ours at its middle (arithmetic mean of its ends, cut to the exact minimum and maximum
where they are known). The error that this adds is half the bucket's width, as a share of its middle: 100 % in the
bucket that begins at zero. An exponential histogram of scale s has (b - 1) / (b + 1) with b = 2^(2^-s): 0.27 % at
scale 7, 2.2 % at 4. https://opentelemetry.io/docs/specs/otel/metrics/data-model/#exponentialhistogram
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from analytics import buckets, levels
from analytics.completeness import completeness
from analytics.due import LEVEL_NS, NS
from analytics.generations import Generations
from analytics.learned import LearnedPath
from analytics.paths import END_TO_END, End, Path
from analytics.window_settings import WindowSettings
from collector.keys import hash64
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

LOOK_BACK_NS = 3_600 * NS
_SLACK_NS = 120 * NS
_HIGHEST = 1 << 53
_ODD = 0xC2B2AE3D27D4EB4F


@dataclass(frozen=True, slots=True)
class Point:
    """One exported point; `counts` and `layout` as in the table `histograms`."""

    stream: int
    ts_ns: int
    start_ns: int
    cumulative: bool
    n: int
    sum_ns: float | None
    min_ns: int | None
    max_ns: int | None
    layout: Mapping[str, Any]
    counts: Any
    row: int = 0  # names the row


@dataclass(slots=True)
class Cells:
    """What some intervals count: {our bucket: n}, and what buckets cannot hold. `error` is the largest share added."""

    buckets: dict[int, int]
    n: int = 0
    sum_ns: int = 0
    min_ns: int | None = None
    max_ns: int | None = None
    error: float = 0.0

    def add(self, other: Cells) -> None:
        """Count another's intervals too."""
        for bucket, n in other.buckets.items():
            self.buckets[bucket] = self.buckets.get(bucket, 0) + n
        self.n += other.n
        self.sum_ns += other.sum_ns
        self.error = max(self.error, other.error)
        if other.min_ns is not None and other.max_ns is not None:
            self.min_ns = other.min_ns if self.min_ns is None else min(self.min_ns, other.min_ns)
            self.max_ns = other.max_ns if self.max_ns is None else max(self.max_ns, other.max_ns)


def path_name(service: str, metric: str) -> str:
    """The name of a histogram's path."""
    return f"metric:{service}:{metric}"


def path_of(service: str, metric: str, value_error: float) -> Path:
    """The path of a histogram: one latency, end to end."""
    return Path(
        name=path_name(service, metric),
        max_age="1s",
        stages=[],
        description=f"learned from the histogram {metric} of {service}",
        first=End(point=f"start of {metric}", service=service),
        last=End(point=f"end of {metric}", service=service, which="last"),
        value_error=value_error,
    )


def spread(layout: Mapping[str, Any], counts: Any) -> dict[tuple[float, float], int]:
    """{(lower, upper) in ns: n} of the buckets that hold something; open ends are infinite."""
    if "bounds" in layout:
        edges = [-math.inf, *map(float, layout["bounds"]), math.inf]
        if layout["bounds"] and layout["bounds"][0] >= 0:
            edges[0] = 0.0  # a latency below the first bound
        return {(edges[i], edges[i + 1]): n for i, n in enumerate(counts) if n}
    base = 2.0 ** (2.0 ** -layout["scale"])
    unit, zero = float(layout["unit_ns"]), float(layout["zero"])
    found: dict[tuple[float, float], int] = {}
    if counts["zero"]:
        found[-zero, zero] = counts["zero"]
    for sign, name in ((1.0, "positive"), (-1.0, "negative")):
        offset, numbers = counts[name]
        for i, n in enumerate(numbers):
            if n:
                low, high = (unit * _power(base, offset + i + more) for more in (0, 1))
                found[(low, high) if sign > 0 else (-high, -low)] = n
    return found


def cells_of(
    layout: Mapping[str, Any], counts: Any, n: int, sum_ns: float | None, low: int | None, high: int | None
) -> Cells:
    """An interval's counts in our buckets. All values lie in [low, high], where these are known.

    Its own minimum and maximum are exact where low and high are; else they are the ends of its outermost buckets.
    """
    found: dict[int, int] = defaultdict(int)
    error, middle_sum = 0.0, 0.0
    least, most = math.inf, -math.inf
    for (a, b), count in spread(layout, counts).items():
        lower = max(a, low) if low is not None and low <= b else a
        upper = min(b, high) if high is not None and high >= a else b
        lower = upper if math.isinf(lower) else lower
        open_end = math.isinf(upper)
        upper = lower if open_end else upper
        middle = max(-_HIGHEST, min(_HIGHEST, (lower + upper) / 2))
        found[int(buckets.index(round(middle)))] += count
        error = max(error, 1.0 if open_end else abs(upper - lower) / 2 / abs(middle) if middle else 0.0)
        middle_sum += middle * count
        least, most = min(least, lower), max(most, upper)
    if not found:
        return Cells({}, 0)
    return Cells(
        dict(found), n, round(middle_sum if sum_ns is None else sum_ns),
        round(least), round(most), error,
    )  # fmt: skip


def interval(point: Point, before: Point | None) -> Cells | None:
    """What `point` adds to `before`, the last point of its series; None when that is not known."""
    if not point.cumulative:
        return cells_of(point.layout, point.counts, point.n, point.sum_ns, point.min_ns, point.max_ns)
    again = before is None or before.start_ns != point.start_ns or before.n > point.n
    if before is None and not 0 < point.ts_ns - point.start_ns <= LOOK_BACK_NS:
        return None  # it may have counted for long before we saw it
    if again or before is None:
        return cells_of(point.layout, point.counts, point.n, point.sum_ns, point.min_ns, point.max_ns)
    layout, now, then = _aligned(point, before)
    counts = None if now is None else _less(now, then)
    if counts is None:  # bounds that changed, or counts that fell: the series began anew
        return cells_of(point.layout, point.counts, point.n, point.sum_ns, point.min_ns, point.max_ns)
    total = None if point.sum_ns is None or before.sum_ns is None else point.sum_ns - before.sum_ns
    # The extremes of the series bound those of the interval, which lie in its outermost buckets.
    return cells_of(layout, counts, point.n - before.n, total, point.min_ns, point.max_ns)


def intervals(points: Iterable[Point]) -> list[tuple[int, int, Cells]]:
    """(end in ns, name, what was counted) of every interval that the points, in any order, make. A point that came
    twice counts once."""
    found = []
    streams: dict[int, dict[int, Point]] = defaultdict(dict)
    for point in points:
        streams[point.stream].setdefault(point.ts_ns, point)
    for series in streams.values():
        before: Point | None = None
        for ts_ns in sorted(series):
            made = interval(series[ts_ns], before)
            # A late point changes what the next one adds: both name the interval.
            name = series[ts_ns].row ^ (0 if before is None else before.row * _ODD % (1 << 64))
            before = series[ts_ns]
            if made is not None and made.n:
                found.append((ts_ns, name, made))
    return found


class HistogramJob:
    """Writes the windows that new points touch. One per server; not thread-safe."""

    def __init__(self, settings: WindowSettings | None = None, max_paths: int = 32) -> None:
        self._settings = settings or WindowSettings()
        self._max_paths = max_paths
        self._position_ns = 0
        self._looked: set[int] = set()
        self._finished_ns = 0

    def run_due(self, store: Store, now_ns: int) -> dict[str, LearnedPath]:
        """Compute what is due; the paths that were written. Raises StoreError."""
        if now_ns - self._finished_ns > 30 * NS:
            store.execute(_FINISH, {"before_s": (now_ns - self._settings.lateness_ns) // NS - 10, "now": now_ns})
            self._finished_ns = now_ns
        if not self._position_ns:  # after a start: what was received before the last commit has been counted
            self._position_ns = int(store.query(_COMMITTED)["at"][0] or 0)
        since = max(0, self._position_ns - _SLACK_NS)
        arrived = list(store.query(_ARRIVED, {"since": since}).iter_rows(named=True))
        fresh = [row for row in arrived if row["batch"] not in self._looked]
        written: dict[str, LearnedPath] = {}
        if fresh:
            low, high = min(r["low"] for r in fresh), max(r["high"] for r in fresh)
            names = store.query(_NAMES, {"from_ns": low, "to_ns": high, "most": self._max_paths})
            for service, metric, first, last in names.iter_rows():
                error = self._write(store, service, metric, int(first), int(last), now_ns)
                path = path_of(service, metric, error)
                written[path.name] = LearnedPath(
                    path=path, origin="histogram", first_ns=now_ns, last_ns=now_ns, value_error=error
                )
        self._looked = {row["batch"] for row in arrived}
        self._position_ns = max((row["received_ns"] for row in arrived), default=self._position_ns)
        return written

    def _write(self, store: Store, service: str, metric: str, first_ns: int, last_ns: int, now_ns: int) -> float:
        """The windows in which intervals from `first_ns` on end, as far as an hour after `last_ns`; the error added."""
        begin = (first_ns - 1) // LEVEL_NS * LEVEL_NS
        params = {"service": service, "name": metric, "begin": begin, "end": last_ns + LOOK_BACK_NS,
                  "back": begin - LOOK_BACK_NS}  # fmt: skip
        points = [_point(row) for sql in (_BEFORE, _POINTS) for row in store.query(sql, params).iter_rows(named=True)]
        windows: dict[int, Cells] = {}
        bases: dict[int, int] = defaultdict(int)
        for ts_ns, row, cells in intervals(points):
            if ts_ns > begin:
                window = (ts_ns - 1) // LEVEL_NS * (LEVEL_NS // NS)
                windows.setdefault(window, Cells({})).add(cells)
                bases[window] ^= row
        path = path_name(service, metric)
        known = dict(
            store.query(
                _BASES, {"path": path, "from_s": begin // NS, "to_s": (last_ns + LOOK_BACK_NS) // NS + 10}
            ).iter_rows()
        )
        changed = {w: c for w, c in sorted(windows.items()) if known.get(w) != bases[w]}
        if changed:
            self._commit(store, path, changed, bases, now_ns)
        return max((c.error for c in windows.values()), default=0.0)

    def _commit(
        self, store: Store, path: str, windows: Mapping[int, Cells], bases: Mapping[int, int], now_ns: int
    ) -> None:
        generations = Generations(store, path, now_ns)
        given = dict(zip(windows, generations.take(len(windows)), strict=True))
        starts = list(windows)
        shares = {
            share.from_ns // NS: share.share
            for share in completeness(store, starts[0] * NS, (starts[-1] + 10) * NS, 10, now_ns=now_ns)
        }
        summaries, counted, commits = [], [], []
        for window, cells in windows.items():
            head = {"path": path, "level": 10, "window": window, "generation": given[window]}
            stage = {**head, "stage": END_TO_END, "rollup": ""}
            summaries.append({**stage, **_summary(cells)})
            counted += [{**stage, "bucket": b, "n": n} for b, n in sorted(cells.buckets.items())]
            final = now_ns >= (window + 10) * NS + self._settings.lateness_ns
            commits.append({
                **head, "state": "final" if final else "provisional", "messages": cells.n, "finished": cells.n,
                "unfinished": 0, "headless": 0, "stamps": 0, "completeness": shares.get(window),
                "basis": bases[window], "computed": now_ns,
            })  # fmt: skip
        types = table_types()
        name = f"{hash64('path', path):016x}#{max(given.values())}"
        for table, rows in (("stage_windows", summaries), ("stage_counts", counted), ("windows", commits)):
            store.insert(table, from_rows(types[table], rows), token=f"histogram#{table}#{name}")
        for level in levels.COARSE:
            newest: dict[int, int] = defaultdict(int)
            for window, generation in given.items():
                newest[window - window % level] = max(newest[window - window % level], generation)
            todo = [levels.Sum(start, generation, False) for start, generation in sorted(newest.items())]
            levels.sum_windows(store, path, level, todo, generations, now_ns)


def _summary(cells: Cells) -> dict[str, int]:
    nothing = dict.fromkeys(("unfinished", "missing", "negative", "below_resolution", "error_unknown", "repeated"), 0)
    nothing["negative"] = sum(n for b, n in cells.buckets.items() if b < 0)
    return {
        "n": cells.n, **nothing, "sum_ns": cells.sum_ns, "min_ns": cells.min_ns or 0, "max_ns": cells.max_ns or 0,
        "max_error_ns": 0,
    }  # fmt: skip


def _point(row: Mapping[str, Any]) -> Point:
    return Point(
        row["stream"], row["ts_ns"], row["start_ns"], bool(row["cumulative"]), row["n"], row["sum_ns"], row["min_ns"],
        row["max_ns"], msgspec.json.decode(row["layout"]), msgspec.json.decode(row["counts"]), row["row"],
    )  # fmt: skip


def _aligned(point: Point, before: Point) -> tuple[Mapping[str, Any], Any, Any]:
    """A layout that both points can be written in, and their counts in it; None for the counts when there is none."""
    if point.layout == before.layout:
        return point.layout, point.counts, before.counts
    if "scale" not in point.layout or "scale" not in before.layout:
        return point.layout, None, None
    scale = min(point.layout["scale"], before.layout["scale"])
    layout = {**point.layout, "scale": scale}
    return layout, _coarser(point, scale), _coarser(before, scale)


def _coarser(point: Point, scale: int) -> dict[str, Any]:
    """An exponential point's counts at a smaller scale: bucket i goes to floor(i / 2^difference)."""
    shift = point.layout["scale"] - scale
    out: dict[str, Any] = {"zero": point.counts["zero"]}
    for name in ("positive", "negative"):
        offset, numbers = point.counts[name]
        merged: dict[int, int] = defaultdict(int)
        for i, n in enumerate(numbers):
            merged[(offset + i) >> shift] += n
        low = min(merged, default=0)
        out[name] = [low, [merged.get(i, 0) for i in range(low, max(merged, default=-1) + 1)]]
    return out


def _less(now: Any, then: Any) -> Any:
    """Counts now minus counts then, in one layout; None when one is negative."""
    if isinstance(now, list):
        counts = [a - b for a, b in zip(now, then, strict=True)]
        return None if min(counts, default=0) < 0 else counts
    out: dict[str, Any] = {"zero": now["zero"] - then["zero"]}
    for name in ("positive", "negative"):
        have = defaultdict(int, {now[name][0] + i: n for i, n in enumerate(now[name][1])})
        for i, n in enumerate(then[name][1]):
            have[then[name][0] + i] -= n
        if min(have.values(), default=0) < 0:
            return None
        low = min(have, default=0)
        out[name] = [low, [have[i] for i in range(low, max(have, default=-1) + 1)]]
    return None if out["zero"] < 0 else out


def _power(base: float, exponent: int) -> float:
    try:
        return float(base**exponent)
    except OverflowError:
        return float(_HIGHEST)


_ROW = "bitXor(batch, seq * 11400714819323198485) AS row"
_COLUMNS = f"""SELECT stream, toUnixTimestamp64Nano(ts) AS ts_ns, start_ns, cumulative, n, sum_ns, min_ns, max_ns,
    layout, counts, {_ROW} FROM histograms WHERE service = {{service:String}} AND name = {{name:String}}"""  # noqa: S608 - fixed text
_BEFORE = f"""{_COLUMNS} AND ts > fromUnixTimestamp64Nano({{back:Int64}}, 'UTC')
    AND ts <= fromUnixTimestamp64Nano({{begin:Int64}}, 'UTC') ORDER BY ts DESC LIMIT 1 BY stream"""
_POINTS = f"""{_COLUMNS} AND ts > fromUnixTimestamp64Nano({{begin:Int64}}, 'UTC')
    AND ts <= fromUnixTimestamp64Nano({{end:Int64}}, 'UTC') ORDER BY ts, batch, seq"""
_NAMES = """
SELECT toString(service) AS svc, toString(name) AS metric, toUnixTimestamp64Nano(min(ts)) AS first,
    toUnixTimestamp64Nano(max(ts)) AS last
FROM histograms
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts <= fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
GROUP BY svc, metric ORDER BY svc, metric LIMIT {most:UInt32}
"""
_ARRIVED = """
SELECT batch, toUnixTimestamp64Nano(first_ts) AS low, toUnixTimestamp64Nano(last_ts) AS high,
    toUnixTimestamp64Nano(received) AS received_ns
FROM batches
WHERE received >= fromUnixTimestamp64Nano({since:Int64}, 'UTC') AND has(tables, 'histograms')
"""
_COMMITTED = """
SELECT max(toUnixTimestamp64Nano(computed)) AS at FROM windows WHERE startsWith(path, 'metric:') AND level = 10
"""
_BASES = """
SELECT toUInt32(window) AS w, argMax(basis, generation) AS b FROM windows
WHERE path = {path:String} AND level = 10
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window <= toDateTime({to_s:UInt32}, 'UTC')
GROUP BY w
"""
_FINISH = """
INSERT INTO windows (path, level, window, generation, state, messages, finished, unfinished, headless, stamps,
completeness, basis, computed)
SELECT path, level, window, generation, 'final', messages, finished, unfinished, headless, stamps, completeness, basis,
    fromUnixTimestamp64Nano({now:Int64}, 'UTC')
FROM (SELECT * FROM windows WHERE startsWith(path, 'metric:') AND level > 0
      ORDER BY generation DESC, state DESC LIMIT 1 BY path, level, window)
WHERE state = 'provisional' AND toUInt32(window) + level <= {before_s:UInt32}
"""
