"""Who is delayed, what ends it, what is told of it; and an engine of its own that does it to real orders."""

from __future__ import annotations

import contextlib
import itertools
import json
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import polars as pl
import pytest
import tailsight_probe as probe
from hypothesis import given
from hypothesis import strategies as st

from api.control import Control
from api.demo import drop_copy, trial
from api.demo.control import FOLDER
from api.demo.experiments import (
    MOST_BUDGET,
    MOST_DOSE_NS,
    Experiment,
    ExperimentError,
    Experiments,
    checked,
    empty,
    ended_ns,
    over,
)
from api.demo.market import Market
from api.demo.market_data import Datagram
from api.demo.rollout import Change
from api.demo.steward import Steward, taken, unsafe
from api.demo.trial import Trial, Waiting
from api.routes.sensitivity import NewAssignments
from api.up.hold import Hold
from tests.whole_path import environment

MS, S = 1_000_000, 1_000_000_000
NOW = 1_790_000_000 * S
U64 = st.integers(0, 2**64 - 1)


def wanted(name: str = "slow", **more: Any) -> Experiment:
    fields = {"start_ns": NOW, "end_ns": NOW + 60 * S, "share": 0.5, "dose_ns": 2 * MS, "budget": 100, "salt": 7}
    return Experiment(id=name, **{**fields, **more})


def test_chance_delays_its_share_and_another_salt_delays_others() -> None:
    one, other = wanted(share=0.1), wanted(share=0.1, salt=8)
    keys = [probe.hash64("order", number) for number in range(50_000)]
    first = {key for key in keys if one.delays(key)}
    second = {key for key in keys if other.delays(key)}
    assert 4_700 < len(first) < 5_300  # 4.5 standard deviations
    assert 350 < len(first & second) < 650  # 500 where they are independent


@given(key=U64, salt=U64, small=st.floats(0.01, 0.5), large=st.floats(0.01, 0.5))
def test_a_larger_share_delays_what_a_smaller_one_does(key: int, salt: int, small: float, large: float) -> None:
    small, large = sorted((small, large))
    assert wanted(salt=salt, share=large).delays(key) >= wanted(salt=salt, share=small).delays(key)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"name": "../x"}, "the name"),
        ({"name": ""}, "the name"),
        ({"dose_ns": MOST_DOSE_NS + 1}, "to 20 ms"),
        ({"dose_ns": 0}, "from 0.1 ms"),
        ({"share": 0.51}, "to 0.5"),
        ({"share": float("nan")}, "the share"),
        ({"end_ns": NOW}, "above 0"),
        ({"end_ns": NOW + 25 * 3_600 * S}, "24 h"),
        ({"budget": 0}, "the budget"),
        ({"budget": MOST_BUDGET + 1}, "the budget"),
    ],
)
def test_what_is_out_of_bounds_is_refused(more: dict[str, Any], says: str) -> None:
    with pytest.raises(ExperimentError, match=says):
        checked(wanted(**more))


def test_what_ended_it_first_is_why() -> None:
    one = wanted()
    tally = empty(one)
    assert over(one, tally, NOW + 60 * S - 1) == ""
    assert over(one, tally, NOW + 60 * S) == "its time is over"
    assert "STOP" in over(one, tally, NOW, killed=True)
    full = msgspec.structs.replace(tally, delayed=100)
    assert "budget of 100" in over(one, full, NOW)
    ended = msgspec.structs.replace(full, ended_ns=NOW + 5, why="full")
    early, late = (msgspec.structs.replace(one, stopped_ns=NOW + at, why="stopped") for at in (4, 6))
    assert [over(other, ended, NOW + 9) for other in (early, late)] == ["stopped", "full"]
    assert [ended_ns(other, ended) for other in (early, late)] == [NOW + 4, NOW + 5]


def test_one_at_a_time_and_no_name_twice(tmp_path: Path) -> None:
    folder = Experiments(tmp_path)
    folder.order(wanted(), NOW)
    with pytest.raises(ExperimentError, match="choose a name"):
        folder.order(wanted(), NOW + 61 * S)
    with pytest.raises(ExperimentError, match="slow runs"):
        folder.order(wanted("other"), NOW + 1)
    assert folder.stop("nobody", "why", NOW + 2) is None
    stopped = folder.stop("slow", "enough", NOW + 2)
    assert stopped is not None
    assert folder.stop("slow", "again", NOW + 3) is None
    folder.kill_file.touch()
    with pytest.raises(ExperimentError, match="remove it"):
        folder.order(wanted("other"), NOW + 4)
    folder.kill_file.unlink()
    assert folder.order(wanted("other"), NOW + 4).id == "other"


