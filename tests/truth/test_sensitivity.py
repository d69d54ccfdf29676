"""Twenty draws of the demo's hidden rule over ten days: what is published about latency and conversion, and the truth.

One history is made, through frames, spool, landing and windows; its orders meet twenty sets of customers, each with a
rule of its own that only the checker may read: with and without an effect, confounded not at all, moderately, and so
strongly that the plain slope has the wrong sign. The product is asked as a user asks it. The draws share the latencies,
so that what they have in common is not drawn again. Thirty days: TAILSIGHT_TRUTH_DAYS=30.
"""

from __future__ import annotations

import itertools
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics.kpis import KpiDefinition, KpiValue, record
from analytics.money.ask import Asked, ask
from analytics.paths import paths_from
from analytics.window_settings import WindowSettings
from api.demo.business import file_of
from api.demo.control import FOLDER
from api.demo.history import run as making
from api.demo.history.calendar import DAY_NS, NS
from api.demo.history.customers import Customers
from api.demo.history.hours import Settings
from api.demo.outcome_rule import OutcomeRule, draw_rule
from api.demo.programs import configuration
from api.demo.truth import read_all
from collector.points import points_from
from collector.record import Mode
from collector.settings import read_toml
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate

pytestmark = [pytest.mark.fault, pytest.mark.timeout(7_200)]
DAYS = int(os.environ.get("TAILSIGHT_TRUTH_DAYS", "10"))
UNTIL_NS = round(datetime(2026, 1, 31, tzinfo=UTC).timestamp()) * NS
KNOWN = {"conversion": KpiDefinition(kind="level")}
ORDERS = """
SELECT message_key, sent_ns, cohort, channel, region, offer_type, converted FROM orders WHERE success ORDER BY sent_ns
"""


def seeds_of(confounding: str, effect: bool, count: int) -> list[int]:
    def fits(rule: OutcomeRule) -> bool:
        return (rule.confounding, rule.latency_per_ms != 0) == (confounding, effect)

    return list(itertools.islice((seed for seed in itertools.count(1) if fits(draw_rule(seed))), count))


SEEDS = [
    *seeds_of("sign-flipping", effect=True, count=6),
    *seeds_of("sign-flipping", effect=False, count=4),
    *seeds_of("moderate", effect=True, count=4),
    *seeds_of("moderate", effect=False, count=1),
    *seeds_of("none", effect=True, count=4),
    *seeds_of("none", effect=False, count=1),
]


@dataclass(frozen=True)
class Draw:
    """One rule, and what was published about it."""

    rule: OutcomeRule
    asked: Asked

    @property
    def truth(self) -> float:
        return self.rule.latency_per_ms

    @property
    def held(self) -> bool:
        answer = self.asked.result.answer
        assert answer.low is not None and answer.high is not None, answer.reason
        return answer.low <= self.truth <= answer.high


class Twenty:
    """The same orders before twenty sets of customers."""

    def __init__(self, folder: Path, collector: Any, settings: Settings, _seed: int | None) -> None:
        self._all = [Customers(place(folder.parent, seed) / FOLDER, collector, settings, seed) for seed in SEEDS]

    def react(self, hour: Any, day: Any) -> None:
        for customers in self._all:
            customers.react(hour, day)

    def close(self) -> None:
        for customers in self._all:
            customers.close()


def place(data: Path, seed: int) -> Path:
    return data / f"rule-{seed}"


@pytest.fixture(scope="module")
def draws(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Draw]]:
    data = tmp_path_factory.mktemp("twenty")
    document = read_toml(configuration())
    points = points_from(document, "demo")
    paths = paths_from(document, points, "demo")
    keep = Retention(messages=96_000, counts_10s=24_000, counts_1m=24_000)
    with pytest.MonkeyPatch.context() as patch, closing(open_embedded(data)) as store:
        patch.setattr(making, "Customers", Twenty)
        migrate(store, keep)
        settings = Settings(seed=7, rate=1.0)
        history = making.History(store, data, points, paths, WindowSettings(), settings, retention=keep)
        summary = history.run(DAYS * DAY_NS, until_ns=UNTIL_NS)
        assert (summary.quarantined, summary.difference) == (0, 0)
        yield [_drawn(store, data, seed, paths["order"]) for seed in SEEDS]


