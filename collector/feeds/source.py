"""The `feeds` collector: joins the configured groups, or listens at the packet collector's taps, and says what each
line lost, repeated and reordered.

It lies between the numbers a line should have brought and those the kernel received (`docs/feeds.md`). Unprivileged,
but for taps. Cost: about 1 us a datagram and 0.3 us a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from collector.clock import ClockReading
from collector.decode import ScapyMissingError
from collector.decode.registry import UnknownDecoderError, make
from collector.feeds.calendar import ALWAYS
from collector.feeds.channel import ALL_LINES, Channel
from collector.feeds.rhythm import Rhythm
from collector.feeds.rows import Rows, stamps
from collector.feeds.settings import ChannelSettings, FeedsSettings, endpoint
from collector.feeds.tracker import SESSION_AHEAD, Tracker
from collector.feeds.udp import LineSocket, Received
from collector.record import Columns
from collector.settings import duration_ns
from collector.sources import Availability, Poll

Ints = NDArray[np.int64]

HEADERS = 46  # Ethernet with a VLAN tag, IPv4, UDP
_LARGEST = 1472  # of a datagram in an Ethernet frame of usual size
_ROUNDS = 64  # calls of 256 datagrams per line and poll; more waits in the kernel, or is dropped and counted


class Line(Protocol):
    """Where the datagrams of a line come from: a socket, or a ring of the packet collector."""

    granted: int

    def receive(self) -> Received | None:
        """The oldest datagrams that wait, None when none does."""

    def dropped(self) -> int:
        """How many of the line were lost for lack of room since the beginning."""

    def close(self) -> None:
        """Take no more."""


class TapLine(Line, Protocol):
    """A line on a tap (`collector.packet.live.line_tap`)."""

    tap: str
    open: bool
    longest: int
    ring_lost: int


class Taps(Protocol):
    """Who has taps: the packet collector."""

    def line(self, tap: str, address: str, port: int, most_bytes: int) -> TapLine:
        """The datagrams for an address and port on a tap. Raises LookupError for a tap that is not there."""


@dataclass(slots=True)
class _Followed:
    settings: ChannelSettings
    channel: Channel
    sockets: list[Line | None]
    dropped: list[int]


class FeedsSource:
    """Follows the channels of `[agent.feeds]`."""

    name = "feeds"
    period_s = 0.02

    def __init__(self, settings: FeedsSettings, host: str) -> None:
        self._settings = settings
        self._host = host
        self._interval_ns = duration_ns(settings.interval, "interval")
        self._followed: dict[str, _Followed] = {}
        self._rows = Rows(host)
        self._since_ns: int | None = None
        self._taps: Taps | None = None
        self._tapped: list[tuple[str, TapLine]] = []
        self._ring_lost: dict[str, int] = {}

    def use_taps(self, taps: Taps) -> None:
        """Where the lines are that the settings put on taps."""
        self._taps = taps

    @property
    def problem(self) -> str:
        """The lines whose tap is not open now."""
        shut = [f"{name}: the tap {line.tap} is not open, see the collector packet" for name, line in self._tapped]
        return "; ".join(text for text, (_, line) in zip(shut, self._tapped, strict=True) if not line.open)

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 - a feed has no past to read
        """Open a socket per line. What cannot be opened is named; the other lines run."""
        self.close()
        if not self._settings.channels:
            return Availability("unavailable", "no channel is configured; add [agent.feeds.channels.NAME]")
        problems: list[str] = []
        for name, one in self._settings.channels.items():
            try:
                self._followed[name] = self._open(name, one, problems)
            except (ScapyMissingError, UnknownDecoderError) as error:
                problems.append(f"channel {name}: {error}")
        if not any(line for one in self._followed.values() for line in one.sockets):
            self.close()
            return Availability("unavailable", "; ".join(problems))
        return Availability("degraded" if problems else "running", "; ".join(problems))

    def poll(self, clock: ClockReading) -> Poll:
        """What came since the last poll; every interval the rows of what happened in it."""
        columns: list[Columns] = []
        for one in self._followed.values():
            taken = self._take(one, clock)
            if taken is not None:
                columns.append(taken)
        now = clock.realtime_ns
        if self._since_ns is None or now < self._since_ns:  # started, or the clock was set back
            self._since_ns = now
        if now - self._since_ns >= self._interval_ns:
            columns = [*self._reported(clock), *columns]
        return Poll(columns=columns)

    def rest(self, clock: ClockReading) -> Poll:
        """What came since the last poll, and the rows of the interval that has begun."""
        poll = self.poll(clock)
        if self._since_ns is not None and clock.realtime_ns > self._since_ns:
            poll.columns = [*self._reported(clock), *poll.columns]
        return poll

    def _reported(self, clock: ClockReading) -> list[Columns]:
        now = clock.realtime_ns
        self._report(now if self._since_ns is None else self._since_ns, now, clock.error_ns)
        self._since_ns = now
        return self._rows.take()

    def close(self) -> None:
        """Leave the groups."""
        for one in self._followed.values():
            for line in one.sockets:
                if line is not None:
                    line.close()
        self._followed.clear()
        self._tapped.clear()
        self._ring_lost.clear()

    def _open(self, name: str, one: ChannelSettings, problems: list[str]) -> _Followed:
        all_of = self._settings
        window_ns = duration_ns(all_of.window, "window")
        decoder = make(one.protocol, keys=one.stamps, digests=len(one.lines) > 1)
        channel = Channel(
            name,
            list(one.lines),
            decoder,
            tracker=lambda: Tracker(window_ns, all_of.reset, SESSION_AHEAD if decoder.sessions else all_of.reset),
            calendar=all_of.calendars[one.calendar].calendar if one.calendar else ALWAYS,
            names=one.instruments,
            rhythm=Rhythm(all_of.instruments, all_of.stale_factor, all_of.stale_updates),
        )
        sockets: list[Line | None] = []
        for line, text in one.lines.items():
            if line in one.taps:
                sockets.append(self._tap(f"channel {name}, line {line}", one.taps[line], text, problems))
                continue
            try:
                opened = LineSocket(
                    *endpoint(text, line),
                    interface=one.interface,
                    source=one.source,
                    receive_bytes=all_of.receive_bytes,
                    datagram_bytes=all_of.datagram_bytes,
                )
            except OSError as error:
                problems.append(f"channel {name}, line {line}: {text}: {error.strerror or error}")
                sockets.append(None)
                continue
            sockets.append(opened)
            if opened.granted < all_of.receive_bytes:
                wanted = all_of.receive_bytes
                problems.append(
                    f"channel {name}, line {line}: its buffer has {opened.granted} of {wanted} bytes; "
                    f"sysctl -w net.core.rmem_max={wanted}"
                )
        return _Followed(one, channel, sockets, [0] * len(sockets))

    def _tap(self, what: str, tap: str, text: str, problems: list[str]) -> Line | None:
        if self._taps is None:
            problems.append(f"{what}: a tap needs the collector packet; add it to [agent] collectors")
            return None
        try:
            opened = self._taps.line(tap, *endpoint(text, "lines"), self._settings.receive_bytes)
        except LookupError as error:
            problems.append(f"{what}: {error.args[0]}")
            return None
        self._tapped.append((what, opened))
        wanted = min(self._settings.datagram_bytes, _LARGEST)
        if opened.longest < wanted:
            problems.append(
                f"{what}: datagrams longer than {opened.longest} bytes are cut at the tap and counted as errors; "
                f"set [agent.packet] snap = {wanted + HEADERS}"
            )
        return opened

    def _take(self, one: _Followed, clock: ClockReading) -> Columns | None:
        parts: list[tuple[int, Received]] = []
        for i, line in enumerate(one.sockets):
            for _ in range(_ROUNDS if line else 0):
                got = line.receive() if line else None
                if got is None:
                    break
                parts.append((i, got))
                if got.cut:
                    one.channel.unread(i, got.cut)
                if len(got.starts) + got.cut < 256:
                    break
        if not parts:
            return None
        line_of, data, starts, lengths, times = _joined(parts, clock.realtime_ns)
        if not len(times):
            return None
        order = np.argsort(times, kind="stable")
        line_of, starts, lengths, times = line_of[order], starts[order], lengths[order], times[order]
        decoded = one.channel.take(line_of, data, starts, lengths, times)
        if not one.settings.stamps:
            return None
        services = [f"{one.channel.name}-{line}" for line in one.channel.lines]
        return stamps(
            decoded,
            line_of,
            times,
            point=one.settings.point,
            host=self._host,
            services=services,
            error_ns=clock.error_ns,
        )

    def _report(self, start_ns: int, now_ns: int, error_ns: int | None) -> None:
        for name, one in self._followed.items():
            drops: dict[str, int] = {}
            for i, (line, opened) in enumerate(zip(one.channel.lines, one.sockets, strict=True)):
                if opened is not None:
                    total = opened.dropped()
                    drops[line], one.dropped[i] = (total - one.dropped[i]) % (1 << 32), total
            if lost := self._lost_by_rings(name, one):
                drops[ALL_LINES] = lost  # of which line, a ring does not know
            # Arrivals and now are of one clock, so staleness has no clock error but its reading.
            report = one.channel.report(now_ns)
            self._rows.add(name, one.settings.protocol, report, (start_ns, now_ns), drops, error_ns)

    def _lost_by_rings(self, name: str, one: _Followed) -> int:
        """Packets that the rings of the channel's taps lost since the last report, whatever they were."""
        prefix = f"channel {name}, "
        now = {line.tap: line.ring_lost for what, line in self._tapped if what.startswith(prefix)}
        before = {tap: self._ring_lost.get(f"{name}/{tap}", 0) for tap in now}
        self._ring_lost |= {f"{name}/{tap}": lost for tap, lost in now.items()}
        return sum(lost - before[tap] for tap, lost in now.items()) if one.settings.taps else 0


def _joined(parts: list[tuple[int, Received]], now_ns: int) -> tuple[Ints, NDArray[np.uint8], Ints, Ints, Ints]:
    """One buffer of all lines' datagrams. A datagram without a receive time gets the present one."""
    offsets = np.cumsum([0, *(len(got.data) for _, got in parts)])
    line = np.concatenate([np.full(len(got.starts), i, dtype=np.int64) for i, got in parts])
    starts = np.concatenate([got.starts + offset for (_, got), offset in zip(parts, offsets, strict=False)])
    times = np.concatenate([got.time_ns for _, got in parts])
    lengths = np.concatenate([got.lengths for _, got in parts])
    return line, np.concatenate([got.data for _, got in parts]), starts, lengths, np.where(times < 0, now_ns, times)
