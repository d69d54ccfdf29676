from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.report.words import clean, duration, exactly, latency, listed, many, money, number, percent, signed


@pytest.mark.parametrize(
    ("ns", "said"),
    [(0, "0 ns"), (850, "850 ns"), (12_345, "12.3 µs"), (4_560_000, "4.56 ms"),
        (2_100_000_000, "2.10 s"), (None, "not known")],
)  # fmt: skip
def test_latencies_have_the_unit_that_fits(ns: float | None, said: str) -> None:
    assert latency(ns) == said


def test_a_fall_has_a_minus_and_a_rise_a_plus() -> None:
    assert signed(latency(-2_500_000)) == "\N{MINUS SIGN}2.50 ms"
    assert signed(latency(2_500_000)) == "+2.50 ms"


def test_minutes_hours_and_days_begin_at_two() -> None:
    assert [duration(s * 1e9) for s in (95, 150, 7_000, 10_000, 200_000)] == [
        "95.0 s", "2.50 min", "117 min", "2.78 h", "2.31 days",
    ]  # fmt: skip


def test_numbers_money_and_shares() -> None:
    assert [number(x) for x in (0, 1234.5, 0.012345, 41.04)] == ["0", "1,230", "0.0123", "41.0"]
    assert number(float("inf")) == "more than can be said"
    assert money(1_234_567, "USD") == "1.23 million USD"
    assert percent(None) == "not known"
    assert percent(0.351) == "35.1 %"
    assert exactly(0.9995) == "99.95 %"
    assert many(1, "alert") == "1 alert"
    assert listed(list("abcdefg")) == "a, b, c, d, e and 2 more"


@given(st.text(max_size=60), st.integers(1, 50))
@settings(max_examples=50)
def test_a_cleaned_name_is_short_and_holds_nothing_that_turns_or_ends_text(text: str, most: int) -> None:
    shown = clean(text, most)
    assert len(shown) <= most
    assert not any(c in shown for c in "\x00\x1b\n\r\u202e\u202d\u2066\u2069\u200e\u200f\u2028\ufeff")
    assert clean(shown, most) == shown


@given(st.floats(allow_nan=False, allow_infinity=False, width=32))
def test_every_number_can_be_said(value: float) -> None:
    assert number(value)
