"""Messages counted by who they are: one row per combination of values, with how many of them are in the tail.

What a question about drivers needs of ten million messages is a few thousand such rows: every single value and every
pair is a sum of them. The tail's are also counted by cluster, because messages of one burst are one event.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import polars as pl

# Dimensions of a message as a whole; the labels of its label set are dimensions too.
OF_MESSAGE = ("host", "service", "outcome", "mode", "cache", "data_age")
_AGES = (1_000_000, 10_000_000, 100_000_000, 1_000_000_000, 10_000_000_000)
_AGE_NAMES = ("below 1 ms", "1 to 10 ms", "10 to 100 ms", "0.1 to 1 s", "1 to 10 s", "10 s or more")
MOST_CELLS = 200_000
MOST_LABELS = 24


@dataclass(frozen=True, slots=True)
class Cells:
    """Counts: `cells` has the dimensions, `n` and `tail`; `clustered` the same of the tail by `slot`, without `n`.

    `others` are counts by dimensions of their own (a stage's thread), which are not combined with any.
    """

    cells: pl.DataFrame
    clustered: pl.DataFrame
    others: Mapping[str, pl.DataFrame]

    def __add__(self, other: Cells) -> Cells:
        """Both slices of messages."""
        dims = [name for name in self.cells.columns if name not in ("n", "tail")]
        return Cells(
            _again(pl.concat([self.cells, other.cells]), dims, ["n", "tail"]),
            _again(pl.concat([self.clustered, other.clustered]), ["slot", *dims], ["tail"]),
            {
                name: _again(pl.concat([one, other.others[name]]), ["value", "slot"], ["n", "tail"])
                for name, one in self.others.items()
            },
        )


def count(frame: pl.DataFrame, length_ns: int, stages: Sequence[str] = ()) -> Cells:
    """Count a population's frame that has the column `tail` (bool). `stages` name the columns `thread_i`, if any."""
    known_age = pl.col("data_age_ns")
    age = pl.when(known_age.is_not_null()).then(sum((known_age >= one).cast(pl.UInt8) for one in _AGES)).alias("age")
    text = [pl.col(name).cast(pl.String) for name in OF_MESSAGE[:-1]]
    text.append(pl.col("age").replace_strict(dict(enumerate(_AGE_NAMES)), return_dtype=pl.String).alias("data_age"))
    dims = [*OF_MESSAGE, "label_set"]
    slot = (pl.col("start_ns") // length_ns).alias("slot")
    lazy = frame.lazy()
    n, tail = pl.len().cast(pl.Int64).alias("n"), pl.col("tail").sum().cast(pl.Int64)
    queries = [
        # Grouped by the stored columns, named after: a cast of every message would cost more than the rest.
        lazy.group_by([*OF_MESSAGE[:-1], "label_set", age]).agg(n, tail),
        lazy.filter("tail")
        .group_by([slot, *OF_MESSAGE[:-1], "label_set", age])
        .agg(pl.len().cast(pl.Int64).alias("tail")),
    ]
    known = [(i, name) for i, name in enumerate(stages) if f"thread_{i}" in frame.columns]
    for i, _ in known:
        queries.append(lazy.group_by([f"host_{i}", f"thread_{i}"]).agg(n, tail))
        queries.append(lazy.filter("tail").group_by([slot, f"host_{i}", f"thread_{i}"]).agg(n.alias("tail")))
    found = pl.collect_all(queries)
    others = {}
    for at, (i, name) in enumerate(known):
        whole, slots = found[2 + 2 * at], found[3 + 2 * at]
        value = pl.concat_str([pl.col(f"host_{i}"), pl.col(f"thread_{i}").cast(pl.String)], separator="/").alias(
            "value"
        )
        flat = whole.select(value, pl.lit(None, dtype=pl.Int64).alias("slot"), "n", "tail")
        split = slots.select(value, "slot", pl.lit(0, dtype=pl.Int64).alias("n"), "tail")
        others[f"thread of {name}"] = pl.concat([flat, split])
    cells = found[0].with_columns(text).select(*dims, "n", "tail")
    clustered = found[1].with_columns(text).select("slot", *dims, "tail")
    return Cells(cells, clustered, others)


def ages(column: str) -> str:
    """The range of a data age in SQL: the same names."""
    cases = ", ".join(f"{column} < {limit}, '{name}'" for limit, name in zip(_AGES, _AGE_NAMES, strict=False))
    return f"multiIf({cases}, '{_AGE_NAMES[-1]}')"


def labelled(cells: pl.DataFrame, labels: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    """The cells with a column per label, and the names of all dimensions. `labels`: `label_set`, `labels` (JSON)."""
    read = [(int(row[0]), _object(row[1])) for row in labels.iter_rows()]
    names = sorted({name for _, one in read for name in one} - set(OF_MESSAGE))[:MOST_LABELS]
    table = pl.DataFrame(
        {"label_set": [key for key, _ in read], **{name: [one.get(name) for _, one in read] for name in names}},
        schema={"label_set": pl.UInt64, **dict.fromkeys(names, pl.String)},
    )
    joined = cells.with_columns(pl.col("label_set").cast(pl.UInt64)).join(table, on="label_set", how="left")
    return joined, [*OF_MESSAGE, *names]


def _object(text: str) -> dict[str, str]:
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return {str(k): str(v) for k, v in value.items()} if isinstance(value, dict) else {}


def _again(frame: pl.DataFrame, dims: list[str], sums: list[str]) -> pl.DataFrame:
    return frame.group_by(dims).agg(pl.col(name).sum() for name in sums)
