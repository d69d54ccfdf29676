"""The blotter says what the stamps say, and the customers followed the rule that only the checker can read."""

from __future__ import annotations

import csv
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from api.demo import truth
from api.demo.business import KPIS, ORDERS, file_of, read
from api.demo.control import FOLDER
from api.demo.outcome_rule import CHANNELS, COHORTS, OFFER_TYPES, REGIONS, OutcomeRule

if TYPE_CHECKING:
    from tests.truth.conftest import World

pytestmark = pytest.mark.timeout(180)
MS = 1_000_000
SETTLED_S = 3.5  # two seconds after the report, and then at most one until it is written


def orders_of(world: World, span: tuple[int, int]) -> list[dict[str, Any]]:
    from_, to = (str(at_ns) for at_ns in span)
    found: list[dict[str, Any]] = world.tailsight("demo", "outcomes", "orders", "--from", from_, "--to", to)["orders"]
    return found


def test_every_order_that_left_the_engine_is_in_the_blotter_with_what_the_stamps_say(world: World) -> None:
    span = world.watch(2.5)
    world.watch(SETTLED_S)
    rows = {int(row["message_key"], 16): row for row in orders_of(world, span)}
    inner = (span[0] + 50 * MS, span[1] - 50 * MS)
    left = world.keys_at("app_egress", "engine", inner)
    assert len(left) > 100
    assert left <= set(rows)
    wide = (span[0], span[1] + round(SETTLED_S * 1e9))
    sql = """
    SELECT key, countIf(point = 'filled') AS fills, toString(argMaxIf(outcome, ts, point = 'reported')) AS outcome
    FROM stamps WHERE service = 'engine' AND point IN ('filled', 'reported')
       AND toUnixTimestamp64Nano(ts) >= {a:Int64} AND toUnixTimestamp64Nano(ts) < {b:Int64} GROUP BY key
    """
    stamped = {row["key"]: row for row in world.query(sql, {"a": wide[0], "b": wide[1]})}
    says = {"accepted": "ok", "rejected": "rejected", "error": "error"}
    for key in left:
        row = rows[key]
        assert says[row["status"]] == stamped[key]["outcome"]
        assert row["success"] == (row["status"] == "accepted")
        assert (row["filled_quantity"] > 0) <= (stamped[key]["fills"] > 0)
        assert (row["slippage_ticks"] is None) == (row["filled_quantity"] == 0)
        assert row["success"] or (row["converted"], row["revenue_cents"]) == (0, 0)
    assert {"accepted", "rejected"} <= {row["status"] for row in rows.values()}
    assert any(row["filled_quantity"] for row in rows.values())
    assert {row["cohort"] for row in rows.values()} == set(COHORTS)


def test_the_exports_are_the_same_rows(world: World, tmp_path: Path) -> None:
    span = world.watch(1.0)
    world.watch(SETTLED_S)
    to_ns = span[1]  # all of these are settled
    names = {kind: tmp_path / f"orders.{kind}" for kind in ("csv", "parquet")}
    words = ("orders", "--to", str(to_ns), "--csv", str(names["csv"]), "--parquet", str(names["parquet"]))
    done = world.tailsight("demo", "outcomes", *words)
    orders = list(read(file_of(world.data), "orders", None, to_ns))
    assert done["rows"] == len(orders) > 50
    with names["csv"].open(newline="") as stream:
        head, *body = csv.reader(stream)
    assert tuple(head) == ORDERS
    assert body == [["" if value is None else str(value) for value in row] for row in orders]
    assert [tuple(row.values()) for row in pq.read_table(names["parquet"]).to_pylist()] == orders
    told = world.tailsight("demo", "outcomes", "kpis")
    assert tuple(told["kpis"][0]) == KPIS
    kpis = [tuple(row.values()) for row in told["kpis"]]
    sums = Counter[str]()
    for row in kpis:
        sums[row[0]] += row[-1]
    assert sums["conversion"] == sums["order_success"] == sums["revenue"]


def expected(rule: OutcomeRule, row: dict[str, Any], load: float) -> float:
    """The chance without the latency's part, written down again by hand."""
    hour = rule.hour * math.cos(2 * math.pi * (row["trading_second"] - rule.hour_shift_s) / 86_400)
    kinds = ((COHORTS, "cohort"), (CHANNELS, "channel"), (REGIONS, "region"), (OFFER_TYPES, "offer_type"))
    more = sum(getattr(rule, name.removesuffix("_type"))[names.index(row[name])] for names, name in kinds)
    return rule.base + hour + more + rule.load * max(-1.0, min(1.0, load))


@pytest.mark.fault  # it lets the path run until there are thousands of orders
def test_slow_orders_convert_less_by_what_the_rule_says(world: World) -> None:
    """Half of the orders are made 15 ms slower by chance alone: the experiment that an observer can only wish for."""
    (slow,), span = world.strike(
        ("fault", "start", "slow_dependency", "--at", "venue-east", "--size", "50%", "--amount", "15ms"), seconds=40.0
    )
    world.watch(SETTLED_S)
    (known,) = truth.read_all(world.data / FOLDER)
    rule = known.rule
    rows = [row for row in orders_of(world, span) if row["site"] == "east" and row["success"]]
    took = [row["reported_ns"] - row["sent_ns"] for row in rows]
    treated = [row for row in rows if slow.touches(int(row["message_key"], 16))]
    others = [row for row in rows if not slow.touches(int(row["message_key"], 16))]
    assert len(treated) > 500 < len(others)
    assert min(at for at, row in zip(took, rows, strict=True) if row in treated) >= 15 * MS
    shares = [sum(row["converted"] for row in group) / len(group) for group in (treated, others)]
    error = math.sqrt(sum(p * (1 - p) / len(g) for p, g in zip(shares, (treated, others), strict=True)))
    # The slow ones wait at least 15 ms longer; those behind them wait too, so that the difference is at most as large.
    assert rule.latency_per_ms * 20 - 4 * error <= shares[0] - shares[1] <= 4 * error
    levels = [sum(expected(rule, row, 0.0) for row in group) / len(group) for group in (treated, others)]
    assert abs(levels[0] - levels[1]) < 0.02  # nothing but the latency differs between the two
