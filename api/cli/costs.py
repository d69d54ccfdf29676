"""`tailsight costs` and `tailsight query velocity`: what latency costs, and whom."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import PathOption, time_range
from api.cli.query import app as query

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.money.declared import Money
    from analytics.slo.episodes import Episode
    from analytics.slo.objectives import Objective

app = typer.Typer(no_args_is_help=True)
FromOption = Annotated[str, typer.Option("--from", metavar="TIME", help="2026-11-21T09:30:00Z, ns since 1970, -15m.")]
ToOption = Annotated[str, typer.Option("--to", metavar="TIME", help="End, not included.")]
_NOTHING = "Nothing is declared. docs/costs.md shows the section; deploy/examples/money has a file of each kind."


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="costs", help="What burned budgets, debts and degraded modes cost; showback; agreements.")


@command(app, "objectives", examples=("tailsight costs objectives", "... --from -30d --json"))
def objectives(run: Run, from_: FromOption = "-7d", to: ToOption = "now") -> Answer:
    """What each objective's burned budget has cost in its period, what it costs per hour now, and each episode's cost.

    The time is that of the episodes. Exit code 1 when nothing of it is money; it says why.
    """
    from api import cost_answers
    from api.cli.opened import opened

    span = _span(from_, to)
    money, (some, episodes) = declared(run), _control(run, span)
    with opened(run) as store:
        found = cost_answers.objectives(store, money, some, episodes)

    def show(console: Console) -> None:
        from api.cli.times import format_time
        from dashboards.money_view import episodes_table, objectives_table

        console.print(objectives_table(found["objectives"], found["currency"]))
        if found["episodes"]:
            rows = [{**one, "begun": format_time(one["breach_ns"])} for one in found["episodes"]]
            console.print(episodes_table(rows, found["currency"]))

    priced = any(one["period"]["cost"]["low"] is not None for one in found["objectives"])
    return Answer(found, show, Code.OK if priced else Code.FINDING)


@command(app, "effect", examples=("tailsight costs effect --path order --kpi revenue --from -30d --out effect.json",))
def effect(
    run: Run,
    path: PathOption,
    kpi: Annotated[str, typer.Option("--kpi", help="The measure that stands for revenue.")],
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Where to write the effect.")] = None,
    from_: FromOption = "-30d",
    to: ToOption = "now",
) -> Answer:
    """Measure what a millisecond from end to end does to a measure, as a file for `effect_file` of `[value.PATH]`.

    Exit code 1 when no effect is detectable, 4 when there is no answer that may become money; it says why.
    """
    import msgspec

    from analytics.kpis import kpis_from
    from analytics.money.ask import ask
    from analytics.money.effects import SensitivityError
    from analytics.money.saved_effects import effect_of
    from api.cli.opened import opened, path_named

    known, span = path_named(run, path), _span(from_, to)
    with opened(run) as store:
        try:
            asked = ask(
                store, known, kpi, kpis_from(run.document(), run.source), from_ns=span[0], to_ns=span[1], curve=False
            )
            found = effect_of(asked)
        except SensitivityError as error:
            raise CommandError(Code.DATA, str(error), kind="no_effect") from error
    value = {"effect": msgspec.to_builtins(found), "sentence": asked.sentence, "notes": list(asked.notes)}
    if out is not None:
        out.write_bytes(msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n")

    def show(console: Console) -> None:
        console.print(asked.sentence, markup=False)
        for line in asked.notes:
            console.print(f"- {line}", style="dim", markup=False)
        console.print(
            f"relative to the mean: {found.estimate:+.4%} per ms (95 % interval {found.low:+.4%} to {found.high:+.4%}),"
            f" {found.least_ms:.4g} to {found.most_ms:.4g} ms; {found.design}",
            markup=False,
        )

    return Answer(value, show, Code.FINDING if found.low <= 0 <= found.high else Code.OK)


@command(app, "budgets", examples=("tailsight costs budgets --from -1h",))
def budgets(run: Run, from_: FromOption = "-1h", to: ToOption = "now") -> Answer:
    """Latency budgets per market action, from the value at stake (`[actions.NAME]`), against what decisions took.

    Exit code 1 when there is no budget.
    """
    from api import cost_answers
    from dashboards.money_view import budgets_table

    return _asked(
        run, (from_, to), "actions", cost_answers.budgets, lambda rows: [budgets_table(rows)],
        lambda row: row["budget_ns"] is not None,
    )  # fmt: skip


@command(app, "showback", examples=("tailsight costs showback --from -30d", "... --json"))
def showback(run: Run, from_: FromOption = "-30d", to: ToOption = "now") -> Answer:
    """Declared costs (`[showback.NAME]`) by team, region or another label: by share of decisions, adding up exactly.

    Exit code 1 when there were no decisions.
    """
    from api import cost_answers
    from dashboards.money_view import showback_table

    return _asked(
        run, (from_, to), "showback", cost_answers.shown_back, lambda rows: [showback_table(one) for one in rows],
        lambda row: bool(row["shares"]),
    )  # fmt: skip


@command(app, "debts", examples=("tailsight costs debts", "... --from -1d --json"))
def debts(run: Run, from_: FromOption = "-1d", to: ToOption = "now") -> Answer:
    """The ledger of technical debt (`[debts.NAME]`) in revenue, dearest first, with the alerts of each one's objective.

    Latencies are those of the time. Exit code 1 when none has a price; it says why.
    """
    from api import cost_answers
    from dashboards.money_view import debts_table

    _, episodes = _control(run, (0, (1 << 63) - 1))
    return _asked(
        run, (from_, to), "debts", lambda store, money, span: cost_answers.debts(store, money, episodes, span),
        lambda rows: [debts_table(rows)], lambda row: row["per_month"]["low"] is not None,
    )  # fmt: skip


@command(app, "modes", examples=("tailsight costs modes --path order --kpi order_success --from -1d",))
def modes(
    run: Run,
    path: PathOption,
    kpi: Annotated[str, typer.Option("--kpi", help="A measure with values per message.")],
    from_: FromOption = "-1d",
    to: ToOption = "now",
) -> Answer:
    """What cached answers and fallbacks cost in a measure, against normal messages that are alike.

    Exit code 1 when no effect is detectable or there are too few messages.
    """
    from analytics.kpis import kpis_from
    from api import cost_answers
    from api.cli.opened import opened, path_named

    known = path_named(run, path)
    with opened(run) as store:
        try:
            found = cost_answers.degraded(store, known, kpi, kpis_from(run.document(), run.source), _span(from_, to))
        except ValueError as error:
            raise CommandError(Code.USAGE, str(error), kind="kpi") from error

    def show(console: Console) -> None:
        for one in found["modes"]:
            console.print(one["sentence"], markup=False)
            if one["plain"] is not None:
                console.print(
                    f"  {one['messages']:,} messages against {one['normal']:,}; without comparing like with like the"
                    f" difference is {one['plain']:+.4g}: a warning, not an effect.",
                    style="dim",
                )

    return Answer(found, show, Code.OK if any(m["verdict"] == "effect" for m in found["modes"]) else Code.FINDING)


@command(app, "agreements", examples=("tailsight costs agreements", "... --at -31d --json"))
def agreements(
    run: Run, at: Annotated[str, typer.Option("--at", metavar="TIME", help="A moment in the period.")] = "now"
) -> Answer:
    """Provider agreements (`[agreements.NAME]`): measured with interval and clock error, and the credit that is due.

    Exit code 1 when a credit is due.
    """
    from api import cost_answers
    from api.cli.opened import opened
    from api.cli.times import parse_time
    from dashboards.money_view import agreements_table

    money = declared(run)
    if not money.agreements:
        raise CommandError(Code.USAGE, "no [agreements.NAME] is declared", kind="not_declared", hint=_NOTHING)
    at_ns = parse_time(at, "--at", time.time_ns())
    with opened(run) as store:
        found = cost_answers.agreements(store, money, at_ns)

    def show(console: Console) -> None:
        console.print(agreements_table(found["agreements"]))
        for one in found["agreements"]:
            console.print(one["sentence"], markup=False)

    return Answer(found, show, Code.FINDING if any(one["credit"] for one in found["agreements"]) else Code.OK)


@command(
    query,
    "velocity",
    examples=(
        "tailsight query velocity --path order --from -1d",
        "... --path order --change decide=-0.2ms --cost decide=4000 --change venue=-1ms --cost venue=25000",
    ),
)
def velocity(
    run: Run,
    path: PathOption,
    change: Annotated[
        list[str] | None,
        typer.Option("--change", metavar="STAGE=DURATION", help="-0.2ms is faster. (default: each stage 1 ms)"),
    ] = None,
    cost: Annotated[
        list[str] | None, typer.Option("--cost", metavar="STAGE=MONEY", help="What the change costs per month.")
    ] = None,
    from_: FromOption = "-1d",
    to: ToOption = "now",
) -> Answer:
    """Expected revenue per month after changes of stages, ranked by money per millisecond and per dollar.

    Needs `[value.PATH]` with a measured effect; exit code 4 says what is missing, 1 that nothing is detectable.
    """
    from analytics.money.effects import SensitivityError
    from analytics.money.worth import WorthError
    from api import cost_answers
    from api.cli.opened import opened, path_named

    known, money = path_named(run, path), declared(run)
    try:
        changes = cost_answers.changes_of(change or [])
        costs = cost_answers.costs_of(cost or [], changes)
    except ValueError as error:
        raise CommandError(Code.USAGE, str(error)) from error
    with opened(run) as store:
        try:
            found = cost_answers.velocity(store, money, known, changes, costs, _span(from_, to))
        except (WorthError, SensitivityError) as error:
            raise CommandError(Code.DATA, str(error), kind="no_value") from error

    def show(console: Console) -> None:
        from dashboards.money_view import velocity_table

        console.print(velocity_table(found))
        console.print(found["sentence"], markup=False)
        weights = ", ".join(f"{kind} {weight:.1%}" for kind, weight in found["weights"].items())
        console.print(f"Of {found['total_ms']:.4g} ms: {weights}. Revenue: {found['revenue']}.", style="dim")

    return Answer(found, show, Code.OK if any(one["seen"] for one in found["ranked"]) else Code.FINDING)


def declared(run: Run) -> Money:
    """What the configuration says of money."""
    from analytics.kpis import kpis_from
    from analytics.money.declared import money_from
    from api.cli.opened import declared_paths

    document = run.document()
    return money_from(document, declared_paths(run), kpis_from(document, run.source), run.source)


def _span(from_: str, to: str) -> tuple[int, int]:
    start, end = time_range(from_, to)
    return start or 0, end or time.time_ns()


def _control(run: Run, span: tuple[int, int]) -> tuple[list[Objective], list[Episode]]:
    """The objectives in force, and the episodes of a time."""
    from api.cli.acting import control_of
    from api.slo_book import SloBook

    if not (run.data / "control.sqlite").exists():
        return [], []
    with control_of(run) as control:
        book = SloBook(control)
        return list(book.compiled().objectives), book.episodes(*span)


def _asked(
    run: Run,
    times: tuple[str, str],
    name: str,
    ask: Callable[[Any, Money, tuple[int, int]], dict[str, Any]],
    tables: Callable[[list[dict[str, Any]]], list[Any]],
    good: Callable[[dict[str, Any]], bool],
) -> Answer:
    """What most of the commands do: read a kind of declaration, ask, show tables and sentences."""
    from api.cli.opened import opened

    money = declared(run)
    if not getattr(money, name):
        raise CommandError(Code.USAGE, f"no [{name}.NAME] is declared", kind="not_declared", hint=_NOTHING)
    with opened(run) as store:
        found = ask(store, money, _span(*times))

    def show(console: Console) -> None:
        for table in tables(found[name]):
            console.print(table)
        for one in found[name]:
            if one.get("sentence"):
                console.print(one["sentence"], markup=False)

    return Answer(found, show, Code.OK if any(good(one) for one in found[name]) else Code.FINDING)
