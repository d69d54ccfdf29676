from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from analytics.money.finance import npv, period_rate
from analytics.money.scenario_files import example, read_scenarios, scenarios_from
from analytics.money.scenarios import compare
from collector.settings import ConfigError


def document(**scenario: Any) -> dict[str, Any]:
    return {
        "business": {
            "revenue_per_month": 1_000_000.0,
            "margin": 0.5,
            "decisions_per_month": 1e6,
            "cost_per_decision_today": 0.01,
            "effect": {"estimate": 0.001, "low": 0.0005, "high": 0.0015, "at_most_ms": 50, "design": "experiment"},
        },
        "scenarios": {
            "edge": {
                "capex": 50_000,
                "opex_per_month": 1_000,
                "months_to_value": 2.5,
                "gain_ms": {"network": 8.0, "compute": 2.0},
                "serving": {
                    "a": {"share": 0.25, "cost_per_decision": 0.02},
                    "b": {"share": 0.75, "cost_per_decision": 0.01},
                },
            }
            | scenario
        },
    }


def test_the_value_is_the_sum_done_by_hand() -> None:
    (edge,) = compare(scenarios_from(document()), draws=1000).valuations
    # 10 ms at 0.1 % of a margin of 500,000 is 5,000 a month; each decision takes 0.0125 where it took 0.01.
    flows = [-50_000.0, -3_500, -3_500, 5_000 * 0.5 - 3_500] + [5_000 - 3_500] * 33
    assert edge.npv == pytest.approx(npv(period_rate(0.10), flows))
    assert edge.cost_per_decision == pytest.approx((50_000 + 36_000) / 36e6 + 0.0125)
    assert edge.at_effect[1.0] == pytest.approx(edge.npv)
    assert edge.break_even_effect is not None
    broken_even = document()
    broken_even["business"]["effect"] |= {"estimate": edge.break_even_effect, "high": 0.09}
    assert compare(scenarios_from(broken_even), draws=1000).valuations[0].npv == pytest.approx(0.0, abs=1e-6)


def test_no_more_is_saved_than_the_evidence_covers() -> None:
    at_limit = compare(scenarios_from(document(gain_ms={"network": 50.0})), draws=1000).valuations[0]
    beyond = compare(scenarios_from(document(gain_ms={"network": 500.0})), draws=1000).valuations[0]
    assert beyond.npv == at_limit.npv
    assert (at_limit.clamped_ms, beyond.clamped_ms) == (0.0, 450.0)


def test_the_probability_of_a_gain_is_that_of_the_effect_beyond_break_even() -> None:
    given = scenarios_from(document())
    (edge,) = compare(given, draws=50_000).valuations
    assert edge.break_even_effect is not None
    from scipy.stats import norm

    spread = 0.0005 / 1.959964
    assert edge.p_positive == pytest.approx(norm.sf(edge.break_even_effect, 0.001, spread), abs=0.01)
    assert edge.tornado[0].name == "effect"


def test_the_same_draws_meet_all_scenarios() -> None:
    one = document()
    twin = document()["scenarios"]["edge"]
    one["scenarios"]["dearer"] = twin | {"capex": 50_001}
    result = compare(scenarios_from(one), draws=2000)
    # One dollar decides although the values vary by tens of thousands.
    assert result.beats["edge", "dearer"] == 1.0
    assert result.beats["dearer", "edge"] == 0.0
    alone = compare(scenarios_from(document()), draws=2000).valuations[0]
    assert alone == next(v for v in result.valuations if v.name == "edge")


def test_an_effect_of_nothing_is_worth_only_its_costs() -> None:
    none = document()
    none["business"]["effect"] |= {"estimate": 0.0, "low": 0.0, "high": 0.0}
    (edge,) = compare(scenarios_from(none), draws=1000).valuations
    assert edge.npv < -50_000
    assert edge.p_positive == 0.0
    assert not edge.passes_gate
    assert edge.multiple == 0.0


def test_the_example_file_reads_and_says_the_same_twice(tmp_path: Path) -> None:
    path = tmp_path / "scenarios.toml"
    path.write_text(example())
    given = read_scenarios(path)
    first, second = compare(given, seed=7), compare(given, seed=7)
    assert first == second
    assert {one.name for one in first.valuations} == {"in_house_edge", "managed_edge", "hybrid"}
    for a, b in first.beats:
        assert first.beats[a, b] + first.beats[b, a] == pytest.approx(1.0)
    for one in first.valuations:
        assert one.p5 < one.p50 < one.p95
        assert [swing.width for swing in one.tornado] == sorted((s.width for s in one.tornado), reverse=True)


@pytest.mark.parametrize(
    ("edit", "field"),
    [
        ("business.margin = 1.5", "business.margin"),
        ("business.effect.at_most_ms = 0", "business.effect.at_most_ms"),
        ("business.effect.estimate = 0.5", "business.effect.estimate"),
        ("scenarios.edge.capex = -1", "scenarios.edge.capex"),
        ("scenarios.edge.capex = {low = 3, likely = 2, high = 4}", "scenarios.edge.capex.likely"),
        ("scenarios.edge.gain_ms = {}", "scenarios.edge.gain_ms"),
        ("scenarios.edge.gain_ms = {network = nan}", "scenarios.edge.gain_ms.network"),
        ("scenarios.edge.serving.a.share = 0.5", "scenarios.edge.serving"),
        ("scenarios.edge.capx = 1", "scenarios"),
        ("business.months = 0", "business.months"),
    ],
)
def test_what_is_wrong_is_named(edit: str, field: str) -> None:
    given = document()
    _merge(given, tomllib.loads(edit))
    with pytest.raises(ConfigError) as caught:
        scenarios_from(given, "plan.toml")
    assert caught.value.field.startswith(field)
    assert "plan.toml" in str(caught.value)


def _merge(into: dict[str, Any], change: dict[str, Any]) -> None:
    for name, value in change.items():
        if (
            isinstance(value, dict)
            and value
            and "low" not in value
            and isinstance(into.get(name), dict)
            and name != "gain_ms"
        ):
            _merge(into[name], value)
        else:
            into[name] = value
