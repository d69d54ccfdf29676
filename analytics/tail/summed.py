"""The sums and counts behind attribution and drivers, made by the store: a few thousand rows of many million messages.

What `tailset`, `clusters` and `cells` compute of a frame, in SQL; a test holds both to the same numbers. Moving wide
rows out of the store costs ten times as much as summing them in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from analytics.generations import CURRENT
from analytics.paths import Path
from analytics.population import NOT_USERS
from analytics.tail.attribution import Facts
from analytics.tail.cells import OF_MESSAGE, Cells, ages
from analytics.tail.clusters import Sums
from analytics.tail.read import NS, Reach
from analytics.tail.tailset import ENDED, Apart, Cuts, Ints, parts, ranks
from collector.record import Mode
from collector.store import Store

# One row per message that counts: what it took, whether it ended, and its parts.
_ALL = f"""
SELECT key, toUnixTimestamp64Nano(start) AS start_ns, host, service, outcome, mode, cache, data_age_ns, label_set,
    stage_host, stage_thread, isNotNull(e2e_ns) AS finished, ifNull(e2e_ns, {{max_age:Int64}}) AS took,
    arrayMap(x -> ifNull(x, 0), stage_ns) AS known, took - arraySum(known) AS rest,
    NOT finished AND toString(outcome) IN {{ended:Array(String)}} AS failed,
    NOT finished AND NOT failed AND start_ns + {{max_age:Int64}} > {{decided:Int64}} AS undecided
FROM messages
WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window <
    toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT}) AND has({{modes:Array(Int8)}}, toInt8(mode))
    AND start >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC')
    AND start < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
"""  # noqa: S608 - fixed text, values are bound
_COUNTED = f"SELECT * FROM ({_ALL}) WHERE NOT failed AND NOT undecided"  # noqa: S608
_APART = f"""
SELECT toString(outcome) AS outcome, failed, undecided, count() AS n FROM ({_ALL})
GROUP BY outcome, failed, undecided ORDER BY outcome
"""  # noqa: S608
_CUTS = f"SELECT quantilesExact($levels)(took) AS at FROM ({_COUNTED})"  # noqa: S608
_SUMS = f"""
SELECT intDiv(start_ns, {{length:Int64}}) AS slot, host, count() AS n, countIf(tail) AS tail_n, countIf(body) AS body_n,
    countIf(band) AS band_n, sumForEachIf(parts, tail) AS tail_sums, sumForEachIf(parts, body) AS body_sums,
    sumForEachIf(parts, band) AS band_sums, countIf(tail AND NOT finished) AS unfinished,
    countIf(finished AND rest < 0) AS overlapping
FROM (
    SELECT start_ns, host, finished, rest, took >= {{tail:Int64}} AS tail,
        took BETWEEN {{low:Int64}} AND {{high:Int64}} AS body,
        took BETWEEN {{band_low:Int64}} AND {{band_high:Int64}} AS band,
        arrayConcat(known, [if(finished, rest, 0), if(finished, 0, rest)]) AS parts FROM ({_COUNTED})
)
GROUP BY slot, host ORDER BY slot, host
"""  # noqa: S608
_OUTCOMES = f"""
SELECT toString(outcome) AS word, count() AS n FROM ({_COUNTED}) WHERE took >= {{tail:Int64}}
GROUP BY word ORDER BY word
"""  # noqa: S608
_WHO = """toString(host) AS host, toString(service) AS service, toString(outcome) AS outcome, toString(mode) AS mode,
    toString(cache) AS cache, if(isNull(data_age_ns), NULL, toNullable($age)) AS age, label_set"""
_CELLS = f"""
SELECT {_WHO}, toInt64(count()) AS n, toInt64(countIf(took >= {{tail:Int64}})) AS tail FROM ({_COUNTED})
GROUP BY ALL LIMIT {{most:UInt32}}
"""  # noqa: S608
_CLUSTERED = f"""
SELECT intDiv(start_ns, {{length:Int64}}) AS slot, {_WHO}, toInt64(count()) AS tail FROM ({_COUNTED})
WHERE took >= {{tail:Int64}} GROUP BY ALL LIMIT {{most:UInt32}}
"""  # noqa: S608
# Grouped by all stages' threads at once, which few messages differ in, and only then taken apart.
_THREADS = f"""
SELECT stage, concat(stage_host[stage], '/', toString(stage_thread[stage])) AS value, $slot AS slot,
    toInt64(sum(n)) AS n, toInt64(sum(tail)) AS tail
