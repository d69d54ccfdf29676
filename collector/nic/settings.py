"""`[agent.nic]`: which interfaces, sockets and driver statistics the collector `nic` samples."""

from __future__ import annotations

from collector.settings import ConfigError, Section, duration_ns


class NicSettings(Section, frozen=True, kw_only=True):
    """Settings of the collector `nic`.

    Attributes:
        interfaces: shell patterns of interface names; `lo` only when one names it.
        max_interfaces: more than these are left out, and counted.
        ports: TCP and UDP ports whose sockets are sampled; none: no sockets.
        statistics: shell patterns of the driver's own statistics (`ethtool -S`) that are shipped when they change.
        max_statistics: of one interface; more are left out, and counted.
        period: how often everything is read.
    """

    interfaces: tuple[str, ...] = ("*",)
    max_interfaces: int = 16
    ports: tuple[int, ...] = ()
    statistics: tuple[str, ...] = ("*drop*", "*discard*", "*err*", "*miss*", "*full*", "*timeout*", "*no_buf*")
    max_statistics: int = 64
    period: str = "5s"

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        if duration_ns(self.period, "period") < 10_000_000:
            raise ConfigError("period", f"{self.period!r} must be at least 10ms")
        if not 1 <= self.max_interfaces <= 256:
            raise ConfigError("max_interfaces", f"{self.max_interfaces} must lie in 1..256")
        if not 0 <= self.max_statistics <= 1_024:
            raise ConfigError("max_statistics", f"{self.max_statistics} must lie in 0..1024")
        if len(self.ports) > 64 or not all(0 < port < 65_536 for port in self.ports):
            raise ConfigError("ports", f"{list(self.ports)} must be at most 64 ports between 1 and 65535")
