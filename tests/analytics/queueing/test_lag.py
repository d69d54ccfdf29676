from __future__ import annotations

import numpy as np
import pytest

from analytics.queueing.lag import lag, last_before

MS = 1_000_000
REACH = {"longest_ns": 2_000 * MS, "bin_ns": 100 * MS}


def smooth(rng: np.random.Generator, n: int, keep: float = 0.95) -> np.ndarray:
    """An autocorrelated series on a grid of 20 ms."""
    out, noise = np.zeros(n), rng.normal(size=n)
    for i in range(1, n):
        out[i] = keep * out[i - 1] + noise[i]
    return out


def sampled(rng: np.random.Generator, grid: np.ndarray, mean_ms: float, behind_ms: int = 0):  # type: ignore[no-untyped-def]
    times = np.cumsum(rng.exponential(mean_ms * MS, int(len(grid) * 20 / mean_ms))).astype(np.int64)
    times = times[(times < (len(grid) - 1) * 20 * MS) & (times > 3_000 * MS)]
    return times, grid[(times - behind_ms * MS) // (20 * MS)]


def test_a_known_lag_is_found_within_its_interval() -> None:
    held = []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        grid = smooth(rng, 4_000)
        ta, a = sampled(rng, grid, 70)
        tb, b = sampled(rng, grid, 90, behind_ms=500)
        found = lag(ta, a, tb, b + rng.normal(size=len(b)), seed=seed, surrogates=99, **REACH)
        assert found.lag_ns is not None and found.low_ns is not None and found.high_ns is not None
        assert "the first leads" in found.sentence
        held.append(found.low_ns <= 500 * MS <= found.high_ns)
    assert sum(held) >= 9  # 95 % of 12: fewer once in 400 times
    turned = lag(tb, b, ta, a, seed=1, surrogates=199, **REACH)
    assert turned.lag_ns is not None and turned.lag_ns == pytest.approx(-500 * MS, abs=100 * MS)


def test_smooth_series_that_have_nothing_to_do_with_each_other_rarely_pass() -> None:
    wrong, naive = 0, 0
    for seed in range(80):
        rng = np.random.default_rng(1_000 + seed)
        ta, a = sampled(rng, smooth(rng, 3_000, 0.98), 80)
        tb, b = sampled(rng, smooth(rng, 3_000, 0.98), 80)
        found = lag(ta, a, tb, b, seed=seed, surrogates=99, significance=0.05, **REACH)
        wrong += found.lag_ns is not None
        n = min(len(a), len(b))
        naive += abs(np.corrcoef(a[:n], b[:n])[0, 1]) > 1.96 / np.sqrt(n)
    assert wrong <= 11  # 4 of 80 expected; more than 11 once in 2,000 times
    assert naive > 16


def test_what_cannot_be_judged_is_refused() -> None:
    rng = np.random.default_rng(0)
    t = np.arange(1_000, dtype=np.int64) * 100 * MS
    x = rng.normal(size=1_000)
    assert "at least 50 readings" in lag(t[:20], x[:20], t, x, **REACH).refused
    assert "10 times the longest lag" in lag(t[:100], x[:100], t[:100], x[:100], **REACH).refused
    assert "never changes" in lag(t, np.ones(1_000), t, x, **REACH).refused
    nothing = lag(t, x, t, rng.normal(size=1_000), surrogates=199, **REACH)
    assert nothing.lag_ns is None and "no lag stands out" in nothing.sentence
    with pytest.raises(ValueError, match="bin must be longer"):
        lag(t, x, t, x, longest_ns=MS, bin_ns=0)
    with pytest.raises(ValueError, match="too many"):
        lag(t, x, t, x, longest_ns=10_000 * MS, bin_ns=MS)


def test_only_the_past_is_joined() -> None:
    read = np.array([100, 200, 300])
    found = last_before(np.array([50, 100, 101, 200, 250, 900]), read, np.array([1.0, 2.0, 3.0]), longest_ns=200)
    assert np.isnan(found[[0, 1, 5]]).all()
    assert found[2:5].tolist() == [1.0, 1.0, 2.0]
    assert np.isnan(last_before(read, read[:0], read[:0], longest_ns=5)).all()
