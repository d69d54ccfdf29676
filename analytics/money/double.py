"""Double machine learning: what load, hour and customers explain of KPI and exposure is learned, not assumed.

The partially linear model `kpi = theta exposure + g(z) + error`, `exposure = m(z) + error` (Chernozhukov et al. 2018)
by the package DoubleML: g and m are learned on the blocks of time that a row does not lie in, so that neighbours do not
teach each other, and theta is the slope of what is left of one on what is left of the other, its error by block. Like
the strata it is an association: what is not in z is not held fixed.
"""

from __future__ import annotations

import numpy as np

from analytics.money.effects import (
    Effect,
    Floats,
    Ints,
    SensitivityError,
    Words,
    estimated,
    finite,
    interval_of,
    refused,
)
from analytics.money.strata import codes

LEAST_BLOCKS = 20
MOST_ROWS = 100_000
_FOLDS = 5
METHOD = "partially linear double machine learning, cross-fitted and errors by block of time"


def double(kpi: Floats, exposure: Floats, known: list[Floats], block: Ints, words: Words, seed: int = 1) -> Effect:
    """The slope of `kpi` on `exposure` with `known` (columns of n values) held fixed by boosted trees.

    Of more than 100,000 rows that many are drawn. Raises SensitivityError where DoubleML is not installed.
    """
    try:
        import doubleml
        import pandas as pd
        from sklearn.ensemble import HistGradientBoostingRegressor
        from threadpoolctl import threadpool_limits
    except ImportError as error:
        raise SensitivityError("double machine learning needs the extra `dml`: pip install 'tailsight[dml]'") from error

    y = finite("kpi", kpi)
    n = len(y)
    x = finite("exposure", exposure, n)
    z = [finite(f"known {number}", column, n) for number, column in enumerate(known)]
    groups = codes(block)
    if len(groups) != n:
        raise SensitivityError(f"block: must be one column of {n} values")
    if not z:
        raise SensitivityError("known: there is nothing to hold fixed")
    rng = np.random.default_rng(seed)
    if n > MOST_ROWS:
        chosen = np.sort(rng.choice(n, MOST_ROWS, replace=False))
        y, x, z, groups = y[chosen], x[chosen], [column[chosen] for column in z], codes(groups[chosen])
    blocks = int(groups.max(initial=-1)) + 1
    if blocks < LEAST_BLOCKS:
        reason = f"{blocks} blocks of time are fewer than {LEAST_BLOCKS}; take a longer time."
        return refused("double machine learning", METHOD, reason, len(y), blocks)
    if not float(np.ptp(x)) > 0:
        return refused("double machine learning", METHOD, "The exposure does not vary.", len(y), blocks)
    names = [f"z{number}" for number in range(len(z))]
    frame = pd.DataFrame({"y": y, "d": x, "block": groups, **dict(zip(names, z, strict=True))})
    learner = HistGradientBoostingRegressor(
        max_iter=100, learning_rate=0.1, max_leaf_nodes=15, min_samples_leaf=50, l2_regularization=1.0,
        early_stopping=False, random_state=seed,
    )  # fmt: skip
    state = np.random.get_state()
    try:
        np.random.seed(seed)
        data = doubleml.DoubleMLData(frame, "y", "d", x_cols=names, cluster_cols="block")
        model = doubleml.DoubleMLPLR(data, learner, learner, n_folds=_FOLDS)
        with threadpool_limits(1):  # threads that wait for each other spin, and starve where the machine is busy
            model.fit()
    finally:
        np.random.set_state(state)
    theta = float(model.coef[0])
    # The package's error is the limit's; G/(G-1) as everywhere here.
    se = float(model.se[0]) * float(np.sqrt(blocks / (blocks - 1)))
    interval = interval_of(theta, se, blocks)
    return estimated("double machine learning", METHOD, words, theta, se, interval, len(y), blocks)
