"""The whole path as a user has it: `tailsight up` with real processes, a stamping program, questions, Ctrl-C, again.

The tests run in order on one session, because a session costs seconds.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.whole_path import STAGES, Session

pytestmark = pytest.mark.timeout(180)
MESSAGES = 23
LEDGER = frozenset(
    ("collector", "boot", "produced", "stored_unique", "dropped", "quarantined", "in_spool", "in_flight", "difference")
)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    session = Session(tmp_path_factory.mktemp("whole"))
    try:
        session.start("--rate", "100")
        yield session
    finally:
        session.close()


def counts(session: Session, path: str = "counted") -> dict[str, int]:
    _, answer = session.tailsight("query", "percentiles", "--path", path)
    return {stage["stage"]: stage["count"] for stage in answer.get("stages", ())}


def test_the_printed_address_is_ready(session: Session) -> None:
    session.until(lambda: session.get("/readyz").status_code == 200, 30, "/readyz 200")
    session.until(lambda: session.url in session.log.read_text(), 10, "the address on the terminal")
    assert set(session.note["programs"]) == {
        "server", "agent", "links", "inference", "engine", "feed", "back-office",
        *(f"{name}-{site}" for name in ("venue", "gateway") for site in ("east", "west")),
    }  # fmt: skip
    assert session.note["url"] == session.url


def test_a_second_up_says_that_one_runs(session: Session) -> None:
    code, answer = session.tailsight("up")
    assert code == 3
    assert answer["error"]["kind"] == "already_running"
    assert str(session.note["pid"]) in answer["error"]["message"]
    assert session.url in answer["error"]["message"]


def test_23_messages_in_23_of_every_stage_out(session: Session) -> None:
    assert session.stamp(1, MESSAGES) == 4 * MESSAGES
    want = dict.fromkeys((*STAGES, "end_to_end", "unattributed"), MESSAGES)
    session.until(lambda: counts(session) == want, 60, "23 of every stage")


def test_percentiles_have_what_the_contract_says(session: Session) -> None:
    code, answer = session.tailsight("query", "percentiles", "--path", "counted", "--stage", "think")
    assert code == 0
    assert {"path", "from", "to", "stages"} <= set(answer)
    (stage,) = answer["stages"]
    assert (stage["stage"], stage["count"], stage["unfinished"]) == ("think", MESSAGES, 0)
    assert 0 < stage["min_ns"] <= stage["p50_ns"] <= stage["max_ns"]
    assert stage["min_ns"] <= stage["mean_ns"] <= stage["max_ns"]
    for name in ("p99_ns", "p999_ns", "p9999_ns"):  # 23 messages cannot support them
        assert stage[name] is None
        assert stage["refused"]
    for name in ("p90_ns", "p95_ns", "ci", "value_error", "completeness"):
        assert name in stage

    to = str(time.time_ns())

    def completeness() -> bool:  # unknown until every collector's watermark has passed the last window
        _, answer = session.tailsight("query", "percentiles", "--path", "counted", "--stage", "think", "--to", to)
        return bool(answer["stages"][0]["completeness"] == 1.0)

    session.until(completeness, 60, "completeness 1")


def test_raw_and_counts_agree(session: Session) -> None:
    ranges: dict[str, Any] = {}
    for source in ("counts", "raw"):
        _, answer = session.tailsight("query", "percentiles", "--path", "counted", "--source", source)
        fields = ("count", "mean_ns", "min_ns", "p50_ns", "max_ns")
        ranges[source] = [[stage["stage"], *(stage[f] for f in fields)] for stage in answer["stages"]]
    assert ranges["counts"] == ranges["raw"]
    code, answer = session.tailsight("verify", "percentiles", "--path", "counted")
    assert (code, answer["agree"]) == (0, True)


def test_the_order_path_is_measured_stage_by_stage(session: Session) -> None:
    def measured() -> dict[str, Any] | None:
        _, answer = session.tailsight("query", "percentiles", "--path", "order")
        stages = {stage["stage"]: stage for stage in answer["stages"]}
        return stages if stages.get("end_to_end", {}).get("count", 0) > 100 else None

    stages = session.until(measured, 60, "orders")
    total = stages["end_to_end"]
    assert total["p50_ns"] > 0
    for name in ("feed_transit", "transform", "queue_wait", "decide", "gateway_transit", "gateway", "report"):
        assert stages[name]["count"] > 0.9 * total["count"], name
        assert stages[name]["negative"] == 0, name
    # Rejected by the gateway: finished without having been at the venue. Unfinished ones may have been there.
    venue = stages["venue"]
    assert total["count"] <= venue["count"] + venue["missing"] <= total["count"] + total["unfinished"]


def test_slow_messages_and_timelines_can_be_asked_for(session: Session) -> None:
    code, answer = session.tailsight("query", "messages", "--path", "counted", "--limit", "3")
    assert code == 0
    assert len(answer["messages"]) == 3
    code, answer = session.tailsight("query", "message", "counted:7")
    assert code == 0
    assert [stamp["point"] for stamp in answer["stamps"]] == ["app_ingress", "app_transform", "thought", "app_egress"]
    code, answer = session.tailsight("query", "message", "counted:999999")
    assert (code, answer["error"]["kind"]) == (4, "not_found")


def test_changes_are_recorded_and_listed(session: Session) -> None:
    code, made = session.tailsight("changes", "record", "engine 2.4.1", "--kind", "deploy", "--service", "engine")
    assert code == 0
    _, listed = session.tailsight("changes", "list")
    assert [row["id"] for row in listed["changes"]] == [made["id"]]


@pytest.mark.parametrize("name", ["feed", "venue-west", "agent", "server"])
def test_a_killed_process_is_started_again(session: Session, name: str) -> None:
    before = session.note["programs"][name]
    os.kill(before, signal.SIGKILL)
    killed_s = time.monotonic()
    session.until(lambda: session.note["programs"].get(name, before) != before, 10, f"{name} again")
    assert time.monotonic() - killed_s < 5
    if name == "server":
        # Ready means that the windows that came due meanwhile are computed; a busy machine takes its time.
        session.until(lambda: session.get("/readyz").status_code == 200, 150, "/readyz 200 again")


def test_doctor_finds_nothing_missing_while_it_runs(session: Session) -> None:
    code, report = session.until(lambda: (r := session.tailsight("doctor"))[0] == 0 and r, 30, "doctor 0")
    assert code == 0
    assert report["store"]["ok"]
    assert {row["name"] for row in report["collectors"]} >= {"probe", "schedstat"}
    assert all({"name", "status", "reason"} <= set(row) for row in report["collectors"])
    assert report["clock"]["source"]
    for row in report["ledger"]:
        assert set(row) >= LEDGER
        dropped = sum(row["dropped"].values())
        accounted = row["stored_unique"] + dropped + row["quarantined"] + row["in_spool"] + row["in_flight"]
        assert row["produced"] - accounted == row["difference"] == 0
        assert row["quarantined"] == 0


def test_ctrl_c_stops_everything(session: Session) -> None:
    assert session.stop() == 0
    assert session.processes() == {}
    assert not (session.data / "up.json").exists()
    assert not (session.data / "server.json").exists()
    said = session.log.read_text()
    order = [
        said.rindex(f"{name} stopped")
        for name in ("feed", "engine", "gateway-west", "venue-east", "links", "agent", "server")
    ]
    assert order == sorted(order)


def test_commands_answer_without_a_server(session: Session) -> None:
    assert counts(session)["end_to_end"] == MESSAGES
    code, report = session.tailsight("doctor")
    assert (code, report["server"]) == (0, None)
    assert all(row["difference"] == 0 for row in report["ledger"])


def test_starting_again_continues_with_all_data(session: Session) -> None:
    session.start("--no-demo")
    session.until(lambda: session.get("/readyz").status_code == 200, 30, "/readyz 200")
    assert counts(session)["end_to_end"] == MESSAGES
    session.stamp(1_001, 7)
    session.until(lambda: counts(session)["end_to_end"] == MESSAGES + 7, 60, "30 messages")
    session.until(lambda: session.tailsight("doctor")[0] == 0, 30, "doctor 0")
    assert session.stop(signal.SIGTERM) == 0
    assert session.processes() == {}
