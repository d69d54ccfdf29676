"""Business measures beside latency, and what burned budgets cost."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.panels import rows, series

UID = "tailsight-business"
_WINDOW_TIME = f"toDateTime(intDiv(toUnixTimestamp(window), {q.STEP}) * {q.STEP}) AS time"
_TIME = "toDateTime(intDiv(toUnixTimestamp(ts), $__interval_s) * $__interval_s) AS time"
_KPIS = "FROM kpis FINAL WHERE $__timeFilter(ts)"


def board() -> Board:
    """KPIs and the tail on one time axis. That they move together is no proof: docs/numbers.md."""
    return (
        Board(
            UID,
            "Business",
            "Business measures beside latency. That they move together proves nothing.",
            variables=["path"],
        )
        .row(
            "Beside latency",
            series(
                "KPIs",
                "The newest version of every value, weighted mean per step.",
                f"""SELECT {_TIME}, toString(name) AS kpi, sum(value * weight) / sum(weight) AS value {_KPIS}
            AND weight > 0 GROUP BY time, kpi ORDER BY time""",
                "short",
                minimum=None,
            ),
            series(
                "p99, end to end",
                "The path's tail on the same time axis.",
                f"""SELECT {_WINDOW_TIME}, {q.percentile(0.99)} AS p99 FROM stage_counts WHERE
            {q.counts_where("end_to_end")}
            GROUP BY time ORDER BY time""",
                "ns",
            ),
            rows(
                "KPIs by cohort, channel and region",
                "Weighted mean over the time shown.",
                f"""SELECT toString(name) AS kpi, toString(cohort) AS cohort, toString(channel) AS channel,
            toString(region) AS region, count() AS values, sum(value * weight) / sum(weight) AS mean {_KPIS} AND
            weight > 0
            GROUP BY kpi, cohort, channel, region ORDER BY kpi, cohort, channel, region LIMIT 500""",
            ),
            rows(
                "Outcomes",
                "How the path's messages ended.",
                f"""SELECT toString(outcome) AS outcome, toString(mode) AS mode, count() AS messages,
            count() / sum(count()) OVER () AS share FROM messages WHERE {q.messages_where()}
            GROUP BY outcome, mode ORDER BY messages DESC""",
                units={"share": "percentunit"},
            ),
        )
        .row(
            "In money",
            series(
                "Cost of running burns, per hour",
                "What each priced objective's bad events of the last five minutes cost per hour. No line where that "
                "cannot be told from nothing, or where no effect of latency on revenue was measured (docs/costs.md).",
                f"""SELECT {_TIME}, toString(objective) AS objective, avg(value) AS per_hour FROM costs
            WHERE $__timeFilter(ts) AND value IS NOT NULL GROUP BY time, objective ORDER BY time""",
                "short",
                width=24,
            ),
            rows(
                "Cost per hour, by objective",
                "Mean over the time shown, with the 95 % interval of the effect. Empty means that it cannot be told "
                "from nothing; the reason says why it is not known.",
                """SELECT toString(objective) AS objective, toString(path) AS path, toString(currency) AS currency,
            if(low > 0, mean, NULL) AS per_hour, avg(costs.low) AS low, avg(costs.high) AS high,
            avg(ifNull(value, (costs.low + costs.high) / 2)) AS mean, toString(anyLast(design)) AS design,
            toString(argMax(reason, ts)) AS reason FROM costs
            WHERE $__timeFilter(ts) GROUP BY objective, path, currency ORDER BY per_hour DESC, objective LIMIT 200""",
            ),
        )
    )
