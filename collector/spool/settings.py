"""How a spool behaves: what durable means, when it commits, how large it may grow, what it does when it is full."""

from __future__ import annotations

from collector.settings import ConfigError, Section


class SpoolSettings(Section, frozen=True, kw_only=True):
    """How one spool behaves. Bytes and seconds; `durability` says what `durable` means.

    `fsync`: on the disk. `interval`: written, and forced to the disk once a second. `none`: written. Below `fsync` a
    power cut (not a killed process) may lose what was called durable; such a loss is booked `not_fsynced`.
    """

    durability: str = "fsync"
    commit_s: float = 0.05
    commit_bytes: int = 1 << 20
    segment_bytes: int = 64 << 20
    segment_s: float = 60.0
    max_bytes: int = 2 << 30
    min_free_bytes: int = 256 << 20
    when_full: str = "block"
    batch_events: int = 500_000
    batch_bytes: int = 16 << 20
    reserve_bytes: int = 4 << 20
    quarantine_bytes: int = 256 << 20

    def validate(self) -> None:
        """Raise ConfigError for an unknown word or limits that contradict each other."""
        if self.durability not in ("fsync", "interval", "none"):
            raise ConfigError("durability", f"{self.durability!r} must be fsync, interval or none")
        if self.when_full not in ("block", "drop_oldest", "drop_newest"):
            raise ConfigError("when_full", f"{self.when_full!r} must be block, drop_oldest or drop_newest")
        if not 0 < self.segment_bytes <= self.max_bytes // 2:
            raise ConfigError("segment_bytes", f"{self.segment_bytes} must be at most half of max_bytes")
        if not 0 < self.batch_bytes <= 16 << 20 or not 0 < self.batch_events <= 500_000:
            raise ConfigError("batch_bytes", "a batch has at most 16 MiB and 500,000 events")
