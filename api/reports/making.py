"""A report from what a directory or a server has: its paths, measures, objectives and the alerts' episodes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path as File

from analytics.kpis import KpiDefinition
from analytics.money.declared import Money
from analytics.money.scenario_files import Scenarios, read_scenarios
from analytics.paths import Path
from analytics.report.estimating import estimate
from analytics.report.gather import Asked, NothingToReportError, Progress, gather
from analytics.report.period import Period
from analytics.report.value import EpisodeLine, Report
from analytics.slo.objectives import Objective
from api.control import Control
from api.plan_book import PlanBook, PlanError
from api.slo_book import SloBook
from collector.store import Store

_MOST_EPISODES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is declared: paths by name, measures, objectives in force, and the episodes of alerts."""

    paths: Mapping[str, Path]
    kpis: Mapping[str, KpiDefinition]
    money: Money = field(default_factory=Money)
    objectives: tuple[Objective, ...] = ()
    episodes: tuple[EpisodeLine, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody asks for."""

    time: Period
    title: str = "Latency and what it costs"
    paths: tuple[str, ...] = ()
    kpi: str = ""
    rollup: str = ""
    scenarios: Scenarios | None = None


def make(store: Store, known: Known, wanted: Wanted, now_ns: int, progress: Progress | None = None) -> Report:
    """The report. Raises NothingToReportError for an unknown path or measure, and StoreError."""
    for name in wanted.paths:
        if name not in known.paths:
            names = ", ".join(sorted(known.paths)[:20]) or "none"
            raise NothingToReportError(f"no path is called {name[:80]!r}; there are: {names}")
    # Without a choice it is of what somebody declared; of what was learned where nobody declared anything.
    declared = [path for name, path in known.paths.items() if not name.startswith(("otel:", "metric:"))]
    chosen = [known.paths[name] for name in wanted.paths] or declared or list(known.paths.values())
    chosen.sort(key=lambda path: not path.revenue_node)  # what the business depends on comes first
    asked = Asked(
        time=wanted.time, paths=chosen, title=wanted.title, rollup=wanted.rollup, kpis=known.kpis, kpi=wanted.kpi,
        scenarios=wanted.scenarios, objectives=known.objectives, episodes=known.episodes, money=known.money,
        estimate=estimate,
    )  # fmt: skip
    return gather(store, asked, now_ns, progress)


def scenarios_of(named: str, base: File, control: Control | None) -> Scenarios | None:
    """The investments of a file (relative to `base`), or of a saved plan; None where none are named.

    Raises ConfigError naming file and field, and NothingToReportError for a name that is neither.
    """
    if not named:
        return None
    file = base / named
    if file.is_file() or control is None or file.suffix == ".toml":
        return read_scenarios(file)
    try:
        return PlanBook(control).load(named)
    except PlanError as error:
        raise NothingToReportError(f"{error}; and there is no file {file}") from None


def episodes(control: Control) -> tuple[EpisodeLine, ...]:
    """Alerts that have fired, as far back as the control state holds them."""
    return tuple(
        EpisodeLine(
            episode=one.episode, objective=one.objective, rule=one.rule, breach_ns=one.breach_ns,
            fired_ns=one.fired_ns, resolved_ns=one.resolved_ns or None,
        )
        for one in SloBook(control).episodes(limit=_MOST_EPISODES)
    )  # fmt: skip
