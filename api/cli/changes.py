"""`tailsight changes`: who changed what and when."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from api.cli.acting import actor, control_of
from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.query import FromOption, ToOption, range_fields, time_range
from api.cli.times import format_time, parse_time

if TYPE_CHECKING:
    from rich.console import Console

app = typer.Typer(no_args_is_help=True)
_AHEAD_NS = 366 * 86_400 * 1_000_000_000  # announced changes lie in the future
_LIST = """
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, toString(id) AS id, kind, who, what, host, service, version, url, labels,
       toUnixTimestamp64Nano(recorded) AS recorded_ns
FROM changes
WHERE ts >= fromUnixTimestamp64Nano({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({end:Int64}, 'UTC')
ORDER BY ts DESC, id DESC LIMIT 1000
"""


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="changes", help="Record and list deploys, configuration changes, flags.")


@command(app, "list", examples=("tailsight changes list --from -7d",))
def list_(run: Run, from_: FromOption = "-7d", to: ToOption = None) -> Answer:
    """What was changed, newest first."""
    from api.cli.opened import opened

    from_ns, to_ns = time_range(from_, to)
    with opened(run) as store:
        found = store.query(_LIST, {"start": from_ns or 0, "end": to_ns or time.time_ns() + _AHEAD_NS})
    rows = [dict(row, labels=_labels(row["labels"])) for row in found.iter_rows(named=True)]

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [
            (format_time(r["ts_ns"])[:19], r["kind"], r["who"], r["what"], r["service"], r["version"]) for r in rows
        ]
        console.print(plain_table("Changes", ("when", "kind", "who", "what", "service", "version"), body))

    return Answer({**range_fields(from_ns, to_ns), "changes": rows}, show)


@command(app, "record", examples=("tailsight changes record 'engine 2.4.1' --kind deploy --service engine",))
def record(
    run: Run,
    what: Annotated[str, typer.Argument(help="What was changed, in words.")],
    kind: Annotated[Literal["deploy", "config", "flag", "slo", "rule"], typer.Option(help="What sort of change.")],
    service: Annotated[str, typer.Option(help="The service, if it is about one.")] = "",
    version: Annotated[str, typer.Option(help="The version it leads to.")] = "",
    host: Annotated[str, typer.Option(help="The host, if it is about one.")] = "",
    who: Annotated[str, typer.Option(help="Who did it. (default: you)")] = "",
    url: Annotated[str, typer.Option(help="Where to read more: http or https.")] = "",
    when: Annotated[str, typer.Option(metavar="TIME", help="When it took effect.")] = "now",
    label: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Anything else worth filtering by; may be repeated.")
    ] = None,
) -> Answer:
    """Record a change, so that a latency shift can be laid beside it. It is written to the audit log too."""
    import msgspec

    from api.audit import Audit
    from api.cli.opened import opened
    from collector.store.blocks import from_rows
    from collector.store.schema import table_types

    if not what or len(what) > 2_000:
        raise CommandError(Code.USAGE, "WHAT must have 1 to 2,000 characters")
    if url and not url.startswith(("http://", "https://")):
        raise CommandError(Code.USAGE, f"--url must start with http:// or https://, got {url!r}")
    labels = dict(one.split("=", 1) for one in label or () if "=" in one)
    if len(labels) < len(label or ()) or len(labels) > 50:
        raise CommandError(Code.USAGE, "--label must be NAME=VALUE, each name once, at most 50 of them")
    now_ns = time.time_ns()
    me = actor()
    row: dict[str, Any] = {
        "ts": parse_time(when, "--when", now_ns),
        "id": str(uuid.uuid4()),
        "kind": kind,
        "who": who or me,
        "what": what,
        "host": host,
        "service": service,
        "version": version,
        "url": url,
        "labels": msgspec.json.encode(labels).decode(),
        "recorded": now_ns,
    }
    with opened(run, create=True) as store:
        store.insert("changes", from_rows(table_types()["changes"], [row]), token=f"changes/{row['id']}")
    with control_of(run) as control:
        detail = {"kind": kind, "who": row["who"], "what": what[:200], "service": service}
        Audit(control).record(me, "change.record", row["id"], "ok", detail)
    value = {"ts_ns": row.pop("ts"), "recorded_ns": row.pop("recorded"), **row, "labels": labels}
    return Answer(value, lambda console: console.print(f"Recorded {kind} {row['id']}."))


def _labels(text: str) -> dict[str, str]:
    import msgspec

    return msgspec.json.decode(text or "{}", type=dict[str, str])
