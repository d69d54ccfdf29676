"""Good and total of what is no message: gauges, feeds, flows, business measures, completeness, and joined windows.

One statement per kind counts all objectives of that kind. Returned rows are those of windows with events; a window
without any has no row.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from typing import Any

from analytics.completeness import completeness
from analytics.kpis import KpiDefinition
from analytics.slo import kpi_counts
from analytics.slo.calendars import SloCalendar, closed_windows
from analytics.slo.counting import counted_path
from analytics.slo.indicators import Combined, Completeness, Feed, Flow, Gauge, Indicator, Kpi
from analytics.slo.objectives import Objective
from analytics.slo.stored import Row, rows_of
from collector.store import Store

Pairs = dict[int, tuple[int, int, int]]  # good, total and uncertain by window (start, epoch seconds)
NS = 1_000_000_000
_RANGE = "ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')"
_GAUGES = f"""
SELECT toString(name) AS name, toString(host) AS host, toString(service) AS service,
    intDiv(toUnixTimestamp(ts), 10) * 10 AS w, min(value) AS least, max(value) AS most, avg(value) AS mean,
    sum(value) AS sum
FROM gauges WHERE name IN {{names:Array(String)}} AND {_RANGE}
GROUP BY name, host, service, label_set, w
"""  # noqa: S608 - fixed text
_FEEDS = f"""
SELECT toString(channel) AS channel, toString(line) AS line, intDiv(toUnixTimestamp(ts), 10) * 10 AS w,
    sum(f.messages) AS messages, greatest(
        sum(toInt64(f.skipped)) - sum(toInt64(f.out_of_order)) - sum(toInt64(f.late)), 0)
    AS missing, sum(f.duplicates) AS duplicates, sum(f.out_of_order) AS out_of_order, sum(f.late) AS late,
    sum(f.divergent) AS divergent, sum(f.errors) AS errors, sum(f.kernel_drops) AS kernel_drops
FROM feeds AS f WHERE channel IN {{channels:Array(String)}} AND {_RANGE}
GROUP BY channel, line, w
"""  # noqa: S608 - fixed text
_FLOWS = f"""
SELECT toString(host) AS host, toString(tap) AS tap, intDiv(toUnixTimestamp(ts), 10) * 10 AS w,
    sum(f.packets) AS packets,
    sum(f.retransmissions) AS retransmissions, sum(f.fast_retransmissions) AS fast_retransmissions,
    sum(f.spurious_retransmissions) AS spurious_retransmissions, sum(f.out_of_order) AS out_of_order,
    sum(f.lost_segments) AS lost_segments, sum(f.duplicate_acks) AS duplicate_acks, sum(f.zero_windows) AS zero_windows
