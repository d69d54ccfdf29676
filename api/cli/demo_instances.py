"""`tailsight demo canary` and `tailsight demo shadow`: further instances beside the order path's own."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.demo_fault import percentage, require_order_path
from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from api.demo.instances import Instance, Instances, Role, Routed

canary_app = typer.Typer(no_args_is_help=True)
shadow_app = typer.Typer(no_args_is_help=True)

AtOption = Annotated[str, typer.Option(help="The program it runs beside, such as inference or gateway-east.")]
VersionOption = Annotated[int, typer.Option(min=1, max=65_535, help="The version its stamps' labels carry.")]
SlowerOption = Annotated[str, typer.Option(metavar="PERCENT", help="How much longer it computes on each message.")]
ExtraOption = Annotated[str, typer.Option(metavar="DURATION", help="Computed besides, on --size of its messages.")]
SizeOption = Annotated[str, typer.Option(metavar="PERCENT", help="The share of its messages that --extra touches.")]
NamesArgument = Annotated[list[str] | None, typer.Argument(help="Which. (default: all)")]


def register(demo: typer.Typer) -> None:
    """Add the groups to `tailsight demo`."""
    demo.add_typer(canary_app, name="canary", help="A second instance that takes a share of the traffic.")
    demo.add_typer(shadow_app, name="shadow", help="A second instance that gets a copy of the traffic.")


@command(
    canary_app,
    "start",
    examples=("tailsight demo canary start --at gateway-east --share 10% --version 2 --slower 5%",),
)
def start_canary(
    run: Run,
    at: AtOption,
    share: Annotated[str, typer.Option(metavar="PERCENT", help="The share of the messages it takes.")] = "10%",
    version: VersionOption = 2,
    slower: SlowerOption = "0%",
    extra: ExtraOption = "0ms",
    size: SizeOption = "100%",
) -> Answer:
    """Start a canary: a process of its own that serves a share of the messages instead of the main one."""
    return _start(run, "canary", at, share, version, slower, extra, size)


@command(shadow_app, "start", examples=("tailsight demo shadow start --at inference --share 50% --version 2",))
def start_shadow(
    run: Run,
    at: AtOption,
    share: Annotated[str, typer.Option(metavar="PERCENT", help="The share of the messages it is sent.")] = "100%",
    version: VersionOption = 2,
    slower: SlowerOption = "0%",
    extra: ExtraOption = "0ms",
    size: SizeOption = "100%",
) -> Answer:
    """Start a shadow: a process of its own that gets copies of messages; what it answers reaches nobody."""
    return _start(run, "shadow", at, share, version, slower, extra, size)


@command(canary_app, "list", examples=("tailsight demo canary list",))
def list_canaries(run: Run) -> Answer:
    """All canaries ever ordered in this directory, and whether they serve."""
    return _list(run, "canary")


@command(shadow_app, "list", examples=("tailsight demo shadow list",))
def list_shadows(run: Run) -> Answer:
    """All shadows ever ordered in this directory, and whether they get copies."""
    return _list(run, "shadow")


@command(canary_app, "stop", examples=("tailsight demo canary stop",))
def stop_canary(run: Run, names: NamesArgument = None) -> Answer:
    """End canaries; the main instances serve their share again. Exit code 1 when there was none to end."""
    return _stop(run, "canary", names)


@command(shadow_app, "stop", examples=("tailsight demo shadow stop",))
def stop_shadow(run: Run, names: NamesArgument = None) -> Answer:
    """End shadows. Exit code 1 when there was none to end."""
    return _stop(run, "shadow", names)


def _start(
    run: Run, role: Role, at: str, share: str, version: int, slower: str, extra: str, size: str
) -> Answer:  # fmt: skip
    from api.demo.instances import Instance, InstanceError, checked
    from api.demo.programs import instance_ports
    from collector.settings import duration_ns

    wanted = Instance(
        id="",
        role=role,
        at=at,
        share=percentage(share, "--share"),
        version=version,
        start_ns=time.time_ns(),
        slower=percentage(slower, "--slower"),
        extra_ns=duration_ns(extra, "--extra"),
        size=percentage(size, "--size"),
    )
    try:
        checked(wanted)
        require_order_path(run)
        import msgspec

        ordered = _instances(run).order(msgspec.structs.replace(wanted, ports=instance_ports(at)))
    except InstanceError as error:
        raise CommandError(Code.USAGE, str(error), kind="instance") from error
    words = f"Ordered {ordered.id}: version {version}, {100 * ordered.share:g} % of the messages of {at}."
    return Answer(_row(ordered, "starts"), lambda console: console.print(words))


def _list(run: Run, role: Role) -> Answer:
    now_ns = time.time_ns()
    found = [routed for routed in _instances(run).read() if routed.instance.role == role]
    rows = [_row(routed.instance, _state(routed, now_ns)) for routed in found]

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [(r["id"], r["state"], r["at"], str(r["version"]), f"{100 * r['share']:g} %") for r in rows]
        console.print(plain_table("Instances", ("id", "state", "at", "version", "share"), body))

    return Answer({"instances": rows}, show)


def _stop(run: Run, role: Role, names: list[str] | None) -> Answer:
    ended = _instances(run).end(names or (), time.time_ns(), role)
    words = f"Ended {', '.join(one.id for one in ended)}." if ended else "No such instance runs."
    value = {"ended": [_row(one, "ends") for one in ended]}
    return Answer(value, lambda console: console.print(words), Code.OK if ended else Code.FINDING)


def _instances(run: Run) -> Instances:
    from api.demo.control import FOLDER
    from api.demo.instances import Instances

    return Instances(run.data / FOLDER)


def _state(routed: Routed, now_ns: int) -> str:
    if routed.instance.ended(now_ns):
        return "ended"
    return "serves" if routed.ready is not None and routed.ready.realtime_ns <= now_ns else "starts"


def _row(instance: Instance, state: str) -> dict[str, Any]:
    import msgspec

    row: dict[str, Any] = msgspec.to_builtins(instance)
    del row["ports"]
    return {"state": state, **row}
