"""`tailsight slo maintenance`: times in which alerts are judged and recorded, and not sent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.acting import actor, control_of
from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.slo.maintenance import Window
    from api.control import Control

app = typer.Typer(no_args_is_help=True)


def register(slo: typer.Typer) -> None:
    """Add the group below `tailsight slo`."""
    slo.add_typer(app, name="maintenance", help="Windows in which alerts are recorded and not sent.")


@command(
    app,
    "add",
    examples=('tailsight slo maintenance add upgrade --objective "order-*" --for 2h --why "new gateway firmware"',),
)
def add(
    run: Run,
    name: Annotated[str, typer.Argument(help="The window's name.")],
    why: Annotated[str, typer.Option("--why", help="Why; notifications say it.")],
    objective: Annotated[
        list[str] | None, typer.Option("--objective", help='Pattern of objectives, "*" for all; may be given again.')
    ] = None,
    service: Annotated[list[str] | None, typer.Option("--service", help="Pattern of services, likewise.")] = None,
    start: Annotated[str, typer.Option("--start", metavar="TIME", help="When it begins.")] = "now",
    end: Annotated[str | None, typer.Option("--end", metavar="TIME", help="When it ends.")] = None,
    for_: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Or how long it lasts.")] = None,
    send: Annotated[
        str, typer.Option("--send", help="hold: told at the end if it still fires; annotate: told, saying so.")
    ] = "hold",
    budget: Annotated[str, typer.Option("--budget", help="burns or pauses.")] = "burns",
) -> Answer:
    """Declare a window, at most 7 days long; a running server takes it over at its next tick (10 s). Audited."""
    from analytics.slo.maintenance import Window
    from api.audit import Audit
    from api.maintenance import shown
    from collector.settings import ConfigError, duration_ns

    now = time.time_ns()
    first = parse_time(start, "--start", now)
    if (end is None) == (for_ is None):
        raise CommandError(Code.USAGE, "say when it ends: one of --end TIME and --for DURATION")
    last = first + duration_ns(for_, "--for") if for_ is not None else parse_time(end or "", "--end", now)
    if send not in ("hold", "annotate") or budget not in ("burns", "pauses"):
        raise CommandError(Code.USAGE, "--send is hold or annotate, --budget is burns or pauses")
    window = Window(
        name, first, last, actor(), why, tuple(objective or ()), tuple(service or ()),
        "hold" if send == "hold" else "annotate", budget == "burns",
    )  # fmt: skip
    with control_of(run) as control:
        try:
            made = _book(run, control).add(window, actor())
        except ConfigError as error:
            raise CommandError(Code.USAGE, str(error), kind="maintenance") from error
        except ValueError as error:
            raise CommandError(Code.DATA, str(error), kind="maintenance") from error
        detail = {"start_ns": made.window.start_ns, "end_ns": last, "why": why, "send": send, "budget": budget,
                  "objectives": window.objectives, "services": window.services}  # fmt: skip
        Audit(control).record(actor(), "maintenance.add", name, "ok", detail)
        value = shown(made, [], now, lambda one: _about(control, one))

    def show(console: Console) -> None:
        console.print(
            f"{name}: {format_time(made.window.start_ns)[:19]} to {format_time(last)[:19]} UTC, about "
            f"{', '.join(value['about']) or 'no objective in force'}",
            markup=False,
        )

    return Answer(value, show)


@command(app, "list", examples=("tailsight slo maintenance list --past",))
def list_(
    run: Run,
    past: Annotated[bool, typer.Option("--past", help="Also windows that are over, and what they held.")] = False,
) -> Answer:
    """Windows that are planned or active, and the episodes that they hold."""
    from api.maintenance import shown

    now = time.time_ns()
    with control_of(run) as control:
        book = _book(run, control)
        held = book.held(all_=past)
        rows = [
            shown(one, held, now, lambda window: _about(control, window))
            for one in book.declared()
            if past or one.window.end_ns > now
        ]
    value: dict[str, Any] = {"windows": rows, "held": held}

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [
            (r["name"], r["state"], format_time(r["start_ns"])[:19], format_time(r["end_ns"])[:19], r["who"], r["why"],
             f"{r['send']}, budget {r['budget']}", ", ".join(r["about"]), len(r["held"]))
            for r in rows
        ]  # fmt: skip
        names = ("name", "state", "start", "end", "who", "why", "does", "about", "held")
        console.print(plain_table("maintenance windows", names, body))
        for one in held:
            what = one.outcome or "held"
            console.print(f"{what}: {one.objective} {one.rule}, episode {one.episode}, by {one.window}", markup=False)

    return Answer(value, show)


@command(app, "end", examples=("tailsight slo maintenance end upgrade",))
def end(run: Run, name: Annotated[str, typer.Argument(help="The window.")]) -> Answer:
    """End a window now: what fires is told within a tick (10 s). Audited. Exit code 4 when there is no such window."""
    from api.audit import Audit
    from api.maintenance import UnknownWindowError, shown

    with control_of(run) as control:
        book = _book(run, control)
        try:
            made = book.end(name, actor())
        except UnknownWindowError as error:
            raise CommandError(Code.DATA, str(error.args[0]), kind="not_found") from error
        except ValueError as error:
            raise CommandError(Code.DATA, str(error), kind="maintenance") from error
        Audit(control).record(actor(), "maintenance.end", name)
        value = shown(made, book.held(), time.time_ns(), lambda one: _about(control, one))
    return Answer(value, lambda console: console.print(f"{name} is over", markup=False))


def _book(run: Run, control: Control) -> Any:
    from analytics.slo.maintenance import windows_from
    from api.maintenance import Maintenance

    return Maintenance(control, windows_from(run.document(), run.source))


def _about(control: Control, window: Window) -> list[str]:
    from api.slo_book import SloBook

    return [one.name for one in SloBook(control).compiled().objectives if window.about(one.name, one.service)]
