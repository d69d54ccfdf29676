"""Counts of objectives in a real store against a count by hand: exact, under generations, closed, from buckets."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from analytics import buckets, windows
from analytics.runs import Goals
from analytics.slo import stored
from analytics.slo.calendars import SloCalendar, Stretch, closed_windows
from analytics.slo.counting import by_path
from analytics.slo.indicators import Combined, Errors, Indicator, Latency, Maximum
from analytics.slo.objectives import Objective
from analytics.slo.openslo import TimeWindow
from analytics.slo.sums import Sums
from collector.settings import ConfigError
from collector.store import Store
from tests.analytics.conftest import store  # noqa: F401
from tests.analytics.world import HOUR, label_set, path, put, stamp

S = 1_000_000_000
HOUR_S = HOUR // S
PATHS = {"order": path()}
LIMIT = 30_000


def goal(name: str, indicator: Indicator, calendar: str = "") -> Objective:
    window = TimeWindow(30, "d", True)
    return Objective(name, name, "s", name, "", 0.999, indicator, window, (), calendar=calendar)


GOALS = [
    goal("whole", Latency("order", "end_to_end", LIMIT)),
    goal("whole-finished", Latency("order", "end_to_end", LIMIT, unfinished_bad=False)),
    goal("decide", Latency("order", "decide", LIMIT, unfinished_bad=False)),
    goal("decide-b", Latency("order", "decide", LIMIT, rollup="symbol=B", unfinished_bad=False)),
    goal("decide-a-host", Latency("order", "decide", LIMIT, rollup="host=a", unfinished_bad=False)),
    goal("slowest", Maximum("order", "decide", 2 * LIMIT)),
    goal("errors", Errors("order")),
    goal("rejects", Errors("order", ("rejected",), unfinished=False)),
    goal("both", Combined(True, (Latency("order", "decide", LIMIT, unfinished_bad=False), Errors("order")))),
    goal("either", Combined(False, (Latency("order", "decide", LIMIT, unfinished_bad=False), Errors("order")))),
    goal("open", Latency("order", "end_to_end", LIMIT), "market"),
]


def world(store: Store, count: int, seed: int, *, first: int = 1) -> list[dict[str, Any]]:  # noqa: F811
    """Messages as dictionaries of what is true of them; their stamps are put into the store."""
    dice = random.Random(seed)  # noqa: S311 - a reproducible world, no secret
    sets = {"A": label_set(store, {"symbol": "A"}), "B": label_set(store, {"symbol": "B"})}
    stamps, truth = [], []
    for i in range(count):
        at = HOUR + dice.randrange(40 * S)
        one, two = int(dice.lognormvariate(10, 1)), int(dice.lognormvariate(9, 1))
        symbol, outcome = dice.choice("AB"), dice.choice([1, 1, 1, 2, 3])
        finished, mode = dice.random() < 0.9, dice.choice([0, 1, 1, 4, 5])
        key = first + i
        more = {"label_set": sets[symbol], "mode": mode}
        stamps += [stamp(key, "app_ingress", at, **more), stamp(key, "app_decision", at + one, **more)]
        if finished:
            stamps.append(stamp(key, "app_egress", at + one + two, outcome=outcome, **more))
        truth.append(
            {
                "window": at // (10 * S) * 10, "decide": one, "e2e": one + two if finished else None, "symbol": symbol,
                "outcome": outcome if finished else 0, "user": mode < 4,
            }
        )  # fmt: skip
    put(store, stamps)
    return truth


def by_hand(truth: list[dict[str, Any]], name: str, window: int) -> tuple[int, int]:
    mine = [m for m in truth if m["user"] and m["window"] == window]
    ok = [m for m in mine if m["e2e"] is not None and m["outcome"] == 1]
    fast = [m for m in mine if m["decide"] <= LIMIT]
    whole = [m for m in mine if m["e2e"] is not None and m["e2e"] <= LIMIT]
    match name:
        case "whole" | "open":
            return len(whole), len(mine)
        case "whole-finished":
            return len(whole), sum(m["e2e"] is not None for m in mine)
        case "decide" | "decide-a-host":
            return len(fast), len(mine)
        case "decide-b":
            return sum(m["symbol"] == "B" for m in fast), sum(m["symbol"] == "B" for m in mine)
        case "slowest":
            return int(max(m["decide"] for m in mine) <= 2 * LIMIT), 1
        case "errors":
            return len(ok), len(mine)
        case "rejects":
            return sum(m["outcome"] != 3 for m in mine), len(mine)
        case "both":
            return sum(m in fast for m in ok), len(mine)
        case _:
            return sum(m in fast or m in ok for m in mine), len(mine)


@pytest.fixture
def counted(store: Store) -> Store:  # noqa: F811
    store.execute("TRUNCATE TABLE objective_counts")
    return store


def rows(store: Store, level: int = 10) -> dict[tuple[str, int], tuple[int, int, int]]:  # noqa: F811
    names, _, starts, values = stored.rows_of(store, level, HOUR_S - 86_400 * 40, HOUR_S + 86_400)
    given = [names.names[code] for code in names.codes]
    return {(n, int(s)): tuple(v) for n, s, v in zip(given, starts, values.tolist(), strict=True)}


def run(store: Store, goals: list[Objective], seconds: int, calendars: Any = None) -> None:  # noqa: F811
    given = Goals(by_path(goals), calendars or {"market": SloCalendar()})
    windows.run_due(store, PATHS, now_ns=HOUR + seconds * S, goals=given)


def test_the_window_job_counts_every_objective_exactly_and_late_stamps_once(counted: Store) -> None:
    truth = world(counted, 400, 1)
    run(counted, GOALS, 60)
    found = rows(counted)
    for one in GOALS:
        for window in sorted({m["window"] for m in truth}):
            assert found[one.name, window][:2] == by_hand(truth, one.name, window), (one.name, window)
    truth += world(counted, 100, 2, first=1_000)
    run(counted, GOALS, 120)
    again = rows(counted)
    for one in GOALS:
        for window in sorted({m["window"] for m in truth}):
            assert again[one.name, window][:2] == by_hand(truth, one.name, window), (one.name, window)


def test_a_new_objective_is_counted_back_exactly_while_messages_live(counted: Store) -> None:
    truth = world(counted, 300, 3)
    run(counted, [], 60)
    assert rows(counted) == {}
    stored.recount(counted, PATHS["order"], GOALS, {"market": SloCalendar()}, HOUR_S, HOUR_S + 60)
    found = rows(counted)
    for one in GOALS:
        for window in sorted({m["window"] for m in truth}):
            assert found[one.name, window][:2] == by_hand(truth, one.name, window)


def test_closed_windows_count_nothing(counted: Store) -> None:
    from datetime import UTC, datetime

    def at(seconds: int) -> str:
        return datetime.fromtimestamp(HOUR_S + seconds, UTC).isoformat()

    truth = world(counted, 300, 4)
    halted = {"market": SloCalendar(halts=(Stretch(start=at(12), end=at(15), why="halt"),))}
    run(counted, GOALS, 60, halted)
    found = rows(counted)
    assert found["open", HOUR_S + 10] == (0, 0, 0)
    for window in (0, 20, 30):
        assert found["open", HOUR_S + window][:2] == by_hand(truth, "open", HOUR_S + window)
    assert found["whole", HOUR_S + 10][1] > 0
    with pytest.raises(ConfigError, match="not declared"):
        closed_windows(halted, "nowhere", HOUR_S, HOUR_S + 10)


@pytest.mark.parametrize("threshold", [LIMIT, 29_951, 250])
def test_buckets_bound_the_exact_count(counted: Store, threshold: int) -> None:
    truth = world(counted, 500, 5)
    run(counted, [], 60)
    one = goal("old", Latency("order", "end_to_end", threshold))
    assert stored.count_buckets(counted, one, {}, 10, HOUR_S, HOUR_S + 60, 1) == 4
    for (_, window), (good, total, uncertain) in rows(counted).items():
        mine = [m for m in truth if m["user"] and m["window"] == window]
        exact = sum(m["e2e"] is not None and m["e2e"] <= threshold for m in mine)
        assert total == len(mine)
        assert good <= exact <= good + uncertain
        cut = int(buckets.index(threshold))
        in_cut = [m for m in mine if m["e2e"] is not None and int(buckets.index(m["e2e"])) == cut]
        assert uncertain <= len(in_cut)


def test_coarse_levels_and_sums_follow_the_current_rows(counted: Store) -> None:
    now = HOUR_S + 3_600
    fine = [stored.Row("x", 7, 10, HOUR_S + 10 * i, 90, 100) for i in range(360)]
    stored.insert(counted, fine, 1)
    stored.insert(counted, [stored.Row("x", 7, 10, HOUR_S, 50, 100, 5)], 2)
    stored.insert(counted, [stored.Row("x", 8, 10, HOUR_S, 0, 1000)], 3)
    done = stored.sum_levels(counted, stored.touched(counted, 0), now, 10)
    assert [level for level, _ in done].count(60) == 60
    assert rows(counted, 3600)["x", HOUR_S] in ((32_360, 36_000, 5), (0, 1000, 0))
    sums = Sums(["x"], now)
    stored.load(counted, sums, {"x": 7})
    assert sums.window(3_600)[0].tolist() == [32_360, 36_000, 5]
    assert sums.window(86_400)[0].tolist() == [32_360, 36_000, 5]
    assert sums.window(30 * 86_400)[0].tolist() == [32_360, 36_000, 5]
    assert sums.window(60)[0].tolist() == [540, 600, 0]
    stored.insert(counted, [stored.Row("x", 7, 10, HOUR_S, 100, 100)], 4)
    stored.refresh(counted, sums, {"x": 7}, 0)
    for seconds in (3_600, 86_400, 30 * 86_400):
        assert sums.window(seconds)[0].tolist() == [32_410, 36_000, 0]


def test_sums_are_those_of_a_plain_list() -> None:
    dice = np.random.default_rng(1)
    sums = Sums(["a", "b"], HOUR_S, reach_s=2 * 86_400)
    cells: dict[int, list[int]] = {}
    end = HOUR_S
    for _ in range(400):
        end += int(dice.integers(1, 40)) * 10
        sums.advance(end)
        some = [end - 10 * int(dice.integers(1, 300)) for _ in range(5)]
        some = [s for s in some if s >= HOUR_S]
        values = dice.integers(0, 50, (len(some), 3))
        sums.put(["b"] * len(some), np.array(some, np.int64), values)
        for start, value in zip(some, values.tolist(), strict=True):
            cells[start] = value
        for seconds in (300, 3_600, 6 * 3_600):
            inside = [v for s, v in cells.items() if end - seconds <= s < end]
            assert sums.window(seconds)[1].tolist() == [sum(v[i] for v in inside) for i in range(3)]
            assert sums.window(seconds)[0].tolist() == [0, 0, 0]
        since = end - 86_400 - (end - 86_400) % 60
        inside = [v for s, v in cells.items() if since <= s < end]
        assert sums.window(86_400)[1].tolist() == [sum(v[i] for v in inside) for i in range(3)]
