from __future__ import annotations

import numpy as np
import pytest

from analytics import windows
from analytics.queueing.bursts import burst_effects, during, excess
from collector.store import Store
from tests.analytics.world import HOUR, path, put, put_rows, stamp

S = 1_000_000_000
US = 1_000


def test_moments_in_intervals() -> None:
    starts, ends = np.array([50, 10, 12]), np.array([60, 40, 20])
    assert during(np.array([9, 10, 25, 39, 40, 50, 59, 60]), starts, ends).tolist() == [
        False, True, True, True, False, True, True, False,
    ]  # fmt: skip
    assert not during(np.array([5]), starts[:0], ends[:0]).any()


def drawn(seed: int, added: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Minutes that differ, with bursts in the slow ones more often, and `added` us in bursts."""
    rng = np.random.default_rng(seed)
    minute = np.repeat(np.arange(30), 200)
    slow = rng.gamma(2.0, 50.0, 30)[minute]
    hit = rng.random(6_000) < np.minimum(0.3, slow / 1_000)
    took = slow + rng.exponential(20, 6_000) + added * hit
    return minute * 60 * S + rng.integers(0, 60 * S, 6_000), took * US, hit


def test_the_excess_is_the_bursts_own_and_its_interval_covers() -> None:
    held, naive = [], []
    for seed in range(60):
        came, took, hit = drawn(seed, 15.0)
        found = excess(came, took, hit)
        assert not isinstance(found, str)
        held.append(found[1] <= 15.0 * US <= found[2])
        naive.append(took[hit].mean() - took[~hit].mean())
    assert sum(held) >= 50, sum(held)  # 95 % of 60: fewer once in 1,000 times
    assert np.mean(naive) > 25 * US  # what the minutes have in common, without comparing within them
    came, took, hit = drawn(1, 0.0)
    assert "needs at least 20 messages" in str(excess(came[:3], took[:3], hit[:3]))


def test_bursts_of_a_store_are_tied_to_its_messages(store: Store) -> None:
    rng = np.random.default_rng(4)
    stamps, bursts = [], []
    for minute in range(8):
        for i in range(40):
            at = HOUR + minute * 60 * S + i * S
            burst = i % 8 == 3
            key = minute * 100 + i + 1
            took = int(100 * US + rng.integers(0, 10 * US) + 50 * US * burst)
            stamps += [stamp(key, "app_ingress", at), stamp(key, "app_decision", at + 40 * US)]
            stamps += [stamp(key, "app_egress", at + 40 * US + took, host="b")]
            if burst:
                bursts.append({"ts": at, "duration_ns": 90 * US, "kind": "microburst_100us", "host": "b", "thread": 0,
                               "culprit": "", "label_set": 0})  # fmt: skip
    put(store, stamps)
    put_rows(store, "intervals", bursts)
    way = path()
    windows.run_due(store, {"order": way}, now_ns=HOUR + 600 * S)
    assert burst_effects(store, way, from_ns=HOUR + 590 * S, to_ns=HOUR + 600 * S) == []
    found = burst_effects(store, way, from_ns=HOUR, to_ns=HOUR + 480 * S)
    assert [(f.stage, f.kind, f.bursts, f.count, f.hit) for f in found] == [("send", "microburst_100us", 40, 320, 40)]
    one = found[0]
    assert one.low_ns is not None and one.high_ns is not None and one.excess_ns is not None
    assert one.low_ns <= 50 * US <= one.high_ns
    assert one.excess_ns == pytest.approx(50 * US, rel=0.1)
    assert (one.hit_share, one.tail_share, one.minutes) == (0.125, 1.0, 8)
    other = burst_effects(store, way, from_ns=HOUR, to_ns=HOUR + 480 * S, stages=["decide"])
    assert other[0].hit == 0 and "needs at least 20" in other[0].refused
    with pytest.raises(KeyError, match="no stage 'sned'"):
        burst_effects(store, way, from_ns=HOUR, to_ns=HOUR + 480 * S, stages=["sned"])
