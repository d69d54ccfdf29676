from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo.control import Control
from api.demo.faults import (
    KINDS,
    LINKS,
    Burden,
    Fault,
    FaultError,
    burden,
    checked,
    clock_step_ns,
    staleness_ns,
    stall_ns,
)
from api.demo.link_model import RETRANSMISSION_NS, LinkModel

MS = 1_000_000
START = 1_800_000_000_000_000_000


def fault(kind: str = "slow_dependency", at: str = "engine", **more: float) -> Fault:
    fields = {"size": 1.0, "amount_ns": 20 * MS, "start_ns": START, **more}
    return Fault(id="f", kind=kind, at=at, **fields)  # type: ignore[arg-type] # fields by name


@pytest.mark.parametrize("size", [0.02, 0.1, 0.5])
def test_a_share_of_the_messages_is_touched_always_the_same(size: float) -> None:
    f = fault(size=size)
    touched = [key for key in range(50_000) if f.touches(key)]
    assert abs(len(touched) / 50_000 - size) < 0.1 * size
    assert all(f.touches(key) for key in touched)
    other = [key for key in range(50_000) if fault(size=size, start_ns=START + 1).touches(key)]
    assert touched != other


def test_pulses_touch_the_same_share_of_the_time() -> None:
    f = fault("gc_pauses", size=0.02, amount_ns=20 * MS)
    assert f.period_ns == 1_000 * MS
    struck = sum(f.pulse_left_ns(START + at * MS) > 0 for at in range(100_000))
    assert struck == 2_000
    assert f.pulse_left_ns(START + 5 * MS) == 15 * MS
    assert f.pulse_left_ns(START - 1) == 0
    assert f.next_pulse_ns(START + 400 * MS) == 600 * MS


@given(at=st.integers(-(10**10), 10**10), size=st.floats(0.001, 1))
@settings(max_examples=50, derandomize=True)
def test_the_next_pulse_begins_when_it_is_said_to(at: int, size: float) -> None:
    f = fault("gc_pauses", size=size)
    begin = START + abs(at) + f.next_pulse_ns(START + abs(at))
    assert f.pulse_left_ns(begin) == f.amount_ns


def test_faults_of_one_message_add_up_while_they_strike() -> None:
    both = [fault(), fault("bad_deploy", amount_ns=3 * MS), fault(end_ns=START + 1)]
    assert burden(both, 1, START + 5) == Burden(20 * MS, 3 * MS)
    assert burden(both, 1, START) == Burden(40 * MS, 3 * MS)
    assert burden(both, 1, START - 1) == Burden()
    assert stall_ns([fault("queue_backlog")], START + 5 * MS) == 15 * MS
    assert staleness_ns([fault("stale_reference")], 1, START + 7) == 7
    assert clock_step_ns([fault("clock_step", amount_ns=-5), fault("clock_step", amount_ns=2)], START) == -3


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (fault("nonsense"), "there is no fault 'nonsense'; there are slow_dependency"),
        (fault("lost_nic_queue", "inference"), "cannot strike 'inference'; it can strike engine, gateway-east"),
        (fault("lost_nic_queue", queue=4), "the NIC of engine has the receive queues 0 to 3, got 4"),
        (fault("lost_nic_queue", queue=-1), "receive queues 0 to 3, got -1"),
        (fault("cpu_hog", queue=1), "cpu_hog has no queue"),
        (fault("lock_contention", "feed"), "cannot strike 'feed'; it can strike engine"),
        (fault(size=0), "above 0 %"),
        (fault(size=1.5), "at most 100 %"),
        (fault(amount_ns=-1), "must not be negative"),
        (fault("cpu_hog", amount_ns=1), "at least 1 ms"),
        (fault("link", "line-a"), "needs a delay"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_fault_that_cannot_be_says_what_can(wrong: Fault, words: str) -> None:
    with pytest.raises(FaultError, match=words):
        checked(wrong)


def test_every_kind_can_strike_every_place_it_names() -> None:
    for name, kind in KINDS.items():
        for place in kind.places:
            assert checked(fault(name, place, amount_ns=kind.amount_ns, delay_ns=1)).at == place


def test_orders_are_seen_once_and_ended_ones_stay_on_record(tmp_path: Path) -> None:
    orders, watcher = Control(tmp_path), Control(tmp_path)
    assert watcher.changed() == []
    assert watcher.changed() is None
    first, second = orders.start(fault()), orders.start(fault("cpu_hog", amount_ns=MS))
    assert {f.id for f in watcher.changed() or ()} == {first.id, second.id}
    assert [f.id for f in orders.stop([first.id], START + 9)] == [first.id]
    assert [f.id for f in orders.stop([], START + 10)] == [second.id]
    assert orders.stop([], START + 11) == []
    assert {f.id: f.end_ns for f in watcher.changed() or ()} == {first.id: START + 9, second.id: START + 10}


def link_fault(**more: float) -> Fault:
    return fault("link", "line-a", amount_ns=0, **more)


def test_a_link_without_faults_hands_on_at_once() -> None:
    assert [LinkModel(stream).leaves_ns(100, at) for stream in (False, True) for at in (5, 9)] == [5, 9, 5, 9]


def test_a_link_delays_loses_and_throttles() -> None:
    slow = [link_fault(delay_ns=5 * MS)]
    assert LinkModel(False).leaves_ns(100, 7, slow, START) == 7 + 5 * MS
    lossy = LinkModel(False)
    left = [lossy.leaves_ns(100, at, [link_fault(loss=0.3)], START) for at in range(1_000)]
    assert 250 < left.count(None) == lossy.lost < 350
    narrow = LinkModel(False)  # 1,000 bytes at 8 Mbit/s take a millisecond each
    assert [narrow.leaves_ns(1_000, 0, [link_fault(rate_bps=8e6)], START) for _ in range(3)] == [MS, 2 * MS, 3 * MS]


def test_a_stream_loses_nothing_and_keeps_its_order() -> None:
    stream = LinkModel(True)
    times = [stream.leaves_ns(100, at * MS, [link_fault(loss=0.05)], START) or 0 for at in range(1_000)]
    assert stream.lost > 20
    assert times == sorted(times)
    assert min(t - at * MS for at, t in enumerate(times)) == 0
    assert max(t - at * MS for at, t in enumerate(times)) >= RETRANSMISSION_NS


def test_a_feed_gap_is_silent_in_its_pulses_only() -> None:
    line = LinkModel(False)
    gap = [fault("feed_gap", "line-a", size=0.2, amount_ns=100 * MS)]
    left = [line.leaves_ns(100, at, gap, START + at * MS) is None for at in range(1_000)]
    assert left == [at % 500 < 100 for at in range(1_000)]
    assert "line-a" in LINKS
