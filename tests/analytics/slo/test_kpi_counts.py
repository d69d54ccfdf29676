"""Events of business measures per window: exact sums, bounds for fractions, and what the store's statement counts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.kpis import KpiDefinition, KpiValue, record
from analytics.slo.indicators import Kpi
from analytics.slo.kpi_counts import NS, Spread, events_of, fold, read, touched_hours, whole
from collector.store import Store
from tests.analytics.conftest import store  # noqa: F401
from tests.analytics.world import HOUR

HOUR_S = HOUR // NS
KNOWN = {
    "success": KpiDefinition(), "refused": KpiDefinition(good="down"), "slippage": KpiDefinition(kind="level"),
}  # fmt: skip


@given(
    st.integers(0, 10_000), st.integers(0, 10_000), st.integers(0, 86_400 * NS), st.integers(0, 3_600 * NS),
    st.sampled_from([10, 60, 3_600]),
)  # fmt: skip
def test_the_events_of_an_interval_add_up_over_its_windows(
    good: int, bad: int, length: int, begin: int, cell: int
) -> None:
    cells = fold([Spread(HOUR + begin, length, good, good + bad)], HOUR_S - 3_600, HOUR_S + 100_000, cell)
    assert sum(t for _, t, _ in cells.values()) == good + bad
    assert sum(g for g, _, _ in cells.values()) == good
    assert all(0 <= g <= t and u == 0 for g, t, u in cells.values())
    assert all(window % cell == 0 for window in cells)


@given(st.floats(0, 1e9), st.floats(0, 1))
def test_a_fraction_of_an_event_is_uncertain(total: float, share: float) -> None:
    surely, bad, every = whole(total * share, total)
    assert surely + bad <= every <= total + 1
    assert every - surely - bad <= 2
    assert surely <= total * share + 1e-3
    assert bad <= total * (1 - share) + 1e-3
    cells = fold([Spread(HOUR, 60 * NS, total * share, total)], HOUR_S, HOUR_S + 60)
    assert sum(u for _, _, u in cells.values()) == every - surely - bad
    assert all(g >= 0 and u >= 0 and g + u <= t for g, t, u in cells.values())


def test_what_is_worse_when_it_grows_counts_the_numerators_as_bad() -> None:
    down = events_of(Kpi("refused"), KNOWN["refused"], HOUR, 60 * NS, 0.05, 200)
    assert fold([down], HOUR_S, HOUR_S + 60, 60) == {HOUR_S: (190, 200, 0)}
    held = events_of(Kpi("slippage", op="lte", value=2.0), KNOWN["slippage"], HOUR, 0, 2.5, 1)
    assert fold([held], HOUR_S, HOUR_S + 60) == {HOUR_S: (0, 1, 0)}


@pytest.fixture
def values(store: Store) -> Store:  # noqa: F811
    for table in ("kpis", "message_kpis"):
        store.execute(f"TRUNCATE TABLE {table}")
    given = [
        *(KpiValue(name="success", ts_ns=HOUR + i * 60 * NS, numerator=54, denominator=60, region=r, version=1)
          for i in range(10) for r in ("eu", "us")),
        *(KpiValue(name="refused", ts_ns=HOUR + i * 60 * NS, numerator=6, denominator=60, version=1)
          for i in range(10)),
        *(KpiValue(name="slippage", ts_ns=HOUR + i * NS, value=float(i), key=f"order:{i}", version=1)
          for i in range(20)),
    ]  # fmt: skip
    record(store, given, KNOWN, HOUR)
    return store


def test_the_store_counts_what_was_sent_corrections_once(values: Store) -> None:
    some = [Kpi("success"), Kpi("success", region="eu"), Kpi("refused"), Kpi("slippage", op="lt", value=5.0),
            Kpi("success", op="gte", value=0.95), Kpi("unknown")]  # fmt: skip

    def sums(one: Kpi, from_s: int = HOUR_S, to_s: int = HOUR_S + 600) -> tuple[int, ...]:
        cells = read(values, some, KNOWN, from_s, to_s)[one].values()
        return tuple(sum(cell[i] for cell in cells) for i in range(3))

    assert [sums(one) for one in some] == [
        (1080, 1200, 0), (540, 600, 0), (540, 600, 0), (5, 20, 0), (0, 20, 0), (0, 0, 0)
    ]  # fmt: skip
    correction = KpiValue(name="success", ts_ns=HOUR, numerator=0, denominator=60, region="eu", version=2)
    old = KpiValue(name="success", ts_ns=HOUR, numerator=60, denominator=60, region="us", version=0)
    moved = KpiValue(name="slippage", ts_ns=HOUR + 400 * NS, value=1.0, key="order:19", version=2)
    record(values, [correction, old, moved], KNOWN, HOUR)
    assert sums(some[0]) == (1080 - 54, 1200, 0)
    assert sums(some[3]) == (6, 20, 0)
    assert sums(some[3], HOUR_S + 10, HOUR_S + 20) == (0, 9, 0)  # the moved one is gone from where it was
    assert sums(some[1], HOUR_S + 20, HOUR_S + 40) == (0, 20, 0)  # a part of an interval


def test_hours_are_found_by_when_their_values_came(values: Store) -> None:
    assert touched_hours(values, ["success"], 0, HOUR_S - 86_400, HOUR_S + 3_600) == {HOUR_S}
    assert touched_hours(values, ["success"], 4_000_000_000, HOUR_S - 86_400, HOUR_S + 3_600) == set()
    assert touched_hours(values, ["success"], 0, HOUR_S + 7_200, HOUR_S + 9_000) == set()
    assert touched_hours(values, [], 0, 0, HOUR_S) == set()
