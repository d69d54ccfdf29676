"""`tailsight version`."""

from __future__ import annotations

import platform
import sys
from importlib import metadata
from typing import TYPE_CHECKING

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer

if TYPE_CHECKING:
    from rich.console import Console

_PARTS = ("tailsight-probe", "chdb", "clickhouse-driver", "granian", "polars", "numpy")


def register(root: typer.Typer) -> None:
    """Add the command to the tree."""

    @command(root, "version", examples=("tailsight version --json",))
    def version(_run: Run) -> Answer:
        """This program's version and those of what it is built on."""
        value = versions()

        def show(console: Console) -> None:
            console.print(f"tailsight {value['tailsight']}")
            for name, text in value["parts"].items():  # type: ignore[attr-defined]
                console.print(f"  {name} {text or 'not installed'}", style="dim")

        return Answer(value, show)


def versions() -> dict[str, object]:
    """Versions by name; null where a part is not installed."""
    return {
        "tailsight": _version("tailsight") or "0+source",
        "python": platform.python_version(),
        "kernel": platform.release(),
        "executable": sys.executable,
        "parts": {name: _version(name) for name in _PARTS},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
