"""Single messages: the timeline of one key, and the slowest messages of a path."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from analytics.generations import CURRENT
from analytics.paths import MAX_HOPS, Path
from collector.record import Cache, Mode, Outcome
from collector.store import Store

NS = 1_000_000_000
MAX_MEMBERS = 10_000


class TimelineStamp(msgspec.Struct, frozen=True, kw_only=True):
    """One stamp of a message: when, where, and how certain. `since_start_ns` counts from the first stamp shown."""

    ts_ns: int
    since_start_ns: int
    key: int
    point: str
    host: str
    service: str
    thread: int
    clock: str
    error_ns: int | None
    depth: int | None
    label_set: int
    outcome: str
    mode: str
    cache: str
    data_age_ns: int | None


class SlowMessage(msgspec.Struct, frozen=True, kw_only=True):
    """One message and where its time went, in the path's stage order."""

    key: int
    start_ns: int
    e2e_ns: int
    e2e_error_ns: int | None
    stage_ns: list[int | None]
    stage_error_ns: list[int | None]
    stage_host: list[str]
    stage_depth: list[int | None]
    unattributed_ns: int
    outcome: str
    mode: str
    label_set: int
    labels: str
    completeness: float | None


# Links are followed upwards only: a message's parents are part of it, the parents' other children are not.
_PARENTS = """
SELECT DISTINCT parent FROM links WHERE child IN {keys:Array(UInt64)}
    AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
"""

_CHILDREN = """
SELECT DISTINCT child FROM links WHERE parent = {key:UInt64}
    AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
LIMIT {limit:UInt32}
"""

_STAMPS = """
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, key, toString(point) AS point, toString(host) AS host, toString(service) AS
service,
    thread, toString(clock) AS clock, error_ns, depth, label_set, toInt8(outcome) AS outcome, toInt8(mode) AS mode,
    toInt8(cache) AS cache, data_age_ns
FROM {table} WHERE key IN {{keys:Array(UInt64)}}
    AND ts >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC') AND ts < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
"""

_SLOWEST = f"""
SELECT key, toUnixTimestamp64Nano(start) AS start_ns, e2e_ns, e2e_error_ns, stage_ns, stage_error_ns,
    CAST(stage_host, 'Array(String)') AS stage_host, stage_depth,
    e2e_ns - arraySum(v -> ifNull(v, 0), stage_ns) AS unattributed_ns,
    toInt8(m.outcome) AS outcome, toInt8(m.mode) AS mode, label_set, completeness
FROM messages AS m
WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window <
toDateTime({{to_s:UInt32}}, 'UTC')
    AND generation IN ({CURRENT}) AND m.mode NOT IN ('shadow', 'synthetic') AND e2e_ns IS NOT NULL AND isNotNull($value)
    AND start >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC') AND start <
    fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
ORDER BY $value DESC, start, key LIMIT {{limit:UInt32}}
"""  # noqa: S608 - fixed text

# Unbounded times that DateTime64(9) can hold.
_FIRST_NS, _LAST_NS = 0, 9_000_000_000_000_000_000


def related(store: Store, key: int, from_ns: int | None = None, to_ns: int | None = None) -> list[int]:
    """`key` and the keys of its parents, their parents, and so on."""
    reach = {"from_ns": _FIRST_NS if from_ns is None else from_ns, "to_ns": _LAST_NS if to_ns is None else to_ns}
    keys = {key}
    for _ in range(MAX_HOPS):
        parents = {int(p) for (p,) in store.query(_PARENTS, {**reach, "keys": sorted(keys)}).iter_rows()}
        if parents <= keys:
            break
        keys |= parents
    return sorted(keys)


def members(store: Store, key: int, from_ns: int | None = None, to_ns: int | None = None) -> list[int]:
    """The keys that `key` leads to: the spans of a trace, the orders of a tick. At most `MAX_MEMBERS`."""
    reach = {"from_ns": _FIRST_NS if from_ns is None else from_ns, "to_ns": _LAST_NS if to_ns is None else to_ns}
    rows = store.query(_CHILDREN, {**reach, "key": key, "limit": MAX_MEMBERS})
    return sorted(int(child) for (child,) in rows.iter_rows())


