"""The messages of a capture: which datagrams are which protocol, and what every line lost."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.decode import DecodedColumns, Decoder, Fault, registry
from collector.decode.fix import FixDecoder
from collector.decode.streams import Direction
from collector.feeds.channel import Channel, LineReport
from collector.feeds.rows import stamps
from collector.feeds.tracker import SESSION_AHEAD, Tracker
from collector.packet.block import NO_TIME, Block
from collector.packet.headers import UDP, Headers
from collector.packet.report import times
from collector.record import Columns

Ints = NDArray[np.int64]

_MOST = 4096  # destinations that are followed
_MOST_DIRECTIONS = 1024  # of TCP, which hold bytes
_SESSIONS = 256  # that are listed
_HOLES = 100
Stamped = Callable[[Columns], None]


@dataclass(slots=True)
class _Followed:
    """A channel and what its report needs beside the channel's own."""

    channel: Channel
    sessions: dict[str, list[int]] = field(default_factory=dict)  # lowest number, one past the highest, messages
    faults: dict[str, int] = field(default_factory=dict)
    malformed: int = 0
    sampled: list[int] = field(default_factory=lambda: [0, 0, 0])
    last_ns: int = 0
    streams: dict[str, int] = field(default_factory=dict)


class CaptureDecoder:
    """Decodes the messages of a capture, piece by piece: hand `take` to `collector.packet.importer.analyse`.

    Args:
        protocol: a decoder's name, or "auto": each destination's first datagrams decide.
        groups: UDP or TCP ports to decode, the ports of one channel's lines together; empty = all, every destination
            a channel of its own.
        stamped: called with stamps of point `tap`, one per numbered message.
        host: the stamps' host.

    Raises:
        UnknownDecoderError, ScapyMissingError: the decoder cannot be made.
    """

    def __init__(
        self,
        protocol: str,
        groups: tuple[tuple[int, ...], ...] = (),
        *,
        stamped: Stamped | None = None,
        host: str = "capture",
    ) -> None:
        if protocol != "auto":
            registry.make(protocol)
        self._protocol = protocol
        self._groups = {port: group for group in groups for port in group}
        self._stamped = stamped
        self._host = host
        self._channels: dict[Any, _Followed | None] = {}
        self._place: dict[bytes, tuple[Any, int]] = {}
        self._directions: dict[tuple[int, int], Direction] = {}
        self.undecoded = 0  # datagrams of no known protocol, or packets beyond what is followed
        self.cut = 0  # datagrams not wholly captured, or fragments
        self.stamps = 0

    def take(self, block: Block, headers: Headers, hardware: Ints | None) -> None:
        """Decode a piece of the capture."""
        at = np.where(block.ts_ns == NO_TIME, 0, block.ts_ns)
        if hardware is not None:
            at = np.where(hardware != NO_TIME, hardware, at)
        if self._protocol != "fix":
            self._datagrams(block, headers, at)
        if self._protocol in ("fix", "auto"):
            self._segments(block, headers, at)

    def report(self) -> list[dict[str, Any]]:
        """Plain values per channel, as `tailsight import pcap --decode --json` prints them."""
        for key, direction in self._directions.items():
            direction.flush()
            self._read(key, direction)
        return [_report(one) for one in self._channels.values() if one is not None]

    def _datagrams(self, block: Block, headers: Headers, at: Ints) -> None:
        wanted = (headers.protocol == UDP) & (headers.payload >= 0)
        if self._groups:
            wanted &= np.isin(headers.target_port, list(self._groups))
        index = np.flatnonzero(wanted)
        row = headers.row[index]
        whole = (headers.payload[index] + headers.payload_len[index] <= block.caplen[row]) & ~headers.fragment[index]
        self.cut += int((~whole).sum())
        index, row = index[whole], row[whole]
        if not len(index):
            return
        ends = np.empty((len(index), 18), dtype=np.uint8)
        ends[:, :16] = headers.endpoints(block, index)[:, 16:]
        ends[:, 16:] = headers.target_port[index].astype(">u2").view(np.uint8).reshape(-1, 2)
        flat = np.ascontiguousarray(ends).view("V18")[:, 0]
        names, first, which = np.unique(flat, return_index=True, return_inverse=True)
        starts, lengths = block.offset[row] + headers.payload[index], headers.payload_len[index]
        four = headers.version[index] == 4
        owner: dict[Any, list[tuple[int, int]]] = {}
        for number, name in enumerate(names):
            key = name.tobytes()
            if key not in self._place:
                if len(self._place) >= _MOST:
                    self.undecoded += int((which == number).sum())
                    continue
                mine = which == number
                self._open(key, bool(four[first[number]]), block.data, starts[mine], lengths[mine])
            channel, line = self._place[key]
            owner.setdefault(channel, []).append((number, line))
        for channel, lines in owner.items():
            followed = self._channels[channel]
            line_of = np.full(len(names), -1, dtype=np.int64)
            for number, line in lines:
                line_of[number] = line
            mine = np.flatnonzero(line_of[which] >= 0)
            if followed is None:
                self.undecoded += len(mine)
                continue
            got = followed.channel.take(line_of[which][mine], block.data, starts[mine], lengths[mine], at[row[mine]])
            self._note(followed, got, line_of[which][mine], at[row[mine]])

    def _open(self, key: bytes, four: bool, data: NDArray[np.uint8], starts: Ints, lengths: Ints) -> None:
        port = int.from_bytes(key[16:], "big")
        address = ipaddress.ip_address(key[12:16] if four else key[:16])
        text = f"{address}:{port}" if four else f"[{address}]:{port}"
        group = self._groups.get(port, (port,))
        channel: Any = group if len(group) > 1 else key
        self._place[key] = channel, group.index(port) if len(group) > 1 else 0
        if self._channels.get(channel) is None:
            name = registry.guess(data, starts, lengths) if self._protocol == "auto" else self._protocol
            if name is None:
                self._channels.setdefault(channel, None)
                return
            decoder = registry.make(name, keys=self._stamped is not None, digests=len(group) > 1)
            lines = [str(one) for one in group] if len(group) > 1 else [text]
            self._channels[channel] = _Followed(_channel("+".join(lines), lines, decoder))

    def _segments(self, block: Block, headers: Headers, at: Ints) -> None:
        tcp = headers.tcp
        index = tcp.index
        syn = (tcp.flags & 2) != 0
        some = (tcp.length > 0) | syn
        if self._groups:
            ports = list(self._groups)
            some &= np.isin(headers.source_port[index], ports) | np.isin(headers.target_port[index], ports)
        touched: dict[tuple[int, int], None] = {}
        for i in np.flatnonzero(some).tolist():
            place = int(index[i])
            row = int(headers.row[place])
            key = int(headers.flow[place]), int(headers.swapped[place])
            low = int(block.offset[row] + headers.payload[place])
            have = int(block.caplen[row] - headers.payload[place])
            payload = block.data[low : low + max(0, min(int(tcp.length[i]), have))].tobytes()
            direction = self._directions.get(key)
            if direction is None:
                if self._protocol == "auto" and not payload.startswith(b"8=FIX"):
                    continue
                if len(self._directions) >= _MOST_DIRECTIONS:
                    self.undecoded += 1
                    continue
                direction = self._directions[key] = Direction()
            if syn[i]:
                direction.syn(int(tcp.seq[i]))
                continue
            direction.segment(int(tcp.seq[i]), payload, int(at[row]))
            touched[key] = None
        for key in touched:
            self._read(key, self._directions[key])

    def _read(self, key: tuple[int, int], direction: Direction) -> None:
        """Decode the whole messages that a direction holds."""
        followed = self._channels.get(key)
        if followed is None:
            fix = FixDecoder(keys=self._stamped is not None, digests=False)
            followed = self._channels[key] = _Followed(_channel(f"tcp {key[0]:016x}/{key[1]}", ["stream"], fix))
        decoder = followed.channel.decoder
        if not isinstance(decoder, FixDecoder):
            return
        data = np.frombuffer(bytes(direction.data), np.uint8)
        got = decoder.decode(data, np.zeros(1, dtype=np.int64), np.array([len(data)], dtype=np.int64))
        count = len(got.message_at)
        when = [direction.time_of(end) for end in (got.message_at + got.message_len).tolist()]
        every = np.arange(count, dtype=np.int64)
        got.row = every
        got.datagrams = replace(got.datagrams, row=every)
        line, time_ns = np.zeros(count, dtype=np.int64), np.array(when, dtype=np.int64)
        if count:
            followed.channel.accept(got, line, got.message_len, time_ns)
        damaged = sum(got.faults.values())
        if damaged:
            followed.channel.unread(0, damaged)
        self._note(followed, got, line, time_ns)
        direction.take(int(decoder.taken[0]))
        followed.streams = {"holes": direction.holes, "retransmitted_bytes": direction.retransmitted}

    def _note(self, followed: _Followed, got: DecodedColumns, line: Ints, time_ns: Ints) -> None:
        if len(time_ns):
            followed.last_ns = max(followed.last_ns, int(time_ns.max()))
        for fault, n in got.faults.items():
            name = fault.name.lower()
            followed.faults[name] = followed.faults.get(name, 0) + n
        followed.malformed += got.malformed
        for i, n in enumerate((got.sampled, got.sampled_of, got.sample_errors)):
            followed.sampled[i] += n
        heads = got.datagrams
        good = (heads.fault == Fault.NONE) | (heads.fault == Fault.TRAILING)
        for session in np.unique(heads.session[good])[:_SESSIONS].tolist():
            mine = good & (heads.session == session)
            low, high = int(heads.sequence[mine].min()), int((heads.sequence + heads.count)[mine].max())
            name = got.sessions.get(session, "")
            known = followed.sessions.get(name)
            if known is None:
                if len(followed.sessions) >= _SESSIONS:
                    continue
                known = followed.sessions[name] = [low, high, 0]
            known[0], known[1] = min(known[0], low), max(known[1], high)
            known[2] += int(heads.count[mine].sum())
        if self._stamped is not None:
            services = [f"{followed.channel.decoder.name}-{name}" for name in followed.channel.lines]
            made = stamps(got, line, time_ns, point="tap", host=self._host, services=services, clock="capture")
            if made is not None:
                self.stamps += len(made)
                self._stamped(made)


