"""How rows become observations: which share a cause (clusters), which are alike (strata), what came before and after.

Clusters are blocks of time, the longest of which there are at least `WANTED`; strata are shorter blocks of time by
tenths of the load. Who the customer is (cohort, channel, region, offer) is held fixed beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from analytics.money.effects import Floats, Ints
from analytics.money.exposures import NS
from analytics.money.reading import Rows
from analytics.money.sensitivity import Observations, strata_of

WANTED = 40
_BLOCKS_S = (86_400, 21_600, 3_600, 600, 60, 10)
_STRATA_S = (900, 3_600, 21_600, 86_400)
_ROWS_OF_STRATUM = 8
_VALUES = 10  # of a dimension that are held fixed one by one; the rest is one
_LEAST_OF_VALUE = 30
SUPPORT = (0.005, 0.995)


@dataclass(frozen=True, slots=True)
class Laid:
    """Observations with the lengths that made them, in seconds; `day` numbers the blocks that a curve draws again."""

    given: Observations
    cluster_s: int
    stratum_s: int
    stratum: Ints
    day: Ints


def supported(rows: Rows, most: float | None = None) -> tuple[Rows, tuple[float, float]]:
    """The rows between 0.5 % and 99.5 % of the exposures, and not above `most`: too few lie beyond to say anything.

    Leaving out by the exposure does not bend a slope; leaving out by the KPI would.
    """
    if not len(rows) or not np.isfinite(rows.exposure).all():
        return rows, (0.0, 0.0)
    low, high = (float(end) for end in np.quantile(rows.exposure, SUPPORT))
    if most is not None:
        high = min(high, most)
    return rows.where((rows.exposure >= low) & (rows.exposure <= high)), (low, high)


def laid(rows: Rows, cluster_s: int | None = None, units: Ints | None = None) -> Laid:
    """Observations of these rows. `units` are the clusters where units were assigned something, not messages."""
    start = rows.start_ns
    block_s = cluster_s or _cluster_s(start)
    fits = [length for length in _STRATA_S if length <= block_s] or [block_s]
    stratum_s = fits[0]
    for length in fits:
        stratum_s = length
        if _mean_size(rows, length * NS) >= _ROWS_OF_STRATUM:
            break
    hour = start // (stratum_s * NS)
    lead, earlier, before = _neighbours(rows, block_s)
    given = Observations(
        kpi=rows.kpi,
        exposure=rows.exposure,
        cluster=start // (block_s * NS) if units is None else units,
        hour=hour,
        load=rows.load,
        lead=lead,
        earlier=earlier,
        before=before,
        beside=held(rows),
    )
    days = start // (86_400 * NS)
    enough = len(np.unique(days)) >= WANTED // 5 if len(days) else False
    return Laid(given, block_s, stratum_s, strata_of(given), days if enough else start // (block_s * NS))


def held(rows: Rows) -> list[Floats]:
    """A column of 0 and 1 for each common value of each dimension but the commonest."""
    columns = []
    for name in sorted(rows.dimensions):
        column = rows.dimensions[name].cast(pl.String).alias(name)
        counts = (
            column.value_counts(sort=True, name="n").rename({column.name: "value"}).sort("n", "value", descending=True)
        )
        # The commonest value is what the others are compared with.
        for value, n in counts.slice(1, _VALUES).iter_rows():
            if n >= _LEAST_OF_VALUE:
                columns.append((column == value).to_numpy().astype(np.float64))
    return columns


def _cluster_s(start: Ints) -> int:
    for length in _BLOCKS_S:
        if len(np.unique(start // (length * NS))) >= WANTED:
            return length
    return _BLOCKS_S[-1]


def _mean_size(rows: Rows, length_ns: int) -> float:
    """Rows per stratum, among the strata that have more than one."""
    edges = np.quantile(rows.load, np.arange(1, 10) / 10) if len(rows) else np.zeros(0)
    codes = rows.start_ns // length_ns * 10 + np.searchsorted(edges, rows.load, side="left")
    _, sizes = np.unique(codes, return_counts=True)
    return float(sizes.mean()) if len(sizes) else 0.0


def _neighbours(rows: Rows, block_s: int) -> tuple[Floats, Floats, Sequence[Floats]]:
    """The exposure of the first row a moment later; KPI, exposure and load of the last row a moment earlier.

    The moment is a tenth of a cluster's length at most, so that both neighbours mostly lie in the same stratum.
    """
    start, n = rows.start_ns, len(rows)
    gap = max(NS, min(block_s // 10, 60) * NS)
    if rows.source == "intervals" and n > 1:
        steps = np.diff(np.unique(start))
        gap = int(steps.min()) if len(steps) else gap
    after = np.searchsorted(start, start + gap, side="left")
    ahead = np.searchsorted(start, start - gap, side="right") - 1
    lead, earlier = np.full(n, np.nan), np.full(n, np.nan)
    was, load = np.full(n, np.nan), np.full(n, np.nan)
    there = (after < n) & (start[np.minimum(after, n - 1)] - start < 10 * gap)
    lead[there] = rows.exposure[after[there]]
    back = (ahead >= 0) & (start - start[np.maximum(ahead, 0)] < 10 * gap)
    earlier[back], was[back], load[back] = (column[ahead[back]] for column in (rows.kpi, rows.exposure, rows.load))
    return lead, earlier, (was, load)
