from __future__ import annotations

import numpy as np
import pytest

from analytics.queueing.blocks import blocks_of, effective_count, quantile, share_of
from analytics.queueing.depth import EDGES, by_depth, depth_limit, rising
from tests.analytics.queueing.simulated import Queue, S, mm1, mm1_quantile

# Load 0.8, mean service 1, p99 per bucket: one simulated run. The exact values are 4.61, 7.77, 11.83, 18.34 and 36.41.
ONE_RUN = (4.53, 7.75, 11.9, 18.4, 37.6)


def tails(queue: Queue, **more: object):  # type: ignore[no-untyped-def]
    wait = (queue.left_ns - queue.arrived_ns).astype(float)
    return by_depth(queue.depth, wait, queue.arrived_ns, from_ns=0, to_ns=queue.to_ns, **more)  # type: ignore[arg-type]


def test_the_theory_agrees_with_a_run() -> None:
    ranges = [(low, EDGES[i + 1] - 1 if i + 1 < len(EDGES) else None) for i, low in enumerate(EDGES)]
    assert [mm1_quantile(0.99, *one) for one in ranges] == pytest.approx(ONE_RUN, rel=0.035)


def test_conditional_tails_of_a_simulated_queue_match_theory() -> None:
    # 20 intervals that are to hold together: Bonferroni.
    found = tails(mm1(np.random.default_rng(4), 400_000), confidence=1 - 0.05 / 20)
    assert sum(tail.count for tail in found) == 400_000
    for tail in found:
        for one in tail.quantiles:
            truth = mm1_quantile(one.quantile, tail.low, tail.high) * S
            if one.refused:  # the deepest queues are few long episodes
                assert tail.low == 12 and one.quantile > 0.9, one
                continue
            assert one.low is not None and one.high is not None, (tail.low, one)
            assert one.low <= truth <= one.high, (tail.low, one)
            assert one.effective <= one.count
    assert all(rising(found, q).holds for q in (0.5, 0.9, 0.99))


def test_intervals_cover_at_their_rate_though_neighbours_wait_together() -> None:
    edges, q, runs = (0, 1, 3, 6, 12), 0.9, 150
    truth = {low: mm1_quantile(q, low, EDGES[i + 1] - 1 if i + 1 < 5 else None) * S for i, low in enumerate(edges)}
    covered: dict[int, list[bool]] = {low: [] for low in edges}
    middle = mm1_quantile(0.5, 12, None) * S
    deepest, naive = [], []
    for seed in range(runs):
        queue = mm1(np.random.default_rng(seed), 20_000)
        for tail in tails(queue, quantiles=(q, 0.5)):
            one, half_way = tail.quantiles
            if tail.low == 12 and half_way.low is not None and half_way.high is not None:
                deepest.append(half_way.low <= middle <= half_way.high)
            if one.low is not None and one.high is not None:
                covered[tail.low].append(one.low <= truth[tail.low] <= one.high)
        deep = np.sort((queue.left_ns - queue.arrived_ns)[queue.depth >= 12])
        n = len(deep)
        half = 1.96 * np.sqrt(q * (1 - q) / n)
        naive.append(deep[int((q - half) * n)] <= truth[12] <= deep[min(n - 1, int((q + half) * n))])
    for low, hits in covered.items():
        # 95 %, less what chance does to a correct rate in 150 runs once in 10,000 times. A refusal is no wrong answer.
        noise = 3.7 * np.sqrt(0.95 * 0.05 / runs)
        assert 1 - hits.count(False) / runs > 0.95 - noise, low
        assert low == 12 or len(hits) == runs
    # The deepest bucket is few long episodes: among those that are answered the rate holds too.
    assert len(deepest) > 50
    assert np.mean(deepest) > 0.95 - 3.7 * np.sqrt(0.95 * 0.05 / len(deepest))
    assert np.mean(naive) < 0.75  # what independent messages would have promised


