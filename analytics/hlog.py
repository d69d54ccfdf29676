"""`.hlog` in and out: HdrHistogram's logs as windows of a path, and windows as logs.

An imported log is kept in `hlogs` as it stands, at its own precision; the windows' counts are derived from what `hlogs`
holds. A log of 2 significant digits has exactly our buckets and folds into them without loss. Finer logs are rounded to
them, and answers at their own precision come from `accumulated`; of coarser ones each count lies in our bucket of its
middle. An interval belongs to the 10 s window of its start.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path as File
from typing import Any

import msgspec
import numpy as np
import xxhash
from hdrh.histogram import HdrHistogram

from analytics import buckets, hlog_file, levels, tally
from analytics.due import NS
from analytics.generations import Generations
from analytics.hlog_file import Interval, LineError
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

_OWN_DIGITS = 2
_HIGHEST = 1 << 62


class HlogError(ValueError):
    """A log cannot be imported; the message says why and what to do."""


class Imported(msgspec.Struct, frozen=True, kw_only=True):
    """What an import did. `already`: this very file was there; `errors`: lines that could not be read."""

    path: str
    stages: dict[str, int]
    intervals: int
    values: int
    digits: int
    from_ns: int
    to_ns: int
    lossless: bool
    already: bool
    expected_interval_ns: int
    errors: list[str]


def import_hlog(
    store: Store,
    file: File,
    *,
    path: str,
    stage: str = "end_to_end",
    expected_interval_ns: int = 0,
    now_ns: int | None = None,
) -> Imported:
    """Import a log as the stage `stage` of `path` (for a tagged interval: the stage named by its tag).

    Neither needs to be configured. The same content imported again changes nothing. Raises HlogError when no line can
    be read, or when live stamps have made the windows of `path` already; ValueError for an interval far too short.
    """
    if expected_interval_ns < 0:
        raise HlogError(f"expected_interval_ns must not be negative, got {expected_interval_ns}")
    content = file.read_bytes()
    intervals, errors = [], []
    for one in hlog_file.read(content.decode("utf-8", "replace").splitlines()):
        if isinstance(one, LineError):
            errors.append(f"line {one.line}: {one.problem}")
        else:
            intervals.append(one)
    if not intervals:
        raise HlogError(f"{file}: no interval could be read; {errors[0] if errors else 'the file holds none'}")
    _refuse_live(store, path, intervals)
    # Before anything is stored: a correction that makes no sense raises here.
    stages: dict[str, int] = defaultdict(int)
    for one in intervals:
        stages[one.tag or stage] += sum(hlog_file.recorded(one.payload, expected_interval_ns).values())
    name = xxhash.xxh64_intdigest(
        b"\0".join([content, path.encode(), stage.encode(), str(expected_interval_ns).encode()])
    )
    there = store.query("SELECT uniqExact(tag, start) AS n FROM hlogs WHERE import_id = {id:UInt64}", {"id": name})[
        "n"
    ][0]
    already = there >= len({(i.tag, i.start_ns) for i in intervals})
    if not already:
        rows = [_row(path, stage, one, str(file.name), name, expected_interval_ns) for one in intervals]
        store.insert("hlogs", from_rows(table_types()["hlogs"], rows), token=f"hlog#{name}#{time.time_ns()}")
    _count(store, path, sorted({_window(i.start_ns) for i in intervals}), time.time_ns() if now_ns is None else now_ns)
    return Imported(
        path=path,
        stages=dict(stages),
        intervals=len(intervals),
        values=sum(stages.values()),
        digits=max(i.digits for i in intervals),
        from_ns=min(i.start_ns for i in intervals),
        to_ns=max(i.start_ns + i.length_ns for i in intervals),
        lossless=all(i.digits == _OWN_DIGITS for i in intervals),
        already=already,
        expected_interval_ns=expected_interval_ns,
        errors=errors,
    )


def export_hlog(
    store: Store,
    path: str,
    stage: str | None = None,
    *,
    from_ns: int | None = None,
    to_ns: int | None = None,
    rollup: str = "",
) -> str:
    """The windows of `path` as a log: one V2 histogram per 10 s window and stage, the stage as its tag.

    HdrHistogram holds no negative values: they are left out and their number stands in a comment. Raises ValueError
    when there is nothing to export.
    """
    extent = tally.extent(store, path)
    if extent is None:
        raise ValueError(f"path {path!r} has no windows to export")
    begin, end = tally.widen(extent[0] * NS if from_ns is None else from_ns, extent[1] * NS if to_ns is None else to_ns)
    found = tally.stored(store, path, max(begin, extent[0]), min(end, extent[1]), stage=stage, rollup=rollup, step_s=10)
    intervals, negative = [], 0
    for (second, name), one in sorted(found.items()):
        negative += sum(n for b, n in one.buckets.items() if b < 0)
        positive = {b: n for b, n in one.buckets.items() if b >= 0}
        if not positive:
            continue
        histogram = HdrHistogram(1, _HIGHEST, _OWN_DIGITS)
        for bucket, n in positive.items():
            histogram.record_value(int(buckets.low(bucket)), n)
        payload = histogram.encode().decode("ascii")
        intervals.append(Interval(0, name, second * NS, 10 * NS, (one.max_ns or 0) / 1e6, payload, _OWN_DIGITS))
    if not intervals:
        raise ValueError(f"path {path!r} has no latencies in the range")
    comments = [f"{negative} negative latencies left out"] if negative else []
    return "".join(hlog_file.write(intervals, intervals[0].start_ns, comments))


def accumulated(store: Store, path: str, stage: str, digits: int | None = None) -> HdrHistogram:
    """All imported intervals of a stage in one histogram, at the logs' own precision or with `digits` digits.

    Raises ValueError when nothing was imported.
    """
    rows = _payloads(store, path, "stage = {stage:String}", {"stage": stage})
    if not rows:
        raise ValueError(f"no log was imported as stage {stage!r} of path {path!r}")
    total = HdrHistogram(1, _HIGHEST, max(r["digits"] for r in rows) if digits is None else digits)
    for row in rows:
        for (low, _), n in hlog_file.recorded(row["histogram"], row["expected_interval_ns"]).items():
            total.record_value(low, n)  # as AbstractHistogram.add does between precisions
    return total


def fold(counts: Iterable[tuple[tuple[int, int], int]]) -> dict[int, int]:
    """{our bucket: count} of {(lowest, highest equivalent value): count}: each lies in the bucket of its middle."""
    folded: dict[int, int] = defaultdict(int)
    for (low, high), n in counts:
        folded[int(buckets.index((low + high) // 2))] += n
    return folded


def _refuse_live(store: Store, path: str, intervals: list[Interval]) -> None:
    starts = [_window(i.start_ns) for i in intervals]
    live = store.query(
        "SELECT count() AS n FROM windows WHERE path = {path:String} AND level = 10 AND stamps > 0"
        " AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window <= toDateTime({to_s:UInt32}, 'UTC')",
        {"path": path, "from_s": min(starts), "to_s": max(starts)},
    )["n"][0]
    if live:
        raise HlogError(
            f"path {path!r} has {live} windows from live stamps in the log's time; import it under another path"
        )


def _row(path: str, stage: str, one: Interval, source: str, name: int, expected_interval_ns: int) -> dict[str, object]:
    counts = hlog_file.recorded(one.payload)
    return {
        "path": path, "stage": one.tag or stage, "tag": one.tag, "start": one.start_ns, "length_ns": one.length_ns,
        "digits": one.digits, "unit_ns": 1.0, "max": one.max_text, "n": sum(counts.values()), "histogram": one.payload,
        "source": source, "import_id": name, "expected_interval_ns": expected_interval_ns,
    }  # fmt: skip


def _payloads(store: Store, path: str, where: str, params: dict[str, object]) -> list[dict[str, Any]]:
    return list(
        store.query(
            "SELECT toString(stage) AS stage, toString(tag) AS tag, toUnixTimestamp64Nano(start) AS start_ns,"  # noqa: S608 - fixed text, values are bound
            " any(digits) AS digits,"
            " any(histogram) AS histogram, any(expected_interval_ns) AS expected_interval_ns FROM hlogs"
            f" WHERE path = {{path:String}} AND {where} GROUP BY import_id, stage, tag, start ORDER BY start, stage",
            {"path": path, **params},
        ).iter_rows(named=True)
    )


def _count(store: Store, path: str, windows: list[int], now_ns: int) -> None:
    """Write the windows anew from all of the path's imported intervals, then the levels above them."""
    rows = _payloads(
        store,
        path,
        "start >= fromUnixTimestamp64Nano({a:Int64}, 'UTC') AND start < fromUnixTimestamp64Nano({b:Int64}, 'UTC')",
        {"a": windows[0] * NS, "b": (windows[-1] + 10) * NS},
    )
    cells: dict[tuple[int, str], dict[tuple[int, int], int]] = defaultdict(lambda: defaultdict(int))
    for row in rows:
        for span, n in hlog_file.recorded(row["histogram"], row["expected_interval_ns"]).items():
            cells[(_window(row["start_ns"]), row["stage"])][span] += n
    generations = Generations(store, path, now_ns)
    starts = sorted({w for w, _ in cells})
    given = dict(zip(starts, generations.take(len(starts)), strict=True))
    types = table_types()
    head = {"path": path, "level": 10}
    counted, summaries = [], []
    for (window, stage), spans in cells.items():
        where = {**head, "window": window, "generation": given[window], "stage": stage, "rollup": ""}
        counted += [{**where, "bucket": b, "n": n} for b, n in sorted(fold(spans.items()).items())]
        summaries.append({**where, **_summary(spans)})
    commits = [
        {
            **head, "window": w, "generation": g, "state": "final", "messages": 0, "finished": 0, "unfinished": 0,
            "headless": 0, "stamps": 0, "completeness": None, "basis": 0, "computed": now_ns,
        }
        for w, g in given.items()
    ]  # fmt: skip
    for table, block in (("stage_windows", summaries), ("stage_counts", counted), ("windows", commits)):
        store.insert(table, from_rows(types[table], block), token=f"hlog#{table}#{max(given.values())}")
    for level in levels.COARSE:
        newest: dict[int, int] = defaultdict(int)
        for window, generation in given.items():
            newest[window - window % level] = max(newest[window - window % level], generation)
        todo = [levels.Sum(start, generation, True) for start, generation in sorted(newest.items())]
        levels.sum_windows(store, path, level, todo, generations, now_ns)


def _summary(spans: dict[tuple[int, int], int]) -> dict[str, int]:
    n = np.array(list(spans.values()), dtype=np.int64)
    middle = np.array([(low + high) // 2 for low, high in spans], dtype=np.int64)
    nothing = dict.fromkeys(("unfinished", "missing", "negative", "below_resolution", "error_unknown", "repeated"), 0)
    return {
        "n": int(n.sum()), **nothing, "sum_ns": int((n * middle).sum()), "min_ns": min(low for low, _ in spans),
        "max_ns": max(high for _, high in spans), "max_error_ns": 0,
    }  # fmt: skip


def _window(start_ns: int) -> int:
    return start_ns // (10 * NS) * 10
