"""`tailsight demo --history` and `tailsight demo replay`: the order path on a virtual clock, into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.cli.frame import Run
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console

    from api.demo.history.run import Summary

DEFAULT_RATE = 1.0
_DAY_NS = 86_400_000_000_000


def history(
    run: Run, length: str, *, rate: float | None, seed: int | None, profile: str | None, until: str | None
) -> Answer:
    """Make a history of that length, and say what is in it."""
    import time

    from analytics.window_settings import WindowSettings
    from api.cli.opened import declared_paths, opened
    from api.cli.times import parse_time
    from api.demo.history.hours import Settings
    from api.demo.history.plan import PlanError
    from api.demo.history.run import History
    from api.up.hold import AlreadyRunningError, Hold
    from collector.points import points_from
    from collector.settings import duration_ns, section
    from collector.store.schema import Retention

    length_ns = duration_ns(length, "--history")
    until_ns = None if until is None else parse_time(until, "--until", time.time_ns())
    chosen = profile or ("day" if length_ns >= _DAY_NS else "flat")
    settings = Settings(seed=1 if seed is None else seed, rate=DEFAULT_RATE if rate is None else rate, profile=chosen)
    try:
        with Hold(run.data, "history"):
            configured = with_configuration(run)
            document = configured.document()
            with opened(configured, create=True) as store, progress(run, length) as tell:
                summary = History(
                    store,
                    run.data,
                    points_from(document, configured.source),
                    declared_paths(configured),
                    section(document.get("windows", {}), WindowSettings, "windows", configured.source),
                    settings,
                    outcomes=seed,
                    retention=section(document.get("retention", {}), Retention, "retention", configured.source),
                ).run(length_ns, until_ns, progress=tell)
    except AlreadyRunningError as error:
        raise CommandError(Code.UNREACHABLE, str(error), kind="already_running") from error
    except PlanError as error:
        raise CommandError(Code.USAGE, str(error), kind="history") from error
    wrong = summary.difference or summary.quarantined
    return Answer(summary, lambda console: _show(console, summary), Code.FINDING if wrong else Code.OK)


def with_configuration(run: Run) -> Run:
    """The run with a configuration that declares the order path; a directory without any gets one."""
    from api.up.plan import settle_configuration

    file, _, remark = settle_configuration(run.data, run.config, True)
    if remark:
        run.stderr().print(remark)
    return Run(run.data, file, run.json)


@contextmanager
def progress(run: Run, what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on standard error; a line a minute or so where nobody watches."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = run.stderr()
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("h"), TimeRemainingColumn()
    )  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as bar:
        task = bar.add_task(f"history {what}", total=None)

        def tell(stage: str, done: int, of: int) -> None:
            bar.update(task, description=f"history {what}: {stage}", completed=done, total=of)

        yield tell


def _show(console: Console, summary: Summary) -> None:
    console.print(
        f"History from {format_time(summary.from_ns)[:16]}Z to {format_time(summary.to_ns)[:16]}Z,"
        f" {summary.hours:,} hours ({summary.hours_made:,} made now), seed {summary.seed},"
        f" {summary.rate:g} quotes/s, profile {summary.profile}."
    )
    console.print(
        f"{summary.messages:,} messages from {summary.stamps:,} stamps in {summary.windows:,} windows;"
        f" {summary.deploys} deploys, {summary.canaries} canaries and {summary.shadows} shadows on record."
        f" {summary.seconds:.1f} s, ledger difference {summary.difference}."
    )
    from api.demo.history.kept import sentences

    for sentence in sentences(summary.kept_hours, summary.hours):
        console.print(sentence)
    console.print("Synthetic messages are asked for by name: --rollup mode=synthetic")
