"""`tailsight import pcap`: capture files in, figures of their TCP conversations out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.hlog import importing
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from collector.packet.report import PcapReport


def register(root: typer.Typer) -> None:  # noqa: ARG001  # every command module is called with the root
    """Add the command to the import group, which `api.cli.hlog` puts into the tree."""
    examples = ("tailsight import pcap tap.pcap.gz", "tailsight import pcap a.pcapng b.pcapng --json | jq .rtt")
    command(importing, "pcap", examples=examples)(import_pcap)


def import_pcap(
    run: Run,
    files: Annotated[
        list[Path],
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="pcap, pcapng or ERF, plain or gzip, in order."
        ),
    ],
) -> Answer:
    """Analyse capture files as one capture: flows, round trips, retransmissions, hardware times.

    A damaged file is analysed up to the damage, which is named with its byte offset; the exit code is then 1, or 4 when
    no packet could be read at all.
    """
    report = _read(run, files)
    damaged = [f"{file.path}: at byte {file.damage_offset}: {file.damage}" for file in report.files if file.damage]
    if damaged and not report.packets:
        raise CommandError(
            Code.DATA,
            "; ".join(damaged),
            kind="pcap",
            hint="tailsight import pcap reads pcap, pcapng and ERF, each plain or compressed with gzip",
        )
    value = report.to_dict()
    return Answer(value, lambda console: _show(console, value, damaged), Code.FINDING if damaged else Code.OK)


def _read(run: Run, files: list[Path]) -> PcapReport:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from collector.packet.importer import analyse

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=run.stderr(), transient=True) as bar:
        task = bar.add_task("reading", total=sum(file.stat().st_size for file in files))

        def advance(file: Path, count: int) -> None:
            bar.update(task, advance=count, description=file.name)

        return analyse(files, advance)


def _show(console: Console, value: dict[str, Any], damaged: list[str]) -> None:
    from dashboards.terminal import count, duration, plain_table

    kinds = ", ".join(f"{name.replace('_', ' ')} {count(n)}" for name, n in value["malformed"].items()) or "none"
    console.print(
        f"{count(value['packets'])} packets, {count(value['bytes'])} bytes, {count(value['flows'])} flows, "
        f"{count(value['tcp_conversations'])} TCP conversations; malformed: {kinds}"
    )
    times = [
        (name, count(value[key]["samples"]), *(duration(value[key][f"{q}_ns"]) for q in ("p50", "p99", "p999", "max")))
        for name, key in (
            ("acknowledgement", "rtt"),
            ("handshake", "handshake"),
            ("capture after hardware", "hardware"),
        )
        if value[key]["samples"]
    ]
    if times:
        console.print(plain_table("times", ("from", "samples", "p50", "p99", "p99.9", "max"), times))
    names = (
        "retransmissions",
        "fast_retransmissions",
        "spurious_retransmissions",
        "out_of_order",
        "duplicate_acks",
        "lost_segments",
        "zero_windows",
    )
    console.print(plain_table("TCP", ("what", "packets"), [(n.replace("_", " "), count(value[n])) for n in names]))
    worst = [
        (one["from"], one["to"], count(one["packets"]), count(one["retransmissions"]), duration(one["rtt_p99_ns"]))
        for one in value["worst_conversations"]
    ]
    if worst:
        console.print(plain_table("worst conversations", ("from", "to", "packets", "retransmitted", "rtt p99"), worst))
    for problem in damaged:
        console.print(problem, style="yellow")
