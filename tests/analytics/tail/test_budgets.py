"""Budgets: counts over a budget, classes added message by message, repeatability."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.percentiles import Counts
from analytics.tail.attribution import attribution
from analytics.tail.budgets import Budgets, Counted, budgets, moments, over, trend
from tests.analytics.tail.synthetic import S, calm, messages, three
from tests.analytics.world import HOUR


@given(st.lists(st.integers(-1_000, 10_000_000), min_size=1, max_size=60), st.integers(1, 10_000_000))
def test_what_is_over_lies_between_the_two_counts(values: list[int], budget: int) -> None:
    surely, perhaps = over(Counts.of(np.array(values)), budget)
    assert surely <= sum(value > budget for value in values) <= perhaps


def whole(stages: np.ndarray) -> Budgets:
    path, frame = three(), messages(stages)
    values = {stage.name: stages[:, i] for i, stage in enumerate(path.stages)}
    values |= {"end_to_end": stages.sum(axis=1), "unattributed": np.zeros(len(stages), dtype=np.int64)}
    minute = np.arange(len(stages)) // 3_000
    counted = {
        name: Counted(Counts.of(v), 0, {60 * m: Counts.of(v[minute == m]) for m in np.unique(minute).tolist()})
        for name, v in values.items()
    }
    tail = attribution(frame, path, from_ns=HOUR, to_ns=HOUR + 600 * S)
    return budgets(
        path, counted, moments(frame, path), tail, from_ns=HOUR, to_ns=HOUR + 600 * S, step_s=60, completeness=1.0
    )


def test_a_stage_over_its_budget_is_said_with_its_share_of_the_tail() -> None:
    stages = calm(24_000)
    stages[::20, 0] += 2_000_000
    found = whole(stages)
    decide, wire, match = found.stages[:3]
    truth = (stages[:, 0] > 150_000).mean()
    assert decide.over_share == pytest.approx(truth, abs=0.01)
    assert decide.tail_share is not None
    assert decide.tail_share > 0.8
    assert (decide.kind, wire.kind, match.budget_ns, match.over_share) == ("compute", "network", None, None)
    assert decide.jitter_ns == pytest.approx(np.abs(np.diff(stages[:, 0])).mean())
    assert decide.p99_less_p50_ns is not None
    assert decide.p99_less_p50_ns > 1_900_000
    assert decide.windows == 8
    assert "decide is over its budget most often" in found.sentence


def test_classes_are_added_message_by_message() -> None:
    stages = calm(5_000)
    found = {one.kind: one for one in whole(stages).classes}
    assert found["network"].stages == ["wire"]
    assert found["network"].over == int((stages[:, 1] > 500_000).sum())
    assert found["compute"].mean_ns == pytest.approx((stages[:, 0] + stages[:, 2]).mean())
    assert found["compute"].budget_ns is None  # one of its stages has none
    assert sum(one.tail_share or 0 for one in found.values()) == pytest.approx(1.0)


def test_slices_add_up_but_for_the_change_between_them() -> None:
    path, frame = three(), messages(calm(1_000))
    one, two = moments(frame[:400], path), moments(frame[400:], path)
    both = moments(frame, path)
    assert (one + two).count == both.count
    assert (one + two).classes == both.classes
    between = abs(frame["ns_0"][400] - frame["ns_0"][399])
    assert (one + two).steps["decide"] == (both.steps["decide"][0] - between, both.steps["decide"][1] - 1)


def test_unfinished_messages_have_no_jitter() -> None:
    frame = messages(calm(100)).with_columns(e2e_ns=pl.when(pl.col("key") == 50).then(None).otherwise(pl.col("e2e_ns")))
    assert moments(frame, three()).count == 99


def test_a_trend_has_an_interval_and_needs_windows() -> None:
    rng = np.random.default_rng(1)
    rising = {60 * i: int(1_000_000 + 1_000 * i + rng.normal(0, 500)) for i in range(60)}
    found = trend(rising)
    assert found is not None
    assert found[1][0] < 60_000 < found[1][1]
    flat = trend({60 * i: int(1_000_000 + rng.normal(0, 500)) for i in range(60)})
    assert flat is not None
    assert flat[1][0] < 0 < flat[1][1]
    assert trend({0: 1, 60: 2, 120: 3}) is None
