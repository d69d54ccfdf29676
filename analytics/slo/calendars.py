"""Calendars of objectives: sessions, holidays, halts and campaigns. What is closed is neither good nor bad.

A window of 10 s counts when its calendar is open from its first to its last nanosecond and no halt touches it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime

from collector.feeds.calendar import DAYS, CalendarSettings
from collector.settings import ConfigError, Section

NS = 1_000_000_000
CELL_S = 10


class Stretch(Section, frozen=True, kw_only=True):
    """A time by its two ends (RFC 3339), and why."""

    start: str
    end: str
    why: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming an end that is no time, or ends in the wrong order."""
        if self.seconds[0] >= self.seconds[1]:
            raise ConfigError("end", f"{self.end!r} is not after start {self.start!r}")

    @property
    def seconds(self) -> tuple[float, float]:
        """Both ends, epoch seconds."""
        return _seconds(self.start, "start"), _seconds(self.end, "end")


class SloCalendar(CalendarSettings, frozen=True, kw_only=True, dict=True):
    """A calendar: sessions, holidays and early closes as feeds have them, halts, and campaigns.

    Unlike a feed's calendar it is open on every day of the week unless `days` says otherwise. In a campaign the
    calendar stays open; baselines leave it out.
    """

    days: tuple[str, ...] = DAYS
    halts: tuple[Stretch, ...] = ()
    campaigns: tuple[Stretch, ...] = ()

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        super().validate()
        for kind, stretches in (("halts", self.halts), ("campaigns", self.campaigns)):
            for number, one in enumerate(stretches):
                try:
                    one.validate()
                except ConfigError as error:
                    raise ConfigError(f"{kind}[{number}].{error.field}", error.problem) from error

    def closed(self, cells_s: Iterable[int]) -> list[int]:
        """Those of the 10 s windows (starts, epoch seconds) that are not open from beginning to end."""
        halts = [one.seconds for one in self.halts]
        calendar = self.calendar
        found = []
        for cell in cells_s:
            first, last = cell * NS, (cell + CELL_S) * NS - 1
            opened = calendar.opened_ns(first)
            if (
                opened is None
                or calendar.opened_ns(last) != opened
                or any(a < cell + CELL_S and b > cell for a, b in halts)
            ):
                found.append(cell)
        return found

    def campaign(self, at_s: float) -> str:
        """Why a moment is special, '' when it is not."""
        for one in self.campaigns:
            a, b = one.seconds
            if a <= at_s < b:
                return one.why or "campaign"
        return ""


def closed_windows(calendars: Mapping[str, SloCalendar], name: str, from_s: int, to_s: int) -> list[int]:
    """The closed 10 s windows of [from_s, to_s); none without a calendar. Raises ConfigError for an unknown name."""
    if not name:
        return []
    if name not in calendars:
        raise ConfigError(f"slo.calendars.{name}", "is not declared and an objective needs it")
    return calendars[name].closed(range(from_s, to_s, CELL_S))


def _seconds(text: str, field: str) -> float:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(field, f"{text!r} is no time; write 2026-11-21T14:30:00Z") from None
    if at.tzinfo is None:
        raise ConfigError(field, f"{text!r} has no time zone; write 2026-11-21T14:30:00Z")
    return at.timestamp()