def test_few_or_dependent_messages_are_refused() -> None:
    rng = np.random.default_rng(1)
    times = np.arange(300, dtype=np.int64)
    few = quantile(rng.random(300), blocks_of(times, 0, 300), 0.99)
    assert (few.value, few.refused) == (None, "p99 needs at least 368 samples, there are 300")
    blocks = np.repeat(np.arange(20), 100)
    clumped = quantile(np.repeat(rng.random(20), 100), blocks, 0.9)
    assert clumped.value is None and "depend on each other are worth" in clumped.refused
    lost = quantile(rng.random(980), np.arange(980) % 30, 0.99, unfinished=20)
    assert "lies among the 20 messages that never left" in lost.refused
    assert quantile(rng.random(980), np.arange(980) % 30, 0.9, unfinished=20).count == 1000


def test_effective_counts_and_shares() -> None:
    rng = np.random.default_rng(3)
    independent = rng.random(6_000) < 0.1
    block = np.arange(6_000) // 200
    assert 0.5 * 6_000 < effective_count(independent, block) <= 6_000
    together = np.repeat(rng.random(30) < 0.3, 200)
    assert effective_count(together, block) < 60
    assert effective_count(independent[:10], np.zeros(10, dtype=np.int64)) == 0.0
    none = share_of(np.zeros(6_000, dtype=bool), block)
    assert (none.share, none.low) == (0.0, 0.0)
    assert 0.0005 < none.high < 0.001  # 3.7 / n, the rule of three of a two-sided interval
    assert share_of(np.zeros(0, dtype=bool), np.zeros(0, dtype=np.int64)).high == 1.0


def test_a_depth_that_is_not_the_queues_is_told() -> None:
    queue = mm1(np.random.default_rng(5), 60_000)
    wait = (queue.left_ns - queue.arrived_ns).astype(float)
    found = by_depth(queue.depth.max() - queue.depth, wait, queue.arrived_ns, from_ns=0, to_ns=queue.to_ns,
                     edges=(0, 40), quantiles=(0.9,))  # fmt: skip
    assert rising(found, 0.9).holds is not True
    turned = by_depth(12 - np.minimum(queue.depth, 12), wait, queue.arrived_ns, from_ns=0, to_ns=queue.to_ns)
    assert rising(turned, 0.9).holds is False
    with pytest.raises(KeyError, match="no quantile"):
        rising(turned, 0.75)
    with pytest.raises(ValueError, match="rise from 0"):
        by_depth(queue.depth, wait, queue.arrived_ns, from_ns=0, to_ns=queue.to_ns, edges=(1, 2))


def test_the_depth_limit_is_the_theorys() -> None:
    queue = mm1(np.random.default_rng(6), 300_000)
    wait = (queue.left_ns - queue.arrived_ns).astype(float)
    found = depth_limit(
        queue.depth, wait, queue.arrived_ns, from_ns=0, to_ns=queue.to_ns, threshold_ns=20 * S, good=0.99
    )
    # Erlang mixture: the largest d with P(late | at most d others) <= 1 %.
    from scipy import stats

    weights = 0.8 ** np.arange(60)
    late = stats.gamma.sf(20, np.arange(60) + 1)
    truth = int(np.flatnonzero(np.cumsum(weights * late) / np.cumsum(weights) <= 0.01).max())
    assert found.limit is not None and found.likely is not None
    assert truth - 2 <= found.limit <= found.likely <= truth + 1
    assert found.late_high <= 0.01
    assert found.refused_share == pytest.approx(0.8 ** (found.limit + 1), rel=0.4)
    easy = depth_limit(
        queue.depth, wait, queue.arrived_ns, from_ns=0, to_ns=queue.to_ns, threshold_ns=900 * S, good=0.99
    )
    assert easy.limit is None and "no limit is needed" in easy.sentence
    never = depth_limit(queue.depth, wait, queue.arrived_ns, from_ns=0, to_ns=queue.to_ns, threshold_ns=1, good=0.99)
    assert never.limit == -1
    few = depth_limit(queue.depth[:50], wait[:50], queue.arrived_ns[:50], from_ns=0, to_ns=queue.to_ns,
                      threshold_ns=S, good=0.99)  # fmt: skip
    assert few.refused.startswith("needs at least 100 messages")
