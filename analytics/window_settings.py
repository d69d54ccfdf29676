"""`[windows]` of the configuration: when windows are computed, and how wrong one clock may be."""

from __future__ import annotations

from analytics.stitch import ClockSettings
from collector.settings import ConfigError, Section, duration_ns


class WindowSettings(Section, frozen=True, kw_only=True):
    """When a window is computed, computed again and final.

    `grace` after its end plus the path's `max_age` a window is computed even though a collector's watermark is behind.
    A collector whose heartbeat is older than `live` is not waited for and named. `rerun_after` is the least time
    between two runs of one window for late stamps; after `lateness` it is final, and only late stamps bring it back. A
    window older than `recount_within` is never computed again: keep it below the retention of stamps, else its stamps
    may be gone.
    """

    grace: str = "5s"
    live: str = "15s"
    rerun_after: str = "10s"
    lateness: str = "10m"
    recount_within: str = "20h"
    batch: int = 8_640  # windows of one path per call: a quiet day
    clock: ClockSettings = ClockSettings()

    def validate(self) -> None:
        """Raise ConfigError naming the duration that makes no sense."""
        for name in ("grace", "live", "rerun_after", "lateness", "recount_within"):
            if duration_ns(getattr(self, name), name) <= 0:
                raise ConfigError(name, "must be longer than nothing")
        if self.lateness_ns < self.grace_ns:
            raise ConfigError("lateness", f"{self.lateness!r} is shorter than grace {self.grace!r}; make it longer")
        if not 1 <= self.batch <= 10_000:
            raise ConfigError("batch", f"must be 1 to 10000 windows, got {self.batch}")
        try:
            self.clock.validate()
        except ConfigError as error:
            raise ConfigError(f"clock.{error.field}", error.problem) from error

    @property
    def grace_ns(self) -> int:
        """`grace` in nanoseconds."""
        return duration_ns(self.grace, "grace")

    @property
    def live_ns(self) -> int:
        """`live` in nanoseconds."""
        return duration_ns(self.live, "live")

    @property
    def rerun_after_ns(self) -> int:
        """`rerun_after` in nanoseconds."""
        return duration_ns(self.rerun_after, "rerun_after")

    @property
    def lateness_ns(self) -> int:
        """`lateness` in nanoseconds."""
        return duration_ns(self.lateness, "lateness")

    @property
    def recount_within_ns(self) -> int:
        """`recount_within` in nanoseconds."""
        return duration_ns(self.recount_within, "recount_within")
