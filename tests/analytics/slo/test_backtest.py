"""Replaying recorded counts: the same sums, the same transitions as tick by tick, incidents, and what is rough."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.slo.backtest import TooLongError, Work, answer, backtest, targets
from analytics.slo.evaluate import Evaluator
from analytics.slo.indicators import Latency
from analytics.slo.objectives import Objective
from analytics.slo.openslo import TimeWindow
from analytics.slo.recorded import Recorded, filled, spread
from analytics.slo.rules import rules_named
from analytics.slo.sums import Sums

S = 1_000_000_000
BEGIN = 1_800_000_000
DAY = 86_400


def objective(name: str = "o", rules: str = "workbook", days: int = 30, **more: object) -> Objective:
    return Objective(
        name, name, "s", name, "", 0.999, Latency("p", "end_to_end", 1), TimeWindow(days, "d", True),
        rules_named(rules, days * DAY), **more,  # type: ignore[arg-type]
    )  # fmt: skip


def cells_of(seed: int, count: int, incidents: int = 3) -> np.ndarray:
    dice = np.random.default_rng(seed)
    total = dice.integers(0, 200, count)
    bad = dice.binomial(total, 0.0003)
    for _ in range(incidents):
        at, length = int(dice.integers(0, count)), int(dice.integers(3, 200))
        part = slice(at, at + length)
        bad[part] = dice.binomial(total[part], dice.choice([0.01, 0.05, 0.4]))
    unsure = dice.binomial(bad, 0.05)
    return np.stack([total - bad, total, unsure], axis=1).astype(np.int64)


def live(names: list[str], cells: np.ndarray, back: int, reach_s: int) -> Sums:
    """Sums as a server has them that was started at BEGIN, with `back` cells before."""
    sums = Sums(names, BEGIN, reach_s)
    first = BEGIN - back * 10
    for level in (10, 60, 3_600):
        per = level // 10
        rows = cells[:, : back // per * per].reshape(len(names), -1, per, 3).sum(axis=2)
        starts = first + level * np.arange(rows.shape[1])
        for name, values in zip(names, rows, strict=True):
            sums.load(level, [name] * len(starts), starts, values)
    return sums


def test_recorded_sums_are_the_live_ones_at_any_moment() -> None:
    back, ahead, reach = 12 * 360, 1_000, 2 * DAY
    cells = np.stack([cells_of(1, back + ahead), cells_of(2, back + ahead)])
    sums, recorded = live(["a", "b"], cells, back, reach), Recorded(["a", "b"], BEGIN - back * 10, cells, reach)
    for step in range(1, ahead + 1):
        end = BEGIN + step * 10
        sums.advance(end)
        sums.put(["a", "b"], np.array([end - 10] * 2), cells[:, back + step - 1])
        if step % 7:
            continue
        recorded.move(end)
        for seconds in (10, 300, 3_600, 22_500, 22_510, 40_000, 86_400, 2 * DAY):
            assert recorded.window(seconds).tolist() == sums.window(seconds).tolist(), seconds
        for slice_s in (60, 300, 3_600):
            for seconds in (3_600, 30_000):
                asked = ("b", slice_s, 0.99, end - seconds, end)
                assert recorded.sliced(*asked) == sums.sliced(*asked)
                assert recorded.averaged("b", slice_s, end - seconds, end) == pytest.approx(
                    sums.averaged("b", slice_s, end - seconds, end)
                )
        assert recorded.first_s("a") == sums.first_s("a")


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rules", ["workbook", "pyrra"])
def test_a_replay_hears_what_the_evaluation_hears_tick_by_tick(seed: int, rules: str) -> None:
    back, ahead = 6 * 360, 1_500
    one = objective(rules=rules, days=28 if rules == "pyrra" else 30)
    cells = cells_of(seed, back + ahead, incidents=5)[None]
    sums = live(["o"], cells, back, one.period_s)
    evaluator, heard = Evaluator([one]), []
    for step in range(1, ahead + 1):
        end = BEGIN + step * 10
        sums.advance(end)
        sums.put(["o"], np.array([end - 10]), cells[:, back + step - 1])
        heard += evaluator.tick(sums, end + 20)
    recorded = Recorded(["o"], BEGIN - back * 10, cells, one.period_s)
    found = backtest(one, [one], recorded, BEGIN, BEGIN + ahead * 10)
    expected = sorted((h.alert.rule, h.alert.fired_ns) for h in heard if h.kind == "firing")
    assert sorted((f.rule, f.fired_ns) for f in found.fired) == expected
    ended = sorted((h.alert.rule, h.alert.resolved_ns) for h in heard if h.kind == "resolved")
    assert sorted((f.rule, f.resolved_ns) for f in found.fired if f.resolved_ns) == ended
    assert found.judged <= found.ticks
    if not expected:
        return
    with pytest.raises(TooLongError, match="ask for less time"):
        backtest(one, [one], recorded, BEGIN, BEGIN + ahead * 10, work=Work(3))


def test_the_verified_vector_and_detection_of_incidents() -> None:
    one = objective()
    back, ahead = 3 * 8_640, 180
    cells = np.tile(np.array([1000, 1000, 0]), (back + ahead, 1))
    cells[back : back + 60] = (850, 1000, 0)  # 15 % for 10 minutes
    recorded = Recorded(["o"], BEGIN - back * 10, cells[None], one.period_s)
    incidents = [(BEGIN * S, (BEGIN + 600) * S), ((BEGIN - DAY) * S, (BEGIN - DAY + 600) * S)]
    found = backtest(one, [one], recorded, BEGIN, BEGIN + ahead * 10, incidents=incidents)
    page = next(f for f in found.fired if f.rule == "page-1h")
    assert (page.fired_ns - BEGIN * S, page.resolved_ns - BEGIN * S) == ((350 + 20) * S, (880 + 20) * S)
    assert [d.after_s for d in found.detections] == [370.0, None]
    assert found.surplus == 0
    assert (found.count("page"), found.judged < found.ticks) == (1, True)
    assert (found.events, found.bad) == (180_000, 9_000)
    assert found.points[-1].remaining == found.remaining
    assert found.burned == pytest.approx((3 * DAY + 1_800) / (30 * DAY) * 9_000 / 26_100_000 / 0.001)
    shown = answer(found)
    assert (shown["pages"], len(shown["points"])) == (1, 180)
    early = backtest(one, [one], recorded, BEGIN, BEGIN + ahead * 10, incidents=[(BEGIN * S, (BEGIN + 60) * S)])
    assert (early.detections[0].fired_ns, early.surplus) == (None, 1)


def test_an_hour_is_taken_from_the_finest_level_that_has_all_of_it() -> None:
    fine = np.array([BEGIN + 3_600 + 10 * i for i in range(360)], np.int64)
    half = np.array([BEGIN + 1_800 + 10 * i for i in range(180)], np.int64)
    minutes = np.array([BEGIN + 60 * i for i in range(120)], np.int64)
    levels = {
        10: (np.concatenate([half, fine]), np.tile(np.array([9, 10, 1]), (540, 1))),
        60: (minutes, np.tile(np.array([54, 60, 6]), (120, 1))),
        3_600: (np.array([BEGIN - 3_600]), np.array([[100, 700, 50]])),
    }
    cells, rough_s = filled(levels, BEGIN - 3_600, BEGIN + 7_200)
    assert rough_s == 7_200
    assert cells[:360].sum(axis=0).tolist() == [100, 700, 50]
    assert cells[360:].tolist() == [[9, 10, 1]] * 720


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 10_000), st.sampled_from([6, 360]))
def test_rows_are_divided_without_loss(good: int, unsure: int, bad: int, parts: int) -> None:
    rows = spread(np.array([[good, good + unsure + bad, unsure]]), parts)[0]
    assert rows.sum(axis=0).tolist() == [good, good + unsure + bad, unsure]
    assert (rows >= 0).all()
    assert (rows[:, 0] + rows[:, 2] <= rows[:, 1]).all()


def test_targets_that_are_tried_can_all_be_reached() -> None:
    tried = targets(objective().rules, 20)
    assert len(tried) == 20
    assert all(14.4 * (1 - target) < 1 for target in tried)
