"""`tailsight experiment`: delay a random share of the demo's orders, within bounds, and end that."""

from __future__ import annotations

import secrets
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from api.cli.acting import actor, control_of
from api.cli.demo_fault import require_order_path
from api.cli.frame import Run, command
from api.cli.outcome import Answer, Code, CommandError
from api.cli.times import format_time

if TYPE_CHECKING:
    from rich.console import Console

    from api.demo.experiments import Experiment, Experiments

app = typer.Typer(no_args_is_help=True)
_HOOKED = "order"
_INSTEAD = (
    "Let your own flag system assign and delay, with its own stop rule and kill switch. Then `tailsight import "
    "assignments FILE --experiment NAME` and `tailsight query sensitivity --design experiment --experiment NAME`; see "
    "docs/money.md."
)
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The experiment.")]


def register(root: typer.Typer) -> None:
    """Add the group to the command tree."""
    root.add_typer(app, name="experiment", help="Delay a random share of the demo's orders, and measure what it does.")


@command(
    app,
    "start",
    examples=(
        "tailsight experiment start slow-2ms --delay 2ms --share 10% --for 30m",
        "... --budget-orders 5000 --stop-if order-latency",
    ),
)
def start(
    run: Run,
    name: NameArgument,
    delay: Annotated[str, typer.Option(metavar="DURATION", help="Added to each chosen order: 0.1 ms to 20 ms.")],
    share: Annotated[str, typer.Option(help="Of the orders, chosen by chance: 0.01 to 0.5, or 1% to 50%.")] = "0.1",
    path: Annotated[str, typer.Option(help="Where. There is a hook in the demo's order path only.")] = _HOOKED,
    for_: Annotated[str, typer.Option("--for", metavar="DURATION", help="How long; at most 24h.")] = "30m",
    budget_orders: Annotated[int, typer.Option(metavar="N", help="It ends when so many orders were delayed.")] = 10_000,
    stop_if: Annotated[
        str | None, typer.Option(metavar="OBJECTIVE", help="It ends when an alert of this objective fires.")
    ] = None,
) -> Answer:
    """Delay a random share of the demo's orders; who was delayed is kept as assignments.

    It ends by its time, its budget, an alert, `stop`, the file DIR/demo/experiments/STOP, or with the order path.
    """
    from api.demo.experiments import Experiment, ExperimentError, checked
    from collector.settings import duration_ns

    if path != _HOOKED:
        words = (
            f"--path {path[:80]}: Tailsight can delay nothing there; it has a hook in the demo's path {_HOOKED} only"
        )
        raise CommandError(Code.USAGE, words, kind="no_hook", hint=_INSTEAD)
    now_ns = time.time_ns()
    wanted = Experiment(
        id=name, start_ns=now_ns, end_ns=now_ns + duration_ns(for_, "--for"), share=_share(share),
        dose_ns=duration_ns(delay, "--delay"), budget=budget_orders, salt=secrets.randbits(64), stop_if=stop_if or "",
        who=actor(),
    )  # fmt: skip
    try:
        checked(wanted)
        _require_hook(run)
        if stop_if:
            _require_judged(run, stop_if)
        ordered = _experiments(run).order(wanted, now_ns)
    except ExperimentError as error:
        raise CommandError(Code.USAGE, str(error), kind="experiment") from error
    detail = {"dose_ms": ordered.dose_ms, "share": ordered.share, "salt": f"0x{ordered.salt:016x}",
              "end": str(ordered.end_ns), "budget_orders": ordered.budget, "stop_if": ordered.stop_if}  # fmt: skip
    _audit(run, "experiment.start", name, detail)
    row = _row(_experiments(run), ordered, now_ns)

    def show(console: Console) -> None:
        console.print(
            f"{name}: {ordered.dose_ms:g} ms more on {100 * ordered.share:g} % of the orders until "
            f"{format_time(ordered.end_ns)[:19]}, at most {ordered.budget:,} of them."
        )
        console.print(f"Stop it with `tailsight experiment stop {name}`, or touch {row['kill_file']}", soft_wrap=True)
        console.print(f"Then: {row['next']}", soft_wrap=True)

    return Answer(row, show)


@command(app, "stop", examples=("tailsight experiment stop slow-2ms",))
def stop(run: Run, name: NameArgument) -> Answer:
    """End an experiment now; works without server and order path too. Exit code 1 when it does not run."""
    now_ns = time.time_ns()
    experiments = _experiments(run)
    stopped = experiments.stop(name, f"stopped by {actor()}", now_ns) if (run.data / "demo").is_dir() else None
    if stopped is None:
        return Answer({"stopped": None}, lambda c: c.print(f"No experiment {name} runs.", markup=False), Code.FINDING)
    _audit(run, "experiment.stop", name, {"at": str(now_ns)})
    return Answer({"stopped": _row(experiments, stopped, now_ns)}, lambda console: console.print(f"Stopped {name}."))


