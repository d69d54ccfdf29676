"""`[agent.host]`: how often the host's settings are read, and what they should be."""

from __future__ import annotations

import msgspec

from collector.settings import ConfigError, Section, duration_ns


class HostSettings(Section, frozen=True, kw_only=True):
    """Settings of the collector `host`.

    Attributes:
        period: how often everything is read; differences become changes then.
        repeat: how often everything is shipped again, changed or not.
        profile: what items should be: their names to texts or shell patterns; what differs is drift.
        ignore: shell patterns of items that are not read.
        max_items: more are left out, and the collector says so.
    """

    period: str = "5m"
    repeat: str = "6h"
    profile: dict[str, str] = msgspec.field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    max_items: int = 2_000

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        for name in ("period", "repeat"):
            if duration_ns(getattr(self, name), name) < 1_000_000_000:
                raise ConfigError(name, f"{getattr(self, name)!r} must be at least 1s")
        if not 1 <= self.max_items <= 20_000:
            raise ConfigError("max_items", f"{self.max_items} must lie in 1..20000")
        if len(self.profile) > 1_000:
            raise ConfigError("profile", f"has {len(self.profile)} items, at most 1000 are compared")
        for item, value in self.profile.items():
            if not item or len(item) > 200 or len(value) > 1_000:
                raise ConfigError(f"profile.{item[:40]}", "names have 1 to 200 characters, values at most 1000")
