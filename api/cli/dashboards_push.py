"""`tailsight dashboards push`, `diff`, `export` and `alerts`: a running Grafana, and rules as files."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import parse_time

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.slo.objectives import Objective
    from dashboards.grafana.alert_rules import Mirrored
    from dashboards.grafana.pushing import Change, Wanted
    from dashboards.grafana.remote import Grafana

UrlOption = Annotated[str, typer.Option("--url", metavar="URL", help="Grafana's address. (default: $GRAFANA_URL)")]
TokenOption = Annotated[
    Path | None,
    typer.Option("--token-file", metavar="FILE", help="File with a service account's token. (default: $GRAFANA_TOKEN)"),
]
CaOption = Annotated[Path | None, typer.Option("--ca", metavar="FILE", help="Certificates to trust, PEM.")]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Trust any certificate, and send the token unencrypted to other hosts.")
]
TimeoutOption = Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long one answer may take.")]
OrgOption = Annotated[int | None, typer.Option("--org", metavar="ID", help="Organisation. (default: the token's)")]
OnlyOption = Annotated[
    str | None,
    typer.Option(
        "--only",
        metavar="KINDS",
        help="Of source,contact-points,dashboards,alerts,annotations. (default: those that there is something for)",
    ),
]
FolderOption = Annotated[
    str, typer.Option("--folder", metavar="UID=TITLE", help="Folder of the dashboards and rules; it is made.")
]
ObjectivesOption = Annotated[
    list[Path] | None,
    typer.Option("--objectives", metavar="FILE", help="OpenSLO documents, may be repeated. (default: those in force)"),
]
ServerOption = Annotated[
    str,
    typer.Option("--server", metavar="URL", help="The server as Grafana reaches it, for the data source."),
]
PointsOption = Annotated[
    Path | None, typer.Option("--contact-points", metavar="FILE", help="Contact points in Grafana's form for files.")
]
ReceiverOption = Annotated[
    str,
    typer.Option("--receiver", metavar="NAME", help="Contact point of the rules. (default: Grafana's policy)"),
]
SinceOption = Annotated[str, typer.Option("--since", metavar="TIME", help="How far back annotations go.")]
PruneOption = Annotated[bool, typer.Option("--prune", help="Remove dashboards and rules of ours that are no more.")]
EditableOption = Annotated[
    bool, typer.Option("--editable", help="Let people change rules and contact points in Grafana's pages.")
]
FOLDER = "tailsight=Tailsight"


def register(app: typer.Typer) -> None:
    """Add the commands to the group `dashboards`."""
    command(
        app,
        "push",
        examples=(
            "GRAFANA_TOKEN=... tailsight dashboards push --url https://grafana.example.com",
            "tailsight dashboards push --url http://127.0.0.1:3000 --token-file token --server http://127.0.0.1:8472",
            "tailsight dashboards push --dry-run --only dashboards,alerts --json",
        ),
    )(_needs_extra(push))
    command(app, "diff", examples=("tailsight dashboards diff --url https://grafana.example.com",))(_needs_extra(diff))
    command(app, "export", examples=("tailsight dashboards export --out theirs/",))(_needs_extra(export))
    command(
        app,
        "alerts",
        examples=("tailsight dashboards alerts slos/ --out /etc/grafana/provisioning/alerting/tailsight.yaml",),
    )(_needs_extra(alerts))


def push(
    run: Run,
    url: UrlOption = "",
    token_file: TokenOption = None,
    ca: CaOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 15,
    org: OrgOption = None,
    only: OnlyOption = None,
    folder: FolderOption = FOLDER,
    objectives: ObjectivesOption = None,
    server: ServerOption = "",
    contact_points: PointsOption = None,
    receiver: ReceiverOption = "",
    since: SinceOption = "-7d",
    prune: PruneOption = False,
    editable: EditableOption = False,
    renew_password: Annotated[
        bool, typer.Option("--renew-password", help="Set the data source's password again, from $TAILSIGHT_SQL_TOKEN.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would change, and change nothing.")] = False,
) -> Answer:
    """Bring a running Grafana to what is wanted: folder, data source, dashboards, alert rules, annotations.

    What is as it should be is not touched: a second push changes nothing and says so. Exit code 1 where something could
    not be changed because it is provisioned from files.
    """
    from dashboards.grafana.pushing import pushed

    wanted, left_out = _wanted(
        run, only, folder, objectives, server, contact_points, receiver, since, prune, editable, renew_password
    )
    with _translated():
        grafana = _grafana(url, token_file, ca, insecure, timeout, org)
        version, changes = _planned(grafana, wanted)
        done: list[Change] = []
        if not dry_run:
            said = run.stderr()
            done = pushed(changes, lambda one: said.print(f"{one.action}: {one.kind} {one.name}", markup=False))
    blocked = any(one.action == "blocked" for one in changes)
    code = Code.FINDING if blocked else Code.OK
    return _answer(grafana.url, version, changes, left_out, code, dry_run=dry_run, pushed=len(done))


def diff(
    run: Run,
    url: UrlOption = "",
    token_file: TokenOption = None,
    ca: CaOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 15,
    org: OrgOption = None,
    only: OnlyOption = None,
    folder: FolderOption = FOLDER,
    objectives: ObjectivesOption = None,
    server: ServerOption = "",
    contact_points: PointsOption = None,
    receiver: ReceiverOption = "",
    since: SinceOption = "-7d",
    prune: PruneOption = False,
    editable: EditableOption = False,
) -> Answer:
    """What a push with the same options would change in a running Grafana, and why. Exit code 1 when it would."""
    wanted, left_out = _wanted(
        run, only, folder, objectives, server, contact_points, receiver, since, prune, editable, False
    )
    with _translated():
        grafana = _grafana(url, token_file, ca, insecure, timeout, org)
        version, changes = _planned(grafana, wanted)
    code = Code.FINDING if any(one.needed for one in changes) else Code.OK
    return _answer(grafana.url, version, changes, left_out, code, dry_run=True, pushed=0)


def export(
    run: Run,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="Where to; it is made.")],
    url: UrlOption = "",
    token_file: TokenOption = None,
    ca: CaOption = None,
    insecure: InsecureOption = False,
    timeout: TimeoutOption = 15,
    org: OrgOption = None,
    folder: FolderOption = FOLDER,
) -> Answer:
    """Write what a running Grafana holds in the folder: dashboards, and groups of alert rules as its API gives them."""
    from dashboards.grafana.exporting import exported, written

    del run
    uid = _folder(folder)[0]
    with _translated():
        grafana = _grafana(url, token_file, ca, insecure, timeout, org)
        version = grafana.version()
        documents = exported(grafana, uid)
    names = written(documents, out)
    value = {"grafana": version, "url": grafana.url, "folder": str(out), "written": names}
    return Answer(
        value,
        lambda console: console.print(f"{out}: {len(names)} files", markup=False),
        Code.OK if names else Code.FINDING,
    )


def alerts(
    run: Run,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="OpenSLO documents. (default: objectives in force)")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="File. (default: printed)")] = None,
    receiver: ReceiverOption = "",
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit code 1 if FILE would change.")] = False,
) -> Answer:
    """Grafana alert rules for objectives, as a file for its directory provisioning/alerting.

    What has no rule in Grafana is named on standard error.
    """
    from dashboards.grafana.alert_rules import file_document
    from dashboards.grafana.files import alerting_text

    made = _mirrored(run, _objectives(run, files))
    for line in made.left_out:
        run.stderr().print(line, markup=False)
    text = alerting_text(file_document(made.groups, receiver=receiver))
    value: dict[str, Any] = {"groups": [group.name for group in made.groups], "left_out": list(made.left_out)}
    if out is None:
        return Answer(
            {**value, "document": file_document(made.groups, receiver=receiver)}, lambda c: c.out(text, end="")
        )
    changed = not out.exists() or out.read_text("utf-8") != text
    if changed and not check:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text, "utf-8")
    word = ("would change" if check else "written") if changed else "is as it should be"
    return Answer(
        {**value, "file": str(out), "changed": changed},
        lambda console: console.print(f"{out}: {word}", markup=False),
        Code.FINDING if check and changed else Code.OK,
    )


def _grafana(
    url: str, token_file: Path | None, ca: Path | None, insecure: bool, timeout: float, org: int | None
) -> Grafana:
    from dashboards.grafana.remote import Grafana

    address = url or os.environ.get("GRAFANA_URL", "")
    if not address:
        raise CommandError(Code.USAGE, "no Grafana is named", hint="--url https://grafana.example.com, or GRAFANA_URL")
    if not 0 < timeout <= 600:
        raise CommandError(Code.USAGE, f"--timeout must be above 0 and at most 600, got {timeout:g}")
    if ca is not None and not ca.is_file():
        raise CommandError(Code.USAGE, f"--ca: there is no file {ca}")
    if ca is not None and insecure:
        raise CommandError(Code.USAGE, "--ca and --insecure exclude each other")
    return Grafana(address, _token(token_file), verify=str(ca) if ca else not insecure, timeout_s=timeout, org=org)


def _token(file: Path | None) -> str:
    if file is None:
        token = os.environ.get("GRAFANA_TOKEN", "").strip()
        where = "GRAFANA_TOKEN"
    else:
        try:
            token, where = file.read_text("utf-8").strip(), str(file)
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(Code.USAGE, f"--token-file {file} cannot be read: {error}", kind="file") from error
    if not token:
        raise CommandError(
            Code.USAGE, "there is no token for Grafana", hint="Set GRAFANA_TOKEN, or name a file with --token-file."
        )
    if not token.isascii() or not token.isprintable() or " " in token:
        raise CommandError(Code.USAGE, f"{where} holds no token: it is one word of plain letters")
    return token


def _folder(text: str) -> tuple[str, str]:
    import re

    uid, _, title = text.partition("=")
    if not re.fullmatch(r"[a-zA-Z0-9_-]{1,40}", uid) or not title.strip():
        raise CommandError(
            Code.USAGE, f"--folder must be UID=TITLE, a uid of 1 to 40 letters, digits, - and _; got {text!r}"
        )
    return uid, title.strip()


def _wanted(
    run: Run,
    only: str | None,
    folder: str,
    files: Sequence[Path] | None,
    server: str,
    points: Path | None,
    receiver: str,
    since: str,
    prune: bool,
    editable: bool,
    renew_password: bool,
) -> tuple[Wanted, tuple[str, ...]]:
    """What the options and the data directory say that Grafana shall hold, and what has no rule in it."""
    from api.cli.opened import has_store
    from dashboards.grafana import bodies
    from dashboards.grafana.alert_rules import SOURCE_UID, api_group
    from dashboards.grafana.files import documents
    from dashboards.grafana.pushing import KINDS, Wanted

    chosen = set(only.split(",")) if only is not None else None
    if chosen is not None and (bad := sorted(chosen - set(KINDS))):
        raise CommandError(Code.USAGE, f"--only: {', '.join(bad)} is none of {', '.join(KINDS)}")

    def asked(kind: str, there_is: bool) -> bool:
        return there_is if chosen is None else kind in chosen

    uid, title = _folder(folder)
    now_ns = time.time_ns()
    fields: dict[str, Any] = {"folder_uid": uid, "folder_title": title, "prune": prune, "editable": editable}
    if asked("source", bool(server)):
        if not server:
            raise CommandError(Code.USAGE, "--only source needs --server URL, the server as Grafana reaches it")
        try:
            fields["source"] = bodies.source(server)
        except ValueError as error:
            raise CommandError(Code.USAGE, f"--server: {error}") from None
        fields |= {"password": os.environ.get("TAILSIGHT_SQL_TOKEN", ""), "renew_password": renew_password}
        if renew_password and not fields["password"]:
            raise CommandError(Code.USAGE, "--renew-password needs the token in TAILSIGHT_SQL_TOKEN")
    if asked("contact-points", points is not None):
        fields["contact_points"] = _contact_points(points)
    if asked("dashboards", True):
        fields["dashboards"] = {document["uid"]: document for document in documents().values()}
    left_out: tuple[str, ...] = ()
    if asked("alerts", bool(files) or (run.data / "control.sqlite").exists()):
        made = _mirrored(run, _objectives(run, files))
        left_out = made.left_out
        fields["groups"] = [api_group(group, uid, SOURCE_UID, receiver) for group in made.groups]
    if asked("annotations", has_store(run)):
        from_ns = parse_time(since, "--since", now_ns)
        fields["annotations"] = _annotations(run, from_ns, now_ns)
        fields["annotations_ms"] = (from_ns // 1_000_000, now_ns // 1_000_000 + 1)
    return Wanted(**fields), left_out


def _contact_points(file: Path | None) -> list[dict[str, Any]]:
    import yaml

    from dashboards.grafana.bodies import ContactPointsError, contact_points

    if file is None:
        raise CommandError(Code.USAGE, "--only contact-points needs --contact-points FILE")
    try:
        return contact_points(yaml.safe_load(file.read_text("utf-8")), os.environ)
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ContactPointsError) as error:
        raise CommandError(Code.USAGE, f"{file}: {error}", kind="file") from error


def _annotations(run: Run, from_ns: int, to_ns: int) -> list[dict[str, Any]]:
    """Changes and episodes of a time, oldest first."""
    from api.cli.acting import control_of
    from api.cli.opened import opened
    from api.slo_book import SloBook
    from dashboards.grafana.bodies import change_annotation, episode_annotation

    statement = """SELECT toUnixTimestamp64Nano(ts) AS ts_ns, toString(id) AS id, toString(kind) AS kind, who, what,
    toString(host) AS host, toString(service) AS service, version, url FROM changes
    WHERE ts >= fromUnixTimestamp64Nano({start:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({end:Int64}, 'UTC')
    ORDER BY ts DESC LIMIT 2000"""
    with opened(run) as store:
        rows = store.query(statement, {"start": from_ns, "end": to_ns}).to_dicts()
    found = [change_annotation(row) for row in rows]
    if (run.data / "control.sqlite").exists():
        with control_of(run) as control:
            book = SloBook(control)
            severities = {(o.name, r.name): str(r.severity) for o in book.compiled().objectives for r in o.rules}
            episodes = [a for a in book.alerts() if a.episode and from_ns <= a.fired_ns < to_ns]
        found += [episode_annotation(a, severities.get((a.objective, a.rule), "page")) for a in episodes]
    return sorted(found, key=lambda one: one["time"])


def _objectives(run: Run, files: Sequence[Path] | None) -> tuple[Objective, ...]:
    from api.cli.acting import control_of
    from api.cli.slo import compiled_files
    from api.slo_book import SloBook

    if files:
        made = compiled_files(run, list(files))[1]
        if made.errors:
            raise CommandError(Code.DATA, str(made.errors[0]), kind="openslo", hint="`tailsight slo validate` has all.")
        return made.objectives
    if not (run.data / "control.sqlite").exists():
        raise CommandError(
            Code.USAGE,
            f"no objectives are in force in {run.data}",
            hint="Name OpenSLO documents, or a data directory with --data DIR.",
        )
    with control_of(run) as control:
        return SloBook(control).compiled().objectives


def _mirrored(run: Run, objectives: Sequence[Objective]) -> Mirrored:
    from api.public_url import public_url_of
    from dashboards.grafana.alert_rules import mirrored
    from dashboards.grafana.files import burn_panel

    return mirrored(objectives, burn_panel(), public_url_of(run.document(), run.source))


def _planned(grafana: Grafana, wanted: Wanted) -> tuple[str, list[Change]]:
    from dashboards.grafana.pushing import planned

    return grafana.version(), planned(grafana, wanted)


def _translated() -> Any:
    """Refusals of Grafana as failures of a command."""
    from contextlib import contextmanager

    from dashboards.grafana.remote import GrafanaError

    @contextmanager
    def inside() -> Any:
        try:
            yield
        except GrafanaError as error:
            codes = {"unreachable": Code.UNREACHABLE, "refused": Code.DATA}
            code = codes.get(error.kind, Code.USAGE)
            raise CommandError(code, str(error), kind=f"grafana_{error.kind}", hint=error.hint) from error

    return inside()


def _needs_extra(function: Callable[..., Answer]) -> Callable[..., Answer]:
    """A command that says which extra it needs where a package of it is missing."""

    @wraps(function)
    def wrapper(*arguments: Any, **options: Any) -> Answer:
        try:
            return function(*arguments, **options)
        except ModuleNotFoundError as error:
            if str(error.name).partition(".")[0] not in ("grafana_client", "grafana_foundation_sdk", "niquests"):
                raise
            raise CommandError(
                Code.USAGE,
                f"this command needs {error.name}, which is not installed",
                kind="not_installed",
                hint="pip install 'tailsight[grafana]', best into an environment of its own: docs/grafana.md says why.",
            ) from None

    return wrapper


def _answer(
    url: str,
    version: str,
    changes: Sequence[Change],
    left_out: Sequence[str],
    code: Code,
    *,
    dry_run: bool,
    pushed: int,
) -> Answer:
    needed = [one for one in changes if one.needed]
    rows = [
        {"kind": one.kind, "name": one.name, "action": one.action, "why": list(one.why)}
        for one in changes
        if one.action != "same"
    ]
    value = {
        "url": url, "grafana": version, "dry_run": dry_run, "same": sum(one.action == "same" for one in changes),
        "changes": rows, "pushed": pushed, "left_out": list(left_out),
    }  # fmt: skip

    def show(console: Console) -> None:
        for one in rows:
            console.print(f"{one['action']}: {one['kind']} {one['name']}", markup=False, soft_wrap=True)
            for line in one["why"]:
                console.print(f"    {line}", markup=False, soft_wrap=True)
        for line in left_out:
            console.print(f"left out: {line}", markup=False, soft_wrap=True)
        blocked = sum(one.action == "blocked" for one in changes)
        if not needed:
            console.print(f"{url} (Grafana {version}): nothing to change, {value['same']} are as they should be")
        elif dry_run:
            console.print(f"{url} (Grafana {version}): {len(needed)} to change, {value['same']} as they should be")
        else:
            console.print(f"{url} (Grafana {version}): {pushed} changed, {value['same']} were as they should be")
        if blocked:
            console.print(f"{blocked} are provisioned from files and were left alone")

    return Answer(value, show, code)
