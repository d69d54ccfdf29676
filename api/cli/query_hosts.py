"""`tailsight query hosts`: what each host is set to, and what is not as declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code
from api.cli.query import app as query
from api.cli.query import plain
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(query, "hosts", examples=("tailsight query hosts --drift", "tailsight query hosts 'cpu.*' --host web-1"))
def hosts(
    run: Run,
    item: Annotated[str, typer.Argument(help="Only items of this name; * and ? stand for any.")] = "",
    host: Annotated[str, typer.Option(help="Only this host. (default: all)")] = "",
    drift: Annotated[bool, typer.Option("--drift", help="Only what is not as the declared profile says.")] = False,
    history: Annotated[bool, typer.Option("--history", help="The values that ITEM had.")] = False,
) -> Answer:
    """What each host is set to: kernel, CPUs, interrupts, cards, limits; and what drifts from its profile.

    Exit code 1 when nothing is stored, or when --drift finds something.
    """
    from analytics.host_settings import host_history, host_items
    from api.cli.opened import opened

    with opened(run) as store:
        rows = plain(host_items(store, host, item, drift))
        values = plain(host_history(store, item, host)) if history and item else []
    off = sum(1 for row in rows if row["state"] and row["expected"])

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [(r["host"], r["item"], r["value"], r["expected"], r["state"]) for r in rows]
        console.print(plain_table("Hosts", ("host", "item", "value", "expected", ""), body))
        if values:
            body = [(format_time(v["ts_ns"])[:19], v["host"], v["value"], v["state"], "") for v in values]
            console.print(plain_table(item, ("from", "host", "value", "", ""), body))

    finding = off > 0 if drift else not rows
    return Answer({"drift": off, "hosts": rows, "history": values}, show, Code.FINDING if finding else Code.OK)
