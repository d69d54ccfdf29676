"""`tailsight demo fault` and `tailsight demo link`: order faults of the running order path, and end them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console

    from api.demo.control import Control
    from api.demo.faults import Fault

app = typer.Typer(no_args_is_help=True)
_UNITS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}

ForOption = Annotated[
    str | None, typer.Option("--for", metavar="DURATION", help="How long. (default: until it is stopped)")
]
AfterOption = Annotated[str, typer.Option("--after", metavar="DURATION", help="When it begins, from now on.")]
SizeOption = Annotated[
    str, typer.Option(metavar="PERCENT", help="The share of the messages, or of the time, it touches.")
]


def register(demo: typer.Typer) -> None:
    """Add the commands to `tailsight demo`."""
    demo.add_typer(app, name="fault", help="Order faults of the running order path, list them, end them.")
    command(
        demo,
        "link",
        examples=(
            "tailsight demo link line-a --loss 2% --for 30s",
            "tailsight demo link market-east --delay 5ms",
            "tailsight demo link record --to links.csv --for 30s",
            "tailsight demo link market-east --profile links.csv",
        ),
    )(link)


@command(app, "start", examples=("tailsight demo fault start slow_dependency --at inference --size 2% --for 30s",))
def start(
    run: Run,
    kind: Annotated[str, typer.Argument(help="Which fault; `tailsight demo fault kinds` lists them.")],
    at: Annotated[str, typer.Option(help="The program or link it strikes.")],
    size: SizeOption = "100%",
    amount: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How hard: of a wait, a pulse or a step. (default: the kind's)"),
    ] = None,
    for_: ForOption = None,
    after: AfterOption = "0s",
    queue: Annotated[
        int | None,
        typer.Option(metavar="N", help="Of lost_nic_queue: which receive queue. (default: one that carries a flow)"),
    ] = None,
) -> Answer:
    """Order a fault. A bad deploy restarts the program in its new version and records the change; so does its end."""
    from api.demo.faults import KINDS

    default_ns = KINDS[kind].amount_ns if kind in KINDS else 0
    amount_ns = default_ns if amount is None else _signed_ns(amount, "--amount")
    fault = _ordered(run, kind, at, size, for_, after, amount_ns=amount_ns, queue=queue)
    return _answer(fault)


def link(
    run: Run,
    name: Annotated[str, typer.Argument(help="The link, or `record`. `tailsight demo fault kinds` lists the links.")],
    delay: Annotated[str, typer.Option(metavar="DURATION", help="Added to every packet's way.")] = "0s",
    loss: Annotated[
        str, typer.Option(metavar="PERCENT", help="How many packets are lost (over TCP: sent again).")
    ] = "0%",
    rate: Annotated[str, typer.Option(metavar="RATE", help="Bits per second, such as 1mbit.")] = "0bit",
    profile: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Delays drawn from this latency profile are added.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="With `record`: where the latency profile is written.")
    ] = None,
    size: SizeOption = "100%",
    for_: ForOption = None,
    after: AfterOption = "0s",
) -> Answer:
    """Make a link of the order path slow, lossy or narrow; or `record` what its links and steps take, as a file.

    Recording takes --for (default 30s). The profile of a link is what the file has under its name.
    """
    if name == "record":
        if to is None or profile is not None:
            raise CommandError(Code.USAGE, "recording takes --to FILE, and --for DURATION if it is not 30s")
        return _recorded(run, to, for_ or "30s")
    if to is not None:
        raise CommandError(Code.USAGE, "--to goes with `tailsight demo link record`")
    fault = _ordered(
        run, "link", name, size, for_, after,
        delay_ns=_signed_ns(delay, "--delay"), loss=percentage(loss, "--loss"), rate_bps=_bits(rate),
        delays=_profile(profile, name) if profile else (),
    )  # fmt: skip
    return _answer(fault)


def _profile(file: Path, name: str) -> tuple[tuple[float, int], ...]:
    """What a latency profile says of a link."""
    from api.demo.delays import ProfileError, read

    try:
        found = read(file)
    except ProfileError as error:
        raise CommandError(Code.DATA, str(error), kind="profile") from error
    if name not in found:
        raise CommandError(Code.USAGE, f"{file} says nothing of {name!r}; it has {', '.join(found)}", kind="profile")
    return found[name]


def _recorded(run: Run, to: Path, for_: str) -> Answer:
    """Measure the running order path, and write a latency profile."""
    from api.demo.delays import NAMES, write
    from api.demo.measure import quantiles, ring_dir_of, watch
    from collector.settings import duration_ns

    _control(run)
    measured = quantiles(watch(ring_dir_of(run.document()), duration_ns(for_, "--for") * 1e-9))
    if not measured:
        raise CommandError(
            Code.FINDING, f"too few messages in {for_} to say what anything takes", kind="too_few",
            hint="Record longer, or give the order path a higher --rate.",
        )  # fmt: skip
    remark = f"measured on the running order path for {for_}, {format_time(time.time_ns())[:19]}Z"
    draft = to.with_name(f".{to.name}.new")
    draft.write_text(write(measured, remark), "utf-8")
    draft.replace(to)
    missing = [name for name in NAMES if name not in measured]
    value = {"file": str(to), "names": list(measured), "too_few": missing}
    words = f"Wrote {to}: {len(measured)} links and steps" + (
        f"; too few messages for {', '.join(missing)}." if missing else "."
    )
    return Answer(value, lambda console: console.print(words))


@command(app, "list", examples=("tailsight demo fault list",))
def list_(run: Run) -> Answer:
    """All faults ever ordered in this directory, and whether they strike now."""
    now_ns = time.time_ns()
    faults = [_row(fault, now_ns) for fault in _control(run, running=False).read()]

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [
            (r["id"], r["state"], r["at"], f"{100 * r['size']:g} %", format_time(r["start_ns"])[:19]) for r in faults
        ]
        console.print(plain_table("Faults", ("id", "state", "at", "size", "from"), body))

    return Answer({"faults": faults}, show)


@command(app, "kinds", examples=("tailsight demo fault kinds",))
def kinds(_run: Run) -> Answer:
    """What can go wrong, and where; and which flow is on which receive queue of the hosts' NICs."""
    import msgspec

    from api.demo.faults import KINDS
    from api.demo.rss import FLOWS, QUEUES

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [(name, kind.description, ", ".join(kind.places)) for name, kind in KINDS.items()]
        console.print(plain_table("Faults", ("kind", "what it does", "where"), body))
        flows = sorted(FLOWS.values(), key=lambda flow: (flow.host, flow.queue))
        rows = [
            (f.host, f.queue, f.name, f.protocol, f"{f.source}:{f.source_port}", f"{f.target}:{f.target_port}")
            for f in flows
        ]
        title = f"Receive queues of the demo's own network: 0 to {QUEUES - 1} at each host"
        console.print(plain_table(title, ("host", "queue", "flow", "protocol", "from", "to"), rows))

    described = {
        name: {"description": kind.description, "places": kind.places, "amount_ns": kind.amount_ns}
        for name, kind in KINDS.items()
    }
    flows = [{**msgspec.to_builtins(f), "hash": f"0x{f.hash:08x}", "queue": f.queue} for f in FLOWS.values()]
    return Answer({"kinds": described, "receive_queues": QUEUES, "flows": flows}, show)


