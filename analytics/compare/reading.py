"""Arms from the store: from messages while they live, else from the counts of windows.

Messages can be chosen by any label, host, service, mode, outcome, cache or hour, and are counted by instance and block
of time where the data is. Counts know one rollup label of the path and blocks of whole 10 s windows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import polars as pl

from analytics import buckets, tally
from analytics.compare.arms import Arm, Ints, of_rows
from analytics.completeness import share
from analytics.generations import CURRENT
from analytics.paths import END_TO_END, UNATTRIBUTED, Path
from analytics.population import NOT_USERS
from collector.store import Store

NS = 1_000_000_000
Source = Literal["auto", "messages", "counts"]
BLOCKS = 40  # of time, at most about so many
# With so many instances on each side, instances are the clusters.
INSTANCES = 6
MOST_PARTS = 8
_LABEL = re.compile(r"[A-Za-z0-9_.:/-]{1,100}")
_OWN = {
    "host": "toString(host)", "service": "toString(service)", "mode": "toString(mode)",
    "outcome": "toString(outcome)", "cache": "toString(cache)", "hour": "toString(toHour(start))",
}  # fmt: skip


class NothingToCompareError(ValueError):
    """The data that a side asks for is not kept; the message says what is."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which messages a side is: `labels` that they all have, and when they start."""

    labels: Mapping[str, str]
    from_ns: int
    to_ns: int

    @property
    def name(self) -> str:
        """As it was written: `version=1,host=a`; `all` for no label."""
        return ",".join(f"{k}={v}" for k, v in self.labels.items()) or "all"


def labels_from(text: str) -> dict[str, str]:
    """`version=1,host=a` as labels; empty or `all` is none. Raises ValueError."""
    if text.strip() in ("", "all"):
        return {}
    out: dict[str, str] = {}
    for part in text.split(","):
        name, equals, value = (x.strip() for x in part.partition("="))
        if not equals or not value or not _LABEL.fullmatch(name) or len(value) > 400:
            raise ValueError(f"{part.strip()[:80]!r} is not label=value; write version=2 or version=2,host=a")
        if name in out:
            raise ValueError(f"{name!r} is given twice; a message has one {name}")
        out[name] = value
    if len(out) > MOST_PARTS:
        raise ValueError(f"at most {MOST_PARTS} labels can be asked for at once, got {len(out)}")
    return out


def arms(
    store: Store, path: Path, choices: Sequence[Choice], *, stage: str = END_TO_END, source: Source = "auto"
) -> list[Arm]:
    """The sides, all from the same kind of source and clustered in the same way.

    Raises NothingToCompareError when what is asked for is not kept, ValueError for an unknown stage.
    """
    if stage not in path.stage_names:
        raise ValueError(f"path {path.name} has no stage {stage!r}; it has {', '.join(path.stage_names)}")
    if source == "auto":
        source = "messages" if all(_messages_live(store, path, one) for one in choices) else "counts"
    if source == "counts":
        found = [_from_counts(store, path, one, stage) for one in choices]
    else:
        rows = [counted(store, path, one, stage, block_ns(one.from_ns, one.to_ns)) for one in choices]
        fewest = min(one["instance"].n_unique() for one in rows)
        found = [of_counted(one.name, each, instances=fewest) for one, each in zip(choices, rows, strict=True)]
    known = [share(store, one.from_ns, one.to_ns) for one in choices]
    return [
        replace(
            side,
            from_ns=one.from_ns,
            to_ns=one.to_ns,
            completeness=complete.share if complete.share is not None else complete.known_share,
        )
        for side, one, complete in zip(found, choices, known, strict=True)
    ]


def counted(store: Store, path: Path, choice: Choice, stage: str = END_TO_END, block_ns: int = 10 * NS) -> pl.DataFrame:
    """Users' messages of a choice by `block` (number since 1970), `instance` and `bucket` (null: no value).

    `n` messages each, of which `errors` (finished badly), `rejected` and `unfinished`. Shadow and synthetic messages
    are there only when `mode` is asked for by name.
    """
    conditions, params = where_sql(choice.labels)
    value, instance = value_sql(path, stage)
    sql = f"""
SELECT intDiv(toUnixTimestamp64Nano(start), {{block_ns:Int64}}) AS block, {instance} AS instance,
    if(isNull({value}), NULL, {buckets.index_sql(f"assumeNotNull({value})")}) AS bucket, count() AS n,
    countIf(outcome IN ('error', 'timeout', 'shed') AND isNotNull(e2e_ns)) AS errors,
    countIf(outcome = 'rejected') AS rejected,
    countIf(isNull(e2e_ns)) AS unfinished
FROM messages
WHERE {in_reach_sql()} AND {conditions}
GROUP BY block, instance, bucket ORDER BY block, instance, bucket
"""  # noqa: S608 - fixed text and the path's shape, values are bound
    return store.query(sql, {**reach(path, choice), **params, "block_ns": block_ns})


def value_sql(path: Path, stage: str) -> tuple[str, str]:
    """A stage's latency and the host of its later end, as expressions over `messages`."""
    if stage == END_TO_END:
        return "e2e_ns", "toString(host)"
    if stage == UNATTRIBUTED:
        return "e2e_ns - arraySum(v -> ifNull(v, 0), stage_ns)", "toString(host)"
    at = [one.name for one in path.stages].index(stage) + 1
    return f"stage_ns[{at}]", f"toString(stage_host[{at}])"


def in_reach_sql() -> str:
    """The condition on `messages` that `reach` binds."""
    return f"""path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC')
    AND window < toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT})
    AND start >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC')
    AND start < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')"""


