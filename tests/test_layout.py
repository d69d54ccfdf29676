"""The arrows of the architecture: api -> dashboards -> analytics -> collector, never back; and what ships."""

from __future__ import annotations

import ast
import graphlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ORDER = ["collector", "analytics", "dashboards", "api"]

# What the agent must never need: it runs beside the observed program.
HEAVY = {
    "chdb", "polars", "pyarrow", "pandas", "fastapi", "pydantic", "granian", "scipy", "clickhouse_driver", "hdrh",
    "scapy",
}  # fmt: skip
BASE_MODULES = [
    "collector.agent.__main__",
    "collector.sources.probe",
    "collector.sources.schedstat",
    "collector.packet.live.source",
    "collector.shipper",
    "collector.feeds.source",
    "collector.probes.source",
    "collector.decode.registry",
]


def imports(path: Path) -> set[str]:
    """Top-level names of everything a file imports, lazily or not."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
    return names


def sources(package: str) -> list[Path]:
    return [p for p in (ROOT / package).rglob("*.py") if (ROOT / "collector" / "probe") not in p.parents]


@pytest.mark.parametrize("package", ORDER)
def test_imports_run_against_the_data(package: str) -> None:
    allowed = ORDER[: ORDER.index(package) + 1]
    for path in sources(package):
        for name in imports(path):
            top = name.split(".")[0]
            assert top not in ORDER or top in allowed, f"{path.relative_to(ROOT)} imports {name}"
            assert top != "tests", f"{path.relative_to(ROOT)} imports {name}"


def test_only_the_four_packages_hold_product_code() -> None:
    tops = {p.parent.name for p in ROOT.glob("*/__init__.py")}
    assert tops - {"tests"} == set(ORDER)  # tests are a package beside them, and never ship


@pytest.mark.parametrize("module", BASE_MODULES)
def test_the_agent_runs_on_its_base_dependencies(module: str) -> None:
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {HEAVY!r}:
            raise ImportError("the agent may not import " + name)
sys.meta_path.insert(0, Refuse())
import {module}
"""
    subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, env={"PYTHONPATH": f"{ROOT}:{ROOT}/collector/probe/src"}
    )


def test_scapy_is_an_extra_and_no_dependency_of_the_agent() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert not [one for one in project["dependencies"] if one.startswith("scapy")]
    assert [one for one in project["optional-dependencies"]["packets"] if one.startswith("scapy")]


def test_the_probe_imports_only_the_standard_library() -> None:
    for path in (ROOT / "collector" / "probe" / "src").rglob("*.py"):
        for name in imports(path):
            top = name.split(".")[0]
            # xxhash is used where the host program happens to have it; it is not required.
            assert top in sys.stdlib_module_names | {"tailsight_probe", "xxhash"}, f"{path.name} imports {name}"
    project = tomllib.loads((ROOT / "collector/probe/pyproject.toml").read_text())["project"]
    assert "dependencies" not in project


def test_the_wheel_holds_the_four_packages_and_their_data(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    tops = {n.split("/")[0] for n in names}
    assert tops == {*ORDER, next(t for t in tops if t.endswith(".dist-info"))}
    assert not [n for n in names if n.startswith("collector/probe/")]
    for path in ROOT.glob("*/**/*"):
        if (
            path.suffix in {".sql", ".toml", ".typed", ".html", ".css", ".js", ".svg"}
            and path.relative_to(ROOT).parts[0] in ORDER
        ):
            name = str(path.relative_to(ROOT))
            assert name in names or name.startswith("collector/probe/"), f"{name} is not in the wheel"
    for path in (ROOT / "docs" / "runbooks").glob("*.md"):
        assert zipfile.ZipFile(wheel).read(f"dashboards/runbooks/{path.name}") == path.read_bytes()


def needs(path: Path, modules: set[str]) -> set[str]:
    """The modules of ours that a file imports when it runs, at once or later, but not for a type checker only."""
    tree = ast.parse(path.read_text())
    typing_only = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        for child in ast.walk(node)
    }
    found = set()
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            submodules = {f"{node.module}.{alias.name}" for alias in node.names} & modules
            found |= submodules or {node.module or ""}
    return found & modules


def test_modules_do_not_import_in_circles() -> None:
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in ORDER
        for path in sources(package)
    }
    graph = {name: needs(path, set(files)) - {name} for name, path in files.items()}
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
