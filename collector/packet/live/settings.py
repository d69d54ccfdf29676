"""`[agent.packet]`: which interfaces are tapped, what of their packets is taken, and what is made of it."""

from __future__ import annotations

from typing import Literal

import msgspec

from collector.packet.live.bpf import LARGEST_SNAP, FilterError, from_text
from collector.packet.live.bpf_expression import compile_filter
from collector.settings import ConfigError, Section, duration_ns

_LONGEST_KEY = 64
_MOST_RULES = 64
_LONGEST_NAME = 15  # IFNAMSIZ less its NUL


class KeyRule(Section, frozen=True, kw_only=True):
    """One `[[agent.packet.keys]]`: where the identifier of a message lies in the payload of a packet.

    Attributes:
        space: key space, as in the program's own stamps.
        protocol: udp or tcp. In TCP the rule holds for segments that start with a message.
        ports: of either end.
        offset: first byte of the identifier in the payload.
        width: its bytes.
        endian: of an integer.
        kind: an unsigned integer of up to 8 bytes, or the bytes as they are.
        direction: of the packets that are stamped.
        decoder: name of a protocol decoder that finds the identifiers instead; space, offset, width, endian and kind
            are then its own.
    """

    space: str = ""
    protocol: Literal["udp", "tcp"] = "udp"
    ports: tuple[int, ...] = ()
    offset: int = 0
    width: int = 8
    endian: Literal["big", "little"] = "big"
    kind: Literal["integer", "bytes"] = "integer"
    direction: Literal["both", "in", "out"] = "both"
    decoder: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        if self.decoder and self.protocol != "udp":
            raise ConfigError("decoder", "decoders take whole datagrams: udp only")
        if not self.decoder and (not self.space or "\0" in self.space):
            raise ConfigError("space", "a rule needs the key space of its identifiers, such as 'order'")
        if not self.ports or not all(0 < p < 65_536 for p in self.ports):
            raise ConfigError("ports", f"{list(self.ports)} must be one or more ports from 1 to 65535")
        longest = 8 if self.kind == "integer" else _LONGEST_KEY
        if not 1 <= self.width <= longest:
            raise ConfigError("width", f"{self.width} bytes; {self.kind} identifiers have 1 to {longest}")
        if not 0 <= self.offset <= LARGEST_SNAP:
            raise ConfigError("offset", f"{self.offset} must lie in 0..{LARGEST_SNAP}")


class BurstSettings(Section, frozen=True, kw_only=True):
    """`[agent.packet.bursts]`.

    Attributes:
        share: of the link's rate, from which on a bin is a burst.
        bytes_100us, bytes_1ms: the same in bytes of a bin; 0 = by `share`, which needs a link that states its rate.
        rows_s: bursts written per second, window and direction, the largest first; all are counted.
    """

    share: float = 0.8
    bytes_100us: int = 0
    bytes_1ms: int = 0
    rows_s: int = 2

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        if not 0 < self.share <= 1:
            raise ConfigError("share", f"{self.share} must be above 0 and at most 1")
        for name in ("bytes_100us", "bytes_1ms"):
            if getattr(self, name) < 0:
                raise ConfigError(name, "must not be negative; 0 takes `share` of the link's rate")
        if not 0 <= self.rows_s <= 1000:
            raise ConfigError("rows_s", f"{self.rows_s} must lie in 0..1000")


class BufferSettings(Section, frozen=True, kw_only=True):
    """`[agent.packet.buffer]`: the rolling buffer on disk, and the captures that triggers keep of it.

    Attributes:
        bytes: of the buffer; 0 = there is none.
        files: it is made of; the oldest is overwritten.
        kept_bytes, kept_files: of the captures; the oldest go.
        longest: of a capture, before and after the trigger each.
    """

    bytes: int = 0
    files: int = 8
    kept_bytes: int = 256 << 20
    kept_files: int = 20
    longest: str = "60s"

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        if not 2 <= self.files <= 1000:
            raise ConfigError("files", f"{self.files} must lie in 2..1000")
        if self.bytes and self.bytes < self.files * (2 << 20):
            raise ConfigError("bytes", f"{self.bytes} is too little for {self.files} files; 2 MiB each is the least")
        if self.bytes < 0 or self.kept_bytes < 1 << 20 or self.kept_files < 1:
            raise ConfigError("kept_bytes", "keep at least one file and 1 MiB, and no negative sizes")
        duration_ns(self.longest, "longest")


