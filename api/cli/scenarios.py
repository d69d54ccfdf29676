"""`tailsight scenarios`: investment scenarios as files, valued, compared and saved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True)


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="scenarios", help="Investments in latency: value, risk, ranking.")


@command(app, "new", examples=("tailsight scenarios new plan.toml",))
def new(
    run: Run, file: Annotated[Path, typer.Argument(metavar="FILE", help="The file to write; it must not exist.")]
) -> Answer:
    """Write an example to start from: an edge of your own, a managed one, and a hybrid. All amounts are invented."""
    from analytics.money.scenario_files import example

    del run
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(example())
    except FileExistsError:
        raise CommandError(Code.USAGE, f"{file} exists already; name another one", kind="file") from None
    return Answer(
        {"file": file},
        lambda console: console.print(f"wrote {file}: put your own amounts in, then `tailsight scenarios run {file}`"),
    )


@command(
    app,
    "run",
    examples=("tailsight scenarios run plan.toml", "... plan.toml --draws 50000 --json", "... plan.toml --save edge"),
)
def run_(
    run: Run,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Scenarios as TOML, or the name of saved ones.")],
    draws: Annotated[int, typer.Option(help="Draws of the Monte Carlo, 1000 to 200000.")] = 20_000,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 1,
    save: Annotated[
        str, typer.Option("--save", metavar="NAME", help="Keep them under this name for the server and its reports.")
    ] = "",
) -> Answer:
    """Value the scenarios of a file: net present value with its risk, what decides it, and which one to fund.

    Exit code 1 when none of them passes the gate of the file, 2 for a mistake in it, named by field.
    """
    import msgspec

    from analytics.money.finance import FinanceError
    from analytics.money.plans import plans
    from analytics.money.scenario_files import scenarios_from
    from api.cli.acting import actor, control_of
    from api.plan_book import PlanBook, PlanError, check_name
    from collector.settings import read_toml

    try:
        if save:
            check_name(save)
        if not file.exists() and file.suffix == "" and (run.data / "control.sqlite").exists():
            with control_of(run) as control:
                given, document = PlanBook(control).load(str(file)), None
        else:
            document = read_toml(file)
            given = scenarios_from(document, str(file))
        found = plans(given, draws, seed)
    except FinanceError as error:
        raise CommandError(Code.USAGE, str(error), kind="scenarios") from error
    except PlanError as error:
        raise CommandError(Code.DATA, str(error), kind="not_found") from error
    if save and document is not None:
        from api.audit import Audit

        with control_of(run) as control:
            PlanBook(control).save(save, document, actor())
            Audit(control).record(actor(), "scenarios.save", save, "ok", {"scenarios": sorted(given.scenarios)})
    value = msgspec.to_builtins(found)

    def show(console: Console) -> None:
        from dashboards.money_view import scenario_tables

        for part in scenario_tables(value):
            console.print(part, markup=False) if isinstance(part, str) else console.print(part)

    passed = any(one.passes_gate for one in found.scenarios)
    return Answer(value, show, Code.OK if passed else Code.FINDING)


@command(app, "list", examples=("tailsight scenarios list",))
def list_(run: Run) -> Answer:
    """The scenarios that were saved. Exit code 1 when there are none."""
    rows = _saved(run)

    def show(console: Console) -> None:
        from api.cli.times import format_time
        from dashboards.terminal import plain_table

        body = [(row["name"], format_time(row["saved_ns"]), row["saved_by"]) for row in rows]
        console.print(plain_table("scenarios", ("name", "saved", "by"), body))

    return Answer({"scenarios": rows}, show, Code.OK if rows else Code.FINDING)


@command(app, "remove", examples=("tailsight scenarios remove edge",))
def remove(run: Run, name: Annotated[str, typer.Argument(help="The saved scenarios' name.")]) -> Answer:
    """Forget saved scenarios. Exit code 4 for an unknown name."""
    from api.audit import Audit
    from api.cli.acting import actor, control_of
    from api.plan_book import PlanBook, PlanError

    with control_of(run) as control:
        try:
            PlanBook(control).remove(name)
        except PlanError as error:
            raise CommandError(Code.DATA, str(error), kind="not_found") from error
        Audit(control).record(actor(), "scenarios.remove", name, "ok", {})
    return Answer({"removed": name}, lambda console: console.print(f"removed {name}", markup=False))


def _saved(run: Run) -> list[dict[str, Any]]:
    from api.cli.acting import control_of
    from api.plan_book import PlanBook

    if not (run.data / "control.sqlite").exists():
        return []
    with control_of(run) as control:
        return PlanBook(control).names()