def _drawn(store: Store, data: Path, seed: int, path: Any) -> Draw:
    (truth,) = read_all(place(data, seed) / FOLDER)
    store.execute("TRUNCATE TABLE message_kpis")
    with closing(sqlite3.connect(file_of(place(data, seed)))) as blotter:
        orders = blotter.execute(ORDERS).fetchall()
    assert len(orders) > 5_000 * DAYS
    for first in range(0, len(orders), 10_000):
        values = [
            KpiValue(name="conversion", ts_ns=at, value=float(converted), key=key, cohort=cohort, channel=channel,
                     region=region, offer=offer, version=1)
            for key, at, cohort, channel, region, offer, converted in orders[first : first + 10_000]
        ]  # fmt: skip
        record(store, values, KNOWN, UNTIL_NS)
    span = {"from_ns": UNTIL_NS - DAYS * DAY_NS, "to_ns": UNTIL_NS, "now_ns": UNTIL_NS}
    # A history's messages are synthetic, and say so.
    asked = ask(store, path, "conversion", KNOWN, modes=(Mode.SYNTHETIC,), curve=False, **span)
    answer, naive = asked.result.answer, asked.result.naive
    print(  # noqa: T201 - the figures, with -s
        f"{seed} {truth.rule.confounding}: truth {1e3 * truth.rule.latency_per_ms:.2f}, {answer.design}"
        f" {1e3 * (answer.estimate or 0):.2f} [{1e3 * (answer.low or 0):.2f}, {1e3 * (answer.high or 0):.2f}], naive"
        f" {1e3 * (naive.estimate or 0):.2f} [{1e3 * (naive.low or 0):.2f}, {1e3 * (naive.high or 0):.2f}] per 1,000,"
        f" failed: {asked.result.checks_failed}, {asked.rows:,} rows"
    )
    return Draw(truth.rule, asked)


def test_the_published_interval_holds_the_truth_at_its_rate(draws: list[Draw]) -> None:
    assert len(draws) == 20
    missed = [one.rule for one in draws if not one.held]
    # 1 of 20 is expected at 95 %; more than 3 would come once in 60 times if the rate is kept.
    assert len(missed) <= 3, missed


def test_the_naive_slope_misleads_where_it_should(draws: list[Draw]) -> None:
    worst = [one for one in draws if one.rule.confounding == "sign-flipping"]
    assert len(worst) == 10
    for one in worst:
        naive = one.asked.result.naive
        assert naive.low is not None and naive.low > 0, "sure of the wrong sign"
        assert naive.sentence.startswith("Warning, not an effect")
        assert one.asked.result.answer is not naive
        answer = one.asked.result.answer
        assert answer.low is not None and not answer.low > 0


def test_without_an_effect_none_is_reported(draws: list[Draw]) -> None:
    nothing = [one for one in draws if one.truth == 0]
    assert len(nothing) == 6
    claims = [one for one in nothing if one.asked.result.answer.seen]
    assert len(claims) <= 1, "5 % are expected"
    for one in nothing:
        if one.asked.result.answer.seen or one.asked.result.checks_failed:
            continue
        assert one.asked.sentence.startswith("No detectable effect")
        assert "would have been seen with a probability of 80 %" in one.asked.sentence


def test_the_checks_fail_about_as_often_as_stated(draws: list[Draw]) -> None:
    failed = sum(len(one.asked.result.checks_failed) for one in draws)
    # 2 of 40 are expected. The draws share their latencies, so that more than independent ones would may come.
    assert failed <= 7


def test_a_large_effect_is_seen(draws: list[Draw]) -> None:
    for one in draws:
        least = one.asked.result.answer.detectable
        assert least is not None
        if abs(one.truth) > 1.5 * least:
            assert one.asked.result.answer.seen
            assert one.asked.result.answer.high is not None and one.asked.result.answer.high < 0
