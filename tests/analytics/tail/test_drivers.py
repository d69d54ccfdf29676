"""Drivers: what is planted is found, a burst is one event, and nothing stands out where nothing does."""

from __future__ import annotations

import json

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.tail import cells, proportions
from analytics.tail.drivers import Driver, found, said
from tests.analytics.tail.synthetic import S, calm, messages

SITES = ["east", "west"]
SYMBOLS = ["AAA", "BBB", "CCC", "DDD"]
LABELS = pl.DataFrame(
    {
        "label_set": [10 * i + j + 1 for i in range(2) for j in range(4)],
        "labels": [json.dumps({"site": a, "symbol": b}) for a in SITES for b in SYMBOLS],
    },
    schema={"label_set": pl.UInt64, "labels": pl.String},
)


def world(n: int, seed: int) -> tuple[pl.DataFrame, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    site, symbol = rng.integers(0, 2, n), rng.integers(0, 4, n)
    frame = messages(calm(n, seed), label_set=(10 * site + symbol + 1).astype(np.uint64))
    return frame, site, symbol


def ask(frame: pl.DataFrame, slow: np.ndarray) -> tuple[list[Driver], int, list[str]]:
    counted = cells.count(frame.with_columns(tail=pl.Series(slow)), 10 * S, ["decide", "wire", "match"])
    return found(counted, LABELS)


def test_a_value_that_is_slow_more_often_is_found_with_its_interval() -> None:
    frame, site, _ = world(20_000, 1)
    slow = np.random.default_rng(2).random(20_000) < np.where(site == 0, 0.03, 0.005)
    drivers, _, dims = ask(frame, slow)
    assert dims == ["site", "symbol"]
    assert [one.what for one in drivers] == [{"site": "east"}]
    truth = 0.03 / 0.035 - 0.5
    assert drivers[0].ci[0] < truth < drivers[0].ci[1]
    assert "site east" in said(drivers, 10, 0.05)


def test_only_a_pair_that_is_slower_than_both_its_values_is_told() -> None:
    frame, site, symbol = world(40_000, 3)
    both = (site == 1) & (symbol == 2)
    slow = np.random.default_rng(4).random(40_000) < np.where(both, 0.08, 0.005)
    drivers, _, _ = ask(frame, slow)
    assert drivers[0].what in ({"site": "west", "symbol": "CCC"}, {"symbol": "CCC"})
    assert {"site": "west", "symbol": "CCC"} in [one.what for one in drivers]


def test_nothing_stands_out_at_the_stated_rate() -> None:
    false = 0
    for seed in range(60):
        frame, _, _ = world(3_000, 100 + seed)
        slow = np.random.default_rng(seed).random(3_000) < 0.05
        drivers, looked_at, _ = ask(frame, slow)
        assert looked_at >= 6
        false += bool(drivers)
        if not drivers:
            assert "Nothing stands out" in said(drivers, looked_at, 0.05)
    assert false <= 6


def test_a_burst_of_one_symbol_is_one_event_and_no_driver() -> None:
    frame, _, symbol = world(20_000, 5)
    rng = np.random.default_rng(6)
    burst = (np.arange(20_000) // 500 == 7) & (symbol == 1)  # ten seconds in which one symbol happened to be slow
    slow = (rng.random(20_000) < 0.01) | (burst & (rng.random(20_000) < 0.9))
    share = (symbol[slow] == 1).mean()
    assert share > 0.4  # taken as independent, that would be overwhelming
    naive = proportions.more((symbol[slow] == 1).sum(), slow.sum(), (symbol[~slow] == 1).sum(), (~slow).sum())
    assert naive[0] < 1e-9
    assert ask(frame, slow)[0] == []


def test_threads_hosts_and_data_age_are_dimensions() -> None:
    frame, _, _ = world(10_000, 7)
    rng = np.random.default_rng(8)
    thread = rng.integers(1, 4, 10_000).astype(np.uint32)
    age = np.where(rng.random(10_000) < 0.2, 5_000_000_000, 500)
    frame = frame.with_columns(thread_1=pl.Series(thread), data_age_ns=pl.Series(age))
    slow = rng.random(10_000) < np.where(thread == 2, 0.05, 0.01) + np.where(age > 1000, 0.1, 0)
    whats = [one.what for one in ask(frame, slow)[0]]
    assert {"thread of wire": "a/2"} in whats
    assert {"data_age": "1 to 10 s"} in whats


def test_counts_of_slices_add_up() -> None:
    frame, site, _ = world(8_000, 9)
    frame = frame.with_columns(tail=pl.Series(np.random.default_rng(1).random(8_000) < np.where(site, 0.05, 0.01)))
    whole = cells.count(frame, 10 * S, ["decide", "wire", "match"])
    halves = [cells.count(frame[a:b], 10 * S, ["decide", "wire", "match"]) for a, b in ((0, 3_333), (3_333, 8_000))]
    assert found(halves[0] + halves[1], LABELS) == found(whole, LABELS)


@given(st.integers(0, 50), st.integers(0, 50), st.integers(0, 50), st.integers(0, 50))
def test_differences_lie_in_their_intervals(a: int, b: int, c: int, d: int) -> None:
    value, low, high = proportions.difference(a, a + b, c, c + d, 0.95)
    assert -1 - 1e-9 <= low <= value <= high <= 1 + 1e-9


def test_newcombe_and_the_adjustments_give_the_published_values() -> None:
    # Newcombe 1998, table II, example (a): 56/70 - 48/80, method 10.
    value, low, high = proportions.difference(56, 70, 48, 80, 0.95)
    assert (round(float(value), 4), round(float(low), 4), round(float(high), 4)) == (0.2, 0.0524, 0.3339)
    p = np.array([0.01, 0.04, 0.03, 0.005])
    assert proportions.benjamini_hochberg(p) == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert proportions.holm(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Fisher's tea: 8 cups, all guessed: 1/70.
    assert proportions.more(4, 4, 0, 4) == pytest.approx([1 / 70])
