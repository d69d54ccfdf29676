"""What a gate's rule on a business measure sees: the values that ended within its window, as the store has them."""

from __future__ import annotations

from collections.abc import Mapping

from analytics.kpis import KpiDefinition
from analytics.slo.calendars import SloCalendar
from analytics.slo.gates import GateSettings, KpiRule, Measured, Portion, measured
from analytics.slo.kpi_counts import MAX_INTERVAL_S, NS
from collector.store import Store

_PORTIONS = """
SELECT intDiv(at, 10000000000) AS cell, max(end) AS newest, sum(value * weight) AS above, sum(weight) AS below,
    sum(value) AS total, count() AS values
FROM (
    SELECT toUnixTimestamp64Nano(ts) AS at, at + duration_ns AS end, value, weight, cohort, channel, region, offer
    FROM kpis FINAL
    WHERE name = {name:String} AND ts > fromUnixTimestamp64Nano({from_ns:Int64} - {longest_ns:Int64}, 'UTC')
        AND ts <= fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    UNION ALL
    SELECT toUnixTimestamp64Nano(ts) AS at, at AS end, value, toFloat64(1) AS weight, cohort, channel, region, offer
    FROM message_kpis FINAL
    WHERE name = {name:String} AND ts > fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
        AND ts <= fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
)
WHERE end > {from_ns:Int64} AND end <= {to_ns:Int64} AND {cohort:String} IN ('', cohort)
    AND {channel:String} IN ('', channel) AND {region:String} IN ('', region) AND {offer:String} IN ('', offer)
GROUP BY cell ORDER BY cell
"""


def measure(
    store: Store,
    gate: GateSettings,
    rule: KpiRule,
    known: Mapping[str, KpiDefinition],
    calendars: Mapping[str, SloCalendar],
    now_ns: int,
) -> Measured:
    """The measure over the rule's window up to `now_ns`, without what began in closed hours. Raises StoreError.

    An undeclared measure, or one of an undeclared calendar, has no value.
    """
    definition, calendar = known.get(rule.kpi), calendars.get(gate.calendar)
    if definition is None or (gate.calendar and calendar is None):
        return Measured(None, 0, 0)
    params = {
        "name": rule.kpi, "from_ns": now_ns - rule.window_s * NS, "to_ns": now_ns, "longest_ns": MAX_INTERVAL_S * NS,
        "cohort": rule.cohort, "channel": rule.channel, "region": rule.region, "offer": rule.offer,
    }  # fmt: skip
    rows = list(store.query(_PORTIONS, params).iter_rows(named=True))
    shut = set() if calendar is None else set(calendar.closed(row["cell"] * 10 for row in rows))
    return measured(
        (
            Portion(row["cell"] * 10 * NS, row["newest"], row["above"], row["below"], row["total"], row["values"])
            for row in rows
            if row["cell"] * 10 not in shut
        ),
        definition.kind,
    )


def closed_now(gate: GateSettings, calendars: Mapping[str, SloCalendar], now_ns: int) -> bool:
    """Whether the gate's calendar is closed."""
    calendar = calendars.get(gate.calendar)
    at_s = now_ns // NS
    return calendar is not None and bool(calendar.closed([at_s - at_s % 10]))
