"""Attribution: parts that add up exactly, intervals that cover, unfinished and failed messages in their places."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.tail import clusters
from analytics.tail.attribution import Attribution, attributed, attribution, facts_of
from analytics.tail.tailset import apportion, cuts, parts, took
from tests.analytics.tail.synthetic import S, calm, messages, three
from tests.analytics.world import HOUR


def ask(frame: pl.DataFrame, q: float = 0.01, **more: object) -> Attribution:
    return attribution(frame, three(), from_ns=HOUR, to_ns=HOUR + 600 * S, q=q, **more)  # type: ignore[arg-type]


@given(st.integers(10, 400), st.integers(0, 10_000), st.sampled_from([0.01, 0.05, 0.2, 0.5]))
def test_parts_of_the_tail_add_up_exactly(n: int, seed: int, q: float) -> None:
    rng = np.random.default_rng(seed)
    stages = rng.integers(-50, 10_000, size=(n, 3))
    frame = messages(stages, extra=rng.integers(-20, 3_000, size=n))
    found = ask(frame, q)
    values = frame["e2e_ns"].to_numpy()
    tail = values[values >= found.threshold_ns]
    assert found.tail_count == len(tail) >= max(1, round(q * n))
    assert sum(one.total_ns for one in found.stages) == found.tail_total_ns == int(tail.sum())
    assert sum(one.mean_ns for one in found.stages) == found.tail_mean_ns
    assert abs(Fraction(found.tail_mean_ns) - Fraction(int(tail.sum()), len(tail))) <= Fraction(1, 2)
    assert sum(one.body_ns for one in found.stages) == found.body_mean_ns
    assert sum(one.excess_ns for one in found.stages) == found.excess_ns == found.tail_mean_ns - found.body_mean_ns


@given(st.lists(st.integers(-(10**15), 10**15), min_size=1, max_size=8), st.integers(1, 10**6))
def test_rounded_means_add_up_to_the_rounded_mean(sums: list[int], count: int) -> None:
    means = apportion(np.array(sums, dtype=np.int64), count)
    assert abs(Fraction(sum(sums), count) - sum(means)) <= Fraction(1, 2)
    assert all(abs(Fraction(value, count) - mean) < 1 for value, mean in zip(sums, means, strict=True))


def test_a_slow_stage_takes_the_tail_and_the_excess() -> None:
    stages = calm(10_000)
    slow = np.random.default_rng(2).random(10_000) < 0.02
    stages[slow, 2] += 5_000_000
    found = ask(messages(stages))
    match = next(one for one in found.stages if one.stage == "match")
    assert match.share > 0.9
    assert match.excess_share_ci is not None
    assert match.excess_share_ci[0] > 0.9
    assert "was match" in found.sentence
    assert (found.count, found.tail_count) == (10_000, 100)
    assert abs(sum(one.at_quantile_ns for one in found.stages) - found.threshold_ns) < 0.1 * found.threshold_ns


def test_a_stage_between_two_services_is_network_whatever_it_was_called() -> None:
    stages = calm(2_000)
    stages[::50, 1] += 9_000_000
    found = ask(messages(stages))
    assert [one.kind for one in found.stages] == ["compute", "network", "compute", "unattributed", "unfinished"]
    assert "wire (engine to venue)" in found.sentence


def test_unfinished_messages_are_in_the_tail_with_what_is_known_of_them() -> None:
    frame = messages(calm(1_000))
    gone = pl.col("key").is_in([3, 500, 777])
    frame = frame.with_columns(
        e2e_ns=pl.when(gone).then(None).otherwise(pl.col("e2e_ns")),
        ns_2=pl.when(gone).then(None).otherwise(pl.col("ns_2")),
        outcome=pl.when(pl.col("key") == 777).then(pl.lit("shed")).otherwise(pl.col("outcome")),
    )
    found = ask(frame)
    assert (found.unfinished, found.failed, found.count) == (2, {"shed": 1}, 999)
    never = next(one for one in found.stages if one.stage == "unfinished")
    known = frame.filter(pl.col("key").is_in([3, 500])).select(pl.col("ns_0") + pl.col("ns_1")).sum().item()
    assert never.total_ns == 2 * S - known
    assert found.tail_total_ns == sum(one.total_ns for one in found.stages)
    # One that started less than max_age before all had landed may still come.
    early = ask(frame, known_to_ns=HOUR + 10 * S)
    assert (early.unfinished, early.undecided) == (1, 1)


def test_slices_give_the_same_as_the_whole() -> None:
    frame = messages(calm(5_000))
    path = three()
    whole = ask(frame)
    prepared, apart = took(frame, path)
    cut = cuts(prepared["took_ns"].to_numpy(), 0.01)
    halves = [prepared.filter(pl.col("start_ns") < HOUR + 50 * S), prepared.filter(pl.col("start_ns") >= HOUR + 50 * S)]
    first, second = (clusters.sums_of(one, len(parts(path)), cut, 10 * S) for one in halves)
    counted = [facts_of(one, path, cut, apart) for one in halves]
    found = attributed(
        path, first + second, cut, counted[0] + counted[1],
        from_ns=HOUR, to_ns=HOUR + 600 * S, cluster_length_ns=10 * S,
    )  # fmt: skip
    assert found == whole


def test_too_little_for_a_tail_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 10 messages"):
        ask(messages(calm(9)))
    with pytest.raises(ValueError, match="q is the slowest share"):
        ask(messages(calm(100)), 0.7)
    few = ask(messages(calm(20), per_s=10.0))
    assert all(one.share_ci is None for one in few.stages)


def test_intervals_cover_the_truth_at_their_rate_in_bursts_too() -> None:
    """Bursts: in some 10 s one stage is slower for everybody. The truth is that of a very long run."""
    path = three()

    def run(seed: int, n: int) -> Attribution:
        rng = np.random.default_rng(seed)
        stages = calm(n, seed)
        slots = n // 500 + 1
        stages[:, 0] = (stages[:, 0] * rng.lognormal(0, 0.4, slots)[np.arange(n) // 500]).astype(np.int64)
        return attribution(messages(stages), path, from_ns=HOUR, to_ns=HOUR + 600 * S, q=0.05, seed=seed)

    truth = run(10_000, 1_000_000)
    runs = [run(seed, 20_000) for seed in range(60)]
    covered = {"share": 0, "excess": 0}
    for found in runs:
        mine, real = found.stages[0], truth.stages[0]
        assert mine.share_ci is not None
        assert mine.excess_ci_ns is not None
        covered["share"] += mine.share_ci[0] <= real.share <= mine.share_ci[1]
        covered["excess"] += mine.excess_ci_ns[0] <= real.excess_ns <= mine.excess_ci_ns[1]
        assert found.effective_n < found.tail_count
    assert all(hits >= 52 for hits in covered.values()), covered
