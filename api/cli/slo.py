"""`tailsight slo`: objectives as OpenSLO documents: check, test, apply, look at, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError

if TYPE_CHECKING:
    from rich.console import Console

    from analytics.slo.compiled import Compiled
    from analytics.slo.openslo import Object, Problem

app = typer.Typer(no_args_is_help=True)
FilesArgument = Annotated[
    list[Path], typer.Argument(metavar="FILE...", help="OpenSLO v1 documents; a folder means its .yaml and .yml files.")
]


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="slo", help="Objectives, error budgets and burn alerts, as OpenSLO v1 documents.")


@command(app, "validate", examples=("tailsight slo validate slos/", "... order.yaml --json"))
def validate(run: Run, files: FilesArgument) -> Answer:
    """Check OpenSLO v1 documents, and name what would not be honoured, each with its line.

    Exit code 1 when there is an error. Paths and calendars are checked against the configuration in force.
    """
    from analytics.slo.indicators import describe

    _, made = compiled_files(run, files)
    rows = [
        {
            "name": one.name, "service": one.service, "target": one.target, "indicator": describe(one.indicator),
            "window": one.window.text, "method": "Timeslices" if one.slice_s else "Occurrences",
            "rules": [rule.name for rule in one.rules],
        }
        for one in made.objectives
    ]  # fmt: skip
    errors = made.errors

    def show(console: Console) -> None:
        for problem in made.problems:
            console.print(str(problem), soft_wrap=True, markup=False)
        console.print(f"{len(rows)} objectives, {len(errors)} errors, {len(made.problems) - len(errors)} remarks")

    value = {"objectives": rows, "problems": [_problem(p) for p in made.problems], "errors": len(errors)}
    return Answer(value, show, Code.FINDING if errors else Code.OK)


@command(app, "test", examples=("tailsight slo test slos/*.test",))
def test(
    run: Run, files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Test files; docs/slo-tests.md.")]
) -> Answer:
    """Run test files: traffic and faults as text, and what the alerts have to make of them.

    They run through the evaluation that the server uses, in no real time. Exit code 1 when an expectation fails.
    """
    from analytics.slo.rehearsal import run as run_all
    from analytics.slo.scenario import ScenarioError, parse

    del run
    results = []
    for file in files:
        try:
            scenario = parse(read_text(file), str(file), lambda name, at=file: (at.parent / name).read_text("utf-8"))  # type: ignore[misc]
        except ScenarioError as error:
            raise CommandError(Code.DATA, str(error), kind="test") from error
        results += [(str(file), one) for one in run_all(scenario)]
    failures = [failure for _, one in results for failure in one.failures]
    count = sum(one.expectations for _, one in results)

    def show(console: Console) -> None:
        for failure in failures:
            console.print(str(failure), soft_wrap=True, markup=False)
        console.print(f"{len(results)} cases, {count} expectations, {len(failures)} failed")

    value = {
        "cases": [
            {
                "file": file, "case": one.case, "expectations": one.expectations,
                "failures": [{"line": f.line, "expect": f.text, "found": f.found} for f in one.failures],
                "heard": [
                    {"at_s": at, "kind": h.kind, "objective": h.alert.objective, "rule": h.alert.rule}
                    for at, h in one.heard
                ],
            }
            for file, one in results
        ],
        "expectations": count,
        "failed": len(failures),
    }  # fmt: skip
    return Answer(value, show, Code.FINDING if failures else Code.OK)


def compiled_files(run: Run, files: list[Path]) -> tuple[tuple[Object, ...], Compiled]:
    """What the documents of some files and folders say, checked against the configuration."""
    from dataclasses import replace

    from analytics.slo.compiled import Compiled, compiled
    from analytics.slo.openslo_read import read_all
    from api.cli.opened import declared_paths

    texts = [(str(file), read_text(file)) for file in _yaml_files(files)]
    found = read_all(texts)
    paths = {*declared_paths(run)} if run.config_file else None
    made = compiled(found.objects, paths=paths)
    return found.objects, replace(made, problems=(*found.problems, *made.problems)) if found.problems else Compiled(
        made.objectives, made.problems
    )


def read_text(file: Path) -> str:
    """A text file. Raises CommandError."""
    try:
        return file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandError(Code.USAGE, f"{file} cannot be read: {error}", kind="file") from error


def _yaml_files(files: list[Path]) -> list[Path]:
    found: list[Path] = []
    for file in files:
        if file.is_dir():
            inside = sorted(f for f in file.rglob("*") if f.suffix in (".yaml", ".yml"))
            if not inside:
                raise CommandError(Code.USAGE, f"{file} holds no .yaml or .yml file", kind="file")
            found += inside
        else:
            found.append(file)
    return found


def _problem(one: Problem) -> dict[str, Any]:
    return {"file": one.file, "line": one.line, "where": one.where, "severity": one.severity, "message": one.message}