class PacketSettings(Section, frozen=True, kw_only=True):
    """Settings of the packet collector.

    Attributes:
        interfaces: that are tapped, by name.
        taps: a name for the tap on an interface, which is the `service` of its stamps; the interface's own otherwise.
        filter: which packets are taken (`collector.packet.live.bpf_expression`); empty: all.
        program: the same as the text of `tcpdump -ddd`, for what the expression does not know.
        snap: bytes taken of each packet; nothing behind them is ever read.
        ring_mib: memory of each ring.
        rings: per interface; whole flows share one.
        retire_ms: how late a packet is seen at a low rate.
        promiscuous: take frames for others too.
        outgoing: take what this host sends; never on loopback, where it comes in again.
        timestamps: hardware asks the NIC for its times, which changes the NIC's setting.
        report: how often flows and gauges are handed over.
        flows: of a tap that are told apart; the others are counted together.
        tcp_packets: of a tap that are analysed in a report's time; beyond it, a share of the flows is.
    """

    interfaces: tuple[str, ...] = ()
    taps: dict[str, str] = msgspec.field(default_factory=dict)
    filter: str = ""
    program: str = ""
    snap: int = 128
    ring_mib: int = 32
    rings: int = 1
    retire_ms: int = 20
    promiscuous: bool = False
    outgoing: bool = True
    timestamps: Literal["software", "hardware"] = "software"
    report: str = "10s"
    flows: int = 16_384
    tcp_packets: int = 1_000_000
    keys: tuple[KeyRule, ...] = ()
    bursts: BurstSettings = BurstSettings()
    buffer: BufferSettings = BufferSettings()

    def validate(self) -> None:
        """Raise ConfigError naming the field that does not fit."""
        for name in self.interfaces:
            if not name or len(name) > _LONGEST_NAME or "/" in name:
                raise ConfigError("interfaces", f"{name!r} is not the name of an interface")
        if len(set(self.interfaces)) != len(self.interfaces):
            raise ConfigError("interfaces", f"{list(self.interfaces)} names one twice")
        strange = set(self.taps) - set(self.interfaces)
        if strange:
            raise ConfigError("taps", f"{sorted(strange)} are not among `interfaces`")
        for name, low, high in (
            ("snap", 64, LARGEST_SNAP),
            ("ring_mib", 2, 4096),
            ("rings", 1, 64),
            ("retire_ms", 1, 1000),
            ("flows", 16, 1 << 20),
            ("tcp_packets", 1000, 1 << 26),
        ):
            if not low <= getattr(self, name) <= high:
                raise ConfigError(name, f"{getattr(self, name)} must lie in {low}..{high}")
        if duration_ns(self.report, "report") < 100_000_000:
            raise ConfigError("report", "must be at least 100ms")
        if self.filter and self.program:
            raise ConfigError("program", "give either an expression or a program, not both")
        try:
            if self.filter:
                compile_filter(self.filter, self.snap)
            if self.program:
                from_text(self.program)
        except FilterError as error:
            raise ConfigError("filter" if self.filter else "program", str(error)) from error
        if len(self.keys) > _MOST_RULES:
            raise ConfigError("keys", f"{len(self.keys)} rules, at most {_MOST_RULES}")
        parts: list[tuple[str, Section]] = [("bursts", self.bursts), ("buffer", self.buffer)]
        parts += [(f"keys[{n}]", rule) for n, rule in enumerate(self.keys)]
        for name, part in parts:
            try:
                part.validate()
            except ConfigError as error:
                raise ConfigError(f"{name}.{error.field}", error.problem) from error
