"""`tailsight paths`: what is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.paths import End
    from analytics.paths import Path as LatencyPath


def register(root: typer.Typer) -> None:
    """Add the command to the tree."""

    @command(root, "paths", examples=("tailsight paths",))
    def paths(run: Run) -> Answer:
        """The paths of the configuration and the learned ones, with their stages. Exit code 1 when there is none."""
        from analytics.learned import shown_origin
        from api.cli.opened import declared_paths, learned_paths

        declared, learned = declared_paths(run), learned_paths(run)
        known = [*declared.values(), *(one.path for name, one in learned.items() if name not in declared)]
        rows = [{**_row(path), **shown_origin({} if path.name in declared else learned, path.name)} for path in known]

        def show(console: Console) -> None:
            from dashboards.terminal import duration, plain_table

            for row in rows:
                body = [
                    (stage["name"], stage["class"], duration(stage["budget_ns"]), stage["from"], stage["to"])
                    for stage in row["stages"]
                ]
                title = f"{row['name']}: {row['description']}"
                console.print(plain_table(title, ("stage", "class", "budget", "from", "to"), body))
            if not rows:
                said = "No path is declared: add [paths.NAME] to tailsight.toml (docs/architecture.md)."
                console.print(said, markup=False)

        return Answer({"paths": rows}, show, Code.OK if rows else Code.FINDING)


def _row(path: LatencyPath) -> dict[str, Any]:
    return {
        "name": path.name,
        "description": path.description,
        "max_age_ns": path.max_age_ns,
        "hops": path.hops,
        "rollup": path.rollup,
        "stages": [
            {
                "name": stage.name,
                "class": stage.kind,
                "budget_ns": stage.budget_ns,
                "from": _end(stage.start),
                "to": _end(stage.end),
                "sentence": stage.sentence,
            }
            for stage in path.stages
        ],
    }


def _end(end: End) -> str:
    return f"{end.point}@{end.service}" if end.service else end.point
