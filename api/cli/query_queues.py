"""`tailsight query queues` and `tailsight query headroom`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, PathOption, StageOption, ToOption, plain, time_range
from api.cli.query import app as query
from api.cli.query_tail import ModeOption, modes_of
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console

_HOUR_NS = 3_600_000_000_000


def register(root: typer.Typer) -> None:
    """The commands are in the tree once this module is imported."""


def span_of(from_: str | None, to: str | None) -> tuple[int, int]:
    """`--from` and `--to`, both known; without `--to` up to now."""
    start, end = time_range(from_ or "-1h", to or "now")
    if start is None or end is None:
        raise CommandError(Code.USAGE, "--from and --to are needed")
    return start, end


def objective_of(text: str) -> tuple[int, float]:
    """`5ms:0.99` as (threshold_ns, share). Raises CommandError."""
    from collector.settings import duration_ns

    limit, _, good = text.partition(":")
    try:
        share = float(good)
    except ValueError:
        share = 0.0
    if not 0 < share < 1:
        raise CommandError(Code.USAGE, f"--objective {text!r} is not THRESHOLD:SHARE, such as 5ms:0.99")
    found = duration_ns(limit, "--objective")
    if found <= 0:
        raise CommandError(Code.USAGE, f"--objective {text!r}: the threshold must be longer than nothing")
    return found, share


@command(
    query,
    "queues",
    examples=("tailsight query queues --path order", "... --lead queue_depth --from -15m", "... --bursts --json"),
)
def queues(
    run: Run,
    path: PathOption,
    from_: FromOption = "-15m",
    to: ToOption = None,
    stage: StageOption = None,
    label: Annotated[str, typer.Option(help="The label that tells classes apart.")] = "priority",
    order: Annotated[
        str, typer.Option(help="Its values, the most urgent first, with commas. (default: who overtakes whom)")
    ] = "",
    gauge: Annotated[str, typer.Option(help="A sampled depth of the queue, for Little's law.")] = "",
    threshold: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Of the wait, for the depth limit. (default: the budget)")
    ] = None,
    good: Annotated[float, typer.Option(help="Share of waits that is to be below the threshold.")] = 0.99,
    share: Annotated[float, typer.Option(help="Share of the messages to read.")] = 1.0,
    mode: ModeOption = "users",
    bursts: Annotated[bool, typer.Option("--bursts", help="Also what microbursts did to messages.")] = False,
    lead: Annotated[str, typer.Option(metavar="GAUGE", help="Also whether this gauge goes before the latency.")] = "",
    longest: Annotated[str, typer.Option(metavar="DURATION", help="The longest lag looked for, with --lead.")] = "5s",
) -> Answer:
    """What messages wait in the queues of a path, by how many they found there, and whether the figures can be true.

    Exit code 1 when Little's law is broken (events lost, a clock wrong, or the depth counts something else), or when
    nothing is known of any queue.
    """
    from analytics.queueing.bursts import burst_effects
    from analytics.queueing.leads import gauge_lead
    from analytics.queueing.queues import queues as ask
    from api.cli.opened import opened, path_named
    from collector.settings import duration_ns

    start, end = span_of(from_, to)
    if not 0 < share <= 1 or not 0 < good < 1:
        raise CommandError(Code.USAGE, "--share lies in (0, 1], and --good between 0 and 1")
    known = path_named(run, path)
    threshold_ns = None if threshold is None else duration_ns(threshold, "--threshold")
    longest_ns = duration_ns(longest, "--longest")
    extra: dict[str, Any] = {}
    with opened(run) as store, run.stderr().status("reading the messages"):
        try:
            rows = plain(
                ask(
                    store, known, from_ns=start, to_ns=end, stage=stage, label=label,
                    order=tuple(filter(None, order.split(","))), gauge=gauge, threshold_ns=threshold_ns, good=good,
                    share=share, modes=modes_of(mode),
                )
            )  # fmt: skip
            if bursts:
                extra["bursts"] = plain(burst_effects(store, known, from_ns=start, to_ns=end))
            if lead:
                found = gauge_lead(
                    store, known, lead, from_ns=start, to_ns=end, stage=stage or "end_to_end", longest_ns=longest_ns,
                    bin_ns=max(1, longest_ns // 20), share=share, modes=modes_of(mode),
                )  # fmt: skip
                extra["lead"] = plain([found])[0]
        except (KeyError, ValueError) as error:
            raise CommandError(Code.USAGE, str(error.args[0])) from error
    value = {"path": path, "from": format_time(start), "to": format_time(end), "queues": rows, **extra}

    def show(console: Console) -> None:
        from dashboards.queues_view import show_bursts, show_lead, show_queues

        show_queues(console, path, rows)
        if bursts:
            show_bursts(console, extra["bursts"])
        if lead:
            show_lead(console, extra["lead"])

    bad = not any(not row["refused"] for row in rows) or any(row["little"] == "broken" for row in rows)
    return Answer(value, show, Code.FINDING if bad else Code.OK)


@command(
    query,
    "headroom",
    examples=("tailsight query headroom --path order --objective 5ms:0.99 --from -7d", "... --objective 20ms:0.999"),
)
def headroom(
    run: Run,
    path: PathOption,
    objective: Annotated[
        list[str], typer.Option("--objective", metavar="THRESHOLD:SHARE", help="Such as 5ms:0.99; may be repeated.")
    ],
    from_: FromOption = "-6h",
    to: ToOption = None,
    stage: Annotated[str, typer.Option("--stage", help="Stage.")] = "end_to_end",
    rollup: Annotated[str, typer.Option(help="Only one label's messages, as label=value.")] = "",
) -> Answer:
    """How many messages per second each objective stands, when growth will have used that up, and where the knee is.

    Exit code 1 when no objective has an answer, or one is broken at the present load.
    """
    from analytics.queueing.capacity import capacity
    from api.cli.opened import opened, path_named
    from api.cli.query import stage_known

    start, end = span_of(from_, to)
    wanted = tuple(objective_of(text) for text in objective)
    known = path_named(run, path)
    stage_known(known, stage)
    with opened(run) as store, run.stderr().status("reading the counts"):
        found = plain(
            [capacity(store, known, from_ns=start, to_ns=end, objectives=wanted, stage=stage, rollup=rollup)]
        )[0]

    def show(console: Console) -> None:
        from dashboards.queues_view import show_headroom

        show_headroom(console, found)

    rates = [row for row in found["headroom"] if row["rate_s"] is not None]
    bad = not rates or any(row["headroom_s"] < 0 for row in rates)
    return Answer(found, show, Code.FINDING if bad else Code.OK)
