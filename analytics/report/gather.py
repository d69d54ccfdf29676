"""Everything a report says, asked of the store and put into one `Report` value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from analytics import completeness, kpis
from analytics.feeds import feed_lines
from analytics.kpis import KpiDefinition
from analytics.money.declared import Money
from analytics.money.scenario_files import Scenarios
from analytics.paths import Path
from analytics.report.budgets import budget_lines
from analytics.report.changes import changes
from analytics.report.cost import Estimated, Measure, cost_of
from analytics.report.funding import funding
from analytics.report.headline import headline
from analytics.report.latency import path_line
from analytics.report.notes import GLOSSARY, METHOD
from analytics.report.period import Period
from analytics.report.prices import agreements, debts, priced_budgets, priced_episodes
from analytics.report.quality import quality
from analytics.report.reliability import reliability, within
from analytics.report.value import FORMAT, Cost, EpisodeLine, PathLine, Report
from analytics.report.words import clean
from analytics.slo.objectives import Objective
from collector.store import Store

Progress = Callable[[str, int, int], None]
MOST_PATHS = 12
MOST_COSTS = 6
Estimate = Callable[[Store, Path, Mapping[str, KpiDefinition], str, Period, str], Estimated]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a report is to be of; `objectives` and `episodes` come from the control state.

    `kpi` "" means every measure of the revenue node that a path names. `estimate` estimates what latency does to a
    measure; None leaves it out, and the report says so.
    """

    time: Period
    paths: Sequence[Path]
    title: str = "Latency and what it costs"
    rollup: str = ""
    kpis: Mapping[str, KpiDefinition] = field(default_factory=dict)
    kpi: str = ""
    scenarios: Scenarios | None = None
    objectives: Sequence[Objective] = ()
    episodes: Sequence[EpisodeLine] = ()
    money: Money = field(default_factory=Money)
    estimate: Estimate | None = None


class NothingToReportError(ValueError):
    """There is no path, or one that was asked for in vain; the message says what to do."""


def gather(store: Store, asked: Asked, now_ns: int, progress: Progress | None = None) -> Report:
    """The report. Raises NothingToReportError, ConfigError for an unknown measure, and StoreError."""
    if not asked.paths:
        raise NothingToReportError("no path is declared; declare [paths.NAME], or name one with --path")
    if len(asked.paths) > MOST_PATHS:
        raise NothingToReportError(
            f"{len(asked.paths)} paths are more than {MOST_PATHS} on one report; name some with --path"
        )
    tell = progress or _silent
    pairs = measures(asked)
    steps = len(asked.paths) + len(pairs) + 4
    lines: list[PathLine] = []
    for path in asked.paths:
        tell(f"latency of {path.name}", len(lines), steps)
        lines.append(path_line(store, path, asked.time, asked.rollup))
    by_name = {line.name: line for line in lines}
    costs: list[Cost] = []
    for path, name in pairs:
        tell(f"{name} and {path.name}", len(lines) + len(costs), steps)
        costs.append(_cost(store, asked, path, name, by_name[path.name]))
    at = len(lines) + len(costs)
    tell("error budgets", at, steps)
    budgets = budget_lines(store, asked.objectives, asked.time)
    pricer, episodes = asked.money.pricer(store, now_ns), tuple(asked.episodes)
    if asked.money.values and not asked.rollup:  # prices are of users' messages
        budgets = priced_budgets(pricer, budgets, asked.objectives, asked.time)
        episodes = priced_episodes(pricer, within(episodes, asked.time), asked.objectives, asked.time)
    tell("reliability", at + 1, steps)
    feeds = feed_lines(store, asked.time.from_ns, asked.time.to_ns)
    dependable = reliability(
        episodes, feeds, asked.time, objectives=len(asked.objectives), revenue=_revenue(store, asked)
    )
    tell("scenarios", at + 2, steps)
    funded = funding(asked.scenarios)
    tell("changes", at + 3, steps)
    changed = changes(store, asked.paths, asked.time, rollup=asked.rollup)
    good = quality(completeness.share(store, asked.time.from_ns, asked.time.to_ns, now_ns=now_ns), lines)
    tell("done", steps, steps)
    return Report(
        format=FORMAT,
        title=clean(asked.title, 100),
        made_ns=now_ns,
        from_ns=asked.time.from_ns,
        to_ns=asked.time.to_ns,
        before_from_ns=asked.time.before.from_ns,
        asked=asked.time.asked,
        population=asked.rollup,
        headline=headline(lines, costs, budgets, dependable, funded),
        paths=tuple(lines),
        costs=tuple(costs),
        budgets=budgets,
        budgets_unknown="" if budgets else "No objective is in force, so that there is no budget to burn.",
        reliability=dependable,
        funding=funded,
        agreements=agreements(store, asked.money, asked.time, now_ns),
        debts=debts(pricer, asked.money, asked.episodes, asked.time),
        currency=asked.money.settings.currency,
        changes=changed,
        quality=good,
        method=METHOD,
        glossary=GLOSSARY,
    )


def _silent(what: str, done: int, of: int) -> None:
    """Nobody watches."""


def measures(asked: Asked) -> list[tuple[Path, str]]:
    """The pairs of path and measure that a report estimates, at most 6. Raises NothingToReportError."""
    if asked.kpi:
        if asked.kpi not in asked.kpis:
            known = ", ".join(sorted(asked.kpis)) or "none"
            raise NothingToReportError(f"no measure is called {asked.kpi!r}; declared under [kpis] are: {known}")
        node = asked.kpis[asked.kpi].node
        fitting = [path for path in asked.paths if path.revenue_node and path.revenue_node == node]
        return [(path, asked.kpi) for path in (fitting or asked.paths)[:MOST_COSTS]]
    found = [
        (path, name)
        for path in asked.paths
        if path.revenue_node
        for name, one in sorted(asked.kpis.items())
        if one.node == path.revenue_node
    ]
    return found[:MOST_COSTS]


def _cost(store: Store, asked: Asked, path: Path, name: str, line: PathLine) -> Cost:
    one = asked.kpis[name]
    values = [
        next(iter(kpis.series(store, asked.kpis, from_ns=t.from_ns, to_ns=t.to_ns, names=[name])), None)
        for t in (asked.time, asked.time.before)
    ]
    now, before = (None if v is None else v.value for v in values)
    measure = Measure(name=name, unit=one.unit, good=one.good, value=now, before=before)
    if asked.estimate is None:
        return cost_of(line, measure, Estimated())
    return cost_of(line, measure, asked.estimate(store, path, asked.kpis, name, asked.time, asked.rollup))


def _revenue(store: Store, asked: Asked) -> tuple[float, str] | None:
    """(amount, currency) of the one measure that adds up, of the nodes that the paths name."""
    nodes = {path.revenue_node for path in asked.paths} - {""}
    names = [name for name, one in asked.kpis.items() if one.kind == "sum" and one.node in nodes]
    if len(names) != 1:
        return None
    found = kpis.series(store, asked.kpis, from_ns=asked.time.from_ns, to_ns=asked.time.to_ns, names=names)
    if not found or found[0].value is None:
        return None
    return found[0].value, asked.kpis[names[0]].unit
