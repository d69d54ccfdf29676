"""`tailsight import pcap`: capture files in, figures of their TCP conversations out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.hlog import importing
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from collector.feeds.capture import CaptureDecoder
    from collector.landing.capture import CaptureLanding
    from collector.packet.report import PcapReport


def register(root: typer.Typer) -> None:  # noqa: ARG001  # every command module is called with the root
    """Add the command to the import group, which `api.cli.hlog` puts into the tree."""
    examples = (
        "tailsight import pcap tap.pcap.gz",
        "tailsight import pcap a.pcapng b.pcapng --json | jq .rtt",
        "tailsight import pcap feed.pcap --decode itch --port 26477+26478 --store",
    )
    command(importing, "pcap", examples=examples)(import_pcap)


def import_pcap(
    run: Run,
    files: Annotated[
        list[Path],
        typer.Argument(
            exists=True, dir_okay=False, readable=True, help="pcap, pcapng or ERF, plain or gzip, in order."
        ),
    ],
    decode: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Decode messages: itch, cme, iex, fix, demo, a registered one, or auto."),
    ] = None,
    port: Annotated[
        list[str] | None,
        typer.Option(metavar="PORT[+PORT...]", help="Decode these ports; with +, lines of one channel. (default: all)"),
    ] = None,
    store: Annotated[
        bool, typer.Option("--store", help="Store a stamp at point tap for every decoded message.")
    ] = False,
) -> Answer:
    """Analyse capture files as one capture: flows, round trips, retransmissions, hardware times, and messages.

    A damaged file is analysed up to the damage, which is named with its byte offset; the exit code is then 1, or 4 when
    no packet could be read at all. With --decode the exit code is 1 too when messages are missing or damaged.
    """
    if decode is None and (port or store):
        raise CommandError(Code.USAGE, "--port and --store go with --decode", kind="usage")
    with contextlib.ExitStack() as held:
        landing = held.enter_context(_landing(run, files, decode or "", port or [])) if store else None
        decoder = None if decode is None else _decoder(decode, port or [], None if landing is None else landing.add)
        report = _read(run, files, decoder)
        channels = [] if decoder is None else decoder.report()
        if landing is not None:
            landing.close()
    damaged = [f"{file.path}: at byte {file.damage_offset}: {file.damage}" for file in report.files if file.damage]
    if damaged and not report.packets:
        raise CommandError(
            Code.DATA,
            "; ".join(damaged),
            kind="pcap",
            hint="tailsight import pcap reads pcap, pcapng and ERF, each plain or compressed with gzip",
        )
    value = report.to_dict()
    if decoder is not None:
        value["decoded"] = channels
        value["undecoded"] = {"datagrams": decoder.undecoded, "cut": decoder.cut}
    lossy = any(one["lines"][-1]["missing"] > 0 or one["faults"] for one in channels)
    if landing is not None:
        value["stored"] = {
            "stamps": landing.stored,
            "quarantined": landing.quarantined,
            "already": landing.already,
            "first_ns": landing.first_ns,
            "last_ns": landing.last_ns,
        }
    code = Code.FINDING if damaged or lossy else Code.OK
    return Answer(value, lambda console: _show(console, value, damaged), code)


def _decoder(name: str, ports: list[str], stamped: Any) -> CaptureDecoder:
    from collector.decode import ScapyMissingError
    from collector.decode.registry import UnknownDecoderError
    from collector.feeds.capture import CaptureDecoder

    groups = []
    for text in ports:
        parts = text.split("+")
        if not all(part.isdecimal() and 0 < int(part) < 65_536 for part in parts) or len(set(parts)) < len(parts):
            raise CommandError(Code.USAGE, f"--port {text!r} must be ports such as 26477 or 26477+26478", kind="usage")
        groups.append(tuple(int(part) for part in parts))
    try:
        return CaptureDecoder(name, tuple(groups), stamped=stamped)
    except UnknownDecoderError as error:
        raise CommandError(Code.USAGE, str(error), kind="decoder") from error
    except ScapyMissingError as error:
        raise CommandError(Code.USAGE, str(error), kind="scapy") from error


@contextlib.contextmanager
def _landing(run: Run, files: list[Path], decode: str, ports: list[str]) -> Iterator[CaptureLanding]:
    """Where the stamps go; the same files decoded in the same way change nothing the second time."""
    import hashlib

    from api.cli.opened import opened
    from collector.landing.capture import CaptureLanding
    from collector.points import points_from

    digest = hashlib.sha256("\0".join((decode, *ports)).encode())
    for file in files:
        with file.open("rb") as content:
            digest.update(hashlib.file_digest(content, "sha256").digest())
    with opened(run, create=True) as store:
        yield CaptureLanding(store, points_from(run.document(), run.source), digest.digest())


def _read(run: Run, files: list[Path], decoder: CaptureDecoder | None) -> PcapReport:
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

    from collector.packet.importer import analyse

    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=run.stderr(), transient=True) as bar:
        task = bar.add_task("reading", total=sum(file.stat().st_size for file in files))

        def advance(file: Path, count: int) -> None:
            bar.update(task, advance=count, description=file.name)

        return analyse(files, advance, None if decoder is None else decoder.take)


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
    for one in value.get("decoded", ()):
        kinds = ", ".join(f"{name} {count(n)}" for name, n in one["kinds"].items()) or "no messages"
        console.print(f"{one['protocol']} {one['channel']}: {kinds}")
        lines = [
            (each["line"], *(count(each[n]) for n in ("datagrams", "messages", "missing", "duplicates", "late", "won")))
            for each in one["lines"]
        ]
        console.print(plain_table("", ("line", "datagrams", "messages", "missing", "duplicates", "late", "won"), lines))
        for each in one["sessions"]:
            console.print(
                f"session {each['session'] or '-'}: numbers {each['first']} to {each['next'] - 1}", style="dim"
            )
        for name, n in one["faults"].items():
            console.print(f"{count(n)} datagrams do not follow the protocol: {name}", style="yellow")
    if "stored" in value:
        stored = value["stored"]
        console.print(f"{count(stored['stamps'])} stamps stored" + (", as before" if stored["already"] else ""))
    for problem in damaged:
        console.print(problem, style="yellow")