def around(store: Store, key: int, from_ns: int | None = None, to_ns: int | None = None) -> list[int]:
    """The keys whose events belong to the message: its own, its parents', and those directly below it."""
    near = {*related(store, key, from_ns, to_ns), *members(store, key, from_ns, to_ns)}
    return sorted(near)


def timeline(store: Store, key: int, from_ns: int | None = None, to_ns: int | None = None) -> list[TimelineStamp]:
    """All stamps of the message `key` and of its parents, from the stream and from those kept longer, in time order.

    A key without stamps that others are linked to (a trace) shows theirs. Bound the time where you can: it makes the
    look-up of old keys fast. Empty when nothing is known of the key.
    """
    found = stamps_of(store, related(store, key, from_ns, to_ns), from_ns, to_ns)
    return found or stamps_of(store, members(store, key, from_ns, to_ns), from_ns, to_ns)


def stamps_of(
    store: Store, keys: Sequence[int], from_ns: int | None = None, to_ns: int | None = None
) -> list[TimelineStamp]:
    """All stamps of these keys, in time order."""
    if not keys:
        return []
    reach = {"from_ns": _FIRST_NS if from_ns is None else from_ns, "to_ns": _LAST_NS if to_ns is None else to_ns}
    both = " UNION DISTINCT ".join(_STAMPS.format(table=table) for table in ("stamps", "stamps_kept"))
    rows = store.query(
        f"SELECT * FROM ({both}) ORDER BY ts_ns, point, host, service, thread",  # noqa: S608 - fixed text, values are bound
        {**reach, "keys": list(keys)},
    )
    found = list(rows.iter_rows(named=True))
    return [
        TimelineStamp(
            **{**row, **_words(row), "cache": Cache(row["cache"]).name.lower()},
            since_start_ns=row["ts_ns"] - found[0]["ts_ns"],
        )
        for row in found
    ]


def slowest(
    store: Store, path: Path, *, from_ns: int, to_ns: int, stage: str | None = None, limit: int = 20
) -> list[SlowMessage]:
    """The `limit` slowest users' messages of `path` that start in [from_ns, to_ns), by end to end or one stage.

    Raises KeyError for an unknown stage.
    """
    names = [s.name for s in path.stages]
    if stage in (None, "end_to_end"):
        value = "e2e_ns"
    elif stage == "unattributed":
        value = "unattributed_ns"
    elif stage in names:
        value = f"stage_ns[{names.index(stage) + 1}]"
    else:
        raise KeyError(f"path {path.name} has no stage {stage!r}; it has {path.stage_names}")
    params = {
        "path": path.name, "level": 10, "from_ns": from_ns, "to_ns": to_ns, "limit": limit,
        "from_s": from_ns // NS // 10 * 10, "to_s": -(-to_ns // (10 * NS)) * 10,
    }  # fmt: skip
    rows = list(store.query(_SLOWEST.replace("$value", value), params).iter_rows(named=True))
    labels = dict(
        store.query(
            "SELECT label_set, any(labels) FROM label_sets WHERE label_set IN {sets:Array(UInt64)} GROUP BY label_set",
            {"sets": sorted({r["label_set"] for r in rows})},
        ).iter_rows()
    )
    for row in rows:
        for name in ("stage_ns", "stage_error_ns", "stage_host", "stage_depth"):
            # A message from before its path learned its last stages has none of them.
            row[name] = [*row[name], *[None if name != "stage_host" else ""] * (len(names) - len(row[name]))]
    return [SlowMessage(**{**row, **_words(row)}, labels=labels.get(row["label_set"], "{}")) for row in rows]


def _words(row: dict[str, Any]) -> dict[str, str]:
    return {"outcome": Outcome(row["outcome"]).name.lower(), "mode": Mode(row["mode"]).name.lower()}
