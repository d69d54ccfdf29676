"""`tailsight experiment` as a user has it, beside an order path that is there or not."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from api.control import Control
from api.demo.control import FOLDER
from api.demo.experiments import Experiments
from api.demo.steward import Steward, taken
from api.demo.trial import Trial
from api.up.hold import Hold, Note
from collector.store.embedded import open_embedded

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight


@pytest.fixture
def order_path(tmp_path: Path) -> Iterator[Path]:
    """What `tailsight demo` says of itself while it runs."""
    with Hold(tmp_path, "demo") as hold:
        hold.write(Note(pid=os.getpid(), url="", started_ns=1, programs={"engine": 1}, restarts={}))
        yield tmp_path


def test_without_a_hook_it_says_what_to_do_instead(tailsight: Tailsight, tmp_path: Path) -> None:
    done = tailsight("experiment", "start", "slow", "--delay", "2ms", "--data", str(tmp_path), "--json")
    assert done.code == 3
    assert done.json["error"]["kind"] == "no_hook"
    assert "tailsight import assignments FILE" in done.json["error"]["hint"]
    done = tailsight("experiment", "start", "s", "--delay", "2ms", "--path", "tick", "--data", str(tmp_path), "--json")
    assert (done.code, done.json["error"]["kind"]) == (2, "no_hook")
    assert tailsight("experiment", "stop", "slow", "--data", str(tmp_path), "--json").code == 1
    done = tailsight("experiment", "show", "slow", "--data", str(tmp_path), "--json")
    assert (done.code, done.json["error"]["message"]) == (4, "no experiment is called 'slow'; there are none")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--delay", "21ms"), "to 20 ms"),
        (("--delay", "2ms", "--share", "60%"), "to 0.5"),
        (("--delay", "2ms", "--share", "ten"), "such as 0.1 or 10%"),
        (("--delay", "2ms", "--budget-orders", "0"), "budget"),
        (("--delay", "2ms", "--stop-if", "nothing"), "no objective is called 'nothing'; there are none"),
    ],
)
def test_what_cannot_be_is_refused(
    tailsight: Tailsight, order_path: Path, arguments: tuple[str, ...], says: str
) -> None:
    done = tailsight("experiment", "start", "slow", *arguments, "--data", str(order_path), "--json")
    assert done.code == 2
    assert says in done.json["error"]["message"]
    assert not Experiments(order_path / FOLDER).read()


def test_from_the_start_to_assignments_in_the_store(tailsight: Tailsight, order_path: Path) -> None:
    data = ("--data", str(order_path), "--json")
    steward = Steward(order_path, lambda _change: None)
    row = tailsight("experiment", "start", "slow", "--delay", "2ms", "--share", "0.4", *data).json
    assert (row["state"], row["dose_ms"], row["share"], row["until_ns"] - row["start_ns"]) == (
        "runs", 2.0, 0.4, 1_800_000_000_000,
    )  # fmt: skip
    there = Trial(steward.experiments)  # what the engine does
    there.look(time.time_ns())
    for key in range(1, 301):
        there.dose_ns(key, time.time_ns())
    there.look(time.time_ns())
    assert tailsight("experiment", "stop", "slow", *data).json["stopped"]["state"] == "ended"
    there.look(time.time_ns())
    steward.ship()  # nobody serves: with the command
    (one,) = steward.experiments.read()
    assert taken(steward.experiments, one) == 300
    (row,) = tailsight("experiment", "show", "slow", *data).json["experiments"]
    assert (row["delayed"] + row["control"], row["assignments_taken"]) == (300, 300)
    assert row["why"].startswith("stopped by ")
    store = open_embedded(order_path)
    found = store.query("SELECT arm, dose, count() AS n FROM assignments FINAL WHERE experiment = 'slow' GROUP BY ALL")
    store.close()
    assert {(str(arm), dose, n) for arm, dose, n in found.iter_rows()} == {
        ("delayed", 2.0, row["delayed"]), ("control", 0.0, row["control"]),
    }  # fmt: skip
    Control(order_path / "control.sqlite").close()
    with contextlib.closing(sqlite3.connect(order_path / "control.sqlite")) as db:
        actions = [action for (action,) in db.execute("SELECT action FROM audit_staging")]
    assert {"experiment.start", "experiment.stop", "assignments.record"} <= set(actions)
