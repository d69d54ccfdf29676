"""`tailsight doctor`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from api.doctor.report import Report
    from collector.store import Store


def register(root: typer.Typer) -> None:
    """Add the command to the tree."""

    @command(root, "doctor", examples=("tailsight doctor", "tailsight doctor --json"))
    def doctor(run: Run) -> Answer:
        """Is every produced event accounted for, what is not collected, and what would change that?

        Works with and without a running server. Exit code 0 when the store answers and every difference is 0,
        1 otherwise.
        """
        from api.cli.opened import opened
        from api.cli.version import versions
        from api.doctor.report import examine
        from collector.agent.registry import ring_dir
        from collector.agent.settings import AgentSettings
        from collector.settings import section
        from collector.store import StoreError

        with ExitStack() as stack:
            store: Store | None = None
            absent = ""
            try:
                store = stack.enter_context(opened(run))
            except (CommandError, StoreError) as error:
                absent = str(error)
            settings = section(run.document().get("agent", {}), AgentSettings, "agent", run.source)
            report = examine(run.data, Path(ring_dir(settings)), store, absent, versions())
        return Answer(report, lambda console: _show(console, report), Code.OK if report.ok else Code.FINDING)


def _show(console: Console, report: Report) -> None:
    from dashboards.terminal import collectors_table, ledger_table, plain_table

    server = f"{report.server['url']} (pid {report.server['pid']})" if report.server else "not running"
    console.print(f"Server: {server}")
    engine = f"{report.store.get('engine', '')} {report.store.get('version', '')}".strip()
    console.print("Store: " + (f"{engine} answers" if report.store["ok"] else report.store["detail"]))
    console.print()
    if report.ledger:
        console.print(ledger_table(report.ledger))
        console.print()
    if report.collectors:
        console.print(collectors_table(report.collectors))
        console.print()
    body = [(check.name, check.status, check.detail, check.fix) for check in report.system]
    console.print(plain_table("This machine", ("check", "status", "detail", "what would help"), body))
    console.print()
    for finding in report.findings:
        console.print(finding, style="bold red")
    if report.ok:
        console.print("Everything is accounted for.", style="green")
