"""`tailsight slo gate`: what a gate answers, as an exit code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.slo import app

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(app, "gate", examples=("tailsight slo gate rollout && ./deploy.sh", "tailsight slo gate --json"))
def gate(run: Run, name: Annotated[str | None, typer.Argument(help="The gate. (default: all)")] = None) -> Answer:
    """May a deployment go on? Exit code 0 when the gate lets pass, 1 when it does not, 4 when there is no such gate.

    It answers what the server judged last; when that is too old, the gate is unknown. Without a name all are shown,
    and nothing is recorded. A changed answer is audited.
    """
    import time

    from analytics.slo.gates import gates_from
    from api.audit import Audit
    from api.cli.acting import actor, control_of
    from api.gates import GateBook, answered, tell

    gates = gates_from(run.document(), run.source)
    if name is not None and name not in gates:
        known = ", ".join(sorted(gates)) or "none; declare [gates.NAME]"
        raise CommandError(Code.DATA, f"no gate is called {name!r}; there are {known}", kind="not_found")
    with control_of(run) as control:
        book = GateBook(control)
        rows, now = book.rows(), time.time_ns()
        found = [answered(one, gates[one], rows.get(one), now) for one in ([name] if name else sorted(gates))]
        if name is not None:
            tell(book, Audit(control), actor(), found[0])
    passes = bool(found) and all(one["passes"] for one in found)
    value = found[0] if name is not None else {"gates": found}
    return Answer(value, lambda console: _show(console, found), Code.OK if passes else Code.FINDING)


def _show(console: Console, found: list[dict[str, Any]]) -> None:
    from dashboards.terminal import plain_table

    if not found:
        console.print("no gate is declared; write [gates.NAME] into the configuration")
    for one in found:
        says = "lets pass" if one["passes"] else "does not let pass"
        console.print(f"{one['name']}: {one['verdict']}, {says}" + (f": {one['why']}" if one["why"] else ""),
                      markup=False, soft_wrap=True)  # fmt: skip
        body = [
            (
                side["name"], side["verdict"], "-" if side["value"] is None else f"{side['value']:.6g}",
                f"{side['op']} {side['limit']:g}" if side["limit"] is not None else "-", f"{side['count']:g}",
            )
            for side in one["sides"]
        ]  # fmt: skip
        console.print(plain_table("sides", ("side", "says", "value", "has to be", "events"), body))
