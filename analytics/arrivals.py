"""What has arrived: which windows batches touch, and up to when all live collectors' events have landed."""

from __future__ import annotations

from dataclasses import dataclass

from analytics.due import LEVEL_NS, Touched
from analytics.paths import Path
from collector.store import Store

# A batch's received time is taken when it comes in, its ledger row is written later: look this far behind the position.
SLACK_NS = 120_000_000_000
_NS = 1_000_000_000

_TOUCHES = """
SELECT
    batch, stored, toUnixTimestamp64Nano(received) AS at,
    intDiv(toUnixTimestamp64Nano(first_ts) - {reach:Int64} - 1, {level:Int64}) AS first_window,
    intDiv(toUnixTimestamp64Nano(last_ts) + {before:Int64}, {level:Int64}) AS last_window
FROM batches
WHERE (has(tables, 'stamps') OR has(tables, 'links'))
"""

_RECENT = f"""
SELECT toInt64(w) AS window, min(at) AS received FROM (
    SELECT arrayJoin(range(toUInt64(first_window), toUInt64(last_window) + 1)) AS w, at FROM (
        {_TOUCHES} AND received >= fromUnixTimestamp64Nano({{position:Int64}}, 'UTC')
    )
) GROUP BY w ORDER BY w
"""  # noqa: S608 - fixed text

# Events are cut at most a day before they happen by their own clock, hence the day's slack on the partition.
_BASIS = f"""
SELECT toInt64(w) AS window, groupBitXor(batch) AS basis, toInt64(sum(share)) AS events FROM (
    SELECT arrayJoin(range(
        toUInt64(greatest(first_window, {{from_w:Int64}})), toUInt64(least(last_window, {{to_w:Int64}})) + 1)) AS w,
        batch, stored / (last_window - first_window + 1) AS share
    FROM ({_TOUCHES}
        AND cut_day >= toDate(fromUnixTimestamp64Nano({{from_w:Int64}} * {{level:Int64}} - 172800000000000, 'UTC'))
        AND last_ts >= fromUnixTimestamp64Nano({{from_w:Int64}} * {{level:Int64}} - {{before:Int64}}, 'UTC')
        AND first_ts <= fromUnixTimestamp64Nano(({{to_w:Int64}} + 1) * {{level:Int64}} + {{reach:Int64}}, 'UTC'))
    WHERE last_window >= {{from_w:Int64}} AND first_window <= {{to_w:Int64}}
) GROUP BY w
"""  # noqa: S608 - fixed text

_HEARTBEATS = """
SELECT toString(collector) AS id, argMax(name, (boot, ts)) AS called, max(toUnixTimestamp64Nano(ts)) AS last_ns,
    argMax(toString(status), (boot, ts)) AS last_status, toUnixTimestamp64Nano(max(watermark)) AS landed_ns
FROM heartbeats
WHERE ts >= fromUnixTimestamp64Nano({since:Int64}, 'UTC')
GROUP BY collector
ORDER BY called, id
"""


@dataclass(frozen=True, slots=True)
class Landed:
    """Up to when every event of all live collectors is in the store; None when no collector is live.

    `not_live` names the collectors that went silent without saying that they stop: what they still hold is missing.
    """

    watermark_ns: int | None
    not_live: tuple[str, ...]


def landed(store: Store, now_ns: int, live_ns: int) -> Landed:
    """What the heartbeats of the last hour say; a watermark is what its collector knows to be acknowledged."""
    rows = store.query(_HEARTBEATS, {"since": now_ns - 3_600_000_000_000})
    live, silent = [], []
    for row in rows.iter_rows(named=True):
        if row["last_status"] in ("stopped", "unavailable"):
            continue
        if row["last_ns"] >= now_ns - live_ns:
            live.append(int(row["landed_ns"]))
        else:
            silent.append(str(row["called"]))
    return Landed(min(live, default=None), tuple(silent))


def touched(store: Store, path: Path, position_ns: int) -> list[Touched]:
    """The 10 s windows of `path` that batches received since `position_ns` touch, oldest first."""
    reach = {"reach": path.reach_ns, "before": path.reach_before_ns, "level": LEVEL_NS}
    recent = dict(store.query(_RECENT, {**reach, "position": max(0, position_ns - SLACK_NS)}).iter_rows())
    if not recent:
        return []
    known = store.query(_BASIS, {**reach, "from_w": min(recent), "to_w": max(recent)})
    about = {w: (basis, events) for w, basis, events in known.iter_rows()}
    step = LEVEL_NS // _NS
    found = []
    for window, received in recent.items():
        basis, events = about.get(window, (0, 0))
        found.append(Touched(window * step, basis, received, events))
    return found


def touched_between(store: Store, path: Path, from_ns: int, to_ns: int) -> list[Touched]:
    """The 10 s windows of `path` that start in [from_ns, to_ns) and that any batch touches, oldest first.

    `received_ns` of them is 0: it does not matter when what arrived.
    """
    rows = store.query(
        _BASIS,
        {
            "reach": path.reach_ns, "before": path.reach_before_ns, "level": LEVEL_NS,
            "from_w": -(-from_ns // LEVEL_NS), "to_w": (to_ns - 1) // LEVEL_NS,
        },
    )  # fmt: skip
    found = (Touched(w * LEVEL_NS // _NS, basis, 0, events) for w, basis, events in rows.iter_rows())
    return sorted(found, key=lambda one: one.window)
