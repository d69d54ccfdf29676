"""`[agent.feeds]`: which feeds are followed, on which lines, and when their markets are open."""

from __future__ import annotations

import ipaddress
import re
from typing import Literal

from collector.feeds.calendar import CalendarSettings
from collector.settings import ConfigError, Section, duration_ns

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")


class ChannelSettings(Section, frozen=True, kw_only=True):
    """`[agent.feeds.channels.NAME]`: one channel.

    Attributes:
        protocol: name of its decoder.
        lines: address and port of each line, such as {A = "233.54.12.111:26477", B = "233.49.196.111:26477"}; a
            multicast group is joined, any other address is bound.
        interface: address of the local interface that joins the groups; "" = the kernel's choice.
        source: with source-specific multicast, the sender.
        calendar: name of a calendar; "" = always open.
        stamps: also write a stamp for every message.
        point: the stamps' point.
        instruments: names to tell of instruments, by the text that the wire has for them, such as {"0" = "AAPL"}.
        taps: lines that are taken from a ring of the packet collector instead of a socket, by line the tap's name.
    """

    protocol: str
    lines: dict[str, str]
    interface: str = ""
    source: str = ""
    calendar: str = ""
    stamps: bool = False
    point: Literal["kernel_rx", "tap"] = "kernel_rx"
    instruments: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it
    taps: dict[str, str] = {}  # noqa: RUF012 - msgspec copies it

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        if not 1 <= len(self.lines) <= 63:
            raise ConfigError("lines", f"has {len(self.lines)}; 1 to 63 can be followed")
        for name, text in self.lines.items():
            if not _NAME.fullmatch(name):
                raise ConfigError(f"lines.{name}", "is no name of a line; letters, digits, '_', '.' and '-'")
            endpoint(text, f"lines.{name}")
        for name in self.taps:
            if name not in self.lines:
                raise ConfigError(f"taps.{name}", f"there is no line {name!r}; there are {', '.join(self.lines)}")
        for name in ("interface", "source"):
            value = getattr(self, name)
            if value:
                _address(value, name)


class FeedsSettings(Section, frozen=True, kw_only=True):
    """Settings of the feeds collector.

    Attributes:
        interval: how often a row per line is written.
        window: a message that fills a gap within it is out of order, after it late.
        reset: a jump back by more numbers than this is a new numbering; one ahead too, where no session is on the wire.
        stale_factor: an instrument is stale after this many times the 99th percentile of the time between its updates.
        stale_updates: times between updates that must be known first.
        instruments: how many are followed per channel.
        receive_bytes: receive buffer of a socket.
        datagram_bytes: longest datagram; a longer one is an error.
        channels: by name.
        calendars: by name.
    """

    interval: str = "1s"
    window: str = "10ms"
    reset: int = 1_000_000
    stale_factor: float = 5.0
    stale_updates: int = 100
    instruments: int = 65_536
    receive_bytes: int = 8 << 20
    datagram_bytes: int = 2048
    channels: dict[str, ChannelSettings] = {}  # noqa: RUF012 - msgspec copies it
    calendars: dict[str, CalendarSettings] = {}  # noqa: RUF012 - msgspec copies it

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        if not 100_000_000 <= duration_ns(self.interval, "interval") <= 3_600_000_000_000:
            raise ConfigError("interval", f"{self.interval!r} must lie in 100ms..1h")
        duration_ns(self.window, "window")
        for name, low, high in (
            ("reset", 1, 1 << 40),
            ("stale_factor", 1, 1e6),
            ("stale_updates", 2, 1_000_000),
            ("instruments", 1, 1 << 20),
            ("receive_bytes", 4096, 1 << 30),
            ("datagram_bytes", 64, 65_536),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(name, f"{getattr(self, name)} must lie in {low}..{high}")
        for kind, tables in (("channels", self.channels), ("calendars", self.calendars)):
            for name, one in tables.items():
                if not _NAME.fullmatch(name):
                    raise ConfigError(f"{kind}.{name}", "must be letters, digits, '_', '.' and '-', at most 64")
                try:
                    one.validate()
                except ConfigError as error:
                    raise ConfigError(f"{kind}.{name}.{error.field}", error.problem) from error
        seen: dict[str, str] = {}
        for name, channel in self.channels.items():
            if channel.calendar and channel.calendar not in self.calendars:
                known = ", ".join(self.calendars) or "none"
                raise ConfigError(f"channels.{name}.calendar", f"{channel.calendar!r} is not declared; known: {known}")
            for line, text in channel.lines.items():
                other = seen.setdefault(text, name)
                if other != name or list(channel.lines.values()).count(text) > 1:
                    raise ConfigError(f"channels.{name}.lines.{line}", f"{text} is a line of {other} too")


def endpoint(text: str, field: str) -> tuple[str, int]:
    """(address, port) of "ADDRESS:PORT". Raises ConfigError naming `field`."""
    host, _, port = text.rpartition(":")
    _address(host, field)
    if not (port.isdecimal() and 0 < int(port) < 65_536):
        raise ConfigError(field, f"{text!r} must be ADDRESS:PORT with a port of 1..65535")
    return host, int(port)


def _address(text: str, field: str) -> None:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        raise ConfigError(field, f"{text!r} is no IPv4 address") from None
