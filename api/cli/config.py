"""`tailsight config`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code

app = typer.Typer(no_args_is_help=True)
_SECTIONS = frozenset(
    {
        "points",
        "probes",
        "heartbeat",
        "maintenance",
        "standby",
        "paths",
        "windows",
        "store",
        "retention",
        "landing",
        "agent",
        "server",
        "learned",
        "kpis",
        "kpi_sources",
        "slo",
        "gates",
        "reports",
        "notify",
        *("money", "value", "actions", "showback", "debts", "agreements"),
    }
)


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="config", help="Check the configuration.")


@command(app, "check", examples=("tailsight config check", "tailsight config check tailsight.toml"))
def check(
    run: Run,
    file: Annotated[Path | None, typer.Argument(help="File to check. (default: the one in force)")] = None,
) -> Answer:
    """Read every section as the programs that own it do. Exit code 2 and the field's name when one is wrong."""
    from collector.settings import read_toml

    chosen = file or run.config_file
    source = str(chosen or "")
    document = read_toml(chosen) if chosen else {}
    summary = examine(document, source)
    value = {"file": source or None, "ok": True, **summary}
    where = source or "defaults (there is no file)"
    return Answer(
        value,
        lambda console: console.print(
            f"{where}: ok, {len(summary['paths'])} paths, {len(summary['points'])} points of its own"
        ),
        Code.OK,
    )


def examine(document: dict[str, Any], source: str) -> dict[str, list[str]]:
    """Read the whole document; returns the names it declares. Raises ConfigError."""
    from analytics.kpis import kpis_from
    from analytics.learned import LearnedSettings
    from analytics.money.declared import money_from
    from analytics.probe_paths import declared_paths
    from analytics.slo.gates import gates_from
    from analytics.slo.maintenance import windows_from
    from analytics.slo.settings import SloSettings
    from analytics.windows import WindowSettings
    from api.kpi_sources import sources_from
    from api.notify.heartbeat import watchers_from
    from api.notify.settings import targets_from
    from api.reports.settings import reports_from
    from api.server_settings import ServerSettings
    from api.standby.settings import StandbySettings
    from collector.agent.settings import AgentSettings, agent_body
    from collector.landing import LandingSettings
    from collector.points import points_from
    from collector.settings import ConfigError, section
    from collector.store.schema import Retention
    from collector.store.settings import StoreSettings

    for name in document:
        if name not in _SECTIONS:
            raise ConfigError(name, f"is no section; there are {', '.join(sorted(_SECTIONS))}", source)
    points = points_from(document, source)
    paths = declared_paths(document, points, source)
    kpis = kpis_from(document, source)
    money_from(document, paths, kpis, source)
    sources_from(document, source)
    targets = targets_from(document, source)
    calendars = section(document.get("slo", {}), SloSettings, "slo", source).calendars
    webhooks = [name for name, target in targets.items() if target.kind == "webhook"]
    gates_from(document, source, kpis=kpis, calendars=calendars, webhooks=webhooks)
    reports_from(document, source)
    watchers_from(document, source)
    windows_from(document, source)
    for name, kind in (
        ("windows", WindowSettings),
        ("store", StoreSettings),
        ("retention", Retention),
        ("landing", LandingSettings),
        ("standby", StandbySettings),
        ("server", ServerSettings),
        ("learned", LearnedSettings),
    ):
        section(document.get(name, {}), kind, name, source)
    section(agent_body(document, source), AgentSettings, "agent", source)
    return {"points": sorted(document.get("points", {})), "paths": sorted(paths)}
