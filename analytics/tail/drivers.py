"""Who the slow messages are: values that are over-represented in the tail, and pairs of values that are more so.

A screening, not a proof of cause: the share of a value among the tail's messages against its share among the others,
with Newcombe's interval on effective counts (a burst is one event, `clusters.effective`), Fisher's exact test and
Benjamini and Hochberg's control over every value and pair that was looked at. That nothing stands out is an answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import msgspec
import numpy as np
import polars as pl

from analytics.percentiles import CONFIDENCE
from analytics.population import labels_of
from analytics.tail import proportions
from analytics.tail.cells import Cells, labelled
from analytics.tail.cpus import Known
from collector.store import Store

FALSE_DISCOVERIES = 0.05
SUPPORT = 10  # messages of a value in the tail
MOST_VALUES = 200  # per dimension, the most frequent in the tail
MOST_PAIRS = 400
MORE_THAN_PARENTS = 1.25
MOST_LABEL_SETS = 50_000  # beyond, labels are as good as keys and are not looked at


class Driver(msgspec.Struct, frozen=True, kw_only=True):
    """A value, or a pair of values, that is more frequent in the tail than among the other messages.

    `what` maps dimensions to values. `difference` is `tail_share` less `rest_share`, with its interval; `lift` their
    ratio (null where no other message has it). `p` is one-sided, `q` adjusted for everything that was looked at.
    `slow_share` is the share of this value's messages that are in the tail. `effective_n` is how many independent
    messages its count in the tail is worth. `known_share` is the share of messages of which the dimension is known: all
    shares and counts are of these.
    """

    what: dict[str, str]
    tail_count: int
    rest_count: int
    tail_share: float
    rest_share: float
    difference: float
    ci: tuple[float, float]
    lift: float | None
    slow_share: float
    p: float
    q: float
    effective_n: float
    known_share: float = 1.0


class Drivers(msgspec.Struct, frozen=True, kw_only=True):
    """What stands out in the tail, largest difference first; `looked_at` values and pairs were tested.

    `drivers` is empty where nothing stands out at the stated rate of false discoveries, and `sentence` says so.
    `no_cpus` is why CPUs are no dimension, or empty.
    """

    path: str
    from_ns: int
    to_ns: int
    q: float
    count: int
    tail_count: int
    threshold_ns: int
    looked_at: int
    dimensions: list[str]
    false_discoveries: float
    drivers: list[Driver]
    completeness: float | None
    sentence: str
    no_cpus: str = ""


@dataclass(frozen=True, slots=True)
class Candidate:
    """Counts of one value or pair; `effective` of its messages in the tail are independent.

    `of` are the messages and those in the tail that it is compared within, where that is not all of them: the ones of
    which the dimension is known, the share `known` of what was looked at.
    """

    what: tuple[tuple[str, str], ...]
    n: int
    tail: int
    effective: float
    of: tuple[int, int] | None = None
    known: float = 1.0


def found(
    cells: Cells,
    labels: pl.DataFrame,
    *,
    support: int = SUPPORT,
    false_discoveries: float = FALSE_DISCOVERIES,
    partly: Mapping[str, Known] = MappingProxyType({}),
) -> tuple[list[Driver], int, list[str]]:
    """The drivers in the counts, how many values and pairs were tested, and the dimensions.

    Pure: counts in, answer out. Dimensions in which all messages are alike are left out. `partly` are dimensions that
    are known of some messages only, which are compared among these.
    """
    table, dims = labelled(cells.cells, labels)
    clustered, _ = labelled(cells.clustered, labels)
    n, tail = int(table["n"].sum()), int(table["tail"].sum())
    if not tail or tail == n:
        return [], 0, []
    singles: list[Candidate] = []
    varied: list[str] = []
    for dim in dims:
        mine = _values(table, clustered, [dim], tail, support)
        if len(mine) and (len(mine) > 1 or mine[0].n < n):
            varied.append(dim)
            singles += mine
    for dim, counted in cells.others.items():
        whole = counted.filter(pl.col("slot").is_null()).rename({"value": dim})
        split = counted.filter(pl.col("slot").is_not_null()).rename({"value": dim})
        mine = [one for one in _values(whole, split, [dim], tail, support) if (one.n, one.tail) not in _sizes(singles)]
        if len(mine) > 1 or (mine and mine[0].n < n):
            varied.append(dim)
            singles += mine
    within: list[Candidate] = []
    for dim, known in partly.items():
        mine = [one for one in _within(dim, known, support) if (one.n, one.tail) not in _sizes(within)]
        if mine:
            varied.append(dim)
            within += mine
    pairs, looked_at = _pairs(table, clustered, [dim for dim in varied if dim in dims], singles, n, tail, support)
    looked_at += len(singles) + len(within)
    drivers = _tested([*singles, *within, *pairs], looked_at, n, tail)
    kept = [one for one in drivers if one.q <= false_discoveries and one.difference > 0 and one.ci[0] > 0]
    alone = {next(iter(one.what.items())): one for one in kept if len(one.what) == 1}
    kept = [one for one in kept if len(one.what) == 1 or _beyond(one, alone)]
    kept.sort(key=lambda one: (-one.difference, len(one.what), sorted(one.what.items())))
    return kept, looked_at, varied


def labels_in(store: Store, cells: Cells) -> tuple[pl.DataFrame, bool]:
    """The labels of the counted messages, and whether there are too many sets of them to be looked at (then none)."""
    sets = cells.cells["label_set"].unique()
    if len(sets) > MOST_LABEL_SETS:
        return pl.DataFrame(schema={"label_set": pl.UInt64, "labels": pl.String}), True
    return labels_of(store, sets), False


def said(drivers: list[Driver], looked_at: int, rate: float, *, without_labels: bool = False, no_cpus: str = "") -> str:
    """What the answer says in words."""
    if no_cpus:
        return f"{said(drivers, looked_at, rate, without_labels=without_labels)} CPUs were not looked at: {no_cpus}."
    if without_labels:
        return f"Labels were not looked at: there are more than {MOST_LABEL_SETS:,} different sets of them. " + said(
            drivers, looked_at, rate
        )
    if not looked_at:
        return "No value is frequent enough in the tail to be compared, or all messages are alike."
    if not drivers:
        return (
            f"Nothing stands out: of {looked_at} values and pairs none is more frequent among the slow messages than"
            f" among the others, at a false discovery rate of {100 * rate:g} %."
        )
    first = drivers[0]
    what = " and ".join(f"{dim} {value}" for dim, value in first.what.items())
    of = f", of the {100 * first.known_share:.0f} % of messages of which it is known" if first.known_share < 1 else ""
    return (
        f"{what} is {100 * first.tail_share:.0f} % of the slow messages and {100 * first.rest_share:.0f} % of the"
        f" others{of} (difference {100 * first.ci[0]:.0f} to {100 * first.ci[1]:.0f} points); {len(drivers)} of"
        f" {looked_at} values and pairs stand out. Being together is not yet being the cause."
    )


def _values(table: pl.DataFrame, clustered: pl.DataFrame, dims: list[str], tail: int, support: int) -> list[Candidate]:
    """The values of dimensions with enough messages in the tail, most frequent first."""
    counted = table.filter(pl.all_horizontal(pl.col(dim).is_not_null() for dim in dims))
    counted = counted.group_by(dims).agg(pl.col("n").sum(), pl.col("tail").sum())
    counted = counted.filter((pl.col("tail") >= support) & (pl.col(dims[0]) != "")).sort(
        ["tail", *dims], descending=[True, *(False for _ in dims)]
    )
    counted = counted.head(MOST_VALUES)
    if not len(counted):
        return []
    per_slot = clustered.group_by("slot").agg(pl.col("tail").sum().alias("of"))
    split = clustered.join(counted.select(dims), on=dims).group_by(["slot", *dims]).agg(pl.col("tail").sum())
    slots = len(per_slot)
    joined = split.join(per_slot, on="slot")
    share = {row[:-2]: row[-1] / tail for row in counted.select(*dims, "n", "tail").iter_rows()}
    # Sum over slots of (k - p of)^2: of the slots with the value from the join, of the others p^2 of^2.
    squares = float((per_slot["of"].cast(pl.Float64) ** 2).sum())
    out = []
    by_value = dict(joined.group_by(dims))
    for row in counted.iter_rows(named=True):
        key = tuple(row[dim] for dim in dims)
        p = share[key]
        group = by_value.get(key)
        between = p * p * squares
        if group is not None:
            k, of = group["tail"].to_numpy().astype(np.float64), group["of"].to_numpy().astype(np.float64)
            between += float(((k - p * of) ** 2 - (p * of) ** 2).sum())
        inside = tail * p * (1 - p)
        deff = between * slots / max(slots - 1, 1) / inside if inside > 0 and slots > 1 else 1.0
        out.append(Candidate(tuple(zip(dims, key, strict=True)), row["n"], row["tail"], row["tail"] / max(1.0, deff)))
    return out


def _within(dim: str, known: Known, support: int) -> list[Candidate]:
    """The values of a dimension among the messages of which it is known; none where these are all alike."""
    whole = known.counts.filter(pl.col("slot").is_null()).rename({"value": dim})
    split = known.counts.filter(pl.col("slot").is_not_null()).rename({"value": dim})
    n, tail = int(whole["n"].sum()), int(whole["tail"].sum())
    if not 0 < tail < n or whole.height < 2:
        return []
    return [replace(one, of=(n, tail), known=known.share) for one in _values(whole, split, [dim], tail, support)]


def _sizes(candidates: list[Candidate]) -> set[tuple[int, int]]:
    """Values with the same counts are the same messages under another name: a host with one thread, say."""
    return {(one.n, one.tail) for one in candidates}


def _pairs(
    table: pl.DataFrame,
    clustered: pl.DataFrame,
    dims: list[str],
    singles: list[Candidate],
    n: int,
    tail: int,
    support: int,
) -> tuple[list[Candidate], int]:
    """Pairs that are slow more often than either of their values, and how many were looked at for that."""
    rate = {one.what[0]: one.tail / one.n for one in singles}
    out: list[Candidate] = []
    looked_at = 0
    for pair in itertools.combinations(dims, 2):
        for one in _values(table, clustered, list(pair), tail, support):
            looked_at += 1
            parents = [rate.get(value, tail / n) for value in one.what]
            if one.tail / one.n > MORE_THAN_PARENTS * max(*parents, tail / n):
                out.append(one)
    out.sort(key=lambda one: -one.tail / one.n)
    return out[:MOST_PAIRS], looked_at


def _tested(candidates: list[Candidate], looked_at: int, n: int, tail: int) -> list[Driver]:
    if not candidates:
        return []
    in_tail = np.array([one.tail for one in candidates], dtype=np.float64)
    in_rest = np.array([one.n for one in candidates], dtype=np.float64) - in_tail
    shrink = np.array([one.effective for one in candidates]) / np.maximum(in_tail, 1.0)
    of = np.array([one.of or (n, tail) for one in candidates], dtype=np.int64)
    tails, rests = of[:, 1], of[:, 0] - of[:, 1]
    d, low, high = proportions.difference(
        in_tail * shrink, tails * shrink, in_rest * shrink, rests * shrink, CONFIDENCE
    )
    p = proportions.more(in_tail * shrink, tails * shrink, in_rest * shrink, rests * shrink)
    # Pairs that were looked at and put aside count as tests without a result.
    q = proportions.benjamini_hochberg(np.concatenate([p, np.ones(max(0, looked_at - len(p)))]))
    return [
        Driver(
            what=dict(one.what),
            tail_count=one.tail,
            rest_count=one.n - one.tail,
            tail_share=one.tail / int(tails[i]),
            rest_share=(one.n - one.tail) / int(rests[i]),
            difference=float(d[i]),
            ci=(float(low[i]), float(high[i])),
            lift=one.tail / int(tails[i]) / ((one.n - one.tail) / int(rests[i])) if one.n > one.tail else None,
            slow_share=one.tail / one.n,
            p=float(p[i]),
            q=float(q[i]),
            effective_n=one.effective,
            known_share=one.known,
        )
        for i, one in enumerate(candidates)
    ]


def _beyond(pair: Driver, alone: dict[tuple[str, str], Driver]) -> bool:
    """Whether the pair is slow more often than each of its values that stands out itself, beyond chance."""
    low, _ = proportions.wilson(pair.effective_n, pair.effective_n / max(pair.slow_share, 1e-12), CONFIDENCE)
    return all(float(low) > alone[value].slow_share for value in pair.what.items() if value in alone)
