"""`tailsight query`: percentiles, series, slow messages and one message's timeline; `query_*` add the rest."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.paths import Path as LatencyPath

app = typer.Typer(no_args_is_help=True)
_FINEST_NS = 10_000_000_000
_LAST_NS = 4_102_444_800 * 1_000_000_000  # the year 2100: a window is a 32-bit number of seconds
PathOption = Annotated[str, typer.Option("--path", help="Path, as declared in the configuration.")]
StageOption = Annotated[str | None, typer.Option("--stage", help="One stage instead of all.")]
FromOption = Annotated[
    str | None, typer.Option("--from", metavar="TIME", help="2026-11-21T09:30:00Z, ns since 1970, -15m. (default: all)")
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="TIME", help="End, not included. (default: all)")]


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="query", help="Ask for percentiles, single messages, clocks, gauges and the scheduler.")


def time_range(start: str | None, end: str | None) -> tuple[int | None, int | None]:
    """`--from` and `--to` in nanoseconds; None where nothing is said. Raises ConfigError, also for an empty range."""
    now_ns = time.time_ns()
    from_ns = None if start is None else parse_time(start, "--from", now_ns)
    to_ns = None if end is None else parse_time(end, "--to", now_ns)
    if from_ns is not None and to_ns is not None and from_ns >= to_ns:
        raise CommandError(Code.USAGE, f"--from {start} is not before --to {end}: the range is empty")
    return from_ns, to_ns


def range_fields(from_ns: int | None, to_ns: int | None) -> dict[str, Any]:
    """The asked range as every answer repeats it."""
    return {
        "from": None if from_ns is None else format_time(from_ns),
        "to": None if to_ns is None else format_time(to_ns),
    }


def plain(rows: Iterable[Any]) -> list[dict[str, Any]]:
    """Structs or dataclasses as dictionaries."""
    import msgspec

    return [msgspec.to_builtins(row, enc_hook=lambda value: value.item()) for row in rows]


@command(
    app,
    "percentiles",
    examples=("tailsight query percentiles --path order", "... --stage venue --from -15m --json"),
)
def percentiles(
    run: Run,
    path: PathOption,
    stage: StageOption = None,
    from_: FromOption = None,
    to: ToOption = None,
    rollup: Annotated[str, typer.Option(help="Only one label's messages, as label=value.")] = "",
    source: Annotated[
        Literal["counts", "raw"], typer.Option(help="Stored counts, or computed again from the messages.")
    ] = "counts",
) -> Answer:
    """Percentiles of each stage of a path, with how many messages they rest on and how sure they are.

    Exit code 1 when no message matches.
    """
    from analytics.latency import percentiles as ask
    from api.cli.opened import opened, path_or_name, unknown_path, window_settings

    from_ns, to_ns = time_range(from_, to)
    known = path_or_name(run, path)
    stage_known(known, stage)
    if source == "raw" and isinstance(known, str):
        raise unknown_path(run, path)
    clock = window_settings(run).clock
    with opened(run) as store:
        found = ask(store, known, stage=stage, from_ns=from_ns, to_ns=to_ns, rollup=rollup, source=source, clock=clock)
    if not found and isinstance(known, str):
        raise unknown_path(run, path)
    rows = plain(found)
    value = {"path": path, **range_fields(from_ns, to_ns), "rollup": rollup, "source": source, "stages": rows}

    def show(console: Console) -> None:
        from dashboards.terminal import notes, percentiles_table

        about = known if isinstance(known, str) else f"{path}: {known.description}"
        console.print(percentiles_table(about, rows, console.width))
        for line in notes(rows):
            console.print(line, style="dim")

    counted = any(row["count"] or row["unfinished"] or row["headless"] for row in rows)
    return Answer(value, show, Code.OK if counted else Code.FINDING)


@command(app, "series", examples=("tailsight query series --path order --stage end_to_end --step 10s",))
def series(
    run: Run,
    path: PathOption,
    stage: Annotated[str, typer.Option("--stage", help="Stage.")] = "end_to_end",
    from_: FromOption = "-15m",
    to: ToOption = None,
    step: Annotated[str, typer.Option(help="Length of one point: 10s, 1m, 1h.")] = "1m",
    rollup: Annotated[str, typer.Option(help="Only one label's messages, as label=value.")] = "",
) -> Answer:
    """Percentiles of one stage over time."""
    from analytics.latency import series as ask
    from api.cli.opened import opened, path_or_name, unknown_path
    from collector.settings import duration_ns

    from_ns, to_ns = time_range(from_, to or "now")
    step_ns = duration_ns(step, "--step")
    if step_ns <= 0 or step_ns % _FINEST_NS:
        raise CommandError(Code.USAGE, f"--step must be a multiple of 10s, the finest window; got {step!r}")
    step_s = step_ns // 1_000_000_000
    known = path_or_name(run, path)
    stage_known(known, stage)
    with opened(run) as store:
        found = ask(store, known, stage=stage, from_ns=from_ns, to_ns=to_ns, rollup=rollup, step_s=step_s)
    if not found and isinstance(known, str):
        raise unknown_path(run, path)
    rows = plain(found)
    value = {"path": path, "stage": stage, **range_fields(from_ns, to_ns), "step_s": step_s, "series": rows}

    def show(console: Console) -> None:
        from dashboards.terminal import count, duration, plain_table, share, sparkline

        body = [
            (
                _moment(row),
                count(row["count"]),
                *(duration(row.get(field)) for field in ("p50_ns", "p99_ns", "p999_ns", "max_ns")),
                share(row.get("completeness")),
            )
            for row in rows
        ]
        console.print(
            plain_table(f"{path} {stage}", ("time", "messages", "p50", "p99", "p99.9", "max", "complete"), body)
        )
        console.print("p99 " + sparkline(row.get("p99_ns") for row in rows))

    return Answer(value, show, Code.OK if rows else Code.FINDING)


@command(app, "messages", examples=("tailsight query messages --path order --limit 5 --from -1h",))
def messages(
    run: Run,
    path: PathOption,
    from_: FromOption = None,
    to: ToOption = None,
    stage: Annotated[str, typer.Option("--stage", help="Slowest in this stage.")] = "end_to_end",
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 10,
) -> Answer:
    """The slowest messages of a path, slowest first."""
    from analytics.messages import slowest
    from api.cli.opened import opened, path_named

    from_ns, to_ns = time_range(from_, to)
    known = path_named(run, path)
    stage_known(known, stage)
    with opened(run) as store:
        end_ns = _LAST_NS if to_ns is None else to_ns
        rows = plain(slowest(store, known, from_ns=from_ns or 0, to_ns=end_ns, stage=stage, limit=limit))
    for row in rows:
        row["stages"] = dict(zip((each.name for each in known.stages), row["stage_ns"], strict=True))
    value = {"path": path, "stage": stage, **range_fields(from_ns, to_ns), "messages": rows}

    def show(console: Console) -> None:
        from dashboards.terminal import duration, plain_table

        body = [
            (
                f"0x{row['key']:016x}",
                format_time(row["start_ns"]),
                duration(row["e2e_ns"]),
                row["outcome"],
                _widest(row),
            )
            for row in rows
        ]
        console.print(plain_table(f"{path}: slowest", ("key", "start", "end to end", "outcome", "most of it"), body))
        console.print("tailsight query message KEY shows one message's timeline.", style="dim")

    return Answer(value, show, Code.OK if rows else Code.FINDING)


@command(app, "message", examples=("tailsight query message 0x1f3a...", "... order:1234"))
def message(
    run: Run,
    key: Annotated[str, typer.Argument(help="Key as a number, or SPACE:ID, for example order:1234.")],
    from_: FromOption = None,
    to: ToOption = None,
) -> Answer:
    """One message's timeline: every stamp of its key and of the keys it is linked to, and what kept their threads.

    Exit code 4 when there is no such message.
    """
    from analytics.budget import steps
    from analytics.events import events as asked
    from analytics.messages import around, timeline
    from api.cli.opened import opened

    number = parse_key(key)
    from_ns, to_ns = time_range(from_, to)
    with opened(run) as store:
        found = timeline(store, number, from_ns=from_ns, to_ns=to_ns)
        kept = plain(steps(store, found))
        rows = [{**stamp, **step} for stamp, step in zip(plain(found), kept, strict=True)]
        keys = around(store, number, from_ns=from_ns, to_ns=to_ns)
        said = plain(reversed(asked(store, keys=keys, from_ns=from_ns, to_ns=to_ns, limit=200)))
    if not rows:
        raise CommandError(Code.DATA, f"no stamp has the key {key}", kind="not_found")

    def show(console: Console) -> None:
        from dashboards.terminal import duration, plain_table

        first = rows[0]["ts_ns"]
        body: list[tuple[Any, ...]] = []
        for row in rows:
            parts = row["parts"] or ()
            body += [("", f"  {p['kind']}", p["culprit"], "", duration(p["ns"]), None, "") for p in parts]
            if parts:
                body.append(("", "  remaining", "", "", duration(row["remaining_ns"]), None, ""))
            body.append(
                (
                    duration(row["since_start_ns"]),
                    row["point"],
                    row["service"],
                    row["host"],
                    duration(row["step_ns"]),
                    row["depth"],
                    f"0x{row['key']:016x}",
                )
            )
        title = f"message {number} from {format_time(first)}"
        columns = ("after", "point", "service or culprit", "host", "took", "depth", "key")
        console.print(plain_table(title, columns, body))
        if any(row["parts"] is None for row in rows):
            console.print(
                "Where nobody measured the scheduler, waiting for a CPU is part of what stages take.", style="dim"
            )
        if said:
            console.print(_events_table("what was said about it", said))

    return Answer({"key": number, "stamps": rows, "events": [_named(row) for row in said]}, show)


@command(app, "events", examples=("tailsight query events --key order:1234", "... --kind decision --from -15m --json"))
def events(
    run: Run,
    key: Annotated[str | None, typer.Option("--key", help="Only of one message: a number, or SPACE:ID.")] = None,
    kind: Annotated[str | None, typer.Option("--kind", help="Only this kind: decision, log, span, ...")] = None,
    service: Annotated[str | None, typer.Option("--service", help="Only this service.")] = None,
    from_: FromOption = None,
    to: ToOption = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many.")] = 50,
) -> Answer:
    """What programs said about messages: decisions with their reasons, log lines, spans; newest first.

    Exit code 1 when there is none.
    """
    from analytics.events import events as asked
    from api.cli.opened import opened

    from_ns, to_ns = time_range(from_, to)
    keys = None if key is None else [parse_key(key)]
    with opened(run) as store:
        found = asked(store, keys=keys, kind=kind, service=service, from_ns=from_ns, to_ns=to_ns, limit=limit)
    rows = plain(found)

    def show(console: Console) -> None:
        console.print(_events_table("events", rows))

    value = {**range_fields(from_ns, to_ns), "events": [_named(row) for row in rows]}
    return Answer(value, show, Code.OK if rows else Code.FINDING)


def _named(row: dict[str, Any]) -> dict[str, Any]:
    """An event without the name of its row."""
    return {name: value for name, value in row.items() if name not in ("batch", "seq")}


def _events_table(title: str, rows: list[dict[str, Any]]) -> Any:
    import msgspec

    from dashboards.terminal import plain_table

    body = [
        (
            format_time(row["ts_ns"]),
            row["kind"],
            row["service"],
            _hex(row["key"]) if row["key"] else "",
            row["body"],
            msgspec.json.encode(row["attributes"]).decode(),
        )
        for row in rows
    ]
    return plain_table(title, ("time", "kind", "service", "key", "body", "attributes"), body)


@command(app, "feeds", examples=("tailsight query feeds --from -15m", "... --channel itch --json"))
def feeds(
    run: Run,
    channel: Annotated[str, typer.Option(help="One channel instead of all.")] = "",
    from_: FromOption = None,
    to: ToOption = None,
    step: Annotated[str | None, typer.Option(metavar="DURATION", help="A row per step: a multiple of 10s.")] = None,
    decisions: Annotated[
        str | None, typer.Option(metavar="POINT", help="Count decisions stamped there that rest on bad data.")
    ] = None,
    max_data_age: Annotated[
        str | None, typer.Option(metavar="DURATION", help="Older data are bad, with --decisions.")
    ] = None,
) -> Answer:
    """What each line of each feed lost, repeated and reordered, and what was left after arbitration (line "all").

    Exit code 1 when a message is missing after arbitration, lines diverge, or nothing is known in that time.
    """
    from analytics.feed_decisions import TooManyDecisionsError, decisions_on_bad_data
    from analytics.feeds import feed_lines
    from api.cli.opened import opened
    from collector.settings import duration_ns

    from_ns, to_ns = time_range(from_, to)
    start, end = from_ns or 0, _LAST_NS if to_ns is None else to_ns
    seconds = None
    if step is not None:
        step_ns = duration_ns(step, "--step")
        if step_ns <= 0 or step_ns % _FINEST_NS:
            raise CommandError(Code.USAGE, f"--step {step} is not a multiple of 10s")
        seconds = step_ns // 1_000_000_000
    age_ns = None if max_data_age is None else duration_ns(max_data_age, "--max-data-age")
    with opened(run) as store:
        rows = plain(feed_lines(store, start, end, channel=channel, step_s=seconds))
        judged = None
        if decisions is not None:
            try:
                judged = plain([decisions_on_bad_data(store, start, end, point=decisions, max_age_ns=age_ns)])[0]
            except TooManyDecisionsError as error:
                raise CommandError(Code.USAGE, str(error)) from error
    value = {**range_fields(from_ns, to_ns), "decisions": judged, "lines": rows}
    bad = [row for row in rows if not row["line"] and (row["missing"] > 0 or row["divergent"])]
    return Answer(
        value, lambda console: _show_feeds(console, rows, judged), Code.FINDING if bad or not rows else Code.OK
    )


def _show_feeds(console: Console, rows: list[dict[str, Any]], judged: dict[str, Any] | None) -> None:
    from dashboards.terminal import count, duration, plain_table

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.2f} %"

    names = (
        "channel", "line", "from", "messages", "missing", "gaps", "dup", "reorder", "late", "resets", "won", "diverge",
        "errors", "drops", "skew max", "recovery max", "silent", "stale",
    )  # fmt: skip
    body = [
        (
            r["channel"], r["line"] or "all", _moment(r), count(r["messages"]), count(r["missing"]), count(r["gaps"]),
            count(r["duplicates"]), count(r["out_of_order"]), count(r["late"]), count(r["resets"] + r["sessions"]),
            share(r["won_share"]), count(r["divergent"]), count(r["errors"]), count(r["kernel_drops"]),
            duration(r["skew_max_ns"]), duration(r["recovery_max_ns"]), duration(r["silence_ns"]), count(r["stale"]),
        )
        for r in rows
    ]  # fmt: skip
    console.print(plain_table("feeds", names, body) if body else "no feed was followed in that time")
    if judged is not None:
        console.print(f"{count(judged['bad'])} of {count(judged['decisions'])} decisions rest on bad data")
        for lack in judged["lacking"]:
            console.print(f"not judged for lack of {lack}", style="dim")


def stage_known(path: LatencyPath | str, stage: str | None) -> None:
    """Raise CommandError with the stages there are when `stage` is none of a declared path's."""
    if stage is None or isinstance(path, str) or stage in path.stage_names:
        return
    problem = f"path {path.name!r} has no stage {stage!r}; it has {', '.join(path.stage_names)}"
    raise CommandError(Code.USAGE, problem, kind="unknown_stage")


def parse_key(text: str) -> int:
    """A key as people write it (`collector.keys.key_of`). Raises CommandError."""
    from collector.keys import key_of

    try:
        return key_of(text)
    except ValueError as error:
        raise CommandError(Code.USAGE, str(error), kind="key") from error


def _hex(key: int) -> str:
    return f"0x{key:016x}"


def _moment(row: dict[str, Any]) -> str:
    return format_time(row["from_ns"])[:19]


def _widest(row: dict[str, Any]) -> str:
    """The stage that took the largest part of a message."""
    from dashboards.terminal import duration

    stages = {name: ns for name, ns in (row.get("stages") or {}).items() if ns is not None}
    if not stages:
        return ""
    name = max(stages, key=lambda each: stages[each])
    return f"{name} {duration(stages[name])}"
