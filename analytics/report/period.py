"""Which time a report is of, as a person writes it, and the time before that it is held against."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from collector.settings import ConfigError, duration_ns

NS = 1_000_000_000
HOUR_NS = 3_600 * NS
MOST_NS = 200 * 86_400 * NS
_WEEK = re.compile(r"(\d{4})-W(\d{2})")
_MONTH = re.compile(r"(\d{4})-(\d{2})")


@dataclass(frozen=True, slots=True)
class Period:
    """[from_ns, to_ns) in whole hours, as it was asked for, and the time as long as it that ends where it begins."""

    from_ns: int
    to_ns: int
    asked: str

    @property
    def length_ns(self) -> int:
        """How long it is."""
        return self.to_ns - self.from_ns

    @property
    def before(self) -> Period:
        """The time before, of the same length."""
        return Period(self.from_ns - self.length_ns, self.from_ns, "the period before")

    @property
    def step_s(self) -> int:
        """The parts that are drawn again to say how sure a change is: days, or hours of a time below a week."""
        return 86_400 if self.length_ns >= 7 * 24 * HOUR_NS else 3_600


def period(text: str, now_ns: int) -> Period:
    """`7d` (up to the last full hour), `2026-W46`, `2026-11`, or `FROM/TO` (dates or times, UTC).

    Raises ConfigError saying how to write it, and for a time that is empty, in the future or longer than 200 days.
    """
    asked = text.strip()
    if "/" in asked:
        first, _, last = asked.partition("/")
        begin, end = _moment(first), _moment(last)
    elif match := _WEEK.fullmatch(asked):
        try:
            monday = date.fromisocalendar(int(match[1]), int(match[2]), 1)
        except ValueError as error:
            raise ConfigError("period", f"{asked!r} is no week: {error}") from None
        begin, end = _day(monday), _day(monday + timedelta(days=7))
    elif match := _MONTH.fullmatch(asked):
        begin, end = _month(int(match[1]), int(match[2]), asked)
    else:
        try:
            length = duration_ns(asked, "period")
        except ConfigError:
            raise ConfigError(
                "period", f"{asked[:80]!r}: write 7d, 2026-W46, 2026-11 or 2026-11-02/2026-11-09"
            ) from None
        end = now_ns // HOUR_NS * HOUR_NS
        begin = end - length // HOUR_NS * HOUR_NS
    begin, end = begin // HOUR_NS * HOUR_NS, end // HOUR_NS * HOUR_NS
    if end - begin < HOUR_NS:
        raise ConfigError("period", f"{asked!r} is shorter than an hour")
    if end - begin > MOST_NS:
        raise ConfigError("period", f"{asked!r} is longer than {MOST_NS // (24 * HOUR_NS)} days")
    if begin >= now_ns:
        raise ConfigError("period", f"{asked!r} has not begun")
    if begin - (end - begin) < 0:
        raise ConfigError("period", f"{asked!r} lies before 1970")
    return Period(begin, end, asked)


def _moment(text: str) -> int:
    try:
        found = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            "period", f"{text[:40]!r} is no date or time; write 2026-11-02 or 2026-11-02T09:00Z"
        ) from None
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()) * NS


def _day(day: date) -> int:
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * NS


def _month(year: int, month: int, asked: str) -> tuple[int, int]:
    try:
        return _day(date(year, month, 1)), _day(date(year + month // 12, month % 12 + 1, 1))
    except ValueError as error:
        raise ConfigError("period", f"{asked!r} is no month: {error}") from None
