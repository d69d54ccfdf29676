"""The slope of the median: for values that a few customers carry (lifetime value), where a mean says little."""

from __future__ import annotations

import numpy as np

from analytics.money.effects import Floats, SensitivityError, finite

_MOST_ROWS = 100_000


def median_line(kpi: Floats, exposure: Floats, quantile: float = 0.5) -> tuple[float, float]:
    """Level and slope of a quantile of the KPI over the exposure (Koenker and Bassett 1978), by statsmodels.

    It is a description like the naive slope, and no effect. Raises SensitivityError for more than 100,000 rows, or
    where statsmodels is not installed.
    """
    try:
        from statsmodels.regression.quantile_regression import QuantReg
    except ImportError as error:
        raise SensitivityError("a median needs the extra `business`: pip install 'tailsight[business]'") from error

    y = finite("kpi", kpi)
    x = finite("exposure", exposure, len(y))
    if not 0 < quantile < 1:
        raise SensitivityError(f"quantile: {quantile} must lie between 0 and 1")
    if len(y) > _MOST_ROWS:
        raise SensitivityError(f"kpi: {len(y)} rows are more than {_MOST_ROWS}; take a random part of them")
    if len(y) < 3 or not float(np.ptp(x)) > 0:
        raise SensitivityError("exposure: does not vary")
    found = QuantReg(y, np.column_stack([np.ones(len(x)), x])).fit(q=quantile, max_iter=5000)
    return float(found.params[0]), float(found.params[1])
