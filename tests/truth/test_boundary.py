"""The product learns of the demo its stamps and a declared configuration, nothing else: no fault, no place."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from api.demo.control import FOLDER
from api.demo.faults import KINDS, LINKS, NOT_HERE

ROOT = Path(__file__).resolve().parents[2]
GENERIC = {"link"}  # a word of the product too (docs/glossary.md)
PLACES = {place for kind in KINDS.values() for place in kind.places if "-" in place} | set(LINKS)
SECRET = (set(KINDS) | set(NOT_HERE) | PLACES | {"api.demo", f"{FOLDER}/faults"}) - GENERIC
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
    allowed = {"api/cli/demo_fault.py"}
    for file in (ROOT / "api").rglob("*.py"):
        name = str(file.relative_to(ROOT))
        if name.startswith("api/demo/") or name in allowed:
            continue
        modules = {node.module for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.ImportFrom)}
        assert not modules & {"api.demo.control", "api.demo.faults", "api.demo.place"}, name


def test_the_order_paths_configuration_names_no_fault() -> None:
    assert not leaks((ROOT / "api/demo/tailsight.toml").read_text()) - PLACES