def reach(path: Path, choice: Choice) -> dict[str, Any]:
    """What `in_reach_sql` binds."""
    return {
        "path": path.name, "level": 10, "from_ns": choice.from_ns, "to_ns": choice.to_ns,
        "from_s": choice.from_ns // NS // 10 * 10, "to_s": -(-choice.to_ns // (10 * NS)) * 10,
    }  # fmt: skip


def where_sql(labels: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """A condition on messages for these labels, and its parameters."""
    conditions: list[str] = []
    params: dict[str, Any] = {}
    for number, (name, value) in enumerate(labels.items()):
        params[f"value_{number}"] = value
        if name in _OWN:
            conditions.append(f"{_OWN[name]} = {{value_{number}:String}}")
            continue
        params[f"name_{number}"] = name
        conditions.append(
            "label_set IN (SELECT label_set FROM label_sets WHERE "  # noqa: S608 - fixed text, values are bound
            f"JSONExtractString(labels, {{name_{number}:String}}) = {{value_{number}:String}})"
        )
    if "mode" not in labels:
        params["others"] = [int(mode) for mode in NOT_USERS]
        conditions.append("NOT has({others:Array(Int8)}, toInt8(mode))")
    return " AND ".join(conditions), params


def of_counted(name: str, rows: pl.DataFrame, *, instances: int | None = None) -> Arm:
    """An arm of what `counted` gives; clusters are instances where there are enough, else blocks of time.

    `instances` is the smaller number of both sides, so that they are clustered in the same way.
    """
    there = rows.filter(pl.col("bucket").is_not_null())
    hosts = there["instance"].n_unique()
    by = "instance" if min(hosts, instances if instances is not None else hosts) >= INSTANCES else "block"
    # Of many instances and blocks only one is asked for: what is left to sort is small.
    there = there.group_by(by, "bucket").agg(pl.col("n").sum()).sort(by, "bucket")
    found = of_rows(
        name,
        there[by].to_numpy(),
        there["bucket"].cast(pl.Int64).to_numpy(),
        there["n"].cast(pl.Int64).to_numpy(),
        clustering="instance" if by == "instance" else "time",
        source="messages",
    )
    return _with_shares(found, rows, by, hosts)


def block_ns(from_ns: int, to_ns: int) -> int:
    """The length of a block of time: about BLOCKS of them, whole seconds."""
    return max(1, -(-(to_ns - from_ns) // (BLOCKS * NS))) * NS


def _with_shares(found: Arm, rows: pl.DataFrame, by: str, hosts: int) -> Arm:
    """The arm with what its messages came to; clusters without any latency are added."""
    each = (
        rows.group_by(by)
        .agg(pl.col("n", "errors", "rejected", "unfinished").sum().cast(pl.Int64))
        .select(pl.col(by).cast(pl.String).alias("cluster"), "n", "errors", "rejected", "unfinished")
    )
    names = [*found.cluster, *sorted(set(each["cluster"]) - set(found.cluster))]
    ordered = pl.DataFrame({"cluster": names}, schema={"cluster": pl.String}).join(
        each, on="cluster", how="left", maintain_order="left"
    )
    n = np.zeros((len(names), len(found.bucket)), dtype=np.int64)
    n[: len(found.cluster)] = found.n
    total: Ints = ordered["n"].fill_null(0).to_numpy()
    shares = {name: ordered[name].fill_null(0).to_numpy() for name in ("errors", "rejected", "unfinished")}
    return replace(found, n=n, cluster=names, total=total, shares=shares, instances=hosts)


def _messages_live(store: Store, path: Path, choice: Choice) -> bool:
    """Whether no counted message of the choice's time is older than the oldest message that is kept."""
    row = store.query(
        "SELECT count() AS n, toUInt32(min(window)) AS oldest FROM messages WHERE path = {path:String}",
        {"path": path.name},
    ).row(0)
    from_s = choice.from_ns // NS // 10 * 10
    if row[0] and int(row[1]) <= from_s:
        return True
    older = store.query(_OLDER, {"path": path.name, "from_s": from_s, "to_s": int(row[1]) if row[0] else 2**32 - 1})
    return not older.item()


def _from_counts(store: Store, path: Path, choice: Choice, stage: str) -> Arm:
    labels = dict(choice.labels)
    if len(labels) > 1 or any(name not in path.rollup for name in labels):
        known = ", ".join(path.rollup) or "no label"
        raise NothingToCompareError(
            f"messages of that time are not kept, and counts know one of {known} at a time; got {choice.name!r}"
        )
    from_s, to_s = tally.widen(choice.from_ns, choice.to_ns)
    step = next((s for s in (10, 60, 600, 3600, 86_400) if (to_s - from_s) / s <= 2 * BLOCKS), 86_400)
    found = tally.stored(store, path.name, from_s, to_s, stage=stage, rollup=choice.name if labels else "", step_s=step)
    rows = [
        (second, bucket, n)
        for (second, name), one in found.items()
        if name == stage
        for bucket, n in one.buckets.items()
    ]
    cluster, bucket, n = (np.array([row[i] for row in rows], dtype=np.int64) for i in range(3))
    made = of_rows(choice.name, cluster, bucket, n, clustering="time", source="counts")
    lost = {str(second): one.sums["unfinished"] for (second, name), one in found.items() if name == stage}
    unfinished = np.array([lost.get(name, 0) for name in made.cluster], dtype=np.int64)
    return replace(made, shares={"unfinished": unfinished}, total=made.total + unfinished)


_OLDER = """
SELECT sum(n + unfinished) FROM stage_windows WHERE path = {path:String}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
"""
