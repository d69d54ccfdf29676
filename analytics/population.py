"""The messages of a path in a span of time, as one wide frame: what every question about the tail is asked of."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from analytics.generations import CURRENT
from analytics.paths import Path
from collector.record import Cache, Mode, Outcome
from collector.store import Store

NS = 1_000_000_000
# Not users' messages: they are asked for by name or not at all.
NOT_USERS = (Mode.SHADOW, Mode.SYNTHETIC)


@dataclass(frozen=True, slots=True)
class Population:
    """Messages of one path that start in [from_ns, to_ns).

    `frame` has one row per message, ordered by start and key: `key`, `window_s`, `start_ns`, `e2e_ns` (null:
    unfinished), `e2e_error_ns` (null: unknown), `host` and `service` (of the last end), `outcome`, `mode` and `cache`
    (the words of the record), `data_age_ns`, `weight`, `label_set`, `completeness`, and for stage number i of the path
    `ns_i` (null: an end is missing), `host_i`, `thread_i`, `depth_i` (null: unknown). `sampled` is the share of
    messages that were taken, by a hash of the key: 1.0 is all of them.
    """

    path: Path
    from_ns: int
    to_ns: int
    frame: pl.DataFrame
    sampled: float = 1.0

    @property
    def stages(self) -> list[str]:
        """The stages' names; stage number i has the columns `ns_i`, `host_i`, `thread_i`, `depth_i`."""
        return [stage.name for stage in self.path.stages]

    def finished(self) -> pl.DataFrame:
        """Messages with both ends, with `unattributed_ns`: what the stages that are known do not explain."""
        known = pl.sum_horizontal([pl.col(f"ns_{i}").fill_null(0) for i in range(len(self.stages))])
        both = self.frame.filter(pl.col("e2e_ns").is_not_null())
        return both.with_columns((pl.col("e2e_ns") - known).alias("unattributed_ns"))


_STAGE = """, stage_ns[{n}] AS ns_{i}, toString(stage_host[{n}]) AS host_{i}, stage_thread[{n}] AS thread_{i},
stage_depth[{n}] AS depth_{i}"""


def population(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    modes: tuple[Mode, ...] | None = None,
    share: float = 1.0,
    details: bool = True,
) -> Population:
    """Read the messages of `path` that start in [from_ns, to_ns).

    `modes` None means users' messages: all but shadow and synthetic ones. With `share` below 1 only messages whose
    key's hash falls into it are read: the same ones each time. Without `details` the hosts, threads and depths of the
    stages are left out, which halves the memory. Raises ValueError for a share outside (0, 1] and StoreError.
    """
    if not 0 < share <= 1:
        raise ValueError(f"share must be in (0, 1], got {share}")
    stages = "".join(
        _STAGE.format(i=i, n=i + 1) if details else f", stage_ns[{i + 1}] AS ns_{i}" for i in range(len(path.stages))
    )
    wanted = tuple(mode for mode in Mode if mode not in NOT_USERS) if modes is None else modes
    sql = f"""
SELECT key, toUnixTimestamp(window) AS window_s, toUnixTimestamp64Nano(start) AS start_ns, e2e_ns, e2e_error_ns,
    toString(host) AS host, toString(service) AS service, toInt8(outcome) AS outcome, toInt8(mode) AS mode,
    toInt8(cache) AS cache, data_age_ns, weight, label_set, completeness{stages}
FROM messages
WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window <
    toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT}) AND has({{modes:Array(Int8)}}, toInt8(mode))
    AND start >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC')
    AND start < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
    AND (({{below:UInt64}} = 0) OR (cityHash64(key) < {{below:UInt64}}))
ORDER BY start, key
"""  # noqa: S608 - fixed text, values are bound
    frame = store.query(
        sql,
        {
            "path": path.name, "level": 10, "from_ns": from_ns, "to_ns": to_ns, "modes": [int(mode) for mode in wanted],
            "from_s": from_ns // NS // 10 * 10, "to_s": -(-to_ns // (10 * NS)) * 10,
            "below": 0 if share == 1.0 else int(share * 2**64),
        },
    )  # fmt: skip
    return Population(
        path,
        from_ns,
        to_ns,
        frame.with_columns(_word("outcome", Outcome), _word("mode", Mode), _word("cache", Cache)),
        share,
    )


def _word(column: str, kind: type[Outcome | Mode | Cache]) -> pl.Expr:
    words = {int(one): one.name.lower() for one in kind}
    return pl.col(column).replace_strict(words, return_dtype=pl.Enum(list(words.values())))


def labels_of(store: Store, sets: pl.Series) -> pl.DataFrame:
    """The labels of these label sets: columns `label_set` and `labels` (JSON, as they were interned)."""
    return store.query(
        "SELECT label_set, any(labels) AS labels FROM label_sets WHERE label_set IN {sets:Array(UInt64)}"
        " GROUP BY label_set ORDER BY label_set",
        {"sets": sets.unique().sort().to_list()},
    )
