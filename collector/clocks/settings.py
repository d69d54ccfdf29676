"""`[agent.clock]`: which authorities on the time are asked, and where they listen."""

from __future__ import annotations

from collector.settings import ConfigError, Section


class ClockSettings(Section, frozen=True, kw_only=True):
    """Settings of the clock's authorities. The kernel (adjtimex) is always asked.

    Attributes:
        chrony: auto (its socket, then 127.0.0.1:323), off, a socket path, or ADDRESS:PORT of its command port.
        ptp: auto (/var/run/ptp4lro, then /var/run/ptp4l), off, or the path of ptp4l's management socket.
        phc: auto (every /dev/ptp*), off, or one device.
        ask_s: how often they are asked.
        drift_ppm: how fast a bound grows between two answers, where the authority says nothing larger itself.
    """

    chrony: str = "auto"
    ptp: str = "auto"
    phc: str = "auto"
    ask_s: float = 1.0
    drift_ppm: float = 1.0

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        if not 0.05 <= self.ask_s <= 3_600:
            raise ConfigError("ask_s", f"{self.ask_s} must lie in 0.05..3600")
        if not 0 <= self.drift_ppm <= 1_000:
            raise ConfigError("drift_ppm", f"{self.drift_ppm} must lie in 0..1000")
        for name in ("chrony", "ptp", "phc"):
            if not getattr(self, name):
                raise ConfigError(name, "must be auto, off or an address")
