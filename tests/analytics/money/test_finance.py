from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics.money.finance import FinanceError, irr, npv, npvs, period_rate, rates_of_return

FLOWS = [-100.0, 30.0, 40.0, 50.0, 60.0]


def test_the_first_flow_is_not_discounted() -> None:
    assert npv(0.10, FLOWS) == pytest.approx(38.87712587937979, rel=1e-14)
    assert npv(0.10, [-100.0]) == -100.0


def test_the_rate_of_return_of_the_reference() -> None:
    rate = irr(FLOWS)
    assert rate == pytest.approx(0.24888335662407, abs=1e-13)
    # Proven in exact arithmetic: the value changes its sign within 1e-12 of it.
    exact = [Fraction(rate) + offset for offset in (Fraction(-1, 10**12), Fraction(1, 10**12))]
    below, above = (sum(Fraction(flow) / (1 + r) ** t for t, flow in enumerate(FLOWS)) for r in exact)
    assert below > 0 > above


def test_rows_are_valued_one_by_one() -> None:
    rows = np.array([FLOWS, [0.0, 0.0, 0.0, 0.0, 146.41]])
    assert npvs(0.10, rows) == pytest.approx([38.87712587937979, 100.0])


def test_several_rates_and_none_are_said() -> None:
    assert rates_of_return([-100.0, 230.0, -132.0]) == pytest.approx([0.10, 0.20])
    with pytest.raises(FinanceError, match="several rates"):
        irr([-100.0, 230.0, -132.0])
    with pytest.raises(FinanceError, match="no rate"):
        irr([100.0, 30.0])


@given(
    st.floats(-0.5, 3.0).filter(lambda r: abs(r) > 1e-3),
    st.lists(st.floats(1.0, 1e6), min_size=1, max_size=36),
)
def test_the_rate_of_return_makes_an_investment_worth_nothing(rate: float, income: list[float]) -> None:
    flows = [-npv(rate, [0.0, *income]), *income]
    assert irr(flows) == pytest.approx(rate, rel=1e-4, abs=1e-6)


@given(st.floats(-0.9, 5.0), st.integers(1, 365))
def test_the_rate_per_period_compounds_to_the_annual_one(annual: float, periods: int) -> None:
    assert math.pow(1 + period_rate(annual, periods), periods) - 1 == pytest.approx(annual, rel=1e-9, abs=1e-12)


@pytest.mark.parametrize(
    ("rate", "flows", "says"),
    [(-1.0, FLOWS, "rate"), (0.1, [], "none"), (0.1, [1.0, math.nan], "finite"), (0.1, [0.0] * 2000, "more than")],
)
def test_what_cannot_be_discounted_is_refused(rate: float, flows: list[float], says: str) -> None:
    with pytest.raises(FinanceError, match=says):
        npv(rate, flows)
