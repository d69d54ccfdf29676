"""Counts of messages: how many latencies lie in each bucket, per stage and rollup, and what buckets cannot hold.

Both statements read messages, stored or freshly stitched, so raw stamps and stored counts cannot come to different
numbers.

Every message adds to each stage once: with a value, as `unfinished` (the message never reached its last end) or as
`missing` (it did, without this stage). Users' messages count under the rollup '' and under those that the path asks
for; shadow and synthetic ones only under `mode=shadow` and `mode=synthetic`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from analytics import buckets
from analytics.paths import Path

# What the message itself carries; any other rollup is a label of its label set.
_OWN = {
    "host": "host",
    "service": "service",
    "mode": "toString(mode)",
    "outcome": "toString(outcome)",
    "cache": "toString(cache)",
}

# The columns of the two statements; with WINDOW as `group` these two come first, and every window has its own rows.
WINDOW = ("window", "generation")
COUNTED = ("stage", "rollup", "bucket", "n")
SUMMARY = (
    "stage", "rollup", "n", "unfinished", "missing", "negative", "below_resolution", "error_unknown", "repeated",
    "sum_ns", "min_ns", "max_ns", "max_error_ns",
)  # fmt: skip

# What a run wrote: windows in [from_s, to_s), the first under `generation` and each next one `step` above.
STORED = """SELECT * FROM messages WHERE path = {path:String}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    AND generation = {generation:UInt64} + intDiv(toUInt32(window) - {from_s:UInt32}, 10) * {step:UInt64}"""


def parameters(path: Path) -> dict[str, Any]:
    """What both statements bind."""
    return {"path": path.name, "stages": path.stage_names, "labels": [n for n in path.rollup if n not in _OWN]}


def bucket_counts_sql(
    path: Path, source: str, where: str = "1", group: Sequence[str] = (), *, uneven: bool = False
) -> str:
    """SELECT `group`, stage, rollup, bucket, n of the messages of `source`; `where` filters on stage and rollup.

    `uneven`: messages may be from before the path learned its last stages. It costs a third more.
    """
    return f"""
SELECT {_list(group)}{{stages:Array(String)}}[at] AS stage, rollup,
    {buckets.index_sql("assumeNotNull(value)")} AS bucket, count() AS n
FROM ({_values(path, source, group, uneven)})
WHERE value IS NOT NULL AND ({where})
GROUP BY {_list(group)}at, rollup, bucket"""  # noqa: S608 - built from fixed text and the path's shape; values are bound


def summary_sql(path: Path, source: str, where: str = "1", group: Sequence[str] = (), *, uneven: bool = False) -> str:
    """SELECT `group` and the columns of stage_windows from stage on, of the messages of `source`."""
    return f"""
SELECT {_list(group)}{{stages:Array(String)}}[at] AS stage, rollup,
    countIf(value IS NOT NULL) AS n,
    countIf(value IS NULL AND NOT finished) AS unfinished,
    countIf(value IS NULL AND finished) AS missing,
    countIf(value < 0) AS negative,
    countIf(abs(value) < error) AS below_resolution,
    countIf(value IS NOT NULL AND error IS NULL) AS error_unknown,
    countIf(repeated AND at < {len(path.stage_names)}) AS repeated,
    ifNull(sum(value), 0) AS sum_ns,
    ifNull(min(value), 0) AS min_ns,
    ifNull(max(value), 0) AS max_ns,
    toUInt64(ifNull(max(error), 0)) AS max_error_ns
FROM ({_values(path, source, group, uneven)})
WHERE {where}
GROUP BY {_list(group)}at, rollup"""  # noqa: S608 - as above


def _list(columns: Sequence[str]) -> str:
    return "".join(f"{name}, " for name in columns)


def _values(path: Path, source: str, group: Sequence[str], uneven: bool) -> str:
    """One row per message, rollup and stage: `group`, at (1-based), rollup, value, error, finished, repeated.

    A message from before its path learned its last stages has none of them, where messages are `uneven`.
    """
    stages = len(path.stages)
    values, errors = "stage_ns", "CAST(stage_error_ns, 'Array(Nullable(Int64))')"
    bit, had, there = "at - 1", "", ""
    if uneven:
        values, errors = (f"arrayResize({one}, {stages}, NULL)" for one in (values, errors))
        bit, had, there = (
            f"if(at > {stages}, had, at - 1)",
            "length(stage_ns) AS had,",
            f"\nWHERE at <= had OR at > {stages}",
        )
    total_error = (
        "if(e2e_ns IS NULL OR e2e_error_ns IS NULL"
        " OR arrayExists((v, e) -> v IS NOT NULL AND e IS NULL, stage_ns, stage_error_ns),"
        " NULL, toInt64(e2e_error_ns) + toInt64(arraySum(e -> ifNull(e, 0), stage_error_ns)))"
    )
    return f"""
SELECT {_list(group)}at, rollup, value, error, finished, bitTest(repeated, {bit}) AS repeated
FROM (
    SELECT {_list(group)}
        arrayJoin({_rollups(path)}) AS rollup,
        e2e_ns IS NOT NULL AS finished,
        repeated,
        {had}
        arrayConcat({values}, [e2e_ns, e2e_ns - arraySum(v -> ifNull(v, 0), stage_ns)]) AS stage_values,
        arrayConcat({errors}, [CAST(e2e_error_ns, 'Nullable(Int64)'), {total_error}]) AS stage_errors
    FROM ({_labelled(path, source)})
)
ARRAY JOIN stage_values AS value, stage_errors AS error, range(1, {stages + 3}) AS at{there}"""  # noqa: S608 - as above


def _rollups(path: Path) -> str:
    parts = ["['']"]
    labels = [n for n in path.rollup if n not in _OWN]
    for name in path.rollup:
        value = _OWN.get(name) or f"label_values[{labels.index(name) + 1}]"
        parts.append(f"if({value} = '', [], [concat('{name}=', {value})])")
    everyone = f"arrayConcat({', '.join(parts)})" if len(parts) > 1 else parts[0]
    return f"if(mode IN ('shadow', 'synthetic'), [concat('mode=', toString(mode))], {everyone})"


def _labelled(path: Path, source: str) -> str:
    if all(name in _OWN for name in path.rollup):
        return source
    return f"""
SELECT message.*, label_values FROM ({source}) AS message
LEFT ANY JOIN (
    SELECT label_set, arrayMap(name -> JSONExtractString(any(labels), name), {{labels:Array(String)}}) AS label_values
    FROM label_sets GROUP BY label_set
) AS named USING (label_set)"""  # noqa: S608 - as above


def filter_sql(stage: str | None, rollup: str | None) -> tuple[str, Mapping[str, Any]]:
    """A condition on `stage` (by name) and `rollup` for both statements, and its parameters."""
    conditions, params = ["1"], {}
    if stage is not None:
        conditions.append("at = indexOf({stages:Array(String)}, {stage:String})")
        params["stage"] = stage
    if rollup is not None:
        conditions.append("rollup = {rollup:String}")
        params["rollup"] = rollup
    return " AND ".join(conditions), params
