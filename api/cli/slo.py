"""`tailsight slo`: objectives as OpenSLO documents: check, test, apply, look at, export."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli import slo_maintenance
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
    slo_maintenance.register(app)
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
            "window": one.window.text, "method": one.method,
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


@command(app, "apply", examples=("tailsight slo apply slos/", "... --prune"))
def apply(
    run: Run,
    files: FilesArgument,
    prune: Annotated[bool, typer.Option("--prune", help="Remove what is not in these files.")] = False,
) -> Answer:
    """Put the objects of OpenSLO v1 documents in force; a running server takes them over at its next tick.

    Nothing is applied when there is an error (exit code 1). Each object that changes is a row of `changes` and
    audited.
    """
    from analytics.slo.openslo_read import sources
    from api.audit import Audit
    from api.cli.acting import actor, control_of
    from api.cli.opened import has_store, opened
    from api.slo_book import SloBook, record_changes

    _, made = compiled_files(run, files)
    found = [one for file in _yaml_files(files) for one in sources(read_text(file))] if not made.errors else []
    if made.errors:

        def refused(console: Console) -> None:
            for problem in made.errors:
                console.print(str(problem), soft_wrap=True, markup=False)
            console.print("nothing was applied")

        value: dict[str, Any] = {"applied": False, "problems": [_problem(p) for p in made.problems]}
        return Answer(value, refused, Code.FINDING)
    with control_of(run) as control:
        applied = SloBook(control).apply(found, actor(), prune=prune)
        if applied:
            if has_store(run):
                with opened(run) as store:
                    record_changes(store, Audit(control), applied, actor())
            else:
                record_changes(None, Audit(control), applied, actor())
    counts = {"added": applied.added, "changed": applied.changed, "removed": applied.removed}

    def show(console: Console) -> None:
        for problem in made.problems:
            console.print(str(problem), soft_wrap=True, markup=False)
        for verb, names in counts.items():
            for name in names:
                console.print(f"{verb}: {name}", markup=False)
        if not applied:
            console.print("nothing changed")

    return Answer({"applied": True, **counts, "problems": [_problem(p) for p in made.problems]}, show)


@command(app, "list", examples=("tailsight slo list",))
def list_(run: Run) -> Answer:
    """The objectives in force, with the worst state of their rules."""
    from api.cli.acting import control_of
    from api.slo_book import SloBook
    from api.slo_engine import described

    with control_of(run) as control:
        book = SloBook(control)
        objectives, alerts = book.compiled().objectives, book.alerts()
    rows = [
        {**described(one), "alerts": {a.rule: a.state for a in alerts if a.objective == one.name}} for one in objectives
    ]

    def show(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [
            (r["name"], r["service"], f"{100 * r['target']:g} %", r["window"], r["indicator"],
             ", ".join(f"{rule} {state}" for rule, state in r["alerts"].items() if state != "inactive"))
            for r in rows
        ]  # fmt: skip
        console.print(plain_table("objectives", ("name", "service", "target", "period", "counts", "alerts"), body))

    return Answer({"objectives": rows}, show, Code.OK if rows else Code.FINDING)


@command(app, "show", examples=("tailsight slo show order-latency",))
def show_(run: Run, name: Annotated[str, typer.Argument(help="The objective.")]) -> Answer:
    """One objective: its budget, how fast it burns, and every side of every rule, from the stored counts.

    Exit code 1 when a rule fires, 4 when there is no such objective.
    """
    import time

    from analytics.slo import stored
    from analytics.slo.evaluate import Evaluator, View
    from analytics.slo.sums import MONTH_S, Sums
    from api.cli.acting import control_of
    from api.cli.opened import opened
    from api.slo_book import SloBook
    from api.slo_engine import budget_fields, described, rule_fields

    with control_of(run) as control:
        book = SloBook(control)
        objectives, alerts = book.compiled().objectives, book.alerts()
    one = next((o for o in objectives if o.name == name), None)
    if one is None:
        known = ", ".join(o.name for o in objectives) or "none"
        raise CommandError(Code.DATA, f"no objective is called {name!r}; there are {known}", kind="not_found")
    now_s = int(time.time())
    needed = {one.name: one, **{o.name: o for o in objectives if any(
        over.objective == o.name for rule in one.rules for over in rule.overs)}}  # fmt: skip
    with opened(run) as store:
        sums = Sums(list(needed), now_s - now_s % 10, max(MONTH_S, *(o.period_s for o in needed.values())))
        for other in needed.values():
            stored.load(store, sums, {other.name: other.version}, name=other.name)
    evaluator = Evaluator(list(needed.values()), [a for a in alerts if a.objective in needed])
    before = {(a.objective, a.rule): a for a in alerts}
    evaluator.tick(sums, now_s)
    rules = []
    for rule in one.rules:
        judged = evaluator.judged[one.name, rule.name]
        rules.append(rule_fields(before.get((one.name, rule.name), judged.alert), rule.severity, judged.verdict))
    budget = budget_fields(View(sums), one, now_s)
    value = {**described(one), "budget": budget, "rules": rules}
    firing = any(r["state"] in ("firing", "acknowledged") for r in rules)
    return Answer(value, lambda console: _show(console, value), Code.FINDING if firing else Code.OK)


def _show(console: Console, one: dict[str, Any]) -> None:
    from dashboards.terminal import plain_table

    budget = one["budget"]
    console.print(f"{one['name']}: {100 * one['target']:g} % over {one['window']} of {one['indicator']}", markup=False)
    left = budget["exhausted_s"]
    until = "it does not burn" if left is None else f"nothing is left in {left / 3600:.1f} h at the last hour's burn"
    console.print(
        f"budget: {100 * budget['remaining']:.2f} % left of {budget['total']} events so far, "
        f"burn {budget['burn']:.3g}; {until}",
        markup=False,
    )
    body = [
        (r["rule"], r["severity"], r["state"], r["answer"], f"{s['window_s'] // 60} m", f"{s['burn']:.3g}",
         f"{s['factor']:g}", s["total"] - s["good"], s["total"])
        for r in one["rules"] for s in r["sides"]
    ]  # fmt: skip
    names = ("rule", "severity", "state", "says", "window", "burn", "factor", "bad", "events")
    console.print(plain_table("rules", names, body))


@command(
    app, "export", examples=("tailsight slo export > rules.yaml", "tailsight slo export slos/ --format prometheus")
)
def export(
    run: Run,
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", help="Documents. (default: in force)")
    ] = None,
    format_: Annotated[
        str,
        typer.Option("--format", help="prometheus: rules in Sloth's series names; openslo: the documents in force."),
    ] = "prometheus",
) -> Answer:
    """Objectives as Prometheus rules that read the server's /metrics, or as OpenSLO.

    What has no rule in Prometheus is named on standard error.
    """
    import yaml

    from analytics.slo.document import documents
    from analytics.slo.prometheus import exported
    from api.cli.acting import control_of
    from api.slo_book import SloBook

    if format_ not in ("prometheus", "openslo"):
        raise CommandError(Code.USAGE, f"--format must be prometheus or openslo, got {format_!r}")
    if format_ == "openslo":
        with control_of(run) as control:
            objects = documents(SloBook(control).text())[0].plain()
        return Answer(objects, lambda console: console.out(yaml.safe_dump(objects, sort_keys=False), end=""))
    if files:
        objectives = compiled_files(run, files)[1].objectives
    else:
        with control_of(run) as control:
            objectives = SloBook(control).compiled().objectives
    made = exported(objectives)
    for line in made.left_out:
        run.stderr().print(line, markup=False)
    value = {"document": made.document, "left_out": list(made.left_out)}
    return Answer(value, lambda console: console.out(yaml.safe_dump(made.document, sort_keys=False), end=""))


def compiled_files(run: Run, files: list[Path]) -> tuple[tuple[Object, ...], Compiled]:
    """What the documents of some files and folders say, checked against the configuration."""
    from dataclasses import replace

    from analytics.kpis import kpis_from
    from analytics.slo.compiled import Compiled, compiled
    from analytics.slo.openslo_read import read_all
    from api.cli.opened import declared_paths

    texts = [(str(file), read_text(file)) for file in _yaml_files(files)]
    found = read_all(texts)
    paths = kpis = None
    if run.config_file:
        paths, kpis = {*declared_paths(run)}, kpis_from(run.document(), run.source)
    made = compiled(found.objects, paths=paths, kpis=kpis)
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
