"""`tailsight query flows`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code
from api.cli.query import FromOption, ToOption, app, plain, range_fields, time_range

if TYPE_CHECKING:
    from rich.console import Console

_LAST_NS = 9_000_000_000_000_000_000


def register(root: typer.Typer) -> None:
    """The command is in the group `query` as soon as this module is imported."""


@command(app, "flows", examples=("tailsight query flows --from -10m", "... --order rtt --address 10.0.0.7 --json"))
def flows(
    run: Run,
    from_: FromOption = None,
    to: ToOption = None,
    host: Annotated[str, typer.Option(help="Only this host's taps.")] = "",
    tap: Annotated[str, typer.Option(help="Only this tap.")] = "",
    address: Annotated[str, typer.Option(help="Only flows with this address at either end.")] = "",
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Only flows with this port at either end.")] = 0,
    order: Annotated[
        Literal["bytes", "packets", "retransmissions", "rtt", "hops"],
        typer.Option(help="The largest of what come first."),
    ] = "bytes",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 20,
) -> Answer:
    """Flows as the taps saw them: packets, bytes, hops, class, and for TCP round trips and what went wrong.

    Exit code 1 when no flow matches.
    """
    from analytics.flows import flows as ask
    from api.cli.opened import opened

    from_ns, to_ns = time_range(from_, to)
    with opened(run) as store:
        rows = plain(
            ask(
                store,
                from_ns=from_ns or 0,
                to_ns=_LAST_NS if to_ns is None else to_ns,
                host=host,
                tap=tap,
                address=address,
                port=port,
                order=order,
                limit=limit,
            )
        )
    value = {**range_fields(from_ns, to_ns), "order": order, "flows": rows}

    def show(console: Console) -> None:
        from dashboards.terminal import count, duration, plain_table, share

        body = [
            (
                row["tap"],
                f"{_end(row['source'], row['source_port'])} > {_end(row['target'], row['target_port'])}"
                if row["source"]
                else "further flows",
                row["protocol"],
                count(row["packets"]),
                count(row["bytes"]),
                "" if row["hops_max"] is None else _reach(row["hops_min"], row["hops_max"]),
                "" if row["dscp_max"] is None else _reach(row["dscp_min"], row["dscp_max"]),
                duration(row["rtt_min_ns"]),
                duration(row["rtt_p99_worst_ns"]),
                count(row["retransmissions"]),
                share(row["coverage"]),
            )
            for row in rows
        ]
        columns = ("tap", "flow", "", "packets", "bytes", "hops", "dscp", "rtt min", "worst p99", "retrans", "seen")
        console.print(plain_table("flows", columns, body))

    return Answer(value, show, Code.OK if rows else Code.FINDING)


def _end(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _reach(low: int, high: int) -> str:
    return str(low) if low == high else f"{low}-{high}"
