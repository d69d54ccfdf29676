from __future__ import annotations

import numpy as np
import pytest

from analytics import buckets
from analytics.queueing.capacity import capacity, load_of
from analytics.tally import Tally
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types
from tests.analytics.world import HOUR, path

DAY = 86_400
MS = 1_000_000


def tally(values: list[int], unfinished: int = 0) -> Tally:
    one = Tally()
    for v in values:
        one.buckets[int(buckets.index(np.array([v]))[0])] += 1
    one.sums |= {"n": len(values), "unfinished": unfinished, "sum_ns": sum(values)}
    return one


def test_steps_of_load_from_counts() -> None:
    tallies = {
        (100, "end_to_end"): tally([1 * MS, 5 * MS, 9 * MS], unfinished=1),
        (110, "end_to_end"): tally([20 * MS]),
        (110, "wait"): tally([3]),
        (200, "end_to_end"): tally([7]),
    }
    load = load_of(tallies, "end_to_end", 100, 130, 10, 5 * MS + MS // 10)
    assert load.start_s.tolist() == [100, 110, 120]
    assert (load.count.tolist(), load.late.tolist()) == ([4, 1, 0], [2, 1, 0])
    assert load.sum_ns.tolist() == [15 * MS, 20 * MS, 0]
    assert load.rate_s.tolist() == [0.4, 0.1, 0]
    assert load.inside[1] == pytest.approx(0.1 * 0.02)


def test_headroom_of_a_month_of_stored_hours(store: Store) -> None:
    """Hours whose load swings with the day and grows; lateness rises with it as in an M/M/1 queue."""
    rng = np.random.default_rng(1)
    first = HOUR // 10**9 // DAY * DAY
    slow, fast = (int(buckets.index(np.array([v]))[0]) for v in (20 * MS, 2 * MS))
    summaries, counts, commits = [], [], []
    for hour in range(20 * 24):
        at = first + hour * 3_600
        rate = (0.5 + 0.25 * np.sin(hour / 24 * 2 * np.pi) + 0.004 * hour / 24) * 10
        n = int(rng.poisson(rate * 3_600))
        late = int(rng.binomial(n, min(1.0, np.exp(-(1 - rate / 10) * 10))))
        blank = {"path": "order", "level": 3_600, "rollup": "", "window": at, "generation": 1}
        some = ((fast, n - late), (slow, late))
        counts += [{**blank, "stage": "end_to_end", "bucket": b, "n": k} for b, k in some if k]
        summaries.append(
            {**blank, "stage": "end_to_end", "n": n, "unfinished": 0, "missing": 0, "negative": 0,
             "below_resolution": 0, "error_unknown": 0, "repeated": 0, "min_ns": MS, "max_ns": 25 * MS,
             "sum_ns": late * 20 * MS + (n - late) * 2 * MS, "max_error_ns": 0}
        )  # fmt: skip
        commits.append(at)
    for table, rows in (("stage_counts", counts), ("stage_windows", summaries), ("windows", _commits(commits))):
        known = table_types()[table]
        store.insert(table, from_rows(known, [{k: v for k, v in r.items() if k in known} for r in rows]), token=table)
    reach = {"from_ns": first * 10**9, "to_ns": (first + 20 * DAY) * 10**9}
    found = capacity(store, path(), objectives=((10 * MS, 0.95), (10 * MS, 0.99999)), **reach)
    one = found.headroom[0]
    truth = 10 * (1 + np.log(0.05) / 10)
    assert found.step_s == 3_600
    assert one.low_s is not None and one.high_s is not None, one.refused
    assert one.low_s <= truth <= one.high_s
    assert one.rate_s == pytest.approx(truth, rel=0.02)
    date = found.dates[0]
    assert date.at_s is not None and date.growth_day == pytest.approx(0.04, rel=0.3)
    assert found.headroom[1].late == one.late
    with pytest.raises(ValueError, match="an objective is"):
        capacity(store, path(), from_ns=0, to_ns=10**10, objectives=((0, 0.9),))


def _commits(windows: list[int]) -> list[dict[str, object]]:
    blank: dict[str, object] = dict.fromkeys(table_types()["windows"], 0)
    return [{**blank, "path": "order", "level": 3_600, "window": at, "generation": 1, "basis": 1} for at in windows]
