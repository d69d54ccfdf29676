"""`[reports.NAME]`: reports that the server makes by the clock."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from analytics.report.period import HOUR_NS, MOST_NS
from collector.settings import ConfigError, Section, duration_ns, section

MAX_REPORTS = 16
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_CLOCK = re.compile(r"([01]\d|2[0-3]):([0-5]\d)")

Day = Literal["daily", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]


class ReportSettings(Section, frozen=True, kw_only=True):
    """One report that comes again and again.

    It is made on `weekday` at `at` (UTC), of the `period` that ended with the day before; the newest `keep` stay.
    `scenarios` is a file of investments, relative to the configuration. Without `paths` it is of all declared ones,
    without `kpi` of every measure of the revenue nodes that they name.
    """

    title: str = "Latency and what it costs"
    period: str = "7d"
    weekday: Day = "monday"
    at: str = "06:00"
    formats: tuple[Literal["html", "pdf", "json"], ...] = ("html", "pdf", "json")
    keep: int = 60
    paths: tuple[str, ...] = ()
    kpi: str = ""
    rollup: str = ""
    scenarios: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        if not 0 < len(self.title) <= 100:
            raise ConfigError("title", "must have 1 to 100 characters")
        length = duration_ns(self.period, "period")
        if length < HOUR_NS or length % HOUR_NS or length > MOST_NS:
            raise ConfigError("period", f"{self.period!r} must be whole hours, from 1h to {MOST_NS // (24 * HOUR_NS)}d")
        if not _CLOCK.fullmatch(self.at):
            raise ConfigError("at", f"{self.at!r} is no time of day; write 06:00")
        if not self.formats or len(set(self.formats)) != len(self.formats):
            raise ConfigError("formats", "must name html, pdf or json, each once")
        if not 1 <= self.keep <= 1000:
            raise ConfigError("keep", f"must be 1 to 1000, got {self.keep}")

    @property
    def second_of_day(self) -> int:
        """`at` in seconds since midnight."""
        hour, minute = self.at.split(":")
        return int(hour) * 3600 + int(minute) * 60


def reports_from(document: Mapping[str, Any], source: str = "") -> dict[str, ReportSettings]:
    """The declared reports by name. Raises ConfigError."""
    declared = document.get("reports", {})
    if not isinstance(declared, Mapping) or not all(isinstance(fields, Mapping) for fields in declared.values()):
        raise ConfigError("reports", "must be sections [reports.NAME]", source)
    if len(declared) > MAX_REPORTS:
        raise ConfigError("reports", f"holds {len(declared)} reports, at most {MAX_REPORTS} are made", source)
    for name in declared:
        if not NAME.fullmatch(name):
            raise ConfigError(f"reports.{name[:40]}", "a name has 1 to 32 of a-z, 0-9, _ and -, a letter first", source)
    return {name: section(fields, ReportSettings, f"reports.{name}", source) for name, fields in declared.items()}
