"""On which CPU the threads of messages were: the last that the scheduler collector saw them on before a message began.

Only intervals say it, and a slow message holds more of them than a fast one. If those inside a message counted, slow
messages would have a CPU more often than others, and rather one where waits are recorded. So only what ended before the
message began counts, which its own slowness cannot have changed, and CPUs are compared among the messages of which one
is known. A thread may have moved without a recorded wait since: what stands out is weakened by that, not made up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import polars as pl

from analytics.budget import LOOK_BACK_NS
from collector.store import Store

NS = 1_000_000_000
FRESH_NS = NS  # how long before a message the last record of a thread may lie
MOST_MESSAGES = 500_000
MOST_RECORDS = 2_000_000
MOST_THREADS = 10_000
_STEP_NS = 10_000_000  # of a thread's records within, the last is enough

# Records of these kinds are written on the CPU that the thread gets or has; those of blocked times on its waker's.
_KINDS = "kind IN ('run_queue', 'preempted', 'throttled', 'irq', 'softirq')"
_ON_CPUS = f"""
SELECT toString(host) AS host, thread, toUnixTimestamp64Nano(ts) + duration_ns AS end, sets.cpu AS cpu
FROM intervals AS i INNER JOIN (
    SELECT label_set, JSONExtractString(any(labels), 'cpu') AS cpu FROM label_sets
    WHERE position(labels, '"cpu"') > 0 GROUP BY label_set HAVING cpu != ''
) AS sets ON sets.label_set = i.label_set
WHERE {_KINDS} AND ts >= fromUnixTimestamp64Nano({{from_ns:Int64}} - {{back:Int64}}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC') AND end >= {{from_ns:Int64}} AND end < {{to_ns:Int64}}
"""  # noqa: S608 - fixed text, values are bound
_ANY = f"SELECT 1 AS one FROM ({_ON_CPUS}) LIMIT 1"  # noqa: S608
_RECORDS = f"""
SELECT host, thread, max(end) AS end_ns, argMax(cpu, end) AS cpu FROM ({_ON_CPUS})
WHERE host IN {{hosts:Array(String)}} AND thread IN {{threads:Array(UInt32)}}
GROUP BY host, thread, intDiv(end, {{step:Int64}}) LIMIT {{limit:UInt32}}
"""  # noqa: S608
NOTHING = "no record says on which CPU the threads ran"


@dataclass(frozen=True, slots=True)
class Known:
    """Counts of the messages of which a dimension's value is known: `value`, `slot` (null: all), `n`, `tail`.

    The rows with a slot are of the tail alone. `share` is how many of the messages that were looked at these are.
    """

    counts: pl.DataFrame
    share: float


@dataclass(frozen=True, slots=True)
class Seen:
    """Where threads were: `records` has `host`, `thread`, `end_ns`, `cpu`; `reason` says why there are none."""

    records: pl.DataFrame
    reason: str = ""


_NONE = pl.DataFrame(schema={"host": pl.String, "thread": pl.UInt32, "end_ns": pl.Int64, "cpu": pl.String})


def any_seen(store: Store, from_ns: int, to_ns: int) -> bool:
    """Whether any record of this time says on which CPU a thread was."""
    return bool(store.query(_ANY, _reach(from_ns, to_ns)).height)


def seen(store: Store, frame: pl.DataFrame, stages: int, from_ns: int, to_ns: int) -> Seen:
    """The records of the threads of `frame` (`host_i`, `thread_i`) that can say where they were in [from_ns, to_ns)."""
    columns = [(f"host_{i}", f"thread_{i}") for i in range(stages) if f"thread_{i}" in frame.columns]
    if not columns:
        return Seen(_NONE, NOTHING)
    places = pl.concat(
        frame.lazy().select(pl.col(host).alias("host"), pl.col(thread).cast(pl.UInt32).alias("thread")).unique()
        for host, thread in columns
    )
    threads = places.filter((pl.col("host") != "") & pl.col("thread").is_not_null()).unique().collect()
    if threads.height > MOST_THREADS:
        return Seen(_NONE, f"the messages are of more than {MOST_THREADS:,} threads")
    params = _reach(from_ns, to_ns) | {
        "step": _STEP_NS, "limit": MOST_RECORDS + 1, "hosts": threads["host"].unique().sort().to_list(),
        "threads": threads["thread"].unique().sort().to_list(),
    }  # fmt: skip
    records = store.query(_RECORDS, params)
    if records.height > MOST_RECORDS:
        return Seen(_NONE, f"there are more than {MOST_RECORDS:,} records of the threads; ask for a shorter time")
    records = records.select(
        pl.col("host").cast(pl.String), pl.col("thread").cast(pl.UInt32), pl.col("end_ns").cast(pl.Int64),
        pl.col("cpu").cast(pl.String),
    )  # fmt: skip
    return Seen(records, "" if records.height else NOTHING)


def counts(frame: pl.DataFrame, records: pl.DataFrame, stages: Sequence[str], length_ns: int) -> dict[str, Known]:
    """Messages and tail by the CPU of each stage's thread; `frame` has `start_ns`, `tail`, `host_i` and `thread_i`.

    Pure. The dimension of a stage is `cpu of STAGE`, its values are `host/cpu`; without any it is absent.
    """
    if not records.height or not frame.height:
        return {}
    track = records.sort("end_ns").select("host", "thread", "end_ns", "cpu")
    ordered = frame.sort("start_ns")
    out = {}
    for i, stage in enumerate(stages):
        if f"thread_{i}" not in frame.columns:
            continue
        mine = ordered.select(
            "start_ns", "tail", pl.col(f"host_{i}").cast(pl.String).alias("host"),
            pl.col(f"thread_{i}").cast(pl.UInt32).alias("thread"),
        ).drop_nulls()  # fmt: skip
        joined = mine.join_asof(
            track, left_on="start_ns", right_on="end_ns", by=["host", "thread"], strategy="backward",
            tolerance=FRESH_NS, check_sortedness=False,
        ).filter(pl.col("cpu").is_not_null())  # fmt: skip
        if not joined.height:
            continue
        named = joined.select(
            pl.concat_str(["host", "cpu"], separator="/").alias("value"), "tail",
            (pl.col("start_ns") // length_ns).alias("slot"),
        )  # fmt: skip
        n, tail = pl.len().cast(pl.Int64).alias("n"), pl.col("tail").cast(pl.Int64).sum()
        whole = named.group_by("value").agg(n, tail).select("value", pl.lit(None, pl.Int64).alias("slot"), "n", "tail")
        split = named.filter("tail").group_by("value", "slot").agg(n.alias("tail"))
        split = split.select("value", pl.col("slot").cast(pl.Int64), pl.lit(0, pl.Int64).alias("n"), "tail")
        out[f"cpu of {stage}"] = Known(pl.concat([whole, split]), joined.height / frame.height)
    return out


def known(
    store: Store, frame: pl.DataFrame, stages: Sequence[str], from_ns: int, to_ns: int, length_ns: int
) -> tuple[dict[str, Known], str]:
    """`counts` of a frame by the store's records, and why there are none."""
    found = seen(store, frame, len(stages), from_ns, to_ns)
    counted = counts(frame, found.records, stages, length_ns)
    return counted, "" if counted else found.reason or NOTHING


def _reach(from_ns: int, to_ns: int) -> dict[str, object]:
    return {"from_ns": from_ns - FRESH_NS, "to_ns": to_ns, "back": LOOK_BACK_NS}
