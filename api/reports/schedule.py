"""When a report was last due, and of which time it is then."""

from __future__ import annotations

from datetime import UTC, datetime

from analytics.report.period import HOUR_NS, NS, Period
from api.reports.settings import DAYS, ReportSettings
from collector.settings import duration_ns

_DAY_S = 86_400


def last_due(settings: ReportSettings, now_ns: int) -> tuple[int, Period]:
    """The newest moment (epoch ns) at or before now at which the report was due, and its period.

    A period of whole days ends at the midnight before, so that a weekly report of Monday is of Monday to Sunday; a
    shorter one ends with the last full hour.
    """
    today = now_ns // NS // _DAY_S * _DAY_S
    for back in range(8):
        day = today - back * _DAY_S
        due = day + settings.second_of_day
        if due * NS <= now_ns and settings.weekday in ("daily", DAYS[datetime.fromtimestamp(day, UTC).weekday()]):
            length = duration_ns(settings.period, "period")
            end = day * NS if length % (24 * HOUR_NS) == 0 else due * NS // HOUR_NS * HOUR_NS
            return due * NS, Period(end - length, end, settings.period)
    raise AssertionError("eight days hold every weekday")  # pragma: no cover