@command(app, "stop", examples=("tailsight demo fault stop", "tailsight demo fault stop cpu_hog-1f3a5b7c"))
def stop(
    run: Run,
    names: Annotated[list[str] | None, typer.Argument(help="Which. (default: all that have not ended)")] = None,
) -> Answer:
    """End faults now. Exit code 1 when there was none to end."""
    now_ns = time.time_ns()
    ended = _control(run, running=False).stop(names or [], now_ns)
    value = {"ended": [_row(fault, now_ns) for fault in ended]}
    words = f"Ended {', '.join(f.id for f in ended)}." if ended else "No such fault strikes."
    return Answer(value, lambda console: console.print(words), Code.OK if ended else Code.FINDING)


def _ordered(
    run: Run, kind: str, at: str, size: str, for_: str | None, after: str,
    *, amount_ns: int = 0, delay_ns: int = 0, loss: float = 0.0, rate_bps: float = 0.0,
    delays: tuple[tuple[float, int], ...] = (), queue: int | None = None,
) -> Fault:  # fmt: skip
    from api.demo.faults import Fault, FaultError
    from collector.settings import duration_ns

    start_ns = time.time_ns() + duration_ns(after, "--after")
    end_ns = start_ns + duration_ns(for_, "--for") if for_ else None
    try:
        return _control(run).start(
            Fault(
                id="",
                kind=kind,
                at=at,
                size=percentage(size, "--size"),
                amount_ns=amount_ns,
                start_ns=start_ns,
                end_ns=end_ns,
                delay_ns=delay_ns,
                loss=loss,
                rate_bps=rate_bps,
                delays=delays,
                queue=queue,
            )
        )
    except FaultError as error:
        raise CommandError(
            Code.USAGE, str(error), kind="fault", hint="`tailsight demo fault kinds` lists what can go wrong where."
        ) from error