def begun(tmp_path: Path, **more: Any) -> tuple[Experiments, Trial]:
    folder = Experiments(tmp_path)
    folder.order(wanted(**more), NOW)
    there = Trial(folder)
    there.look(NOW)
    return folder, there


def told(folder: Experiments) -> pl.DataFrame:
    return pl.read_csv(folder.journal("slow"), infer_schema=False)


def test_every_order_is_assigned_by_its_key_and_told(tmp_path: Path) -> None:
    folder, there = begun(tmp_path, share=0.3)
    doses = {key: there.dose_ns(key, NOW + key) for key in range(1, 200)}
    there.look(NOW + S)
    rows = told(folder)
    assert rows["key"].to_list() == [f"0x{key:016x}" for key in doses]
    assert [float(dose) * MS for dose in rows["dose"]] == list(doses.values())
    assert set(zip(rows["arm"], rows["dose"], strict=True)) == {("control", "0"), ("delayed", "2")}
    tally = folder.tally(wanted())
    assert (tally.delayed, tally.control) == (sum(map(bool, doses.values())), sum(not dose for dose in doses.values()))


def test_the_budget_ends_it_to_the_order_and_in_both_arms(tmp_path: Path) -> None:
    folder, there = begun(tmp_path, budget=5)
    doses = [there.dose_ns(key, NOW + 1) for key in range(1, 500)]
    assert sum(map(bool, doses)) == 5
    there.look(NOW + 2)
    rows = told(folder)
    assert rows["arm"].to_list().count("delayed") == 5
    assert rows["arm"][-1] == "delayed"  # nobody is assigned after the last one
    assert "budget of 5" in folder.tally(wanted()).why
    there.look(NOW + 3)
    assert there.dose_ns(1, NOW + 3) == 0


@pytest.mark.parametrize("how", ["file", "stop", "time"])
def test_the_engine_ends_it_by_itself(tmp_path: Path, how: str) -> None:
    folder, there = begun(tmp_path)
    key = next(key for key in itertools.count(1) if wanted().delays(key))
    assert there.dose_ns(key, NOW + 1) == 2 * MS
    if how == "file":
        folder.kill_file.touch()
    elif how == "stop":
        folder.stop("slow", "enough", NOW + 2)
    after = NOW + 61 * S if how == "time" else NOW + 3
    if how == "time":
        assert there.dose_ns(key, after) == 0  # at once, whoever looks
    there.look(after)
    assert there.dose_ns(key, after) == 0
    assert len(told(folder)) == 1
    tally = folder.tally(wanted())
    assert over(folder.read()[0], tally, after) == {
        "file": "the file STOP is there", "stop": "enough", "time": "its time is over",
    }[how]  # fmt: skip
    folder.kill_file.unlink(missing_ok=True)
    there.look(after)
    assert there.dose_ns(key, after) == 0  # it does not begin again


def test_a_restarted_engine_counts_what_was_used(tmp_path: Path) -> None:
    folder, there = begun(tmp_path, budget=10)
    delayed = [key for key in range(1, 200) if wanted().delays(key)]
    for key in delayed[:7]:
        there.dose_ns(key, NOW + 1)
    there.look(NOW + 2)
    with folder.journal("slow").open("a") as file:
        file.write("slow,delayed,0x00")  # it was killed here
    again = Trial(folder)
    again.look(NOW + 3)
    assert sum(bool(again.dose_ns(key, NOW + 4)) for key in delayed[7:]) == 3
    again.look(NOW + 5)
    assert len(told(folder)) == 10


def test_without_assignments_there_is_no_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "MOST_UNTOLD", 3)
    folder, there = begun(tmp_path)
    doses = [there.dose_ns(key, NOW + 1) for key in range(1, 50)]
    assert not any(doses[3:])
    there.look(NOW + 2)
    assert "faster" in folder.tally(wanted()).why
    folder.stop("slow", "", NOW)
    folder.order(wanted("next"), NOW + 3)
    folder.journal("next").mkdir()  # cannot be written
    there.look(NOW + 4)
    assert not any(there.dose_ns(key, NOW + 5) for key in range(1, 50))


