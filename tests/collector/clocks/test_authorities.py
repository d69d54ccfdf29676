from __future__ import annotations

import struct
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import Bound, HostClock, Pair, smallest
from collector.clocks.authorities import Authorities, Held, aged
from collector.clocks.chrony import bound_of_tracking
from collector.clocks.phc import PTP_SYS_OFFSET_EXTENDED, PhcReading, parse_offsets
from collector.clocks.ptp import (
    CURRENT_DATA_SET,
    Ptp,
    PtpState,
    bound_of_ptp,
    parse_response,
    parse_state,
    request,
)
from collector.clocks.settings import ClockSettings
from collector.settings import ConfigError

NORMAL, UNSYNCHRONISED, SERVER = 0, 3, 0x0A000001
S = 1_000_000_000


class Says:
    """An authority that says what it is told to."""

    def __init__(self, name: str, bound: Bound) -> None:
        self.name = name
        self.bound_now = bound

    def ask(self) -> Bound:
        return self.bound_now

    def bound(self) -> Bound:
        return self.bound_now


def test_chronys_bound_is_offset_plus_dispersion_plus_half_the_delay() -> None:
    bound = bound_of_tracking(-3e-6, 8e-6, 2e-6, leap=NORMAL, reference=SERVER, frequency_ppm=1.5, skew_ppm=0.2)
    assert bound == Bound(9_000, "chrony", 1_500.0, -3_000, drift_ppm=0.2)


@pytest.mark.parametrize(("leap", "reference"), [(UNSYNCHRONISED, SERVER), (NORMAL, 0x7F7F0101)])
def test_chrony_without_a_reference_states_no_bound(leap: int, reference: int) -> None:
    bound = bound_of_tracking(0.0, 0.0, 0.0, leap=leap, reference=reference)
    assert bound.error_ns is None
    assert bound.reason


def test_the_smallest_bound_is_used_and_each_states_its_own() -> None:
    kernel = Says("adjtimex", Bound(500_000, "adjtimex"))
    chrony, ptp = Says("chrony", Bound(9_000, "chrony")), Says("ptp", Bound(None, "ptp", reason="no ptp4l"))
    both = Authorities([chrony, ptp], kernel=kernel)
    both.ask_once()
    assert both.bound().source == "chrony"
    clock = HostClock(both, pair=Pairs(), sample_s=1.0)
    assert clock.read().source == "chrony"
    rows = [(e.event, e.reading.source, e.reading.error_ns is None) for e in clock.events()]
    assert rows == [("sample", "chrony", False), ("stated", "adjtimex", False), ("stated", "ptp", True)]
    chrony.bound_now = Bound(None, "chrony", reason="not synchronised")
    both.ask_once()
    assert clock.read().source == "adjtimex"
    assert [(e.event, e.reading.source) for e in clock.events()][:1] == [("sync_lost", "chrony")]
    kernel.bound_now = Bound(None, "adjtimex", reason="unsync")
    assert clock.read().error_ns is None
    assert [(e.event, e.reading.source) for e in clock.events()][:1] == [("sync_lost", "adjtimex")]
    assert clock.no_bound_because == "adjtimex: unsync; chrony: not synchronised; ptp: no ptp4l"


class Pairs:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self, _samples: int) -> Pair:
        self.now += S
        return Pair(self.now + 1_700_000_000 * S, self.now, 50)


@given(error=st.integers(0, 10**9), age=st.integers(0, 10 * S), own=st.floats(0, 500), drift=st.floats(0, 100))
def test_a_bound_only_grows_with_age_and_is_forgotten(error: int, age: int, own: float, drift: float) -> None:
    held = Held(Bound(error, "chrony", drift_ppm=own), 1_000)
    bound = aged(held, 1_000 + age, drift, 3 * S)
    if age > 3 * S:
        assert bound.error_ns is None and "not answered" in bound.reason
    else:
        assert bound.error_ns == error + round(age * max(own, drift) / 1e6)