@command(app, "show", examples=("tailsight experiment show", "tailsight experiment show slow-2ms --json"))
def show(run: Run, name: Annotated[str | None, typer.Argument(help="Which. (default: all)")] = None) -> Answer:
    """Experiments of this directory: what was ordered, how many orders were assigned, and why they ended."""
    now_ns = time.time_ns()
    experiments = _experiments(run)
    found = [one for one in experiments.read() if name in (None, one.id)]
    if name is not None and not found:
        known = ", ".join(one.id for one in experiments.read()) or "none"
        raise CommandError(Code.DATA, f"no experiment is called {name[:80]!r}; there are {known}", kind="not_found")
    rows = [_row(experiments, one, now_ns) for one in found]

    def table(console: Console) -> None:
        from dashboards.terminal import plain_table

        body = [
            (r["name"], r["state"], f"{r['dose_ms']:g} ms", f"{100 * r['share']:g} %", f"{r['delayed']:,}",
             f"{r['control']:,}", f"{r['assignments_taken']:,}", r["why"])
            for r in rows
        ]  # fmt: skip
        heads = ("name", "state", "dose", "share", "delayed", "control", "taken", "why it ended")
        console.print(plain_table("Experiments", heads, body))
        if name is not None:
            console.print(f"Then: {rows[0]['next']}", soft_wrap=True, markup=False)

    return Answer({"experiments": rows}, table)


def _experiments(run: Run) -> Experiments:
    from api.demo.control import FOLDER
    from api.demo.experiments import Experiments

    return Experiments(run.data / FOLDER)


def _require_hook(run: Run) -> None:
    try:
        require_order_path(run)
    except CommandError:
        words = f"no order path of the demo runs for {run.data}, and Tailsight has no hook in programs of your own"
        hint = f"For the demo: `tailsight up`. For your own system: {_INSTEAD}"
        raise CommandError(Code.UNREACHABLE, words, kind="no_hook", hint=hint) from None


def _require_judged(run: Run, objective: str) -> None:
    """Raise CommandError where the stop rule could not work, or would end the experiment at once."""
    from api.demo.steward import unsafe
    from api.slo_book import SloBook

    with control_of(run) as control:
        names = [one.name for one in SloBook(control).compiled().objectives]
    if objective not in names:
        known = ", ".join(names) or "none"
        raise CommandError(Code.USAGE, f"--stop-if: no objective is called {objective[:80]!r}; there are {known}")
    if why := unsafe(run.data, objective):
        raise CommandError(
            Code.USAGE, f"--stop-if: {why}", kind="experiment", hint="Begin when it is quiet and judged."
        )


def _audit(run: Run, action: str, name: str, detail: dict[str, Any]) -> None:
    from api.audit import Audit

    with control_of(run) as control:
        Audit(control).record(actor(), action, name, "ok", detail)


def _share(text: str) -> float:
    try:
        return float(text.strip().removesuffix("%")) / (100 if text.strip().endswith("%") else 1)
    except ValueError:
        raise CommandError(Code.USAGE, f"--share must be a share such as 0.1 or 10%, got {text!r}") from None


def _row(experiments: Experiments, one: Experiment, now_ns: int) -> dict[str, Any]:
    from api.demo.experiments import ended_ns, over
    from api.demo.steward import taken

    tally = experiments.tally(one)
    why = over(one, tally, now_ns, killed=experiments.killed)
    end_ns = ended_ns(one, tally) if why else None
    to = "now" if end_ns is None else str(end_ns)
    journal = experiments.journal(one.id)
    return {
        "name": one.id, "state": "ended" if why else "runs", "path": _HOOKED, "dose_ms": one.dose_ms,
        "share": one.share, "salt": f"0x{one.salt:016x}", "start_ns": one.start_ns, "until_ns": one.end_ns,
        "ended_ns": end_ns, "why": why, "budget_orders": one.budget, "stop_if": one.stop_if, "who": one.who,
        "delayed": tally.delayed, "control": tally.control,
        "assignments_taken": taken(experiments, one),
        "assignments_file": str(journal), "kill_file": str(experiments.kill_file),
        "next": f"tailsight query sensitivity --path {_HOOKED} --kpi KPI --design experiment --experiment {one.id}"
        f" --from {one.start_ns} --to {to}",
    }  # fmt: skip
