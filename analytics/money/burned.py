"""What burned budgets and episodes have cost, asked of the store: latencies, counts and revenue of a time.

Read only. One `Pricer` answers for one moment and reads each thing once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from analytics import tally
from analytics.cover import widen
from analytics.money import losing, value
from analytics.money.losing import Cost
from analytics.money.value import BadEffect, LatencyEffect, MoneySettings, PathValue
from analytics.paths import END_TO_END
from analytics.slo import stored
from analytics.slo.indicators import Latency, describe
from analytics.slo.objectives import Objective
from analytics.tally import Tallies, Tally
from collector.settings import duration_ns
from collector.store import Store

NS = 1_000_000_000
HOUR_NS = 3_600 * NS

_INTERVALS = """
SELECT sum(v) AS total, count() AS steps, sum(d) AS covered, min(at) AS first, max(at + d) AS last FROM (
    SELECT toUnixTimestamp64Nano(ts) AS at, max(duration_ns) AS d, sum(value) AS v
    FROM kpis FINAL
    WHERE name = {name:String} AND ts >= fromUnixTimestamp64Nano({a:Int64}, 'UTC')
        AND ts < fromUnixTimestamp64Nano({b:Int64}, 'UTC')
    GROUP BY at
)
"""
_MESSAGES = """
SELECT sum(value) AS total, count() AS steps, toInt64(0) AS covered, toUnixTimestamp64Nano(min(ts)) AS first,
    toUnixTimestamp64Nano(max(ts)) AS last
