"""What was changed in a period, and from when on figures were others."""

from __future__ import annotations

from collections.abc import Sequence

from analytics.changepoints.findings import ChangePoint, ChangePoints, changepoints
from analytics.paths import Path
from analytics.report.period import Period
from analytics.report.value import ChangeLine, Changes, TurnLine
from analytics.report.words import clean, latency, many, moment
from collector.store import Store

_SHOWN = 15
_TURNS = 10
_SQL = """
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, toString(kind) AS kind, toString(service) AS service, what, who
FROM changes
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
ORDER BY ts DESC LIMIT {limit:UInt32}
"""
_KINDS = """
SELECT toString(kind) AS kind, count() AS n FROM changes
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
GROUP BY kind ORDER BY n DESC, kind LIMIT 50
"""


def changes(store: Store, paths: Sequence[Path], time: Period, *, rollup: str = "") -> Changes:
    """Recorded changes, and change points of the paths. Raises StoreError.

    Change points are searched among all users' messages, so that there are none of a rollup.
    """
    reach = {"from_ns": time.from_ns, "to_ns": time.to_ns}
    rows = store.query(_SQL, {**reach, "limit": _SHOWN}).to_dicts()
    kinds = {str(k): int(n) for k, n in store.query(_KINDS, reach).iter_rows()}
    earlier = store.query(_KINDS, {"from_ns": time.before.from_ns, "to_ns": time.before.to_ns})
    searched = () if rollup else paths
    found = [changepoints(store, path, from_ns=time.from_ns, to_ns=time.to_ns, scores=()) for path in searched]
    return changes_of(rows, kinds, sum(int(n) for _, n in earlier.iter_rows()), found, rollup)


def changes_of(
    rows: Sequence[dict[str, object]], kinds: dict[str, int], before: int, found: Sequence[ChangePoints], rollup: str
) -> Changes:
    """The part from what was read."""
    turns = [_turn(one.path, point) for one in found for point in one.found if point.subject == "percentile"]
    turns.sort(key=lambda turn: (-_size(turn), turn.at_ns))
    count = sum(kinds.values())
    said = f"{many(count, 'change')} were recorded" if count != 1 else "1 change was recorded"
    said += f" ({', '.join(f'{n} {kind}' for kind, n in kinds.items())})" if count else ""
    said += f", {before:,} in the period before."
    tested = sum(one.tested for one in found)
    if not rollup and tested:
        said += (
            f" Of {many(tested, 'series')} that were searched, percentiles changed at {many(len(turns), 'moment')}."
            if turns
            else f" No lasting change of a percentile was found in {tested:,} series."
        ).replace("seriess", "series")
    return Changes(
        count=count,
        before_count=before,
        by_kind=kinds,
        shown=tuple(
            ChangeLine(
                ts_ns=int(str(r["ts_ns"])), kind=str(r["kind"]), service=str(r["service"]), what=str(r["what"]),
                who=str(r["who"]),
            )
            for r in rows
        ),
        turns=tuple(turns[:_TURNS]),
        tested=tested,
        sentence=said,
        unknown=f"Change points are searched among all messages, not of {clean(rollup, 60)} alone." if rollup else "",
    )  # fmt: skip


def _size(turn: TurnLine) -> float:
    if turn.before_ns is None or turn.after_ns is None or turn.before_ns <= 0:
        return 0.0
    ratio = turn.after_ns / turn.before_ns
    return max(ratio, 1 / ratio) if ratio > 0 else 0.0


def _turn(path: str, one: ChangePoint) -> TurnLine:
    beside = tuple(f"{c.service} {c.what}".strip() for c in one.changes[:3])
    said = f"{path}, {one.stage} {one.name}: from {latency(one.before_ns)} to {latency(one.after_ns)}"
    said += f" at {moment(one.at_ns)} UTC."
    if beside:
        said += f" Near it in time, which need not be the cause: {clean(beside[0], 100)}."
    return TurnLine(
        path=path, name=one.name, stage=one.stage, at_ns=one.at_ns, before_ns=one.before_ns, after_ns=one.after_ns,
        beside=beside, sentence=said,
    )  # fmt: skip
