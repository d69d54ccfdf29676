"""The product learns of the demo its stamps and a declared configuration, nothing else: no fault, no place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from api.demo import truth
from api.demo.blotter import Blotter
from api.demo.business import FILE, Business
from api.demo.control import FOLDER
from api.demo.drop_copy import Sent
from api.demo.faults import KINDS, LINKS
from api.demo.outcome_rule import LoadMeter, OutcomeRule
from api.demo.wire import Order

ROOT = Path(__file__).resolve().parents[2]
# A word of the product too: a link between keys (docs/glossary.md).
GENERIC = {"link"}
PLACES = {place for kind in KINDS.values() for place in kind.places if "-" in place} | set(LINKS)
FOLDERS = {f"{FOLDER}/{name}" for name in ("faults", "instances", "experiments", truth.FOLDER)}
SECRET = (set(KINDS) | PLACES | FOLDERS | {"api.demo", FILE}) - GENERIC
# Who knows the coefficients knows the answers: the back office applies them, the checker reads them. `history` is the
# back office of days that are made up.
KNOWS_THE_RULE = {"outcome_rule", "truth", "blotter", "back_office", "history"}
FILES = sorted(
    file
    for package in ("collector", "analytics", "dashboards")
    for file in (ROOT / package).rglob("*")
    if file.suffix in (".py", ".sql", ".toml", ".json", ".yaml", ".c", ".pyi")
)


def leaks(text: str) -> set[str]:
    return {word for word in SECRET if word in text}


def test_the_search_covers_the_product_and_would_find_a_leak() -> None:
    assert len(FILES) > 50
    assert {"slow_dependency", "line-a", "gateway-east", "lost_nic_queue"} <= SECRET
    assert leaks("if kind == 'cpu_hog':") == {"cpu_hog"}


@pytest.mark.parametrize("package", ["collector", "analytics", "dashboards"])
def test_no_module_names_a_fault_or_a_place_of_the_demo(package: str) -> None:
    for file in FILES:
        if file.is_relative_to(ROOT / package):
            assert not leaks(file.read_text("utf-8")), file.relative_to(ROOT)


def test_nothing_but_the_command_line_and_the_demo_itself_reads_the_control_directory() -> None:
    allowed = {"api/cli/demo_fault.py", "api/cli/demo_instances.py", "api/cli/experiment.py"}
    for file in (ROOT / "api").rglob("*.py"):
        name = str(file.relative_to(ROOT))
        if name.startswith("api/demo/") or name in allowed:
            continue
        modules = {node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not modules & {"api.demo.control", "api.demo.faults", "api.demo.place"}, name


def test_nothing_but_the_back_office_knows_the_customers_rule() -> None:
    telling = {
        "hour_shift_s",
        "draw_rule",
        "outcome_rule",
        "OutcomeRule",
        "demo.truth",
        "demo import truth",
        "demo/truth",
    }
    assert "hour_shift_s" in OutcomeRule.__struct_fields__
    sources = [
        file
        for package in ("collector", "analytics", "dashboards", "api")
        for file in (ROOT / package).rglob("*")
        if file.suffix in (".py", ".sql", ".toml")
    ]
    found = {file.relative_to(ROOT) for file in sources if any(word in file.read_text("utf-8") for word in telling)}
    assert {file.stem for file in found} >= {"outcome_rule", "truth", "back_office"}  # the search finds what there is
    for file in found:
        assert file.is_relative_to("api/demo"), file
        assert file.stem in KNOWS_THE_RULE or "history" in file.parts, file


def test_the_coefficients_are_nowhere_but_in_the_folder_of_the_truth(tmp_path: Path) -> None:
    secret = truth.settled(tmp_path, 1, None, 1.0)
    values = {str(secret.seed), str(secret.rule.dice), str(secret.rule.cohort[0])}
    business = Business(tmp_path)
    blotter = Blotter(secret.rule, LoadMeter(1.0), lambda _: 0.0)
    for number in range(200):
        blotter.take(Sent(Order(number, 1, b"B", 100, 10_000), number, number, number))
    business.add(blotter.close())
    business.close()
    for file in tmp_path.rglob("*"):
        if file.is_file():
            told = {value for value in values if value.encode() in file.read_bytes()}
            assert bool(told) == (file.parent.name == truth.FOLDER), file


def test_the_order_paths_configuration_names_no_fault() -> None:
    assert not leaks((ROOT / "api/demo/tailsight.toml").read_text()) - PLACES