def test_a_daemon_that_never_answers_holds_nobody_up() -> None:
    release = threading.Event()

    class Hangs:
        name = "chrony"

        def ask(self) -> Bound:
            release.wait(20)
            return Bound(1, "chrony")

    both = Authorities([Hangs()], kernel=Says("adjtimex", Bound(7, "adjtimex")), settings=ClockSettings(ask_s=0.05))
    began = time.monotonic()
    both.start(wait_s=0.05)
    assert both.bound() == Bound(7, "adjtimex")
    both.close()
    release.set()
    assert time.monotonic() - began < 5


def test_nobody_states_a_bound() -> None:
    bound = smallest([Bound(None, "adjtimex", reason="a"), Bound(None, "chrony")])
    assert (bound.error_ns, bound.reason) == (None, "adjtimex: a; chrony: states no bound")


# --- PTP: what cannot run here (no PTP hardware clock) is held on plain values.


def state(**other: object) -> PtpState:
    values = {"steps": 1, "offset_ns": -40.0, "path_delay_ns": 700.0, "accuracy": 0x21, "utc_offset_s": 37, "flags": 4}
    return PtpState(**{**values, **other})  # type: ignore[arg-type]


def test_ptps_bound_is_offset_plus_path_delay_plus_the_masters_accuracy() -> None:
    assert bound_of_ptp(state()) == Bound(40 + 700 + 100, "ptp", correction_ns=40)
    card = PhcReading("/dev/ptp0", 37 * S + 250, 30)
    bound = bound_of_ptp(state(), card, on_phc=True)
    assert (bound.error_ns, bound.correction_ns) == (840 + 250 + 30, 250 + 40)


@pytest.mark.parametrize(
    ("changed", "card", "reason"),
    [
        ({"steps": 0}, None, "own grandmaster"),
        ({"path_delay_ns": 0.0, "offset_ns": 0.0}, None, "no path delay"),
        ({"accuracy": 0xFE}, None, "does not state its accuracy"),
        ({"flags": 0}, PhcReading("/dev/ptp0", 0, 1), "UTC offset"),
        ({}, None, "cannot be read"),
    ],
)
def test_ptp_without_a_chain_to_utc_states_no_bound(
    changed: dict[str, int], card: PhcReading | None, reason: str
) -> None:
    bound = bound_of_ptp(state(**changed), card, on_phc=reason in ("UTC offset", "cannot be read"))
    assert bound.error_ns is None
    assert reason in bound.reason


def test_a_hardware_clock_is_named_and_read() -> None:
    asked = Ptp("/nowhere/ptp4l", cards=lambda: ["/dev/ptp7"])
    bound = asked.ask()
    assert (bound.error_ns, bound.source) == (None, "phc")
    assert bound.reason == "/dev/ptp7 is there, but no ptp4l answers at /nowhere/ptp4l"


def test_the_tightest_of_the_cards_triples_is_taken() -> None:
    answer = bytearray(4 + 12 + 25 * 3 * 16)
    struct.pack_into("<I", answer, 0, 2)
    for sample, (before, card, after) in enumerate(((100, 5_000, 900), (2_000, 7_050, 2_100))):
        for k, ns in enumerate((before, card, after)):
            struct.pack_into("<qII", answer, 16 + (sample * 3 + k) * 16, 12, ns, 0)
    assert parse_offsets("x", bytes(answer)) == PhcReading("x", 5_000, 51)
    with pytest.raises(OSError, match="no samples"):
        parse_offsets("x", bytes(len(answer)))
    assert PTP_SYS_OFFSET_EXTENDED == 0xC4C03D09  # <linux/ptp_clock.h>


@given(noise=st.binary(max_size=120))
def test_no_datagram_breaks_the_reader(noise: bytes) -> None:
    whole = bytearray(request(CURRENT_DATA_SET, 3))
    whole[46] = 2  # RESPONSE
    for message in (noise, bytes(whole) + noise, bytes(whole[:50]) + noise):
        try:
            body = parse_response(message, CURRENT_DATA_SET, 3)
            parse_state([body or b"", noise, noise])
        except ValueError:
            pass


def test_settings_say_what_is_wrong() -> None:
    for wrong, field in (({"ask_s": 0}, "ask_s"), ({"drift_ppm": -1}, "drift_ppm"), ({"chrony": ""}, "chrony")):
        with pytest.raises(ConfigError) as caught:
            ClockSettings(**wrong).validate()  # type: ignore[arg-type]
        assert caught.value.field == field
