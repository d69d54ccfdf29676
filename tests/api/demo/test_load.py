import itertools
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo.market import SYMBOLS, Market
from api.demo.profile import DAY_S, FLAT, OPEN_S, Profile, profile, trading_day

HOUR = 3_600.0
COMPRESSION = 3_600.0  # an hour of the day in a second


def day(seed: int = 1) -> Profile:
    return trading_day(seed, len(SYMBOLS))


def sent(seed: int, hours: float, rate: float = 300) -> list[tuple[float, int]]:
    """(second of the day, instrument) of every quote of a compressed day."""
    market = Market(rate, seed, day(seed), COMPRESSION)
    sends = itertools.takewhile(lambda s: s[0] * 1e-9 * COMPRESSION < hours * HOUR, market.sends())
    return [(OPEN_S + at * 1e-9 * COMPRESSION, quote.instrument) for at, quotes in sends for quote in quotes]


def test_a_flat_profile_never_changes() -> None:
    assert {FLAT.factor(at) for at in range(0, 200_000, 1_000)} == {1.0}
    assert profile("flat", 1, 8) is FLAT
    assert FLAT.backup is None


def test_the_same_seed_gives_the_same_day_and_another_one_another() -> None:
    assert day(3) == day(3)
    assert sent(3, 1.2) == sent(3, 1.2)
    assert day(3) != day(4)


@given(st.integers(0, 10_000))
@settings(max_examples=50, derandomize=True)
def test_every_day_opens_closes_spikes_halts_and_backs_up(seed: int) -> None:
    d = day(seed)
    assert d.factor(OPEN_S - 1) == 0.0 == d.factor(17.5 * HOUR)
    assert d.factor(9.06 * HOUR) > 2 > d.factor(12.9 * HOUR) / d.volatility(12.9 * HOUR)
    (spike,) = d.spikes
    assert d.volatility(spike.begin_s) == spike.factor >= 2
    assert d.volatility(spike.end_s) == 1
    assert len(d.halts) == 2
    for halt in d.halts:
        assert d.halted(halt.instrument, halt.begin_s)
    assert d.backup is not None
    assert d.session(d.backup.begin_s) is not None
    assert max(d.factor(at) for at in range(0, 86_400, 60)) <= d.peak()


@given(st.floats(0, 3 * DAY_S))
@settings(max_examples=50, derandomize=True)
def test_the_market_opens_when_it_is_said_to(at_s: float) -> None:
    d = day()
    opens_s = d.opens_s(at_s)
    assert at_s <= opens_s < at_s + DAY_S
    assert d.session(opens_s) is not None
    assert (opens_s == at_s) == (d.session(at_s) is not None)


def test_the_load_follows_the_profile() -> None:
    quotes = sent(1, 9.5)
    d = day()
    for begin in (8.2, 9.2, 10.5, 12.5, 16.5):
        span = range(int(begin * HOUR), int((begin + 0.5) * HOUR), 10)
        want = sum(d.factor(at) for at in span) / len(span) * 300 * (0.5 * HOUR / COMPRESSION)
        got = sum(begin * HOUR <= at < (begin + 0.5) * HOUR for at, _ in quotes)
        assert got == pytest.approx(want, rel=0.35)


def test_a_halted_instrument_is_silent_and_the_others_are_not() -> None:
    halt = day().halts[0]
    quiet = Counter(number for at, number in sent(1, 9.5, rate=2_000) if halt.covers(at))
    assert quiet[halt.instrument] == 0
    assert len(quiet) >= len(SYMBOLS) - 2


def test_the_night_is_skipped_and_the_next_day_comes() -> None:
    times = [at for at, _ in sent(1, 26, rate=50)]
    assert not [at for at in times if 17.5 * HOUR <= at < DAY_S + OPEN_S]
    assert max(times) > DAY_S + OPEN_S


def test_time_compression_does_not_change_the_rate() -> None:
    for compression in (1.0, 60.0):
        market = Market(500, 1, day(), compression, at_s=10 * HOUR)
        times = [at for at, _ in itertools.islice(market.sends(), 2_000)]
        per_s = 2_000 / (times[-1] * 1e-9)
        assert 400 < per_s < 700  # of sends; a send has 1.15 quotes on average


@given(st.integers(0, 5_000), st.floats(0, 2 * DAY_S))
@settings(max_examples=60, derandomize=True)
def test_halts_are_told_when_they_begin_and_end_and_nobody_quotes_in_between(seed: int, at_s: float) -> None:
    profile_ = day(seed)
    market = Market(1.0, seed, profile_, COMPRESSION, at_s)
    end_ns = round(DAY_S / COMPRESSION * 1e9)
    told = list(itertools.takewhile(lambda one: one[0] < end_ns, market.actions()))
    assert [one[0] for one in told] == sorted(one[0] for one in told)
    halted: set[int] = set()
    for (after_ns, instrument, is_halted, since_ns), following in itertools.zip_longest(told, told[1:]):
        assert (instrument in halted) != is_halted, "each is a change"
        halted ^= {instrument}
        assert since_ns == after_ns or after_ns == 0 > since_ns
        if following is None or following[0] > after_ns:
            now_s = at_s + (after_ns + 1) * 1e-9 * COMPRESSION
            assert halted == profile_.halted_at(now_s)
    assert len({one[1] for one in told if one[0]}) >= 1, "every day has halts"
    assert list(Market(1.0, seed, FLAT).actions()) == []
