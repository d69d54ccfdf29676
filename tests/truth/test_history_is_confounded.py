"""A history's blotter misleads whoever lays conversion beside latency and looks no further, when its rule says so.

Whole histories through frames, spool, landing and windows; the latencies from the raw stamps and the outcomes from the
blotter, both by queries written by hand. The rule, which only the checker may read, says what must come out.
"""

from __future__ import annotations

import itertools
import math
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from analytics.paths import paths_from
from analytics.window_settings import WindowSettings
from api.demo.business import file_of
from api.demo.control import FOLDER
from api.demo.history.calendar import HOUR_NS, NS
from api.demo.history.hours import Settings
from api.demo.history.run import History
from api.demo.outcome_rule import OutcomeRule, draw_rule
from api.demo.programs import configuration
from api.demo.truth import read_all
from collector.points import points_from
from collector.settings import read_toml
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]
HOURS = 9  # a Wednesday from eight to five: the auction, the busy opening, the quiet noon, the afternoon
UNTIL_NS = round(datetime(2026, 1, 14, 17, tzinfo=UTC).timestamp()) * NS

LATENCIES = """
WITH decided AS (SELECT child, argMax(parent, ts) AS parent FROM links GROUP BY child)
SELECT decided.child AS key, reported.at - intended.at AS ns
FROM decided
INNER JOIN (SELECT key, min(toUnixTimestamp64Nano(ts)) AS at FROM stamps WHERE point = 'reported' GROUP BY key)
    AS reported ON decided.child = reported.key
INNER JOIN (SELECT key, min(toUnixTimestamp64Nano(ts)) AS at FROM stamps WHERE point = 'intended' GROUP BY key)
    AS intended ON decided.parent = intended.key
"""

ORDERS = """
SELECT message_key, trading_second, converted, COUNT(*) OVER (
    ORDER BY sent_ns RANGE BETWEEN 10000000000 PRECEDING AND CURRENT ROW) AS sent_lately, success
FROM orders ORDER BY sent_ns
"""


@dataclass(frozen=True)
class Seen:
    """What an observer has of each accepted order, and the rule."""

    rule: OutcomeRule
    latency_ms: NDArray[np.float64]
    converted: NDArray[np.float64]
    load: NDArray[np.float64]
    second: NDArray[np.float64]


def strength(rule: OutcomeRule) -> tuple[str, bool]:
    return rule.confounding, rule.latency_per_ms != 0


def seeds_of(confounding: str, effect: bool, count: int) -> list[int]:
    found = (seed for seed in itertools.count(1) if strength(draw_rule(seed)) == (confounding, effect))
    return list(itertools.islice(found, count))


CHOSEN = {
    "sign-flipping": seeds_of("sign-flipping", effect=True, count=3),
    "no effect": seeds_of("sign-flipping", effect=False, count=1),
    "not confounded": seeds_of("none", effect=True, count=1),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Seen]]:
    return {
        what: [_history(tmp_path_factory.mktemp(f"history-{seed}"), seed) for seed in seeds]
        for what, seeds in CHOSEN.items()
    }


def _history(data: Path, seed: int) -> Seen:
    document = read_toml(configuration())
    points = points_from(document, "demo")
    settings = Settings(seed=seed, rate=2.0, profile="day", faults=False)
    with closing(open_embedded(data)) as store:
        migrate(store, Retention())
        history = History(store, data, points, paths_from(document, points, "demo"), WindowSettings(), settings)
        history.outcomes = seed
        summary = history.run(HOURS * HOUR_NS, until_ns=UNTIL_NS)
        assert (summary.quarantined, summary.hours_made) == (0, HOURS)
        (truth,) = read_all(data / FOLDER)
        return _seen(store, data, truth.rule)


def _seen(store: Store, data: Path, rule: OutcomeRule) -> Seen:
    took = dict(store.query(LATENCIES).iter_rows())
    with closing(sqlite3.connect(file_of(data))) as blotter:
        orders = blotter.execute(ORDERS).fetchall()
    rows = [
        (took[key], converted, math.log(lately), second)
        for key, second, converted, lately, success in ((int(row[0], 16), *row[1:]) for row in orders)
        if success
    ]
    assert len(rows) > 0.5 * len(orders) > 10_000
    latency, converted, load, second = np.array(rows, np.float64).T
    return Seen(rule, np.minimum(latency / 1e6, 20.0), converted, load, second)


def naive(one: Seen) -> tuple[float, float]:
    """Slope of conversion on latency, per ms, and its standard error."""
    return _slope([(one.latency_ms, one.converted)])


def within_strata(one: Seen) -> tuple[float, float]:
    """The same slope among orders of about the same load and time of day."""
    load = np.searchsorted(np.quantile(one.load, np.arange(0.05, 1, 0.05)), one.load)
    strata = np.floor(one.second / 900) * 100 + load
    parts = [strata == number for number in np.unique(strata)]
    return _slope([(one.latency_ms[part], one.converted[part]) for part in parts])


def _slope(parts: list[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> tuple[float, float]:
    """Least squares with an intercept for each part."""
    x = np.concatenate([latency - latency.mean() for latency, _ in parts])
    y = np.concatenate([converted - converted.mean() for _, converted in parts])
    slope = float(x @ y / (x @ x))
    left = y - slope * x
    return slope, math.sqrt(float(left @ left) / (len(x) - len(parts) - 1) / float(x @ x))


def pooled(estimates: list[tuple[float, float]]) -> tuple[float, float]:
    """The mean weighted by precision, and its standard error."""
    weights = [1 / error**2 for _, error in estimates]
    mean = sum(w * value for w, (value, _) in zip(weights, estimates, strict=True)) / sum(weights)
    return mean, 1 / math.sqrt(sum(weights))


def test_the_plain_slope_has_the_wrong_sign_where_confounding_is_strong(seen: dict[str, list[Seen]]) -> None:
    worse = seen["sign-flipping"]
    assert all(one.rule.latency_per_ms < 0 < one.rule.load for one in worse)
    slopes = [naive(one) for one in worse]
    assert [slope > 0 for slope, _ in slopes] == [True] * len(worse)
    mean, error = pooled(slopes)
    assert mean > 3 * error


def test_within_strata_of_load_and_time_the_effect_is_what_the_rule_says(seen: dict[str, list[Seen]]) -> None:
    worse = seen["sign-flipping"]
    off = [(slope - one.rule.latency_per_ms, error) for one in worse for slope, error in [within_strata(one)]]
    mean, error = pooled(off)
    assert abs(mean) < 3.5 * error
    slope, _ = pooled([within_strata(one) for one in worse])
    assert slope < 0


def test_without_an_effect_there_is_a_plain_slope_and_none_within_strata(seen: dict[str, list[Seen]]) -> None:
    (one,) = seen["no effect"]
    assert one.rule.latency_per_ms == 0.0
    slope, error = naive(one)
    assert slope > 3 * error, "load moves both"
    slope, error = within_strata(one)
    assert abs(slope) < 3.5 * error


def test_without_confounding_the_plain_slope_is_the_effect(seen: dict[str, list[Seen]]) -> None:
    (one,) = seen["not confounded"]
    assert one.rule.load == one.rule.hour == 0.0
    slope, error = naive(one)
    assert slope < 0
    # The mix of customers changes over the day, and latency with it: a little is left.
    assert abs(slope - one.rule.latency_per_ms) < 3.5 * error + 0.001
