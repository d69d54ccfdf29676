"""Objectives: what was good, what it burned, what is left."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.panels import Builder, Link, rows, series

UID = "tailsight-slo"
# Counts of the objectives in force. FINAL: of several answers for a window the newest counts.
_IN_FORCE = "objectives WHERE applied = (SELECT max(applied) FROM objectives) AND objective != ''"
_JOINED = f"""FROM objective_counts AS c FINAL
INNER JOIN (SELECT objective, version, target, period_s, service, indicator FROM {_IN_FORCE}) AS o
ON toString(c.objective) = o.objective AND c.version = o.version"""
_TIME = f"toDateTime(intDiv(toUnixTimestamp(window), {q.STEP}) * {q.STEP}) AS time"
_SHOWN = f"c.level = {q.LEVEL} AND $__timeFilter(c.window)"
_BAD = "toInt64(sum(total)) - toInt64(sum(good))"
# Whole hours, and the running one by tens of seconds: an objective of today is there at once.
_PERIOD = """((level = 3600 AND window > toDateTime($__toTime) - o.period_s AND window < toStartOfHour($__toTime))
OR (level = 10 AND window >= toStartOfHour($__toTime) AND window <= $__toTime))"""


def worst(height: int) -> Builder:
    """Objectives by what is left of their budgets."""
    return rows(
        "Objectives, worst first",
        "Of the objective's whole period so far: the share that was good, and how much of the "
        "error budget is left. Below zero the objective is missed. `uncertain` are events in a bucket that the "
        "threshold cuts. `tailsight slo list` has the alerts.",
        f"""SELECT o.objective AS objective, any(o.service) AS service, any(o.target) AS wanted,
        sum(good) / greatest(sum(total), 1) AS `was good`,
        1 - ({_BAD}) / greatest(sum(total) * (1 - any(o.target)), 1e-9) AS `budget left`,
        sum(total) AS events, sum(c.uncertain) AS uncertain, any(o.indicator) AS `what is good`
        {_JOINED} WHERE {_PERIOD} GROUP BY o.objective ORDER BY `budget left` LIMIT 200""",
        units={"wanted": "percentunit", "was good": "percentunit", "budget left": "percentunit"},
        colours={"budget left": [(None, "red"), (0, "orange"), (0.2, "green")]},
        links={"objective": Link("Objectives", "tailsight-slo")},
        height=height,
    )


def board() -> Board:
    """Worst first, then burn and budget over time."""
    return (
        Board(UID, "Objectives", "What was good, what it burned, what is left of the budget.")
        .row(
            "Budgets",
            worst(height=10),
        )
        .row(
            "Burn",
            series(
                "Burn rate",
                "Share of bad events over what the target allows, per step: at 1 the budget lasts exactly its "
                "period, at 14.4 two percent of a month's budget go in an hour.",
                f"""SELECT {_TIME}, o.objective AS objective,
                ({_BAD}) / greatest(sum(total) * (1 - any(o.target)), 1e-9) AS burn {_JOINED}
                WHERE {_SHOWN} GROUP BY time, o.objective HAVING sum(total) > 0 ORDER BY time""",
                "none",
                threshold=14.4,
                width=24,
            ),
            series(
                "Bad events",
                "How many events were not good, per step.",
                f"""SELECT {_TIME}, o.objective AS objective, {_BAD} AS bad {_JOINED}
                WHERE {_SHOWN} GROUP BY time, o.objective ORDER BY time""",
                "short",
                bars=True,
            ),
            series(
                "Events",
                "How many events were judged, per step. Where there are few, a rule waits for more.",
                f"""SELECT {_TIME}, o.objective AS objective, sum(total) AS events {_JOINED}
                WHERE {_SHOWN} GROUP BY time, o.objective ORDER BY time""",
                "short",
            ),
        )
    )
