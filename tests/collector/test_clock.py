from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.clock import Adjtimex, Bound, ClockEvent, HostClock, Pair, bound_of, clock_columns, read_pair

OFFSET = 1_700_000_000_000_000_000


class Script:
    """A host whose clocks do as told: `offset_ns` is the truth, each pair sees it with `noise_ns`."""

    def __init__(self) -> None:
        self.now_ns = 1_000
        self.offset_ns = OFFSET
        self.noise_ns = 0
        self.bracket_ns = 60
        self.stated: Bound = Bound(1_000, "test", 12.5, -7)

    def pair(self, _samples: int) -> Pair:
        self.now_ns += 1_000_000_000
        return Pair(self.now_ns + self.offset_ns + self.noise_ns, self.now_ns, self.bracket_ns)

    def bound(self) -> Bound:
        return self.stated


@pytest.fixture
def script() -> Script:
    return Script()


@pytest.fixture
def clock(script: Script) -> HostClock:
    return HostClock(script, pair=script.pair, sample_s=3.0)


def names(events: list[ClockEvent]) -> list[str]:
    return [event.event for event in events]


@given(noises=st.lists(st.integers(-60, 60), min_size=1, max_size=30))
@settings(max_examples=50)
def test_the_offset_is_one_constant_between_steps(noises: list[int]) -> None:
    script = Script()
    clock = HostClock(script, pair=script.pair)
    for noise in noises:
        script.noise_ns = noise
        reading = clock.read()
        assert reading.offset_ns == OFFSET
        assert reading.bracket_ns == 60
    assert "step" not in names(clock.events())


@pytest.mark.parametrize("step_ns", [5_000, -5_000, 3_600_000_000_000, -3_600_000_000_000])
def test_a_step_is_followed_once_and_told(clock: HostClock, script: Script, step_ns: int) -> None:
    clock.read()
    clock.events()
    script.offset_ns += step_ns
    assert clock.read().offset_ns == OFFSET + step_ns
    assert clock.read().offset_ns == OFFSET + step_ns
    (event,) = (e for e in clock.events() if e.event == "step")
    assert event.step_ns == step_ns


def test_a_drift_below_the_threshold_is_in_the_bracket_until_it_is_a_step(clock: HostClock, script: Script) -> None:
    for n in range(1, 9):
        script.offset_ns = OFFSET + n * 150
        reading = clock.read()
        assert abs(reading.offset_ns - script.offset_ns) <= reading.bracket_ns + script.bracket_ns
    assert reading.offset_ns == OFFSET + 8 * 150  # 1200 > 1000 + both brackets
    assert names(clock.events()).count("step") == 1


def test_loss_and_return_of_synchronisation_are_told_once(clock: HostClock, script: Script) -> None:
    clock.read()
    script.stated = Bound(None, "test")
    assert clock.read().error_ns is None
    clock.read()
    script.stated = Bound(50, "test")
    assert clock.read().error_ns == 50
    assert [n for n in names(clock.events()) if n != "sample"] == ["sync_lost", "sync_gained"]


def test_samples_are_made_at_their_own_rate(clock: HostClock) -> None:
    for _ in range(7):
        clock.read()  # one second each
    assert names(clock.events()) == ["sample"] * 3
    assert clock.events() == []


def test_events_are_clock_rows(clock: HostClock, script: Script) -> None:
    clock.read()
    script.offset_ns += 10_000
    script.stated = Bound(None, "test")
    clock.read()
    columns = clock_columns("h1", clock.events())
    columns.check()
    assert columns.text("event") == ["sample", "step", "sync_lost"]
    assert columns.values["step_ns"].tolist() == [0, 10_000, 0]
    assert columns.nulls["step_ns"].tolist() == [True, False, True]
    assert columns.nulls["error_ns"].tolist() == [False, True, True]
    assert columns.values["frequency_ppb"].tolist()[0] == 12.5
    assert columns.text("host") == ["h1"] * 3


def test_what_adjtimex_says_is_taken_at_its_word() -> None:
    nano, unsync = 0x2000, 0x0040
    assert bound_of(0, nano, 12, -345, 65_536) == Bound(12_000, "adjtimex", 1_000.0, -345)
    assert bound_of(0, 0, 12, -345, -32_768) == Bound(12_000, "adjtimex", -500.0, -345_000)
    assert bound_of(0, nano | unsync, 16_000_000, 0, 0).error_ns is None
    assert bound_of(5, nano, 12, 0, 0).error_ns is None


def test_the_real_clocks() -> None:
    pair = read_pair(50)
    assert 0 < pair.bracket_ns < 1_000_000
    assert abs(pair.offset_ns - (time.time_ns() - time.monotonic_ns())) < 50_000_000
    bound = Adjtimex().bound()
    assert bound.source == "adjtimex"
    assert bound.error_ns is None or bound.error_ns > 0
    clock = HostClock()
    readings = [clock.read() for _ in range(50)]
    assert len({reading.offset_ns for reading in readings}) == 1
    for reading in readings:
        assert abs(reading.realtime_ns - reading.monotonic_ns - reading.offset_ns) < 50_000_000
