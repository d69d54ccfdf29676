"""`tailsight collectors`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code
from api.cli.query import plain

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """Add the command to the tree."""

    @command(root, "collectors", examples=("tailsight collectors",))
    def collectors(run: Run) -> Answer:
        """What is collected and what is not, and why. Exit code 1 when a collector does not run."""
        from analytics.ledger import collectors as known
        from api.cli.opened import opened

        with opened(run) as store:
            rows = plain(known(store, time.time_ns()))
        running = bool(rows) and all(row["status"] in ("running", "degraded") for row in rows)

        def show(console: Console) -> None:
            from dashboards.terminal import collectors_table

            console.print(collectors_table(rows))

        return Answer({"collectors": rows}, show, Code.OK if running else Code.FINDING)
