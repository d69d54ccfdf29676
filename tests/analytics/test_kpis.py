"""Business measures: late, repeated and corrected values are never doubled."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.kpis import KpiDefinition, KpiError, KpiValue, kpis_from, record, series
from collector.keys import hash64
from collector.settings import ConfigError
from collector.store import Store
from tests.analytics.world import HOUR

S = 1_000_000_000
KNOWN = {
    "order_success": KpiDefinition(),
    "revenue": KpiDefinition(kind="sum", unit="USD"),
    "satisfaction": KpiDefinition(kind="level", unit="points"),
}


def put(store: Store, *values: dict[str, Any], now: int = 1) -> None:
    record(store, [KpiValue(**{"ts_ns": HOUR, **value}) for value in values], KNOWN, now)


@pytest.fixture(autouse=True)
def empty(store: Store) -> None:
    for table in ("kpis", "message_kpis"):
        store.execute(f"TRUNCATE TABLE {table}")


def test_ratios_are_ratios_of_sums(store: Store) -> None:
    put(
        store,
        {"name": "order_success", "numerator": 9, "denominator": 10, "region": "eu"},
        {"name": "order_success", "numerator": 0, "denominator": 90, "region": "us"},
        {"name": "order_success", "numerator": 0, "denominator": 0, "region": "asia"},
        {"name": "revenue", "value": 5.5},
        {"name": "revenue", "value": 1.5, "ts_ns": HOUR + 60 * S},
        {"name": "satisfaction", "value": 2.0},
        {"name": "satisfaction", "value": 4.0, "ts_ns": HOUR + 60 * S},
    )
    found = {one.name: one for one in series(store, KNOWN, from_ns=HOUR, to_ns=HOUR + 120 * S)}
    assert (found["order_success"].value, found["order_success"].weight) == (0.09, 100)
    assert (found["revenue"].value, found["satisfaction"].value) == (7.0, 3.0)
    split = series(store, KNOWN, from_ns=HOUR, to_ns=HOUR + 120 * S, names=["order_success"], by=["region"])
    assert {one.region: one.value for one in split} == {"eu": 0.9, "us": 0.0, "asia": None}
    stepped = series(store, KNOWN, from_ns=HOUR, to_ns=HOUR + 120 * S, names=["revenue"], step_ns=60 * S)
    assert [(one.start_ns, one.value) for one in stepped] == [(HOUR, 5.5), (HOUR + 60 * S, 1.5)]


def test_a_correction_replaces_and_a_late_old_one_does_not(store: Store) -> None:
    put(store, {"name": "revenue", "value": 10.0}, now=5)
    put(store, {"name": "revenue", "value": 10.0}, now=5)
    put(store, {"name": "revenue", "value": 12.0}, now=9)
    put(store, {"name": "revenue", "value": 11.0, "version": 7}, now=20)
    (one,) = series(store, KNOWN, from_ns=HOUR, to_ns=HOUR + S)
    assert (one.value, one.values) == (12.0, 1)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(range(6)), st.integers(1, 3))
def test_any_order_and_any_repetition_gives_the_newest(store: Store, order: list[int], times: int) -> None:
    store.execute("TRUNCATE TABLE kpis")
    for version in order * times:
        put(store, {"name": "revenue", "value": float(version), "version": version})
    (one,) = series(store, KNOWN, from_ns=HOUR, to_ns=HOUR + S)
    assert (one.value, one.values) == (5.0, 1)


def test_values_of_messages_are_tied_to_their_keys(store: Store) -> None:
    put(store, {"name": "revenue", "value": 3.0, "key": "order:17", "cohort": "new"}, now=1)
    put(store, {"name": "revenue", "value": 4.0, "key": "order:17", "cohort": "new", "ts_ns": HOUR + 10**15}, now=2)
    rows = store.query("SELECT key, value, toString(cohort) AS cohort FROM message_kpis FINAL")
    assert rows.rows() == [(hash64("order", 17), 4.0, "new")]
    assert series(store, KNOWN, from_ns=HOUR, to_ns=HOUR + S) == []


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({"name": "nope", "value": 1.0}, "'nope' is not declared"),
        ({"name": "revenue"}, "give either value"),
        ({"name": "revenue", "value": 1.0, "numerator": 1.0}, "give either value"),
        ({"name": "revenue", "numerator": 1.0, "denominator": 1.0}, "revenue is a sum"),
        ({"name": "order_success", "numerator": 1.0}, "must be finite numbers"),
        ({"name": "order_success", "numerator": 1.0, "denominator": -1.0}, "not below 0"),
        ({"name": "revenue", "value": float("nan")}, "finite"),
        ({"name": "revenue", "value": 1.0, "ts_ns": -1}, "epoch nanoseconds"),
        ({"name": "revenue", "value": 1.0, "duration_ns": -1}, "below 0"),
        ({"name": "revenue", "value": 1.0, "key": "nope"}, "is not a key"),
        ({"name": "revenue", "value": 1.0, "version": -1}, "version"),
        ({"name": "revenue", "value": 1.0, "region": "x" * 300}, "region"),
    ],
)
def test_a_wrong_value_is_named_and_nothing_of_its_call_is_stored(
    store: Store, value: dict[str, Any], words: str
) -> None:
    with pytest.raises(KpiError, match=words):
        put(store, {"name": "revenue", "value": 1.0}, value)
    assert series(store, KNOWN, from_ns=0, to_ns=HOUR + S) == []


def test_definitions_are_checked() -> None:
    found = kpis_from({"kpis": {"fill": {"numerator": "filled", "denominator": "asked", "node": "trading"}}})
    assert (found["fill"].kind, found["fill"].good) == ("ratio", "up")
    for document, field in (
        ({"kpis": {"Bad Name": {}}}, "kpis.Bad Name"),
        ({"kpis": {"x": {"kind": "sum", "numerator": "y"}}}, "kpis.x.numerator"),
        ({"kpis": {"x": {"kind": "other"}}}, "kpis.x"),
        ({"kpis": 3}, "kpis"),
    ):
        with pytest.raises(ConfigError, match=field):
            kpis_from(document)
