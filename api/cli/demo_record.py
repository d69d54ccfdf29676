"""`tailsight demo record` and `tailsight demo replay`: what came into the order path, as a file, and again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import format_time


def register(demo: typer.Typer) -> None:
    """Add the commands to `tailsight demo`."""
    command(demo, "record", examples=("tailsight demo record --to run.tsr --for 30s",))(record)
    command(demo, "replay", examples=("tailsight demo replay run.tsr --data ./replayed",))(replay)


def record(
    run: Run,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="Where the recording is written.")],
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long, 1s to 1h.")] = "30s",
) -> Answer:
    """Record what comes into the running order path: market data with their times, settings, faults, latencies."""
    from api.demo.history.recorder import record as recorded
    from api.demo.history.recording import RecordingError, encode
    from api.demo.measure import ring_dir_of
    from api.up.hold import locked, read_note
    from collector.settings import duration_ns

    for_ns = duration_ns(for_, "--for")
    notes = [read_note(run.data, name) for name in ("up", "demo") if locked(run.data / f"{name}.lock")]
    feeds = [note.programs["feed"] for note in notes if note is not None and "feed" in note.programs]
    if not feeds:
        raise CommandError(
            Code.UNREACHABLE, f"no order path runs for {run.data}: there is nothing to record", kind="not_running",
            hint="Start one with `tailsight up` or `tailsight demo`, or name its directory with --data DIR.",
        )  # fmt: skip
    try:
        inputs = recorded(run.data, ring_dir_of(run.document()), feeds[0], for_ns)
        content = encode(inputs)
    except RecordingError as error:
        raise CommandError(Code.FINDING, str(error), kind="recording") from error
    draft = to.with_name(f".{to.name}.new")
    draft.write_bytes(content)
    draft.replace(to)
    value = {
        "file": str(to), "bytes": len(content), "from_ns": inputs.from_ns, "to_ns": inputs.to_ns,
        "datagrams": len(inputs.datagrams), "faults": [fault.id for fault in inputs.faults], "load": inputs.load,
    }  # fmt: skip
    words = f"Wrote {to}: {len(inputs.datagrams):,} datagrams, {len(inputs.faults)} faults, {len(content):,} bytes."
    return Answer(value, lambda console: console.print(words))


def replay(run: Run, file: Annotated[Path, typer.Argument(help="A recording of `tailsight demo record`.")]) -> Answer:
    """Play a recording again on a virtual clock, into the store of DIR, marked synthetic; always with the same result.

    Exit code 4 for a damaged file, 2 when DIR has other stamps of that time.
    """
    from analytics.window_settings import WindowSettings
    from api.cli.demo_history import with_configuration
    from api.cli.opened import declared_paths, opened
    from api.demo.history.plan import PlanError
    from api.demo.history.recording import RecordingError, read
    from api.demo.history.replay import WireError
    from api.demo.history.replay import replay as replayed
    from api.up.hold import AlreadyRunningError, Hold
    from collector.points import points_from
    from collector.settings import section

    try:
        inputs, checksum = read(file)
        with Hold(run.data, "history"):
            configured = with_configuration(run)
            document = configured.document()
            windows = section(document.get("windows", {}), WindowSettings, "windows", configured.source)
            points = points_from(document, configured.source)
            with opened(configured, create=True) as store:
                found = replayed(store, run.data, points, declared_paths(configured), windows, inputs, checksum)
    except AlreadyRunningError as error:
        raise CommandError(Code.UNREACHABLE, str(error), kind="already_running") from error
    except PlanError as error:
        raise CommandError(Code.USAGE, str(error), kind="replay") from error
    except (RecordingError, WireError) as error:
        raise CommandError(Code.DATA, str(error), kind="recording") from error
    when = format_time(found.from_ns)[:19]
    words = (
        f"Replayed {found.datagrams:,} datagrams of {when}Z: {found.messages:,} messages from {found.stamps:,} stamps,"
        f" {found.faults} faults, in {found.seconds:.1f} s (now {format_time(time.time_ns())[:19]}Z).\n"
        f"digest {found.digest}\nSynthetic messages are asked for by name: --rollup mode=synthetic"
    )
    wrong = found.difference or found.quarantined
    return Answer(found, lambda console: console.print(words), Code.FINDING if wrong else Code.OK)
