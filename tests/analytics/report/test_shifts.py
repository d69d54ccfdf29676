from __future__ import annotations

import numpy as np

from analytics import buckets
from analytics.report.shifts import Shift, shift

N = 1_500


def counted(days: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    found = np.unique(np.concatenate([buckets.index(day) for day in days]))
    table = np.zeros((len(days), len(found)), dtype=np.int64)
    for row, day in zip(table, days, strict=True):
        np.add.at(row, np.searchsorted(found, buckets.index(day)), 1)
    return table, found


def weeks(rng: np.random.Generator, factor: float, spread: float) -> list[Shift | None]:
    """p99 of two weeks whose days differ by `spread` (as load does), the second slower by `factor`."""
    every = [
        (np.exp(rng.normal(15, 0.5, N)) * np.exp(rng.normal(0, spread)) * (factor if day >= 7 else 1)).astype(np.int64)
        for day in range(14)
    ]
    table, found = counted(every)
    return [shift(table[7:], table[:7], found, 0.99)]


def test_a_change_is_seen_and_its_interval_holds_it() -> None:
    [found] = weeks(np.random.default_rng(1), 1.5, 0.05)
    assert found is not None
    assert found.seen
    truth = 0.5 * np.exp(15 + 0.5 * 2.326)
    assert found.low_ns < truth < found.high_ns


def test_days_that_differ_among_themselves_are_not_taken_for_a_change() -> None:
    """Messages of a day are not independent: an interval that took them so would find a change nearly every time."""
    rng = np.random.default_rng(5)
    seen = [one.seen for _ in range(40) for one in weeks(rng, 1.0, 0.2) if one is not None]
    assert len(seen) == 40
    assert sum(seen) <= 6  # 5 % are expected: more than 6 of 40 have a probability below 1 %


def test_too_few_days_or_messages_have_no_interval() -> None:
    rng = np.random.default_rng(2)
    table, found = counted([np.exp(rng.normal(15, 0.5, N)).astype(np.int64) for _ in range(6)])
    assert shift(table[3:], table[:3], found, 0.99) is None
    table, found = counted([np.exp(rng.normal(15, 0.5, 20)).astype(np.int64) for _ in range(14)])
    assert shift(table[7:], table[:7], found, 0.99) is None


def test_days_without_messages_are_no_days() -> None:
    rng = np.random.default_rng(2)
    table, found = counted([np.exp(rng.normal(15, 0.5, N)).astype(np.int64) for _ in range(10)])
    empty = np.zeros((3, table.shape[1]), dtype=np.int64)
    assert shift(np.vstack([table[5:], empty]), table[:5], found, 0.99) == shift(table[5:], table[:5], found, 0.99)


def test_the_same_days_twice_are_no_change() -> None:
    rng = np.random.default_rng(2)
    table, found = counted([np.exp(rng.normal(15, 0.5, N)).astype(np.int64) for _ in range(7)])
    same = shift(table, table, found, 0.5)
    assert same is not None
    assert same.change_ns == 0
    assert not same.seen