FROM (
    SELECT stage_host, stage_thread, $slot_of AS at, count() AS n, countIf(took >= {{tail:Int64}}) AS tail
    FROM ({_COUNTED}) $where GROUP BY stage_host, stage_thread, at
)
ARRAY JOIN arrayEnumerate(stage_host) AS stage
WHERE stage_host[stage] != '' GROUP BY stage, value, slot LIMIT {{most:UInt32}}
"""  # noqa: S608
_PLACES = f"""
SELECT start_ns, took >= {{tail:Int64}} AS tail $columns FROM ({_COUNTED})
WHERE {{below:UInt64}} = 0 OR cityHash64(key) < {{below:UInt64}} LIMIT {{most:UInt32}}
"""  # noqa: S608
_MOST = 1_000_000


def tail_cuts(store: Store, path: Path, reach: Reach, q: float) -> tuple[Cuts, Apart]:
    """Where the tail begins, and what is in no number. Raises ValueError for too few messages or a bad q."""
    rows = store.query(_APART, _bound(path, reach)).rows(named=True)
    failed = {row["outcome"]: int(row["n"]) for row in rows if row["failed"]}
    apart = Apart(failed, sum(int(row["n"]) for row in rows if row["undecided"]))
    n = sum(int(row["n"]) for row in rows if not row["failed"] and not row["undecided"])
    wanted = ranks(n, q)
    # quantileExact takes the element at floor(level n): the middle of a rank is safe from rounding.
    levels = ", ".join(repr((rank + 0.5) / n) for rank in wanted)
    at = store.query(_CUTS.replace("$levels", levels), _bound(path, reach))["at"][0]
    return Cuts(q, n, *(int(value) for value in at)), apart


def sums(store: Store, path: Path, reach: Reach, cut: Cuts, apart: Apart, length_ns: int) -> tuple[Sums, Facts]:
    """The sums of every cluster, as `clusters.sums_of` and `attribution.facts_of` make them."""
    params = {**_bound(path, reach), **_cut(cut), "length": length_ns}
    rows = store.query(_SUMS, params)
    width = len(parts(path))
    outcomes = {str(word): int(n) for word, n in store.query(_OUTCOMES, params).iter_rows()}
    made = Sums(
        _column(rows, "n"),
        _column(rows, "tail_n"),
        _matrix(rows, "tail_sums", width),
        _column(rows, "body_n"),
        _matrix(rows, "body_sums", width),
        int(rows["band_n"].sum()),
        _matrix(rows, "band_sums", width).sum(axis=0),
    )
    return made, Facts(int(rows["unfinished"].sum()), outcomes, int(rows["overlapping"].sum()), apart)


def counted(store: Store, path: Path, reach: Reach, cut: Cuts, length_ns: int) -> Cells:
    """The counts by who messages are, as `cells.count` makes them."""
    params = {**_bound(path, reach), **_cut(cut), "length": length_ns, "most": _MOST}
    age = ages("data_age_ns")
    whole, split = (store.query(sql.replace("$age", age), params) for sql in (_CELLS, _CLUSTERED))
    slot = "intDiv(start_ns, {length:Int64})"
    of_threads = [
        store.query(
            _THREADS.replace("$slot_of", slot_of).replace("$slot", "toNullable(at)" if where else "NULL")
            .replace("$where", where),
            params,
        )
        for slot_of, where in (("0", ""), (slot, "WHERE took >= {tail:Int64}"))
    ]  # fmt: skip
    others = {}
    for i, stage in enumerate(path.stages):
        mine = [
            rows.filter(pl.col("stage") == i + 1).select(
                "value",
                pl.col("slot").cast(pl.Int64),
                pl.col("n") if not at else pl.lit(0, pl.Int64).alias("n"),
                "tail",
            )
            for at, rows in enumerate(of_threads)
        ]
        if mine[0].height:
            others[f"thread of {stage.name}"] = pl.concat(mine)
    dims = [*OF_MESSAGE, "label_set"]
    return Cells(_aged(whole).select(*dims, "n", "tail"), _aged(split).select("slot", *dims, "tail"), others)


def threads(store: Store, path: Path, reach: Reach, cut: Cuts, most: int) -> pl.DataFrame:
    """About `most` messages, chosen by a hash of the key: `start_ns`, `tail`, and per stage `host_i`, `thread_i`."""
    columns = "".join(
        f", toString(stage_host[{i + 1}]) AS host_{i}, stage_thread[{i + 1}] AS thread_{i}"
        for i in range(len(path.stages))
    )
    below = int(most / cut.count * 2**64) if cut.count > most else 0
    params = {**_bound(path, reach), **_cut(cut), "below": below, "most": 2 * most}
    return store.query(_PLACES.replace("$columns", columns), params).with_columns(pl.col("tail").cast(pl.Boolean))


def _bound(path: Path, reach: Reach) -> Mapping[str, Any]:
    wanted = tuple(mode for mode in Mode if mode not in NOT_USERS) if reach.modes is None else reach.modes
    return {
        "path": path.name, "level": 10, "modes": [int(mode) for mode in wanted], "max_age": path.max_age_ns,
        "ended": list(ENDED), "from_ns": reach.from_ns, "to_ns": reach.to_ns,
        "decided": 2**62 if reach.known_to_ns is None else reach.known_to_ns,
        "from_s": reach.from_ns // NS // 10 * 10, "to_s": -(-reach.to_ns // (10 * NS)) * 10,
    }  # fmt: skip


def _cut(cut: Cuts) -> Mapping[str, int]:
    return {
        "tail": cut.tail_ns, "low": cut.body_low_ns, "high": cut.body_high_ns, "band_low": cut.band_low_ns,
        "band_high": cut.band_high_ns,
    }  # fmt: skip


def _column(rows: pl.DataFrame, name: str) -> Ints:
    return rows[name].cast(pl.Int64).to_numpy()


def _matrix(rows: pl.DataFrame, name: str, width: int) -> Ints:
    """Sums per cluster; a cluster without members has an empty list."""
    out = np.zeros((rows.height, width), dtype=np.int64)
    for at, values in enumerate(rows[name].to_list()):
        if values:
            out[at] = values
    return out


def _aged(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.rename({"age": "data_age"}).with_columns(pl.col("data_age").cast(pl.String))
