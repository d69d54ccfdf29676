"""A report from what a directory or a server has: its paths, measures, objectives and the alerts' episodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path as File

from analytics.kpis import KpiDefinition
from analytics.money.scenario_files import Scenarios, read_scenarios
from analytics.paths import Path
from analytics.report.estimating import estimate
from analytics.report.gather import Asked, NothingToReportError, Progress, gather
from analytics.report.period import Period
from analytics.report.value import EpisodeLine, Report
from analytics.slo.objectives import Objective
from api.control import Control
from api.slo_book import SloBook
from collector.store import Store

_MOST_EPISODES = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is declared: paths by name, measures, objectives in force, and the episodes of alerts."""

    paths: Mapping[str, Path]
    kpis: Mapping[str, KpiDefinition]
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
        scenarios=wanted.scenarios, objectives=known.objectives, episodes=known.episodes, estimate=estimate,
    )  # fmt: skip
    return gather(store, asked, now_ns, progress)


def scenarios_of(file: File | None) -> Scenarios | None:
    """The investments of a file. Raises ConfigError naming file and field."""
    return None if file is None else read_scenarios(file)


def episodes(control: Control) -> tuple[EpisodeLine, ...]:
    """Alerts that fired, as far back as the control state holds them (30 days after they were told)."""
    found: dict[str, EpisodeLine] = {}
    sql = "SELECT episode, kind, objective, rule, at_ns, body FROM slo_outbox ORDER BY id DESC LIMIT ?"
    for row in reversed(control.rows(sql, (_MOST_EPISODES,))):
        if row["kind"] not in ("firing", "resolved"):
            continue
        body = json.loads(row["body"])
        before = found.get(row["episode"])
        fired = int(body.get("fired_ns") or (before.fired_ns if before else row["at_ns"]))
        found[row["episode"]] = EpisodeLine(
            episode=row["episode"], objective=row["objective"], rule=row["rule"],
            breach_ns=int(body.get("breach_ns") or (before.breach_ns if before else fired)), fired_ns=fired,
            resolved_ns=int(body.get("resolved_ns") or row["at_ns"]) if row["kind"] == "resolved" else None,
        )  # fmt: skip
    for alert in SloBook(control).alerts():
        if alert.fired_ns and alert.episode:
            found[alert.episode] = EpisodeLine(
                episode=alert.episode, objective=alert.objective, rule=alert.rule, breach_ns=alert.breach_ns,
                fired_ns=alert.fired_ns, resolved_ns=alert.resolved_ns or None,
            )  # fmt: skip
    return tuple(found.values())
