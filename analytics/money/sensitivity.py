"""How a KPI answers to latency, by the best design that the data hold, which names itself.

The ladder: an experiment (assignment given), else a comparison within strata with a placebo and a negative control. The
naive slope stands beside it as a warning and is never the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analytics.money.effects import Effect, Floats, Ints, SensitivityError, Words, finite
from analytics.money.instruments import experiment
from analytics.money.strata import codes, compared, deciles, within

_MAX_ROWS = 20_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Observations:
    """One row per message or interval; every column has n values.

    `cluster` is what may share a cause: a block of time, or the unit that was assigned. `load` is the measured load, of
    which the deciles are strata and the value a control. `assignment` is the dose that chance assigned. `lead` is the
    exposure of the next period and `earlier` the KPI of the period before (NaN: not known), for the two checks.
    `before` is what moved that earlier KPI rightly (its own exposure and load), which the second check holds
    fixed; `beside` are further controls (a column of 0 and 1 per cohort, say).
    """

    kpi: Floats
    exposure: Floats
    cluster: Ints
    segment: Sequence[object] | None = None
    hour: Ints | None = None
    load: Floats | None = None
    assignment: Floats | None = None
    lead: Floats | None = None
    earlier: Floats | None = None
    before: Sequence[Floats] = ()
    beside: Sequence[Floats] = ()


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """The answer, and everything beside it. `checks_failed` names checks that moved although they must not."""

    answer: Effect
    rungs: tuple[Effect, ...]
    naive: Effect
    checks: tuple[Effect, ...]
    checks_failed: tuple[str, ...]
    sentence: str


def strata_of(given: Observations) -> Ints:
    """Segment x hour x decile of load, as far as they are known."""
    n = len(given.kpi)
    columns: list[object] = [np.zeros(n, dtype=np.int64)]
    for name in ("segment", "hour"):
        column = getattr(given, name)
        if column is not None:
            if len(column) != n:
                raise SensitivityError(f"{name}: must be one column of {n} values")
            columns.append(np.asarray(column))
    if given.load is not None:
        columns.append(deciles(finite("load", given.load, n)))
    return codes(*columns)  # type: ignore[arg-type]


def _checks(given: Observations, stratum: Ints, controls: list[Floats], words: Words, seed: int) -> list[Effect]:
    found = []
    n = len(given.kpi)
    if given.lead is not None:
        # The next period's latency cannot have moved this KPI; this period's is held fixed, which it resembles.
        known = _known("lead", given.lead, n)
        beside = [c[known] for c in (*controls, np.asarray(given.exposure, dtype=np.float64))]
        data = within(given.kpi[known], given.lead[known], given.cluster[known], stratum[known], beside)
        found.append(compared("placebo lead", data, words, seed))
    if given.earlier is not None:
        known = _known("earlier", given.earlier, n)
        for number, held in enumerate(given.before):
            known &= _known(f"before {number}", held, n)
        beside = [c[known] for c in (*controls, *(np.asarray(held, dtype=np.float64) for held in given.before))]
        data = within(given.earlier[known], given.exposure[known], given.cluster[known], stratum[known], beside)
        found.append(compared("negative control", data, words, seed))
    return found


def _known(name: str, values: Floats, n: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    if len(values) != n:
        raise SensitivityError(f"{name}: must be one column of {n} values")
    return np.isfinite(np.asarray(values, dtype=np.float64))


def sensitivity(given: Observations, words: Words | None = None, seed: int = 1) -> Sensitivity:
    """Climb the ladder from its top and answer with the first design that can.

    Raises SensitivityError naming a column that is wrong. A check that fails turns an association into a refusal to
    claim: the answer stays visible and the sentence says that it must not be used.
    """
    words = words or Words()
    kpi = finite("kpi", given.kpi)
    if not len(kpi):
        raise SensitivityError("kpi: there are no rows")
    if len(kpi) > _MAX_ROWS:
        raise SensitivityError(f"kpi: {len(kpi)} rows are more than {_MAX_ROWS}; sum them by interval first")
    if len(given.cluster) != len(kpi):
        raise SensitivityError(f"cluster: must be one column of {len(kpi)} values")
    stratum = strata_of(given)
    controls = [] if given.load is None else [finite("load", given.load, len(kpi))]
    controls += [finite(f"beside {number}", column, len(kpi)) for number, column in enumerate(given.beside)]
    rungs = []
    if given.assignment is not None:
        assigned = within(kpi, given.exposure, given.cluster, None, (), [given.assignment])
        rungs.append(experiment(assigned, words))
    rungs.append(compared("strata", within(kpi, given.exposure, given.cluster, stratum, controls), words, seed))
    naive = compared("naive", within(kpi, given.exposure, given.cluster), words, seed)
    checks = _checks(given, stratum, controls, words, seed)
    failed = tuple(check.design for check in checks if check.seen)
    answer = next((rung for rung in rungs if rung.verdict != "refused"), rungs[0])
    sentence = answer.sentence
    if answer.design == "strata" and failed:
        sentence = (
            f"No claim: the check that must show nothing ({', '.join(failed)}) shows something, so what else moves "
            f"{words.kpi} is not held fixed. Only an experiment can answer."
        )
    return Sensitivity(answer, tuple(rungs), naive, tuple(checks), failed, sentence)
