"""`tailsight agent trigger`: keep what the packet collector's buffer has around this moment."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

_PATIENCE_S = 15.0


def register(app: typer.Typer) -> None:
    """Add the command to the group `agent`."""

    @command(
        app,
        "trigger",
        examples=("tailsight agent trigger --before 5s --after 5s --reason slow-order", "... --no-wait --json"),
    )
    def trigger(
        run: Run,
        before: Annotated[str, typer.Option(metavar="DURATION", help="How far back.")] = "5s",
        after: Annotated[str, typer.Option(metavar="DURATION", help="How long from now on.")] = "5s",
        reason: Annotated[str, typer.Option(help="Why; becomes part of the file's name.")] = "by-hand",
        wait: Annotated[bool, typer.Option(help="Wait until the file is there.")] = True,
    ) -> Answer:
        """Keep the packets around this moment as a pcapng file in DIR/agent/captures.

        Needs an agent with the collector packet and [agent.packet.buffer] bytes above 0 on the same data directory.
        """
        from collector.packet.live.trigger import NotRecordingError, request_capture
        from collector.settings import duration_ns

        windows = {"before_ns": duration_ns(before, "--before"), "after_ns": duration_ns(after, "--after")}
        try:
            path, asked = request_capture(run.data, reason=reason, **windows)
        except ValueError as error:
            raise CommandError(Code.USAGE, str(error)) from error
        except NotRecordingError as error:
            raise CommandError(Code.UNREACHABLE, str(error), kind="not_recording") from error
        if wait:
            deadline = time.monotonic() + windows["after_ns"] / 1e9 + _PATIENCE_S
            with run.stderr().status(f"waiting for {path.name}"):
                while not path.exists():
                    if time.monotonic() > deadline:
                        raise CommandError(
                            Code.UNREACHABLE,
                            f"{path} did not appear; is the agent running?",
                            kind="no_capture",
                            hint="tailsight collectors shows how the packet collector is.",
                        )
                    time.sleep(0.05)
        size = path.stat().st_size if wait else None
        value = {"file": path, "at_ns": asked.at_ns, **windows, "reason": reason, "bytes": size}

        def show(console: Console) -> None:
            console.print(str(path) if wait else f"{path} (as soon as the window has passed)", soft_wrap=True)

        return Answer(value, show)
