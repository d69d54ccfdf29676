"""The additive budget: stages, intervals of their threads, and what remains, in a real store."""

from __future__ import annotations

from typing import Any

from analytics import budget, messages, windows
from collector.store import Store
from tests.analytics.world import HOUR, ORDER, label_set, link, path, put, put_rows, stamp

US, S = 1_000, 1_000_000_000
PATH = path(ORDER)


def interval(start: int, duration: int, kind: str, culprit: str = "", **more: Any) -> dict[str, Any]:
    blank = {"host": "a", "thread": 1, "label_set": 0}
    return {**blank, "ts": HOUR + start, "duration_ns": duration, "kind": kind, "culprit": culprit, **more}


def measuring(store: Store, host: str = "a") -> None:
    """Say that the collector is at work on `host`."""
    how = label_set(store, {"mechanism": "eBPF", "sees": "run_queue"})
    row = {"ts": HOUR, "name": "scheduler_threshold_ns", "host": host, "service": "", "label_set": how, "value": 1.0}
    put_rows(store, "gauges", [row])


def two_messages(store: Store) -> None:
    put(
        store,
        [
            stamp(1, "app_ingress", HOUR + 100),
            stamp(1, "app_decision", HOUR + 1_100),
            stamp(1, "app_egress", HOUR + 1_600, thread=2),
            stamp(2, "app_ingress", HOUR + 5_000, host="b"),
            stamp(2, "app_decision", HOUR + 5_300, host="b"),
            stamp(2, "app_egress", HOUR + 5_400, host="b"),
        ],
    )
    put_rows(
        store,
        "intervals",
        [
            interval(0, 300, "run_queue", "idle"),  # 200 of it in the stage
            interval(400, 100, "preempted", "hog"),
            interval(450, 20, "irq", "irq:timer"),  # inside
            interval(900, 100, "blocked_lock", "peer"),
            interval(1_050, 9_000, "run_queue_sum", ""),  # a sum over a second: it is not placed in time
            interval(1_200, 50, "blocked_lock", "peer", thread=2),  # before the message came to that thread
            interval(1_300, 100, "run_queue", "hog", thread=2),
            interval(0, 10**6, "preempted", "elsewhere", thread=9),
        ],
    )
    windows.run_due(store, {"order": PATH}, now_ns=HOUR + 60 * S)


def test_every_step_of_a_message_is_its_parts_and_what_remains(store: Store) -> None:
    measuring(store)
    two_messages(store)
    found = budget.steps(store, messages.timeline(store, 1))
    assert [step.step_ns for step in found] == [0, 1_000, 500]
    assert [step.handoff for step in found] == [False, False, True]
    for step in found:
        assert step.parts is not None
        assert step.step_ns == sum(part.ns for part in step.parts) + (step.remaining_ns or 0)
    assert [(p.kind, p.culprit, p.ns) for p in found[1].parts or ()] == [
        ("run_queue", "idle", 200),
        ("blocked_lock", "peer", 100),
        ("preempted", "hog", 80),
        ("irq", "irq:timer", 20),
    ]
    assert [(p.kind, p.ns) for p in found[2].parts or ()] == [("run_queue", 100)]


def test_where_nobody_measured_the_parts_are_unknown(store: Store) -> None:
    measuring(store)
    two_messages(store)
    found = budget.steps(store, messages.timeline(store, 2))
    assert [(step.parts, step.remaining_ns) for step in found[1:]] == [(None, None), (None, None)]
    assert budget.steps(store, []) == []


def test_the_budget_of_stages_adds_up(store: Store) -> None:
    measuring(store)
    two_messages(store)
    for pick in ("slowest", "sample"):
        found = budget.stage_budgets(store, PATH, from_ns=HOUR, to_ns=HOUR + S, pick=pick)  # type: ignore[arg-type]
        assert (found.messages, found.unmatched) == (2, 0)
        assert (found.threshold_ns, found.intervals_lost) == (1, 0)
        decide, send = found.stages
        assert (decide.stage, decide.messages, decide.unknown, decide.total_ns) == ("decide", 1, 1, 1_000)
        assert decide.kinds == {"run_queue": 200, "blocked_lock": 100, "preempted": 80, "irq": 20}
        assert decide.remaining_ns == 600
        assert decide.share == 0.4
        assert decide.culprits[0] == budget.Part(kind="run_queue", culprit="idle", ns=200)
        assert (send.kinds, send.total_ns, send.remaining_ns) == ({"run_queue": 100}, 500, 400)
    one = budget.stage_budgets(store, PATH, from_ns=HOUR, to_ns=HOUR + S, limit=1)
    assert one.messages == 1
    assert one.stages[0].unknown == 0
    none = budget.stage_budgets(store, PATH, from_ns=HOUR + S, to_ns=HOUR + 2 * S)
    assert (none.messages, none.stages) == (0, [])


def test_collections_known_as_sums_only_stand_beside_the_stages(store: Store) -> None:
    measuring(store)
    two_messages(store)
    how = label_set(store, {"metric": "jvm.gc.duration"})
    row = {"ts": HOUR, "name": "gc.pause_ns", "host": "a", "label_set": how, "value": 4e6}
    put_rows(store, "gauges", [{**row, "service": "engine"}, {**row, "service": "elsewhere"}])
    put_rows(store, "intervals", [interval(600, 100, "gc", "generation 2")])
    found = budget.stage_budgets(store, PATH, from_ns=HOUR, to_ns=HOUR + S)
    named = {end.service for stage in PATH.stages for end in (stage.start, stage.end)} - {""}
    assert [one.service for one in found.not_placed] == (["engine"] if named else ["elsewhere", "engine"])
    assert {one.total_ns for one in found.not_placed} == {4_000_000}
    assert found.stages[0].kinds["gc"] == 100  # of the thread, at its time


def test_a_stage_whose_stamps_are_gone_is_counted_not_guessed(store: Store) -> None:
    measuring(store)
    two_messages(store)
    store.execute("DELETE FROM stamps WHERE point = 'app_egress'")
    found = budget.stage_budgets(store, PATH, from_ns=HOUR, to_ns=HOUR + S)
    assert found.unmatched == 2
    assert [stage.messages for stage in found.stages] == [1, 0]


def test_stages_reach_over_links(store: Store) -> None:
    measuring(store)
    linked = path(ORDER + "hops = 1\n" if "hops" not in ORDER else ORDER)
    put(
        store,
        [
            stamp(1, "app_ingress", HOUR),
            stamp(7, "app_decision", HOUR + 1_000),
            stamp(8, "app_decision", HOUR + 1_500),
            stamp(7, "app_egress", HOUR + 2_000),
            stamp(8, "app_egress", HOUR + 2_500),
        ],
        [link(1, 7, HOUR + 900), link(1, 8, HOUR + 1_400)],
    )
    put_rows(store, "intervals", [interval(500, 700, "preempted", "hog")])
    windows.run_due(store, {"order": linked}, now_ns=HOUR + 60 * S)
    found = budget.stage_budgets(store, linked, from_ns=HOUR, to_ns=HOUR + S)
    assert (found.messages, found.unmatched) == (2, 0)
    decide = found.stages[0]
    # The one thread was preempted while both waited for their decisions.
    assert (decide.messages, decide.total_ns, decide.kinds) == (2, 2_500, {"preempted": 500 + 700})
    assert found.stages[1].kinds == {"preempted": 200}
