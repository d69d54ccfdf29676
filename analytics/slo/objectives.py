"""Objectives as they are evaluated: plain values, made from OpenSLO documents by `analytics.slo.compiled`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from analytics.slo.fields import UNIT_S
from analytics.slo.indicators import Indicator, canonical
from analytics.slo.openslo import TimeWindow
from analytics.slo.rules import Rule
from collector.keys import hash64


@dataclass(frozen=True, slots=True)
class Objective:
    """One objective of one SLO.

    `version` names what is counted: the indicator and the calendar. Another target or other rules keep the counts.
    With `slice_s` the events are slices: good when at least `slice_target` of what happened in them was, or with
    `slice_ratio` good by the very share that was (OpenSLO's RatioTimeslices: the average of the slices' shares).
    """

    name: str
    slo: str
    service: str
    display_name: str
    description: str
    target: float
    indicator: Indicator
    window: TimeWindow
    rules: tuple[Rule, ...]
    slice_s: int = 0
    slice_target: float = 0.0
    slice_ratio: bool = False
    calendar: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    paused_in: str = ""

    @property
    def hours(self) -> str:
        """The calendar that says what is counted: its own, or that one with maintenance windows that pause the budget.

        Counts from before such a window stay its counts: the version does not change.
        """
        return self.paused_in or self.calendar

    @property
    def version(self) -> int:
        """Which counts belong to it."""
        return hash64("objective", f"{canonical(self.indicator)} {self.calendar}") & 0xFFFF_FFFF

    @property
    def method(self) -> str:
        """OpenSLO's name of the budgeting method."""
        if self.slice_ratio:
            return "RatioTimeslices"
        return "Timeslices" if self.slice_s else "Occurrences"

    def period(self, at_s: int) -> tuple[int, int]:
        """Start and end (exclusive) of the budget's period that holds `at_s`, epoch seconds; rolling ones end there."""
        return period(self.window, at_s)

    @property
    def period_s(self) -> int:
        """The period's length in seconds; of a calendar period a month has 30 days, a quarter 91 and a year 365."""
        return nominal_s(self.window)


def nominal_s(window: TimeWindow) -> int:
    """A period's length, months and longer rounded to days."""
    return window.count * {**UNIT_S, "M": 30 * 86_400, "Q": 91 * 86_400, "Y": 365 * 86_400}[window.unit]


# Near enough for the first guess of a period's number.
_MEAN_S = {**UNIT_S, "M": 2_629_746, "Q": 7_889_238, "Y": 31_556_952}


def period(window: TimeWindow, at_s: int) -> tuple[int, int]:
    """The period that holds a moment. Calendar periods are counted in local time: a day may have 23 hours."""
    if window.rolling:
        return at_s - nominal_s(window), at_s
    zone = ZoneInfo(window.time_zone)
    first = datetime.fromisoformat(window.start).replace(tzinfo=zone)
    guess = int((at_s - first.timestamp()) // (window.count * _MEAN_S[window.unit]))
    while _start(first, window, guess + 1) <= at_s:
        guess += 1
    while _start(first, window, guess) > at_s:
        guess -= 1
    return _start(first, window, guess), _start(first, window, guess + 1)


def _start(first: datetime, window: TimeWindow, number: int) -> int:
    """Epoch seconds of the start of the `number`-th period after the first."""
    steps = number * window.count
    months = {"M": 1, "Q": 3, "Y": 12}.get(window.unit)
    if months is None:
        if window.unit in ("m", "h"):
            return int(first.timestamp()) + steps * UNIT_S[window.unit]
        moved = first + timedelta(days=steps * (7 if window.unit == "w" else 1))  # local time stays
        return int(moved.timestamp())
    at = first.year * 12 + first.month - 1 + steps * months
    day = first.day
    while True:
        try:
            return int(first.replace(year=at // 12, month=at % 12 + 1, day=day).timestamp())
        except ValueError:  # the 31st of a shorter month
            day -= 1
