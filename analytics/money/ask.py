"""Sensitivity asked of the store: how a KPI answers to the latency of a path, a stage, its tail, or data age.

`ask` reads the rows, lays them out and climbs the ladder (`analytics.money.sensitivity`). What it returns holds the
estimates, the curve and all that an answer must admit to; `told` makes plain values of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from analytics import completeness
from analytics.kpis import DIMENSIONS, KpiDefinition
from analytics.money import assignments, designs, reading
from analytics.money.designs import Struck
from analytics.money.effects import SensitivityError, Words
from analytics.money.exposures import NS, Exposure
from analytics.money.laying import Laid, laid, supported
from analytics.money.natural import Natural
from analytics.money.reading import Progress, Rows
from analytics.money.response import Curve, Direction, response
from analytics.money.sensitivity import Sensitivity, sensitivity
from analytics.paths import Path
from collector.record import Mode
from collector.store import Store

DESIGNS = ("auto", "experiment", "natural", "strata", "dml")
LEAST_ROWS = 200
MOST_GROUPS = 20
_MANY_UNFINISHED = 0.01
Design = Literal["auto", "experiment", "natural", "strata", "dml"]
Absent = Literal["left out", "zero"]


@dataclass(frozen=True, slots=True)
class Group:
    """The answer among the rows of one value of a dimension; `refused` says why there is none."""

    value: str
    rows: int
    mean: float
    result: Sensitivity | None
    refused: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """A KPI's answer to an exposure, with everything that it rests on.

    `result.answer` is the effect per unit of exposure in the KPI's own units, `mean` the KPI's mean and `exposure_mean`
    the exposure's, both of the rows used; `least` to `most` are the exposures that were seen (nothing is said beyond).
    `curve` is the shape, or None and `no_curve` says why. `left_out` counts what is in no number, by reason; `sampled`
    is the share of messages taken. `cluster_s` and `stratum_s` are the lengths of blocks of time.
    """

    path: str
    kpi: str
    unit: str
    exposure: Exposure
    from_ns: int
    to_ns: int
    source: str
    rows: int
    messages: int
    sampled: float
    left_out: Mapping[str, int]
    mean: float
    exposure_mean: float
    least: float
    most: float
    cluster_s: int
    stratum_s: int
    result: Sensitivity
    curve: Curve | None
    no_curve: str
    by: str
    groups: tuple[Group, ...]
    completeness: float | None
    notes: tuple[str, ...]
    natural: Natural | None = None

    @property
    def sentence(self) -> str:
        """The answer in words."""
        return self.result.sentence


def ask(
    store: Store,
    path: Path,
    kpi: str,
    known: Mapping[str, KpiDefinition],
    *,
    from_ns: int,
    to_ns: int,
    exposure: Exposure = Exposure(),  # noqa: B008 - frozen
    by: str = "",
    design: Design = "auto",
    struck: Struck | None = None,
    experiment: str = "",
    horizon_ns: int = 0,
    absent: Absent = "left out",
    most: float | None = None,
    modes: tuple[Mode, ...] | None = None,
    curve: bool = True,
    now_ns: int | None = None,
    progress: Progress | None = None,
    seed: int = 1,
    most_rows: int = reading.MOST_ROWS,
) -> Asked:
    """How `kpi` answers to `exposure` among the messages (or intervals) of [from_ns, to_ns).

    `by` cohort, channel, region or offer asks within each of its values too. A value of the KPI may come late: only
    what began `horizon_ns` before now (or before the end of the time) is looked at. `most` is the largest exposure that
    counts, in its unit. `design` "natural" needs `struck`, the change and whom it struck; `experiment` names the one
    whose assignments were imported. Raises SensitivityError naming what is wrong or missing, and StoreError.
    """
    definition = known.get(kpi)
    if definition is None:
        raise SensitivityError(
            f"kpi: {kpi!r} is not declared under [kpis]; there are {', '.join(sorted(known)) or 'none'}"
        )
    if by and by not in DIMENSIONS:
        raise SensitivityError(f"by: {by!r} is no dimension; there are {', '.join(DIMENSIONS)}")
    if horizon_ns < 0 or from_ns >= to_ns:
        raise SensitivityError("from, horizon: the time must not be empty, and the horizon not below 0")
    exposure.checked(path)
    if (design == "natural") != (struck is not None):
        raise SensitivityError("design: natural needs a change and whom it struck (treated), and no other design does")
    if design == "experiment" and not experiment:
        raise SensitivityError("experiment: name the one whose assignments were imported")
    if experiment and design not in ("auto", "experiment"):
        raise SensitivityError(f"experiment: is not of the design {design}; leave one of them out")
    ripe_ns = min(to_ns, (to_ns if now_ns is None else now_ns) - horizon_ns)
    if ripe_ns <= from_ns:
        raise SensitivityError("horizon: is longer than the time; nothing in it is ripe")
    span = (from_ns, ripe_ns)
    rows, notes = _read(store, path, kpi, definition, exposure, span, modes, absent, most_rows, progress)
    if ripe_ns < to_ns:
        notes = (*notes, f"What began within {horizon_ns / NS:g} s of the end is left out: its values may still come.")
    whole = len(rows)
    if exposure.kind in ("latency", "data_age"):
        rows, (least, largest) = supported(rows, most)
    else:
        least, largest = (float(rows.exposure.min()), float(rows.exposure.max())) if whole else (0.0, 0.0)
    left = {**rows.left_out, "outside the exposures seen": whole - len(rows)}
    if len(rows) < LEAST_ROWS:
        raise SensitivityError(
            f"kpi: {len(rows)} rows with a value of {kpi} are fewer than {LEAST_ROWS}; take a longer time"
            f" (of {rows.messages:,} messages left out: {_counted(left)})"
        )
    words = Words(kpi=kpi, kpi_unit=definition.unit, exposure=exposure.words, unit=exposure.unit)
    layout = laid(rows)
    result = sensitivity(layout.given, words, seed)
    found = None
    if struck is not None:
        found = designs.by_change(store, rows, struck, words)
        result = designs.with_natural(result, found)
    elif experiment:
        given = assignments.assigned(store, experiment, rows)
        left["not in the experiment"] = int(np.isnan(given.dose).sum())
        result = designs.with_experiment(result, layout, rows, given, words)
        arms = ", ".join(f"{arm} {n:,}" for arm, n in sorted(given.arms.items()))
        notes = (*notes, f"Messages by arm of {experiment}: {arms}.")
        if design == "experiment":  # nothing else was asked for
            result = replace(result, answer=result.rungs[0], sentence=result.rungs[0].sentence)
    elif design == "dml":
        result = designs.with_double(result, layout, rows, words, seed)
    groups = _groups(rows, by, layout.cluster_s, words, seed) if by else ()
    if groups:
        answered = sum(1 for one in groups if one.result is not None)
        said = f"Each of the {answered} answers by {by} has its own 95 % interval: of 20 one is expected to be wrong."
        notes = (*notes, said, "They compare within strata, whatever the design of the answer for all.")
    shape, why = _curve(rows, layout, definition, exposure, seed) if curve else (None, "was not asked for")
    share = completeness.share(store, from_ns, to_ns)
    return Asked(
        path=path.name, kpi=kpi, unit=definition.unit, exposure=exposure, from_ns=from_ns, to_ns=to_ns,
        source=rows.source, rows=len(rows), messages=rows.messages, sampled=rows.sampled,
        left_out={what: n for what, n in left.items() if n}, mean=float(rows.kpi.mean()),
        exposure_mean=float(rows.exposure.mean()), least=least, most=largest, cluster_s=layout.cluster_s,
        stratum_s=layout.stratum_s, result=result, curve=shape, no_curve=why, by=by,
        groups=groups,
        completeness=share.share if share.share is not None else share.known_share, notes=notes, natural=found,
    )  # fmt: skip


def _read(
    store: Store, path: Path, kpi: str, definition: KpiDefinition, exposure: Exposure, span: tuple[int, int],
    modes: tuple[Mode, ...] | None, absent: Absent, most_rows: int, progress: Progress | None,
) -> tuple[Rows, tuple[str, ...]]:  # fmt: skip
    from_ns, to_ns = span
    if reading.has_message_values(store, kpi):
        rows = reading.of_messages(
            store,
            path,
            kpi,
            exposure,
            from_ns=from_ns,
            to_ns=to_ns,
            modes=modes,
            absent=absent,
            most_rows=most_rows,
            progress=progress,
        )
        notes = rows.notes
        lost = rows.left_out.get("unfinished", 0)
        if lost > _MANY_UNFINISHED * max(rows.messages, 1):
            notes = (
                *notes, f"{lost:,} messages never finished and have no latency: who remains are survivors. Ask for the "
                "exceedance of a threshold, which counts them as slow.",
            )  # fmt: skip
        if rows.sampled < 1:
            notes = (*notes, f"{rows.sampled:.2%} of the messages were taken, by a hash of their key.")
        return rows, notes
    if absent == "zero":
        raise SensitivityError("absent: is of values of single messages, and there are none of this KPI")
    rows = reading.of_intervals(store, path, kpi, exposure, from_ns=from_ns, to_ns=to_ns, modes=modes)
    notes = rows.notes
    if definition.kind == "sum":
        notes = (*notes, "The KPI is a sum: busy intervals have more of it. The load is held fixed; a ratio is better.")
    return rows, notes


def _curve(
    rows: Rows, layout: Laid, definition: KpiDefinition, exposure: Exposure, seed: int
) -> tuple[Curve | None, str]:
    """The shape over the exposure; the direction is that slower is worse."""
    if not exposure.in_ms:
        return None, "slow or not has no shape"
    worse: Direction = "down" if definition.good == "up" else "up"
    try:
        return response(rows.kpi, rows.exposure, layout.day, layout.stratum, worse, seed=seed), ""
    except SensitivityError as error:
        return None, str(error)


def _groups(rows: Rows, by: str, cluster_s: int, words: Words, seed: int) -> tuple[Group, ...]:
    """The ladder among the rows of each value, the commonest first."""
    column = rows.dimensions[by].cast(str)
    counts = column.value_counts(sort=True, name="n")
    found = []
    for value, n in counts.head(MOST_GROUPS).iter_rows():
        some = rows.where((column == value).to_numpy())
        mean = float(some.kpi.mean())
        if n < LEAST_ROWS:
            found.append(Group(value, n, mean, None, f"{n} rows are fewer than {LEAST_ROWS}"))
            continue
        try:
            result = sensitivity(
                laid(some, cluster_s).given, replace(words, kpi=f"{words.kpi} of {value or 'others'}"), seed
            )
            found.append(Group(value, n, mean, result))
        except SensitivityError as error:
            found.append(Group(value, n, mean, None, str(error)))
    return tuple(found)


def _counted(left: Mapping[str, int]) -> str:
    return ", ".join(f"{n:,} {what}" for what, n in left.items() if n) or "none"
