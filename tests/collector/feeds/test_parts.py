"""Calendars, rhythms and pairs on plain values."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.feeds.calendar import CalendarSettings, since_midnight
from collector.feeds.pairs import Pairs
from collector.feeds.rhythm import Rhythm
from collector.settings import ConfigError, section

NEW_YORK = ZoneInfo("America/New_York")
US = CalendarSettings(
    zone="America/New_York", sessions=("09:30-16:00",), holidays=("2026-12-25",), early={"2026-11-27": "13:00"}
)
FUTURES = CalendarSettings(zone="America/Chicago", days=("sun", "mon", "tue", "wed", "thu"), sessions=("17:00-16:00",))


def ns(text: str, zone: Any = NEW_YORK) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).timestamp()) * 1_000_000_000


@pytest.mark.parametrize(
    ("at", "opened"),
    [
        ("2026-11-23T09:29:59", None),
        ("2026-11-23T09:30:00", "2026-11-23T09:30:00"),
        ("2026-11-23T15:59:59", "2026-11-23T09:30:00"),
        ("2026-11-23T16:00:00", None),
        ("2026-11-22T12:00:00", None),  # a Sunday
        ("2026-12-25T12:00:00", None),
        ("2026-11-27T12:59:59", "2026-11-27T09:30:00"),
        ("2026-11-27T13:00:00", None),
        ("2026-03-09T09:30:00", "2026-03-09T09:30:00"),  # the day after the clocks changed
    ],
)
def test_a_market_is_open_in_its_sessions(at: str, opened: str | None) -> None:
    assert US.calendar.opened_ns(ns(at)) == (None if opened is None else ns(opened))


def test_a_session_may_end_on_the_next_day() -> None:
    chicago = ZoneInfo("America/Chicago")
    opened = ns("2026-11-22T17:00:00", chicago)
    assert FUTURES.calendar.opened_ns(opened - 1) is None
    assert FUTURES.calendar.opened_ns(ns("2026-11-23T15:59:00", chicago)) == opened
    assert FUTURES.calendar.opened_ns(ns("2026-11-23T16:30:00", chicago)) is None


def test_days_without_sessions_are_one_long_session() -> None:
    always = CalendarSettings(days=("sat", "sun"))
    assert always.calendar.opened_ns(ns("2026-11-22T12:00:00", UTC)) == ns("2026-11-21T00:00:00", UTC)
    assert always.calendar.opened_ns(ns("2026-11-23T12:00:00", UTC)) is None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"zone": "Mars/Olympus"}, "zone"),
        ({"days": ["monday"]}, "days"),
        ({"sessions": ["9-16"]}, "sessions"),
        ({"holidays": ["Christmas"]}, "holidays"),
        ({"early": {"2026-11-27": "noon"}}, "early"),
    ],
)
def test_what_is_wrong_in_a_calendar_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=rf"cal\.{field}"):
        section(body, CalendarSettings, "cal")


def test_a_time_of_day_is_placed_on_the_day_that_fits() -> None:
    sent = ns("2023-08-22T09:30:00") + 7_495_351
    assert since_midnight("America/New_York", 34_200_007_495_351, sent + 166_604) == sent
    late = ns("2023-08-22T23:59:59")
    assert since_midnight("America/New_York", 86_399_000_000_000, late + 2_000_000_000) == late  # heard the day after


def test_an_instrument_is_stale_against_its_own_rhythm() -> None:
    rhythm = Rhythm(factor=5, updates=100)
    fast = np.arange(1, 1001) * 1_000_000
    slow = np.arange(1, 201) * 1_000_000_000
    rhythm.update(np.full(1000, 7, np.uint64), fast)
    rhythm.update(np.full(200, 8, np.uint64), slow)
    rhythm.update(np.full(50, 9, np.uint64), np.arange(50))
    last = int(slow[-1])
    names, since, usual = rhythm.stale(last + 1)
    assert (names.tolist(), since.tolist()) == ([7], [int(fast[-1])])
    assert 1_000_000 <= usual[0] <= 1_190_000
    names, _, _ = rhythm.stale(last + 7_000_000_000)
    assert sorted(names.tolist()) == [7, 8]
    assert not len(rhythm.stale(int(fast[-1]) + 6_500_000, error_ns=2_000_000)[0])
    rhythm.pause()
    assert not len(rhythm.stale(last + 10**15)[0])
    rhythm.update(np.array([7], np.uint64), np.array([last + 10**14]))
    rhythm.update(np.array([7], np.uint64), np.array([last + 10**14 + 1_000_000]))
    assert rhythm.usual_ns()[0] <= 1_190_000  # the night is not its rhythm


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 10**12)), min_size=1, max_size=300), st.integers(1, 299))
def test_the_percentile_is_the_exact_one_rounded_up_to_a_bucket(updates: list[tuple[int, int]], cut: int) -> None:
    rhythm = Rhythm(updates=1)
    names = np.array([n for n, _ in updates], np.uint64)
    times = np.cumsum([w for _, w in updates])
    for part in (slice(None, cut), slice(cut, None)):
        rhythm.update(names[part], times[part])
    for place, name in enumerate(rhythm._names.tolist()):
        gaps = np.sort(np.diff(times[names == name]))
        if len(gaps):
            exact = max(1000, gaps[max(0, int(np.ceil(0.99 * len(gaps))) - 1)])
            assert exact <= rhythm.usual_ns()[place] <= exact * 2**0.25 + 2


def test_instruments_are_bounded() -> None:
    rhythm = Rhythm(instruments=10)
    rhythm.update(np.arange(100, dtype=np.uint64), np.arange(100))
    assert (len(rhythm), rhythm.untracked) == (10, 90)


COPY = st.tuples(st.integers(0, 40), st.integers(0, 2), st.integers(0, 3), st.integers(1, 5))


@given(st.lists(COPY, max_size=80), st.integers(0, 80))
def test_pairs_are_those_of_a_plain_table(copies: list[tuple[int, int, int, int]], cut: int) -> None:
    numbers, lines, digests, waits = (np.array(c, np.int64) for c in zip(*copies, strict=True)) if copies else [
        np.empty(0, np.int64)
    ] * 4  # fmt: skip
    times = np.cumsum(waits)
    first: dict[int, tuple[int, int]] = {}
    seen: set[tuple[int, int]] = set()
    expected = []
    for number, line, digest, at in zip(
        numbers.tolist(), lines.tolist(), digests.tolist(), times.tolist(), strict=True
    ):
        if (number, line) in seen:
            continue
        seen.add((number, line))
        if number in first:
            expected.append((number, line, at - first[number][0], digest != first[number][1]))
        else:
            first[number] = (at, digest)
    pairs = Pairs(memory=64)
    found = []
    for part in (slice(None, cut), slice(cut, None)):
        got = pairs.take(numbers[part], lines[part], times[part], digests[part].astype(np.uint64))
        found += list(
            zip(got.number.tolist(), got.line.tolist(), got.lag_ns.tolist(), got.divergent.tolist(), strict=True)
        )
    assert sorted(found) == sorted(expected)
