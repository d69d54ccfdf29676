"""Every fault of the demo has a runbook, and what a runbook tells people to type and to open exists."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
import yaml

from api.demo.faults import KINDS
from tests.api.cli.test_contract import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "runbooks"
PAGES = sorted(FOLDER.glob("*.md"))
SECTIONS = (
    "What the page looks like",
    "First look",
    "Three steps",
    "What confirmed it",
    "What to do",
    "What it is confused with",
)


def boards() -> dict[str, set[str]]:
    """The dashboards that are shipped, by uid, with their variables."""
    found = {}
    for file in (ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"):
        board = json.loads(file.read_text())
        found[board["uid"]] = {one["name"] for one in board.get("templating", {}).get("list", [])}
    return found


def command_of(words: list[str]) -> int:
    """How many words name the command. Raises StopIteration."""
    return next(n for n in (3, 2, 1) if tuple(words[:n]) in COMMANDS)


def parsed(line: str) -> None:
    """Read a command line as the program does, without running it."""
    words = shlex.split(line)
    size = command_of(words)
    COMMANDS[tuple(words[:size])].make_context("tailsight", words[size:])


def test_every_fault_has_a_page_and_every_page_a_fault() -> None:
    assert {page.stem for page in PAGES} == {*KINDS, "README"}
    index = (FOLDER / "README.md").read_text()
    for kind in KINDS:
        assert f"]({kind}.md)" in index, f"{kind} is not in the index"


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_a_page_says_everything_that_is_needed_at_night(kind: str) -> None:
    text = (FOLDER / f"{kind}.md").read_text()
    assert tuple(re.findall(r"^## (.+)$", text, re.MULTILINE)) == SECTIONS
    steps = text.partition("## Three steps")[2].partition("##")[0]
    assert len(re.findall(r"^    tailsight ", steps, re.MULTILINE)) == 3
    walk = text.partition("## What confirmed it")[2].partition("##")[0]
    ordered = "link" if kind == "link" else f"fault start {kind}"
    assert f"tailsight demo {ordered} " in walk
    assert re.search(r"\d", walk)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_what_a_page_tells_to_type_and_to_open_exists(page: Path) -> None:
    text = page.read_text()
    for line in re.findall(r"^    tailsight (.+)$", text, re.MULTILINE):
        parsed(line)
    for mention in re.findall(r"`tailsight ([^`]+)`", text):
        words = shlex.split(mention)
        size = command_of(words)
        if len(words) > size:
            parsed(mention)
    known = boards()
    for link in re.findall(r"`(/d/[^`]+)`", text):
        url = urlsplit(link)
        uid = url.path.split("/")[2]
        assert uid in known, link
        for name, _ in parse_qsl(url.query):
            assert name.removeprefix("var-") in known[uid], link


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        parsed("explain --path order --form -5m")
    with pytest.raises(StopIteration):
        parsed("explane --path order")


def test_the_objectives_of_the_example_lead_here() -> None:
    documents = yaml.safe_load_all((ROOT / "deploy" / "examples" / "order-path.slo.yaml").read_text())
    goals = [one for one in documents if one["kind"] == "SLO"]
    assert len(goals) == 3
    for one in goals:
        assert (ROOT / one["metadata"]["annotations"]["tailsight.dev/runbook"]).is_file()