def test_who_is_not_watched_delays_nobody(tmp_path: Path) -> None:
    _, there = begun(tmp_path)
    key = next(key for key in itertools.count(1) if wanted().delays(key))
    assert there.dose_ns(key, NOW + 2 * S) == 2 * MS
    assert there.dose_ns(key, NOW + 2 * S + 1) == 0
    there.look(NOW + 3 * S)
    assert there.dose_ns(key, NOW + 3 * S) == 2 * MS


def test_the_engine_holds_the_bounds_whoever_wrote_the_file(tmp_path: Path) -> None:
    folder = Experiments(tmp_path)
    one = msgspec.structs.replace(wanted(), dose_ns=MOST_DOSE_NS + 1)
    (folder.folder / "slow.json").write_bytes(msgspec.json.encode(one))
    (folder.folder / "broken.json").write_text("{")
    there = Trial(folder)
    there.look(NOW)
    assert not any(there.dose_ns(key, NOW + 1) for key in range(1, 50))


def test_waiting_orders_go_on_in_the_order_of_their_times() -> None:
    waiting, seen = Waiting(), []
    waiting.start()
    now = time.monotonic_ns()
    for after_ms in (30, 10, 20):
        waiting.put(now + after_ms * MS, lambda at=after_ms: seen.append((at, time.monotonic_ns())))  # type: ignore[misc]
    deadline = time.monotonic() + 10
    while len(seen) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [at for at, _ in seen] == [10, 20, 30]
    assert all(went >= now + at * MS for at, went in seen)
    waiting.put(now + 3_600 * S, lambda: seen.append((0, 0)))
    waiting.close()
    assert len(seen) == 4  # it did not get lost


class Server:
    """Takes assignments, and changes nothing else."""

    def __init__(self, data: Path) -> None:
        self.bodies: list[dict[str, Any]] = []
        bodies = self.bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))) | {"path": self.path})
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()
        (data / "server.json").write_text(json.dumps({"url": f"http://127.0.0.1:{self.http.server_port}"}))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    server.http.shutdown()
    server.http.server_close()


def live(**more: Any) -> Experiment:
    now = time.time_ns()
    return wanted(**{"start_ns": now, "end_ns": now + 3_600 * S, "who": "me", **more})


def test_begin_end_and_assignments_are_brought_once(tmp_path: Path, server: Server) -> None:
    changes: list[Change] = []
    steward = Steward(tmp_path, changes.append)
    one = steward.experiments.order(live(), time.time_ns())
    there = Trial(steward.experiments)
    there.look(time.time_ns())
    for key in range(1, 5_001):  # more than one call takes
        there.dose_ns(key, time.time_ns())
    there.look(time.time_ns())
    for _ in range(2):
        steward.watch()
        steward.ship()
    assert [body["path"] for body in server.bodies] == ["/v1/experiments/assignments"] * len(server.bodies)
    assert {body["experiment"] for body in server.bodies} == {"slow"}
    for body in server.bodies:
        NewAssignments.model_validate({name: value for name, value in body.items() if name != "path"})
    sent = [row for body in server.bodies for row in body["assignments"]]
    rows = told(steward.experiments)
    assert [(row["key"], row["arm"], row["when"]) for row in sent] == list(
        zip(rows["key"], rows["arm"], rows["ts_ns"], strict=True)
    )
    assert taken(steward.experiments, one) == len(rows)
    there.look(time.time_ns())  # the budget of 100 is used
    steward.watch()
    steward.watch()
    begin, end = changes
    assert (begin.kind, begin.at_ns, begin.labels["ordered_by"]) == ("flag", one.start_ns, "me")
    assert begin.what == "experiment slow begins: 2 ms more on 50 % of the orders"
    assert "its budget of 100 delayed orders is used; 100 of" in end.what


def test_what_was_not_ended_is_over_with_the_order_path(tmp_path: Path) -> None:
    changes: list[Change] = []
    first = Steward(tmp_path, changes.append)
    first.experiments.order(live(), time.time_ns())
    second = Steward(tmp_path, changes.append)  # the first was killed
    second.experiments.order(live(name="next"), time.time_ns())
    second.close()
    ends = {change.labels["experiment"]: change.what for change in changes if " ended: " in change.what}
    assert "started anew" in ends["slow"]
    assert "the order path ended" in ends["next"]