FROM message_kpis FINAL
WHERE name = {name:String} AND ts >= fromUnixTimestamp64Nano({a:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({b:Int64}, 'UTC')
"""


# Seconds with messages: of each hour as its finest windows that are kept say it.
_OPEN = """
SELECT sum(if(fine > 0, least(3600, fine), 3600)) AS s FROM (
    SELECT toStartOfHour(window) AS hour,
        greatest(10 * uniqExactIf(window, level = 10), 60 * uniqExactIf(window, level = 60)) AS fine
    FROM stage_windows
    WHERE path = {path:String} AND rollup = '' AND stage = {stage:String} AND n > 0
        AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
    GROUP BY hour
)
"""


@dataclass(frozen=True, slots=True)
class Revenue:
    """Revenue of a path: `per_hour` with messages, and `per_message` where it was measured; or why none is known.

    Where it is known per message, a quiet hour costs less than a busy one. `per_clock_hour` is of every hour, also of
    those without messages: a month has 730.5 of them.
    """

    per_hour: float = 0.0
    per_message: float | None = None
    reason: str = ""
    sentence: str = ""
    per_clock_hour: float = 0.0

    def of(self, hours: float, messages: int) -> float:
        """The revenue of a time with so many messages."""
        return self.per_hour * hours if self.per_message is None else self.per_message * messages


class Burned(msgspec.Struct, frozen=True, kw_only=True):
    """What an objective's bad events cost in [from_ns, to_ns).

    `path` is whose revenue was taken. `excess_ms` is the mean over all messages of what went beyond the threshold
    (latency objectives), `mean_ms` the mean from end to end. `unfinished` messages have no price per millisecond.
    """

    objective: str
    indicator: str
    path: str
    from_ns: int
    to_ns: int
    bad: int
    total: int
    unfinished: int
    mean_ms: float | None
    excess_ms: float | None
    revenue: float | None
    cost: Cost


@dataclass(slots=True)
class Pricer:
    """Prices of one moment. Raises StoreError."""

    store: Store
    settings: MoneySettings
    values: Mapping[str, PathValue]
    now_ns: int
    revenues: dict[str, Revenue] = field(default_factory=dict)
    _tallies: dict[tuple[str, str, int, int], Tallies] = field(default_factory=dict)

    def objective(self, one: Objective, from_ns: int, to_ns: int, *, hourly: bool = False) -> Burned:
        """What its bad events of [from_ns, to_ns), widened to 10 s, cost in all; with `hourly`, per hour."""
        first, last = widen(from_ns, to_ns)
        name, effect, reason = self._effect_of(one)
        about = {
            "objective": one.name, "indicator": describe(one.indicator), "path": name, "from_ns": first * NS,
            "to_ns": last * NS,
        }  # fmt: skip
        blank: dict[str, float | None] = {
            "bad": 0,
            "total": 0,
            "unfinished": 0,
            "mean_ms": None,
            "excess_ms": None,
            "revenue": None,
        }
        if effect is None:
            return Burned(**about, **blank, cost=losing.refused(self.settings.currency, reason))  # type: ignore[arg-type]
        rev = self.revenue(name)
        if rev.reason:
            return Burned(**about, **blank, cost=losing.refused(self.settings.currency, rev.reason))  # type: ignore[arg-type]
        hours = self.open_hours(name, first, last)
        part = 1 / hours if hourly and hours else 1.0
        unit = " an hour" if hourly else ""
        if isinstance(effect, LatencyEffect):
            assert isinstance(one.indicator, Latency)  # noqa: S101 - `_effect_of` has seen to it
            found = self.excess(one.indicator, first, last)
            blank |= {
                "bad": found.bad, "total": found.count, "unfinished": found.unfinished, "mean_ms": found.mean_ms,
                "excess_ms": found.excess_ms,
            }  # fmt: skip
            revenue = rev.of(hours, found.count) * part
            parts = losing.per_ms(revenue, effect, found.mean_ms, found.excess_ms)
        else:
            good, total = self._counted(one, first, last)
            messages = self.messages(name, first, last)
            revenue = rev.of(hours, messages) * part
            parts = losing.per_share(revenue, effect, (total - good) / total if total else 0.0)
            blank |= {"bad": total - good, "total": total}
        blank["revenue"] = revenue
        if not blank["total"]:
            none = losing.refused(self.settings.currency, "there are no events in that time")
            return Burned(**about, **blank, cost=none)  # type: ignore[arg-type]
        made = losing.cost(parts, self.settings.currency, effect, unit)
        return Burned(**about, **blank, cost=made)  # type: ignore[arg-type]

    def priced(self, one: Objective) -> bool:
        """Whether the objective has an effect that may become money."""
        return self._effect_of(one)[1] is not None

    def excess(self, one: Latency, first: int, last: int) -> losing.Excess:
        """What messages took beyond an objective's threshold in [first, last), seconds."""
        everything = self.tallies(one.path, "", first, last)
        some = self.tallies(one.path, one.rollup, first, last) if one.rollup else everything
        return losing.excess(_at(some, END_TO_END), _at(some, one.stage), one.threshold_ns, _at(everything, END_TO_END))

    def tallies(self, path: str, rollup: str, first: int, last: int) -> Tallies:
        """All stages of a path in [first, last), seconds."""
        key = (path, rollup, first, last)
        if key not in self._tallies:
            if len(self._tallies) > 64:  # a question per objective must not keep every time's counts
                self._tallies.clear()
            self._tallies[key] = tally.stored(self.store, path, first, last, rollup=rollup)
        return self._tallies[key]

    def messages(self, path: str, first: int, last: int) -> int:
        """Finished messages of [first, last), seconds."""
        one = _at(self.tallies(path, "", first, last), END_TO_END)
        return one.counts.count if one else 0

    def mean_ms(self, path: str, first: int, last: int) -> float | None:
        """The mean from end to end in [first, last), seconds; None without messages."""
        one = _at(self.tallies(path, "", first, last), END_TO_END)
        return one.counts.sum_ns / one.counts.count / 1e6 if one and one.counts.count else None

    def open_hours(self, path: str, first: int, last: int) -> float:
        """Hours of [first, last), seconds, in which there were messages: others bring and cost nothing."""
        params = {"path": path, "stage": END_TO_END, "from_s": first, "to_s": last}
        found = float(self.store.query(_OPEN, params).item() or 0) / 3_600
        return min(found, (last - first) / 3_600)

    def effect(self, path: str) -> tuple[LatencyEffect | None, str]:
        """The effect per millisecond that may become money, or why there is none."""
        one = self.values.get(path)
        if one is None:
            return None, f"nothing is declared for path {path}: give [value.{path}] revenue and an effect"
        reason = value.refusal(one.effect, self.settings, self.now_ns, f"value.{path}.effect")
        return (None, reason) if reason else (one.effect, "")

    def revenue(self, path: str) -> Revenue:
        """The revenue of a path with a value."""
        if path not in self.revenues:
            self.revenues[path] = self._asked(path, self.values[path])
        return self.revenues[path]

    def _asked(self, path: str, one: PathValue) -> Revenue:
        currency = self.settings.currency
        if one.revenue_per_hour:
            declared = f"{one.revenue_per_hour:,.0f} {currency} an hour, as declared"
            return Revenue(one.revenue_per_hour, sentence=declared, per_clock_hour=one.revenue_per_hour)
        over_ns = duration_ns(one.revenue_over, "revenue_over")
        params = {"name": one.revenue_kpi, "a": self.now_ns - over_ns, "b": self.now_ns}
        row = self.store.query(_INTERVALS, params).row(0, named=True)
        if not row["steps"]:
            row = self.store.query(_MESSAGES, params).row(0, named=True)
        if not row["steps"]:
            return Revenue(reason=f"{one.revenue_kpi} has no values in the last {one.revenue_over}")
        first, last = widen(int(row["first"]), max(int(row["last"]), int(row["first"]) + 10 * NS))
        hours = (int(row["covered"]) or (last - first) * NS) / HOUR_NS
        total = float(row["total"])
        if total <= 0:
            return Revenue(reason=f"{one.revenue_kpi} adds up to {total:,.6g} over the last {one.revenue_over}")
        n = self.messages(path, first, last)
        said = f"{total:,.0f} {currency} of {one.revenue_kpi} in {hours:,.1f} h"
        clock_hours = max((self.now_ns - int(row["first"])) / HOUR_NS, hours)
        return Revenue(total / hours, total / n if n else None, sentence=said, per_clock_hour=total / clock_hours)

    def _effect_of(self, one: Objective) -> tuple[str, LatencyEffect | BadEffect | None, str]:
        """Whose revenue, and the effect that prices the objective; or why there is none."""
        for path, declared in self.values.items():
            if one.name in declared.bad:
                effect = declared.bad[one.name]
                reason = value.refusal(effect, self.settings, self.now_ns, f"value.{path}.bad.{one.name}")
                return path, None if reason else effect, reason
        if not isinstance(one.indicator, Latency):
            return "", None, (f"{one.name} counts no latency of a path; give its effect as [value.PATH.bad.{one.name}]")
        effect_ms, reason = self.effect(one.indicator.path)
        return one.indicator.path, effect_ms, reason

    def _counted(self, one: Objective, first: int, last: int) -> tuple[int, int]:
        row = self.store.query(stored.window_statement(one.name, one.version, first, last)).row(0, named=True)
        return int(row["good"] or 0), int(row["total"] or 0)


def _at(tallies: Tallies, stage: str) -> Tally | None:
    return next((one for (_, name), one in tallies.items() if name == stage), None)
