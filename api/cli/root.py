"""The command tree: the root's options, the groups, and what happens when a command cannot be run at all."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import metadata

import typer
from typer.main import get_command

from api.cli import (
    agent,
    assignments,
    changes,
    collectors,
    compare,
    config,
    costs,
    dashboards,
    demo,
    doctor,
    experiment,
    flows,
    hlog,
    import_pcap,
    kpis,
    paths,
    query,
    query_changepoints,
    query_clock,
    query_hosts,
    query_queues,
    query_scheduler,
    query_sensitivity,
    query_tail,
    query_whatif,
    report,
    rollout,
    scenarios,
    server,
    slo,
    slo_backtest,
    slo_gate,
    token,
    up,
    verify,
    version,
)
from api.cli.frame import ConfigOption, DataOption, JsonOption, Shared, fail
from api.cli.outcome import Code, CommandError

app = typer.Typer(
    name="tailsight",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with:  tailsight up",
)
for module in (
    up,
    demo,
    agent,
    assignments,
    experiment,
    server,
    slo,
    slo_backtest,
    slo_gate,
    query,
    query_clock,
    query_scheduler,
    query_sensitivity,
    query_tail,
    flows,
    query_hosts,
    query_queues,
    query_changepoints,
    query_whatif,
    compare,
    rollout,
    costs,
    scenarios,
    report,
    paths,
    hlog,
    import_pcap,
    kpis,
    doctor,
    verify,
    collectors,
    changes,
    token,
    dashboards,
    config,
    version,
):
    module.register(app)


@app.callback()
def root(ctx: typer.Context, data: DataOption = None, config: ConfigOption = None, json: JsonOption = False) -> None:
    """Where the slowest messages spend their time, and what that costs.

    Every command takes --json. Exit codes: 0 ok, 1 the answer is no, 2 wrong usage, 3 cannot reach, 4 wrong data.
    """
    ctx.obj = Shared(data, config, json)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    as_json = "--json" in arguments
    try:
        code = get_command(app).main(list(arguments), prog_name="tailsight", standalone_mode=False)
        return int(code or 0)
    except CommandError as error:
        return fail(error, as_json)
    except typer.Abort:
        return fail(CommandError(Code.INTERRUPTED, "interrupted"), as_json)
    except KeyboardInterrupt:
        return fail(CommandError(Code.INTERRUPTED, "interrupted"), as_json)
    except BrokenPipeError:  # the reader of our output has had enough
        return Code.OK
    except typer.TyperException as error:
        if not error.format_message():  # no arguments: the help has been printed
            return Code.USAGE
        return fail(
            CommandError(Code.USAGE, error.format_message(), hint="tailsight COMMAND --help says more."), as_json
        )
    except Exception as error:
        if not as_json:
            raise
        # A script that asked for JSON gets JSON even from our own mistakes; the traceback still goes to stderr.
        import traceback

        traceback.print_exc()
        return fail(CommandError(Code.INTERNAL, f"{type(error).__name__}: {error}", kind="internal"), as_json)


def installed_version() -> str:
    """The version of the installed distribution."""
    return metadata.version("tailsight")