def _control(run: Run, *, running: bool = True) -> Control:
    from api.demo.control import FOLDER, Control

    if running:
        require_order_path(run)
    return Control(run.data / FOLDER)


def require_order_path(run: Run) -> None:
    """Raise CommandError when no order path runs for the directory."""
    from api.up.hold import locked, read_note

    notes = [read_note(run.data, name) for name in ("up", "demo") if locked(run.data / f"{name}.lock")]
    if not any(note is None or "engine" in note.programs for note in notes):
        raise CommandError(
            Code.UNREACHABLE,
            f"no order path runs for {run.data}: there is nothing to strike",
            kind="not_running",
            hint="Start one with `tailsight up` or `tailsight demo`, or name its directory with --data DIR.",
        )


def _row(fault: Fault, now_ns: int) -> dict[str, Any]:
    import msgspec

    ended = fault.end_ns is not None and fault.end_ns <= now_ns
    state = "ended" if ended else "strikes" if fault.active(now_ns) else "scheduled"
    return {"state": state, **msgspec.to_builtins(fault)}


def _answer(fault: Fault) -> Answer:
    words = f"Ordered {fault.id}: {fault.kind} at {fault.at}, {100 * fault.size:g} %."
    if fault.queue is not None:
        from api.demo.rss import on_queue

        flows = [flow.name for flow in on_queue(fault.at, fault.queue)]
        words += f" On receive queue {fault.queue}: {', '.join(flows) or 'no flow'}."
    return Answer(_row(fault, time.time_ns()), lambda console: console.print(words))


def percentage(text: str, option: str) -> float:
    """A share such as 2% as a number. Raises CommandError."""
    try:
        return float(text.strip().removesuffix("%")) / 100
    except ValueError:
        raise CommandError(Code.USAGE, f"{option} must be a percentage such as 2%, got {text!r}") from None


def _bits(text: str) -> float:
    for unit in sorted(_UNITS, key=len, reverse=True):
        if text.endswith(unit) and text.removesuffix(unit).replace(".", "", 1).isdigit():
            return float(text.removesuffix(unit)) * _UNITS[unit]
    raise CommandError(Code.USAGE, f"--rate must be a number and one of {', '.join(_UNITS)}, got {text!r}")


def _signed_ns(text: str, option: str) -> int:
    """A duration that may be negative (a clock that steps back)."""
    from collector.settings import duration_ns

    return -duration_ns(text[1:], option) if text.startswith("-") else duration_ns(text, option)
