"""`tailsight up`: everything, with one command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from pathlib import Path

    from api.demo.quotes.plan import Receiver
    from api.server_settings import ServerSettings
    from api.up.figures import Figures
    from api.up.hold import Hold
    from api.up.programs import Program
    from collector.agent.settings import AgentSettings

_ONCE_LIMIT_S = 120.0

RateOption = Annotated[float, typer.Option(min=1, max=20_000, help="The order path's quotes per second on average.")]
SeedOption = Annotated[
    int | None,
    typer.Option(
        help="The same seed gives the same market, the same day and the same customers. "
        "(default: market and day of seed 1, customers of a secret one)"
    ),
]
ProfileOption = Annotated[
    Literal["flat", "day"], typer.Option(help="The order path's load: always the same, or a trading day's.")
]
CompressionOption = Annotated[
    float, typer.Option(min=0.001, max=100_000, help="How many times faster the profile's day goes by.")
]
OtelOption = Annotated[bool, typer.Option("--otel", help="Run the quote service too, which knows only OpenTelemetry.")]


def register(root: typer.Typer) -> None:
    """Add the command to the tree."""

    @command(root, "up", examples=("tailsight up", "tailsight up --otel", "tailsight up --no-demo --port 9000"))
    def up(
        run: Run,
        demo: Annotated[
            bool | None, typer.Option("--demo/--no-demo", help="Run the order path too. (default: if it is declared)")
        ] = None,
        port: Annotated[
            int | None, typer.Option(min=0, max=65_535, help="Port of the server. (default: 8472, else a free one)")
        ] = None,
        rate: RateOption = 200.0,
        seed: SeedOption = None,
        profile: ProfileOption = "flat",
        compression: CompressionOption = 1.0,
        otel: OtelOption = False,
        for_: Annotated[str | None, typer.Option("--for", metavar="DURATION", help="Stop by itself.")] = None,
        once: Annotated[bool, typer.Option("--once", help="Stop once there are figures to show.")] = False,
    ) -> Answer:
        """Run server, store, agent and a live order path, and show what they see. Ctrl-C stops everything.

        A process that dies is started again. Logs are in DIR/log. Exit code 3 when DIR is in use already.
        """
        from api.demo.programs import Load
        from api.server_settings import ServerSettings
        from api.up.hold import AlreadyRunningError, Hold
        from api.up.plan import PortTakenError, choose_port, local_url, programs, settle_configuration
        from api.up.run import server_runs
        from collector.agent.settings import AgentSettings
        from collector.settings import read_toml, section

        try:
            with Hold(run.data) as hold:
                if server_runs(run.data):
                    raise CommandError(
                        Code.UNREACHABLE,
                        f"a server that `tailsight up` did not start holds {run.data}",
                        kind="already_running",
                        hint="Stop it first (DIR/server.json has its pid), or use another --data DIR.",
                    )
                file, with_demo, remark = settle_configuration(run.data, run.config, demo)
                document = read_toml(file) if file else {}
                settings = section(document.get("server", {}), ServerSettings, "server", str(file or ""))
                agent = section(document.get("agent", {}), AgentSettings, "agent", str(file or ""))
                chosen = choose_port(settings.host, port, settings.port)
                url = local_url(settings, chosen)
                quotes = receiver(agent, own=True, source=str(file or "")) if otel else None
                agent_token, view_token = _tokens(run, settings, agent)
                plan = programs(
                    run.data,
                    run.config,
                    settings.host,
                    url,
                    demo=with_demo,
                    ring_dir=agent.ring_dir,
                    token_file=agent_token,
                    load=Load(rate, 1 if seed is None else seed, profile, compression, seed),
                    quotes=quotes,
                )
                if remark:
                    run.stderr().print(remark)
                return session(run, hold, plan, url=url, token=view_token, for_=for_, once=once)
        except AlreadyRunningError as error:
            raise CommandError(Code.UNREACHABLE, str(error), kind="already_running") from error
        except PortTakenError as error:
            raise CommandError(Code.UNREACHABLE, str(error), kind="port_taken") from error


def receiver(settings: AgentSettings, *, own: bool, source: str) -> Receiver:
    """Where the quote service exports to; `own`: to an agent that we start.

    Raises CommandError (exit code 2) when the SDK is not installed, ConfigError for a receiver that cannot be reached.
    """
    from api.demo.quotes.plan import ExtraMissingError, need_sdk, receiver_of

    try:
        need_sdk(receiver=own)
    except ExtraMissingError as error:
        raise CommandError(Code.USAGE, str(error), kind="extra_missing", hint=error.hint) from error
    return receiver_of(settings, own=own, source=source)


def _tokens(run: Run, server: ServerSettings, agent: AgentSettings) -> tuple[Path | None, str]:
    """The agent's token file and the live view's token; neither where the server is open on loopback."""
    from api.cli.acting import actor, control_of
    from api.up.passes import token_file

    if server.open_on_loopback:
        return None, ""
    with control_of(run) as control:
        file = None if agent.token_file else token_file(control, run.data, "agent", "agent", actor())
        return file, token_file(control, run.data, "view", "read", actor()).read_text("ascii").strip()


def session(
    run: Run,
    hold: Hold,
    programs: list[Program],
    *,
    url: str,
    for_: str | None,
    once: bool = False,
    token: str = "",
) -> Answer:
    """Run programs until a signal, a time or the first figures, with the display that fits the terminal.

    `token` opens the server at `url`. Deploys and instances that commands order for the order path are carried out.
    """
    from api.demo.announce import Announcer
    from api.demo.rollout import Rollout
    from api.demo.steward import Steward
    from api.up.figures import Poller
    from api.up.run import event_log, run_up
    from api.up.view import display_for, print_summary
    from collector.settings import duration_ns

    limit_s = duration_ns(for_, "--for") * 1e-9 if for_ else (_ONCE_LIMIT_S if once else None)

    def until(seconds: float, figures: Figures) -> bool:
        return (once and figures.complete) or (limit_s is not None and seconds >= limit_s)

    console = run.stderr()
    display = display_for(console, url, run.data)
    poller = Poller(url, token) if url else None
    announcer = Announcer(run.data, run.config)
    rollout = Rollout(run.data, programs, announcer.record)
    steward = Steward(run.data, announcer.record, run.config)

    def drain() -> None:
        steward.close()
        announcer.close()

    steward.start()
    with event_log(run.data / "log" / "up.log") as log:
        summary = run_up(
            hold, rollout.programs(), url, display, poller, log, until=until, replan=rollout.replan,
            draining=drain,
        )  # fmt: skip
    failed = once and not summary.figures.complete
    return Answer(
        summary, lambda out: print_summary(out, summary), Code.FINDING if failed or summary.killed else Code.OK
    )