def test_an_alert_ends_it_and_so_does_a_judge_who_is_away(tmp_path: Path) -> None:
    assert "server is away" in unsafe(tmp_path, "fast")
    with Hold(tmp_path, "server"):
        assert "cannot be read" in unsafe(tmp_path, "fast")
        Control(tmp_path / "control.sqlite").close()
        assert unsafe(tmp_path, "fast") == ""
        changes: list[Change] = []
        steward = Steward(tmp_path, changes.append)
        steward.experiments.order(live(stop_if="fast"), time.time_ns())
        steward.watch()
        assert steward.experiments.read()[0].stopped_ns is None
        for objective in ("other", "fast"):
            with contextlib.closing(sqlite3.connect(tmp_path / "control.sqlite")) as db, db:
                db.execute(
                    "INSERT INTO slo_alerts VALUES (?, 'page', 'firing', 0, 0, 0, 0, 0, 'e', '', '')", (objective,)
                )
            steward.watch()
            assert bool(steward.experiments.read()[0].why) is (objective == "fast")
    assert steward.experiments.read()[0].why == "the objective fast alerts (rule page)"


def test_a_real_engine_delays_who_was_drawn_and_stops_at_the_file(tmp_path: Path) -> None:
    """One program of the order path; its market is sent from here, its orders are known by its drop copies."""
    copies = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    copies.bind(("127.0.0.1", 0))
    copies.settimeout(0.02)
    held = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(4)]
    for port in held:
        port.bind(("127.0.0.1", 0))
    line_a, line_b, signals, inference = (port.getsockname()[1] for port in held)
    for port in held:
        port.close()
    folder = Experiments(tmp_path / FOLDER)
    argv = ["--control", tmp_path / FOLDER, "--line", line_a, "--line", line_b, "--signals", signals]
    argv += ["--inference", inference, "--gateway", 1, "--gateway", 1, "--copies", copies.getsockname()[1]]
    with (tmp_path / "engine.log").open("wb") as log:
        engine = subprocess.Popen(
            [sys.executable, "-m", "api.demo.engine", *map(str, argv)], stdout=log, stderr=log,
            env=environment(tmp_path / "rings"),
        )  # fmt: skip
    try:
        sent: dict[int, int] = {}  # order -> from its quote's time to its sending
        market = Market(1_000, 1).sends()
        feed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        numbers = itertools.count(1)

        def trade(until: Any) -> None:
            deadline = time.monotonic() + 20
            while not until():
                assert time.monotonic() < deadline, (tmp_path / "engine.log").read_text()
                _, quotes = next(market)
                for quote in quotes:
                    message = replace(quote, intended_ns=time.monotonic_ns()).encode()
                    feed.sendto(Datagram(b"test", next(numbers), [message]).encode(), ("127.0.0.1", line_a))
                with contextlib.suppress(TimeoutError):
                    while True:
                        copy = drop_copy.decode(copies.recv(2_048))
                        if isinstance(copy, drop_copy.Sent):
                            sent[copy.order.id] = copy.monotonic_ns - copy.intended_ns

        trade(lambda: len(sent) > 3)
        one = folder.order(live(dose_ns=MOST_DOSE_NS), time.time_ns())
        trade(lambda: folder.tally(one).delayed > 5 and folder.tally(one).control > 5)
        folder.kill_file.touch()
        trade(lambda: folder.tally(one).ended_ns is not None)
        rows = told(folder)
        before = len(sent)
        trade(lambda: len(sent) > before + 20)
    finally:
        engine.send_signal(signal.SIGTERM)
        assert engine.wait(20) == 0
        copies.close()
    arms = dict(zip(rows["key"], rows["arm"], strict=True))
    assert len(told(folder)) == len(rows)  # nobody was assigned after the end
    waited = {f"0x{probe.hash64('order', number):016x}": took for number, took in sent.items()}
    delayed = [waited[key] for key, arm in arms.items() if arm == "delayed" and key in waited]
    assert len(delayed) > 5
    assert min(delayed) >= MOST_DOSE_NS
    assert all(one.delays(int(key, 16)) is (arm == "delayed") for key, arm in arms.items())
    assert folder.tally(one).why == "the file STOP is there"