FROM flows AS f WHERE {_RANGE} GROUP BY host, tap, w
"""  # noqa: S608 - fixed text
_HOLDS = {"lte": operator.le, "lt": operator.lt, "gte": operator.ge, "gt": operator.gt}


def count(
    store: Store,
    objectives: Sequence[Objective],
    calendars: Mapping[str, SloCalendar],
    from_s: int,
    to_s: int,
    now_ns: int,
    kpis: Mapping[str, KpiDefinition] | None = None,
) -> list[Row]:
    """Rows of level 10 in [from_s, to_s), whole windows, of those objectives that the window job does not count."""
    mine = [one for one in objectives if counted_path(one.indicator) is None]
    if not mine:
        return []
    asked = _Asked(store, [leaf for one in mine for leaf in _leaves(one.indicator)], from_s, to_s, now_ns, kpis or {})
    closed = {name: set(closed_windows(calendars, name, from_s, to_s)) for name in {one.hours for one in mine}}
    rows = []
    for one in mine:
        pairs = asked.pairs(one)
        for window, pair in sorted(pairs.items()):
            if from_s <= window < to_s:
                counted = (0, 0, 0) if window in closed[one.hours] else pair
                rows.append(Row(one.name, one.version, 10, window, *counted))
    return rows


def count_measures(
    store: Store,
    objectives: Sequence[Objective],
    calendars: Mapping[str, SloCalendar],
    kpis: Mapping[str, KpiDefinition],
    level: int,
    from_s: int,
    to_s: int,
) -> list[Row]:
    """Rows of a coarse level in [from_s, to_s) of objectives on business measures, for the time before they existed.

    Windows that the calendar does not have open from beginning to end are left out.
    """
    mine = [one for one in objectives if isinstance(one.indicator, Kpi)]
    cells = kpi_counts.read(store, kpi_counts.leaves(mine), kpis, from_s, to_s, level) if mine else {}
    rows = []
    for one in mine:
        assert isinstance(one.indicator, Kpi)  # noqa: S101 - chosen above
        for window, cell in sorted(cells[one.indicator].items()):
            if not (one.hours and closed_windows(calendars, one.hours, window, window + level)):
                rows.append(Row(one.name, one.version, level, window, *cell))
    return rows


def sides(objectives: Sequence[Objective]) -> list[Objective]:
    """Objectives for the sides of joined ones that are about messages: counted by the window job, never judged."""
    found = []
    for one in objectives:
        if isinstance(one.indicator, Combined) and counted_path(one.indicator) is None:
            for number, side in enumerate(one.indicator.sides):
                if counted_path(side) is not None:
                    found.append(_side(one, number, side))
    return found


def _side(one: Objective, number: int, side: Indicator) -> Objective:
    name = f"{one.name}/{number + 1}"
    return Objective(
        name,
        one.slo,
        one.service,
        name,
        "",
        one.target,
        side,
        one.window,
        (),
        calendar=one.calendar,
        paused_in=one.paused_in,
    )


def _leaves(one: Indicator) -> list[Indicator]:
    return [*one.sides] if isinstance(one, Combined) else [one]


class _Asked:
    """What the store says of all leaves at once."""

    def __init__(
        self,
        store: Store,
        leaves: Sequence[Indicator],
        from_s: int,
        to_s: int,
        now_ns: int,
        kpis: Mapping[str, KpiDefinition],
    ) -> None:
        self._store, self._from_s, self._to_s, self._now_ns = store, from_s, to_s, now_ns
        params: dict[str, Any] = {"from_ns": from_s * NS, "to_ns": to_s * NS}
        gauges = sorted({leaf.name for leaf in leaves if isinstance(leaf, Gauge)})
        channels = sorted({leaf.channel for leaf in leaves if isinstance(leaf, Feed)})
        self._gauges = _rows(store, _GAUGES, {**params, "names": gauges}) if gauges else []
        self._feeds = _rows(store, _FEEDS, {**params, "channels": channels}) if channels else []
        self._flows = _rows(store, _FLOWS, params) if any(isinstance(leaf, Flow) for leaf in leaves) else []
        measures = list(dict.fromkeys(leaf for leaf in leaves if isinstance(leaf, Kpi)))
        self._known: dict[Indicator, Pairs] = {}
        if measures:
            for leaf, cells in kpi_counts.read(store, measures, kpis, from_s, to_s).items():
                self._known[leaf] = cells

    def pairs(self, one: Objective) -> Pairs:
        if isinstance(one.indicator, Combined):
            return self._combined(one, one.indicator)
        return self._leaf(one.indicator)

    def _combined(self, one: Objective, both: Combined) -> Pairs:
        found = []
        for number, side in enumerate(both.sides):
            if counted_path(side) is not None:
                named = _side(one, number, side)
                names, versions, starts, values = rows_of(self._store, 10, self._from_s, self._to_s, name=named.name)
                found.append(
                    {
                        int(s): (int(v[0]), int(v[1]), int(v[2]))
                        for s, v, version in zip(starts, values, versions, strict=True)
                        if version == named.version and v[1]
                    }
                )
                del names
            else:
                found.append(self._leaf(side))
        joined: Pairs = {}
        for window in set().union(*found):
            here = [side[window] for side in found if window in side]
            join = all if both.every else any
            surely = join(total - ok <= both.bad_share * total for ok, total, _ in here)
            perhaps = join(total - ok - unsure <= both.bad_share * total for ok, total, unsure in here)
            joined[window] = (int(surely), 1, int(perhaps and not surely))
        return joined

    def _leaf(self, one: Indicator) -> Pairs:
        if one not in self._known:
            self._known[one] = self._counted(one)
        return self._known[one]

    def _counted(self, one: Indicator) -> Pairs:
        found: Pairs = {}

        def add(window: int, good: int, total: int) -> None:
            before = found.get(window, (0, 0, 0))
            found[window] = (before[0] + good, before[1] + total, 0)

        match one:
            case Gauge():
                holds = _HOLDS[one.op]
                for r in self._gauges:
                    if r["name"] == one.name and one.host in ("", r["host"]) and one.service in ("", r["service"]):
                        worst = r["most"] if one.op in ("lte", "lt") else r["least"]
                        value = worst if one.reduce == "each" else r[one.reduce]
                        add(int(r["w"]), int(holds(value, one.value)), 1)
            case Feed():
                for r in self._feeds:
                    if r["channel"] == one.channel and r["line"] == one.line:
                        bad = int(r[one.bad])
                        total = int(r["messages"]) + (
                            bad if one.bad in ("missing", "duplicates", "kernel_drops") else 0
                        )
                        total = max(total, bad)
                        add(int(r["w"]), total - bad, total)
            case Flow():
                for r in self._flows:
                    if one.host in ("", r["host"]) and one.tap in ("", r["tap"]):
                        total, bad = int(r["packets"]), int(r[one.bad] or 0)
                        add(int(r["w"]), max(0, total - bad), total)
            case Completeness():
                shares = completeness(self._store, self._from_s * NS, self._to_s * NS, 10, now_ns=self._now_ns)
                for share in shares:
                    if share.produced:
                        add(share.from_ns // NS, share.produced - share.missing, share.produced)
            case _:
                pass
        return {w: pair for w, pair in found.items() if pair[1]}


def _rows(store: Store, sql: str, params: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(store.query(sql, params).iter_rows(named=True))
