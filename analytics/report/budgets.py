"""How much of each objective's error budget a period took.

The budget of a whole period of an objective is what may be bad in it, (1 - target) of the events that it has at the
traffic of the report's period. A report's period of length L takes

    burned = (bad / total) / (1 - target) x L / length of the objective's period

of it. Uncertain events (in a bucket that the threshold cuts) count half, as burn rates do.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analytics.report.period import NS, Period
from analytics.report.value import BudgetLine
from analytics.slo import stored
from analytics.slo.indicators import describe
from analytics.slo.objectives import Objective
from analytics.slo.sums import Ints
from collector.store import Store

Sum = tuple[int, int, int]  # good, total, uncertain


def budget_lines(store: Store, objectives: Sequence[Objective], time: Period) -> tuple[BudgetLine, ...]:
    """A line per objective, the one that burned most first. Raises StoreError."""
    found = []
    for one in objectives:
        first_s = min(time.before.from_ns // NS, one.period(time.to_ns // NS - 1)[0]) // 3600 * 3600
        _, versions, starts, values = stored.rows_of(store, 3600, first_s, time.to_ns // NS, name=one.name)
        mine = versions == one.version
        starts, values = starts[mine], values[mine]

        def between(from_s: int, to_s: int, starts: Ints = starts, values: Ints = values) -> Sum:
            good, total, uncertain = values[(starts >= from_s) & (starts < to_s)].sum(axis=0, dtype=np.int64).tolist()
            return good, total, uncertain

        now, before = (between(t.from_ns // NS, t.to_ns // NS) for t in (time, time.before))
        window = one.period(time.to_ns // NS - 1)
        found.append(line_of(one, now, before, between(*window), time, window[1] - window[0]))
    return tuple(sorted(found, key=lambda line: (-(line.burned if line.burned is not None else -1.0), line.objective)))


def line_of(one: Objective, now: Sum, before: Sum, window: Sum, time: Period, window_s: int) -> BudgetLine:
    """The line from sums of the report's period, the one before, and the objective's own period up to now."""
    part = time.length_ns / NS / window_s
    burned = _rate(now, one.target)
    burned_before = _rate(before, one.target)
    whole = _rate(window, one.target)
    return BudgetLine(
        objective=one.name,
        name=one.display_name or one.name,
        indicator=describe(one.indicator),
        target=one.target,
        window=one.window.text,
        total=now[1],
        bad=now[1] - now[0] - now[2],
        uncertain=now[2],
        burned=None if burned is None else burned * part,
        burned_before=None if burned_before is None else burned_before * part,
        left=None if whole is None else 1.0 - whole,
    )


def _rate(counts: Sum, target: float) -> float | None:
    good, total, uncertain = counts
    return None if not total else (total - good - uncertain / 2) / total / (1 - target)
