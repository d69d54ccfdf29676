from __future__ import annotations

import numpy as np
import pytest

from analytics.changepoints.scan import scan


def alike(rng: np.random.Generator, n: int, common: float) -> np.ndarray:
    """Normal steps whose neighbours correlate by `common`."""
    x = rng.normal(size=n)
    for i in range(1, n):
        x[i] = common * x[i - 1] + np.sqrt(1 - common**2) * x[i]
    return x


@pytest.mark.parametrize(("common", "heavy"), [(0.0, False), (0.0, True), (0.3, False)])
def test_no_change_is_called_one_at_the_stated_rate_only(common: float, heavy: bool) -> None:
    wrong, runs = 0, 50
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        x = rng.standard_t(3, 60) if heavy else alike(rng, 60, common)
        wrong += bool(scan(x, np.ones(60), alpha=0.05, seed=seed, permutations=199).splits)
    # 5 % of 50 is 2.5; more than 8 once in 1,000 times.
    assert wrong <= 8, wrong


def test_a_change_is_found_where_it_is() -> None:
    held, off = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        x = alike(rng, 90, 0.2) + 2 * (np.arange(90) >= 60)
        found = scan(x, np.ones(90), seed=seed, permutations=399)
        assert found.p <= 0.01 and len(found.splits) >= 1
        near = min(found.splits, key=lambda s: abs(s.at - 60))
        off.append(abs(near.at - 60))
        held.append(near.low <= 60 <= near.high)
    assert sum(held) >= 9 and np.median(off) <= 2 and max(off) <= 10


def test_a_stretch_and_two_changes_and_many_dimensions() -> None:
    rng = np.random.default_rng(2)
    n = 120
    shares = np.tile([0.5, 0.3, 0.2], (n, 1))
    shares[70:] = [0.5, 0.25, 0.25]
    counts = np.array([rng.multinomial(2_000, p) for p in shares])
    x = counts / 2_000 / np.sqrt(counts.sum(axis=0) / counts.sum())
    assert [s.at for s in scan(x, counts.sum(axis=1), permutations=399).splits] == [70]
    dip = rng.normal(size=n)
    dip[40:52] += 3
    assert [s.at for s in scan(dip, np.ones(n), permutations=399).splits] == [40, 52]


def test_steps_without_messages_count_for_nothing() -> None:
    rng = np.random.default_rng(4)
    x, w = rng.normal(size=100), np.ones(100)
    x[50:] += 3
    w[20:30] = 0
    x[20:30] = np.nan
    assert [s.at for s in scan(x, w).splits] == [50]
    assert scan(x[:8], w[:8]).splits == ()
    with pytest.raises(ValueError, match="at most 240 steps"):
        scan(np.zeros(300), np.ones(300))
    with pytest.raises(ValueError, match="5 steps and 4 weights"):
        scan(np.zeros(5), np.ones(4))
