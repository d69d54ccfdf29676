"""`tailsight query clock`: how far each host's clock may be from UTC, and who says so."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code
from api.cli.query import FromOption, ToOption, plain, range_fields, time_range
from api.cli.query import app as query
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console


def register(root: typer.Typer) -> None:
    """The command is in the tree once this module is imported."""


@command(query, "clock", examples=("tailsight query clock --from -1h", "tailsight query clock --pairs --json"))
def clock(
    run: Run,
    from_: FromOption = "-15m",
    to: ToOption = None,
    pairs: Annotated[
        bool, typer.Option("--pairs", help="Bound the clocks of two hosts by the messages between them.")
    ] = False,
) -> Answer:
    """Each host's clock: its bound to UTC, who states it, steps and losses of synchronisation.

    Exit code 1 when nothing is stored, or when messages contradict what two clocks claim.
    """
    from analytics.clock_history import clock_incidents, clock_pairs, clock_states
    from api.cli.opened import declared_paths, opened

    from_ns, to_ns = time_range(from_, to)
    start, end = from_ns or 0, to_ns or time.time_ns()
    with opened(run) as store:
        states = plain(clock_states(store, start, end))
        events = plain(clock_incidents(store, start, end))
        found = plain(clock_pairs(store, declared_paths(run).values(), start, end)) if pairs else []
    value = {**range_fields(from_ns, to_ns), "clocks": states, "events": events, "pairs": found}

    def show(console: Console) -> None:
        from dashboards.terminal import duration, plain_table

        body = [
            (
                r["host"], r["source"], "in use" if r["in_use"] else "", duration(r["error_ns"]),
                duration(r["max_error_ns"]), duration(r["offset_ns"]), r["steps"], r["losses"],
            )
            for r in states
        ]  # fmt: skip
        columns = ("host", "source", "", "bound", "largest", "offset", "steps", "losses")
        console.print(plain_table("Clocks", columns, body))
        if events:
            rows = [
                (format_time(e["ts_ns"])[:23], e["host"], e["event"], e["source"], duration(e["step_ns"]))
                for e in events[:20]
            ]
            console.print(plain_table("Events", ("when", "host", "event", "source", "step"), rows))
        if pairs:
            seen = [
                (
                    f"{p['b']} - {p['a']}", duration(p["low_ns"]), duration(p["high_ns"]),
                    duration(p["claim_ns"]), f"{p['forth']}/{p['back']}", p["verdict"],
                )
                for p in found
            ]  # fmt: skip
            head = ("clocks", "at least", "at most", "claimed within", "messages", "verdict")
            console.print(plain_table("Pairs of hosts, by the messages between them", head, seen))

    wrong = not states or any(p["verdict"] == "contradiction" for p in found)
    return Answer(value, show, Code.FINDING if wrong else Code.OK)
