"""What scripts rely on: help, JSON on standard output only, errors as objects, exit codes."""

import getpass
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from api.audit import Audit
from api.cli.root import app
from api.control import Control
from collector.store.embedded import open_embedded
from collector.store.schema import migrate

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight

DOCS = Path(__file__).resolve().parents[3] / "docs" / "cli.md"


def walk(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    children = getattr(command, "commands", None)
    if children is None:
        yield words, command
        return
    if command.invoke_without_command:
        yield words, command
    for name, child in children.items():
        yield from walk(child, (*words, name))


COMMANDS = dict(walk(get_command(app)))


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_help_an_example_and_the_shared_options(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert command.help
    assert command.epilog
    assert "Examples:" in command.epilog
    options = {name for parameter in command.params for name in parameter.opts}
    assert {"--data", "--config", "--json"} <= options
    for parameter in command.params:
        assert getattr(parameter, "help", None), f"{' '.join(words)} {parameter.name} has no help"


def test_every_command_is_documented_and_every_documented_command_exists() -> None:
    text = DOCS.read_text()
    documented = set(re.findall(r"^### `tailsight ([a-z ]+)`$", text, re.MULTILINE))
    assert documented == {" ".join(words) for words in COMMANDS}
    for section in re.split(r"^### ", text, flags=re.MULTILINE)[1:]:
        name = section.partition("`")[2].partition("`")[0]
        assert re.search(rf"^    {re.escape(name)}\b", section, re.MULTILINE), f"{name} has no example"


def test_every_option_in_the_documented_examples_exists() -> None:
    for line in re.findall(r"^    tailsight (.+)$", DOCS.read_text(), re.MULTILINE):
        words = tuple(line.split())
        command = next(COMMANDS[words[:n]] for n in (3, 2, 1) if words[:n] in COMMANDS)
        known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        for option in re.findall(r"(?<=\s)--[a-z-]+", line.partition("|")[0].partition("#")[0]):
            assert option in known, f"{line}: {option}"


@pytest.mark.parametrize("words", [(), ("query",), ("doctor",), ("query", "percentiles")], ids=str)
def test_help_is_printed(tailsight: "Tailsight", words: tuple[str, ...]) -> None:
    done = tailsight(*words, "--help")
    assert done.code == 0
    assert "Usage: tailsight" in done.out
    assert done.err == ""


def test_help_loads_nothing_heavy(tailsight: "Tailsight") -> None:
    done = tailsight("--help", PYTHONPROFILEIMPORTTIME="1")
    loaded = {line.rpartition("|")[2].strip() for line in done.err.splitlines()}
    assert "api.cli.root" in loaded
    for heavy in ("numpy", "polars", "chdb", "fastapi", "httpx", "scipy", "granian"):
        assert heavy not in loaded


@pytest.mark.parametrize("place", ["before", "after"])
def test_shared_options_stand_before_or_after_the_command(tailsight: "Tailsight", tmp_path: Path, place: str) -> None:
    shared = ("--data", str(tmp_path / "none"), "--json")
    done = tailsight(*shared, "paths") if place == "before" else tailsight("paths", *shared)
    assert done.code == 1
    assert done.json == {"paths": []}


def test_the_data_directory_comes_from_the_environment(tailsight: "Tailsight", tmp_path: Path) -> None:
    done = tailsight("doctor", "--json", TAILSIGHT_DATA=str(tmp_path / "elsewhere"))
    assert done.code == 1
    assert str(tmp_path / "elsewhere") in done.json["store"]["detail"]


def test_version_is_json(tailsight: "Tailsight") -> None:
    done = tailsight("version", "--json")
    assert done.code == 0
    assert done.json["parts"]["numpy"]


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (("nonsense",), 2, "usage"),
        (("query", "percentiles"), 2, "usage"),
        (("query", "percentiles", "--path", "order", "--source", "guess"), 2, "usage"),
        (("query", "percentiles", "--path", "order"), 3, "no_store"),
        (("query", "messages", "--path", "order"), 2, "unknown_path"),
        (("query", "messages", "--path", "order", "--from", "yesterday"), 2, "config"),
        (("query", "message", "x", "--data", "none"), 2, "key"),
        (("query", "message", "1", "--data", "none"), 3, "no_store"),
        (("collectors", "--data", "none"), 3, "no_store"),
        (("import", "hlog", "missing.hlog"), 2, "usage"),
        (("config", "check", "missing.toml"), 2, "config"),
        (("token", "create", "me", "--scope", "everything"), 2, "token"),
        (("token", "revoke", "nobody"), 4, "not_found"),
        (("demo", "fault", "start", "cpu_hog", "--at", "engine", "--data", "none"), 3, "not_running"),
        (("demo", "fault", "start", "lost_nic_queue", "--at", "engine", "--data", "none"), 3, "not_running"),
        (("demo", "link", "line-a", "--loss", "some", "--data", "none"), 2, "usage"),
        (("demo", "link", "line-a", "--rate", "1 furlong", "--data", "none"), 2, "usage"),
        (("demo", "canary", "start", "--at", "venue-east"), 2, "instance"),
        (("demo", "shadow", "start", "--at", "engine"), 2, "instance"),
        (("demo", "canary", "start", "--at", "engine", "--share", "120%"), 2, "instance"),
        (("demo", "canary", "start", "--at", "engine", "--data", "none"), 3, "not_running"),
        (("demo", "outcomes", "--data", "none"), 3, "no_blotter"),
        (("demo", "outcomes", "orders", "--from", "yesterday"), 2, "config"),
        (("changes", "record", "x", "--kind", "deploy", "--url", "javascript:1"), 2, "usage"),
        (("changes", "record", "x", "--kind", "deploy", "--label", "half"), 2, "usage"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_errors_are_objects_with_the_exit_code(
    tailsight: "Tailsight", arguments: tuple[str, ...], code: int, kind: str
) -> None:
    done = tailsight(*arguments, "--json")
    assert done.code == code, done
    error = done.json["error"]
    assert (error["exit_code"], error["kind"]) == (code, kind)
    assert error["message"]


def test_an_error_for_people_is_one_line_on_standard_error(tailsight: "Tailsight") -> None:
    done = tailsight("query", "messages", "--path", "order")
    assert done.code == 2
    assert done.out == ""
    assert done.err.startswith("tailsight: no path is called 'order'")
    assert "Traceback" not in done.err


def me() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}"


def test_tokens_are_made_listed_and_revoked(tailsight: "Tailsight", tmp_path: Path) -> None:
    data = ("--data", str(tmp_path), "--json")
    made = tailsight("token", "create", "grafana", "--scope", "read", "--expires", "+90d", *data).json
    assert made["token"].startswith(f"ts_{made['id']}_")
    listed = tailsight("token", "list", *data).json["tokens"]
    assert [(row["id"], row["name"], row["revoked_ns"]) for row in listed] == [(made["id"], "grafana", None)]
    assert made["token"] not in str(listed)
    assert tailsight("token", "revoke", made["id"], *data).code == 0
    assert tailsight("token", "list", *data).json["tokens"][0]["revoked_ns"] is not None
    control = Control(tmp_path / "control.sqlite")
    leaves = [tuple(row) for row in control.rows("SELECT action, target, actor FROM audit_staging ORDER BY leaf")]
    control.close()
    assert leaves == [("token.create", made["id"], me()), ("token.revoke", made["id"], me())]


def test_verify_audit_names_the_first_bad_leaf_before_and_after_it_is_in_the_store(
    tailsight: "Tailsight", tmp_path: Path
) -> None:
    data = ("--data", str(tmp_path), "--json")
    assert tailsight("verify", "audit", *data).json["error"]["kind"] == "no_control"
    for name in ("a", "b", "c"):
        tailsight("token", "create", name, "--scope", "read", *data)
    control = Control(tmp_path / "control.sqlite")
    try:
        done = tailsight("verify", "audit", *data)
        assert (done.code, done.json) == (0, {"leaves": 3, "first_bad": None, "problem": ""})
        with control.transaction() as db:
            db.execute("UPDATE audit_staging SET actor = 'eve' WHERE leaf = 1")
        done = tailsight("verify", "audit", *data)
        assert (done.code, done.json["first_bad"]) == (1, 1)
        with control.transaction() as db:
            db.execute("UPDATE audit_staging SET actor = ? WHERE leaf = 1", (me(),))

        with open_embedded(tmp_path) as store:
            migrate(store)
            Audit(control).flush(store)
        assert tailsight("verify", "audit", *data).json["first_bad"] is None
        tailsight("token", "create", "d", "--scope", "read", *data)
        done = tailsight("verify", "audit", *data)  # three leaves in the store, one in the staging
        assert (done.code, done.json["leaves"], done.json["first_bad"]) == (0, 4, None)
        with open_embedded(tmp_path) as store:
            store.execute("ALTER TABLE audit DELETE WHERE leaf = 2 SETTINGS mutations_sync = 2")
        done = tailsight("verify", "audit", "--data", str(tmp_path))
        assert done.code == 1
        assert "broken at leaf 2" in done.out
    finally:
        control.close()


def test_config_check_names_the_field(tailsight: "Tailsight", tmp_path: Path) -> None:
    good, bad = tmp_path / "good.toml", tmp_path / "bad.toml"
    good.write_text('[points.mine]\nlayer = "application"\n')
    bad.write_text('[points.mine]\nlayer = "cloud"\n')
    assert tailsight("config", "check", str(good), "--json").json["points"] == ["mine"]
    done = tailsight("config", "check", str(bad), "--json")
    assert done.code == 2
    assert "points.mine.layer" in done.json["error"]["message"]
    assert str(bad) in done.json["error"]["message"]
