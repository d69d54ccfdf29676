"""When a market is open: sessions of the week in a time zone, holidays, and days that close early. Pure.

Times are those of the zone's wall clock, so that a session keeps its hours when the clocks change. A session whose end
is not after its start ends on the next day (futures: 17:00 to 16:00).
"""

from __future__ import annotations

import re
from bisect import bisect_right
from datetime import UTC, date, datetime, time, timedelta
from functools import cached_property
from zoneinfo import ZoneInfo

from collector.settings import ConfigError, Section

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_HOURS = re.compile(r"(\d\d:\d\d)-(\d\d:\d\d)")


class CalendarSettings(Section, frozen=True, kw_only=True, dict=True):
    """One market calendar.

    Attributes:
        zone: IANA name of the time zone.
        days: days of the week on which sessions start.
        sessions: "HH:MM-HH:MM" each; empty = always open on those days.
        holidays: dates without sessions, "YYYY-MM-DD".
        early: dates that close earlier, with the time, {"2026-11-27" = "13:00"}.
    """

    zone: str = "UTC"
    days: tuple[str, ...] = DAYS[:5]
    sessions: tuple[str, ...] = ()
    holidays: tuple[str, ...] = ()
    early: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it

    def validate(self) -> None:
        """Raise ConfigError naming what is no zone, day, session, date or time."""
        try:
            ZoneInfo(self.zone)
        except (KeyError, OSError, ValueError):
            raise ConfigError(
                "zone", f"{self.zone!r} is no time zone of this host; write an IANA name, or install tzdata"
            ) from None
        for day in self.days:
            if day not in DAYS:
                raise ConfigError("days", f"{day!r} is no day; write {', '.join(DAYS)}")
        for session in self.sessions:
            _session(session)
        for day in (*self.holidays, *self.early):
            _date(day)
        for at in self.early.values():
            _time(at, "early")

    @cached_property
    def calendar(self) -> Calendar:
        """The calendar."""
        self.validate()
        return Calendar(self)


class Calendar:
    """Answers whether the market is open, and when it opened. Thread-safe."""

    def __init__(self, settings: CalendarSettings) -> None:
        self._zone = ZoneInfo(settings.zone)
        self._days = {DAYS.index(day) for day in settings.days}
        self._sessions = [_session(text) for text in settings.sessions]
        self._holidays = {_date(day) for day in settings.holidays}
        self._early = {_date(day): _time(at, "early") for day, at in settings.early.items()}
        self._known: tuple[date, list[tuple[int, int]]] | None = None

    def opened_ns(self, now_ns: int) -> int | None:
        """When the session that is open now began, epoch ns; None while the market is closed."""
        day = datetime.fromtimestamp(now_ns // 1_000_000_000, self._zone).date()
        known = self._known
        if known is None or known[0] != day:
            spans = [span for back in (1, 0) for span in self._spans(day - timedelta(days=back))]
            known = self._known = (day, sorted(spans))
        place = bisect_right(known[1], (now_ns, 1 << 62)) - 1
        if place < 0 or now_ns >= known[1][place][1]:
            return None
        start, _ = known[1][place]
        while place and known[1][place - 1][1] >= start:  # a day that follows on the one before is no new session
            place -= 1
            start = known[1][place][0]
        return start

    def _spans(self, day: date) -> list[tuple[int, int]]:
        if day.weekday() not in self._days or day in self._holidays:
            return []
        early = self._early.get(day)
        spans = []
        for start, end in self._sessions or [(time(0), time(0))]:
            last = day if end > start else day + timedelta(days=1)
            until = datetime.combine(last, end, self._zone)
            if early is not None:
                until = min(until, datetime.combine(day, early, self._zone))
            low, high = _ns(datetime.combine(day, start, self._zone)), _ns(until)
            if high > low:
                spans.append((low, high))
        return spans


ALWAYS = Calendar(CalendarSettings(days=DAYS))


def since_midnight(zone: str, day_ns: int, near_ns: int) -> int:
    """The epoch time of `day_ns` ns since midnight in a zone, on the day that brings it nearest to `near_ns`.

    Like the feeds that count so, it counts elapsed time from midnight, clock changes included.
    """
    return midnight_ns(zone, near_ns - day_ns + 43_200_000_000_000) + day_ns


def midnight_ns(zone: str, now_ns: int) -> int:
    """When the day of `now_ns` began in a zone, epoch ns."""
    where = ZoneInfo(zone)
    day = datetime.fromtimestamp(now_ns // 1_000_000_000, where).date()
    return _ns(datetime.combine(day, time(0), where))


def _ns(at: datetime) -> int:
    return round((at.astimezone(UTC) - datetime(1970, 1, 1, tzinfo=UTC)) / timedelta(microseconds=1)) * 1000


def _session(text: str) -> tuple[time, time]:
    match = _HOURS.fullmatch(text)
    if match is None:
        raise ConfigError("sessions", f"{text!r} is no session; write HH:MM-HH:MM")
    return _time(match[1], "sessions"), _time(match[2], "sessions")


def _time(text: str, field: str) -> time:
    if text == "24:00":
        return time(0)
    try:
        return time.fromisoformat(text)
    except ValueError:
        raise ConfigError(field, f"{text!r} is no time of day; write HH:MM") from None


def _date(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise ConfigError("holidays", f"{text!r} is no date; write YYYY-MM-DD") from None
