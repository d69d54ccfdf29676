"""Cash flows over time: net present value, internal rate of return, and rates per period.

The first flow is at t = 0 and is not discounted, as in numpy_financial and unlike a spreadsheet's NPV(), which takes
its first flow for one period late and is so off by 1 / (1 + r).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
_MAX_FLOWS = 1200


class FinanceError(ValueError):
    """A question about cash flows that has no answer: which, and what to do."""


def _checked(flows: Sequence[float] | Floats) -> Floats:
    values = np.asarray(flows, dtype=np.float64)
    if values.ndim == 0 or values.shape[-1] == 0:
        raise FinanceError("cash_flows: there are none; give at least the one at t = 0")
    if values.shape[-1] > _MAX_FLOWS:
        raise FinanceError(f"cash_flows: {values.shape[-1]} are more than {_MAX_FLOWS}; use longer periods")
    if not np.isfinite(values).all():
        raise FinanceError("cash_flows: every flow must be a finite number")
    return values


def discounts(rate: float, periods: int) -> Floats:
    """1 / (1 + rate)^t for t = 0 .. periods - 1. Raises FinanceError for a rate of -1 or less."""
    if not (math.isfinite(rate) and rate > -1):
        raise FinanceError(f"rate: {rate} must be more than -1; write 10 % as 0.10")
    return np.asarray((1.0 + rate) ** -np.arange(periods, dtype=np.float64))


def npv(rate: float, cash_flows: Sequence[float] | Floats) -> float:
    """Sum over t >= 0 of CF_t / (1 + rate)^t; `rate` is per period. Raises FinanceError."""
    flows = _checked(cash_flows)
    if flows.ndim != 1:
        raise FinanceError("cash_flows: must be one row of flows")
    return float(flows @ discounts(rate, len(flows)))


def npvs(rate: float, cash_flows: Floats) -> Floats:
    """The net present value of every row of float64[draws, periods]."""
    flows = _checked(cash_flows)
    return np.asarray(flows @ discounts(rate, flows.shape[-1]))


def rates_of_return(cash_flows: Sequence[float] | Floats) -> list[float]:
    """Every rate above -1 at which the flows are worth nothing, ascending; unusual flows have none or several."""
    flows = _checked(cash_flows)
    if flows.ndim != 1:
        raise FinanceError("cash_flows: must be one row of flows")
    scale = np.abs(flows).max()
    if scale == 0:
        return []
    flows = np.trim_zeros(flows / scale, "b")
    # In v = 1 / (1 + r) the value is the polynomial sum CF_t v^t.
    roots = np.roots(flows[::-1])
    real = roots.real[(np.abs(roots.imag) < 1e-6 * np.maximum(1.0, np.abs(roots.real))) & (roots.real > 1e-9)]
    found: list[float] = []
    derivative = flows[1:] * np.arange(1, len(flows))
    for v in real:
        for _ in range(20):  # Newton, because roots of a long polynomial are not exact
            slope = np.polynomial.polynomial.polyval(v, derivative)
            if slope == 0:
                break
            v = v - np.polynomial.polynomial.polyval(v, flows) / slope
        rest = np.polynomial.polynomial.polyval(v, flows)
        if not (math.isfinite(float(v)) and v > 1e-9 and abs(rest) < 1e-9):
            continue
        rate = float(1.0 / v - 1.0)
        if not any(math.isclose(rate, other, rel_tol=1e-7, abs_tol=1e-7) for other in found):
            found.append(rate)
    return sorted(found)


def irr(cash_flows: Sequence[float] | Floats) -> float:
    """The one rate per period at which the flows are worth nothing.

    Raises FinanceError when there is none, or several: then only a net present value at a stated rate has a meaning.
    """
    rates = rates_of_return(cash_flows)
    if not rates:
        raise FinanceError("cash_flows: no rate makes their value zero; compare net present values")
    if len(rates) > 1:
        shown = ", ".join(f"{rate:.2%}" for rate in rates)
        raise FinanceError(f"cash_flows: several rates make their value zero ({shown}); compare net present values")
    return rates[0]


def period_rate(annual: float, periods_per_year: int = 12) -> float:
    """The rate per period that compounds to `annual`: (1 + annual)^(1/periods) - 1."""
    if not (math.isfinite(annual) and annual > -1):
        raise FinanceError(f"annual: {annual} must be more than -1; write 10 % as 0.10")
    if periods_per_year < 1:
        raise FinanceError(f"periods_per_year: {periods_per_year} must be at least 1")
    return float(math.expm1(math.log1p(annual) / periods_per_year))
