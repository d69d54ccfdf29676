"""`[slo]` of the configuration: how objectives are evaluated, and their calendars."""

from __future__ import annotations

from analytics.slo.calendars import SloCalendar
from analytics.slo.evaluate import Lag
from collector.settings import ConfigError, Section, duration_ns


class SloSettings(Section, frozen=True, kw_only=True):
    """How objectives are evaluated.

    `delay` is how far behind the clock an evaluation looks, so that what it counts has arrived; make it
    longer than the window job takes. Answers are held when the newest counts are older than `hold`; held for
    `blind_after`, the rule `blind` fires. Business values that come or are corrected within `kpi_late` of their time
    are counted; keep it below `retention.counts_10s`.
    """

    delay: str = "20s"
    hold: str = "60s"
    blind_after: str = "10m"
    kpi_late: str = "48h"
    max_objectives: int = 2_000
    calendars: dict[str, SloCalendar] = {}  # noqa: RUF012 - msgspec copies it

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        for name in ("delay", "hold", "blind_after"):
            if duration_ns(getattr(self, name), name) < 10_000_000_000:
                raise ConfigError(name, "must be at least one tick, 10s")
        if self.delay_s >= self.lag.hold_s:
            raise ConfigError("hold", f"must be longer than delay ({self.delay}), got {self.hold}")
        if not 3_600 <= self.kpi_late_s <= 30 * 86_400:
            raise ConfigError("kpi_late", f"must be 1h to 30d, got {self.kpi_late}")
        if not 1 <= self.max_objectives <= 20_000:
            raise ConfigError("max_objectives", f"must be 1 to 20000, got {self.max_objectives}")
        for name, calendar in self.calendars.items():
            try:
                calendar.validate()
            except ConfigError as error:
                raise ConfigError(f"calendars.{name}.{error.field}", error.problem) from error

    @property
    def delay_s(self) -> int:
        """`delay` in seconds."""
        return duration_ns(self.delay, "delay") // 1_000_000_000

    @property
    def kpi_late_s(self) -> int:
        """`kpi_late` in seconds."""
        return duration_ns(self.kpi_late, "kpi_late") // 1_000_000_000

    @property
    def lag(self) -> Lag:
        """`hold` and `blind_after` in seconds."""
        return Lag(
            duration_ns(self.hold, "hold") // 1_000_000_000,
            duration_ns(self.blind_after, "blind_after") // 1_000_000_000,
        )