def _channel(name: str, lines: list[str], decoder: Decoder) -> Channel:
    ahead = SESSION_AHEAD if decoder.sessions else Tracker().ahead
    return Channel(name, lines, decoder, tracker=lambda: Tracker(ahead=ahead))


def _report(followed: _Followed) -> dict[str, Any]:
    channel = followed.channel
    report = channel.report(followed.last_ns)
    return {
        "channel": channel.name,
        "protocol": channel.decoder.name,
        "messages": sum(report.kinds.values()),
        "kinds": report.kinds,
        "sessions": [
            {"session": name, "first": low, "next": high, "messages": count}
            for name, (low, high, count) in followed.sessions.items()
        ],
        "lines": [_line(line) for line in (report.lines if len(channel.lines) > 1 else report.lines[:1])],
        "missing_ranges": [[low, high] for low, high, _ in channel.open_holes()[:_HOLES]],
        "faults": followed.faults,
        "malformed": followed.malformed,
        "sampled": dict(zip(("dissected", "of", "errors"), followed.sampled, strict=True)),
        "schema_version": report.version,
        "instruments": report.instruments,
        **({"stream": followed.streams} if followed.streams else {}),
    }


def _line(line: LineReport) -> dict[str, Any]:
    plain: dict[str, Any] = {"line": line.line or "all", "missing": line.missing, **line.counts}
    plain["delay_min_ns"], plain["delay_max_ns"] = line.delay_min_ns, line.delay_max_ns
    skew = times([line.skew_ns]) if len(line.skew_ns) else None
    plain["skew"] = None if skew is None else {"p50_ns": skew.p50_ns, "p99_ns": skew.p99_ns, "max_ns": line.skew_max_ns}
    plain["recovered_max_ns"] = line.recovered_max_ns
    return plain
