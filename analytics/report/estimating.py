"""What latency does to a measure, for a report: asked of the store, or why there is no answer."""

from __future__ import annotations

from collections.abc import Mapping

from analytics.kpis import KpiDefinition
from analytics.money.ask import ask
from analytics.money.effects import Effect, SensitivityError
from analytics.paths import Path
from analytics.report.cost import Estimated
from analytics.report.period import Period
from analytics.report.words import clean, listed
from collector.record import Mode
from collector.store import Store

LEAST_NS = 28 * 86_400 * 10**9
BY = "cohort"


def estimate(
    store: Store, path: Path, known: Mapping[str, KpiDefinition], name: str, time: Period, rollup: str = ""
) -> Estimated:
    """The estimate over four weeks up to the period's end, or over both periods where they are longer.

    A period by itself often holds too few days. It is of users' messages; of another mode's where the report is of that
    rollup, and of a rollup by a label there is none.
    """
    modes: tuple[Mode, ...] | None = None
    if rollup:
        mode = rollup.removeprefix("mode=")
        if mode == rollup or mode not in Mode.__members__.keys() | {one.name.lower() for one in Mode}:
            return Estimated(refused=f"It is estimated among all messages, not among those with {rollup[:60]}.")
        modes = (next(one for one in Mode if one.name.lower() == mode.lower()),)
    from_ns = min(time.before.from_ns, time.to_ns - LEAST_NS)
    try:
        found = ask(store, path, name, known, from_ns=max(0, from_ns), to_ns=time.to_ns, by=BY, modes=modes)
    except SensitivityError as error:
        return Estimated(refused=str(error))
    except ImportError as error:
        return Estimated(refused=f"It needs the extra `business`: {error.name} is missing.")
    groups: list[tuple[str, str, Effect]] = [
        (BY, group.value or "others", group.result.answer)
        for group in found.groups
        if group.result is not None and not (group.result.answer.design == "strata" and group.result.checks_failed)
    ]
    notes = found.notes
    failed = [
        group.value or "others" for group in found.groups if group.result is not None and group.result.checks_failed
    ]
    if failed:
        notes = (
            *notes,
            f"Left out of the groups, because a check failed: {listed([clean(one, 40) for one in failed])}.",
        )
    return Estimated(found=found.result, curve=found.curve, cohorts=groups if len(groups) > 1 else (), notes=notes)
