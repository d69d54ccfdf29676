"""The `feeds` collector: joins the configured groups and says what each line lost, repeated and reordered.

It lies between the numbers a line should have brought and those the kernel received (`docs/feeds.md`). Unprivileged.
Cost: about 1 us a datagram and 0.3 us a message.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.clock import ClockReading
from collector.decode import ScapyMissingError
from collector.decode.registry import UnknownDecoderError, make
from collector.feeds.calendar import ALWAYS
from collector.feeds.channel import Channel
from collector.feeds.rhythm import Rhythm
from collector.feeds.rows import Rows, stamps
from collector.feeds.settings import ChannelSettings, FeedsSettings, endpoint
from collector.feeds.tracker import SESSION_AHEAD, Tracker
from collector.feeds.udp import LineSocket, Received
from collector.record import Columns
from collector.settings import duration_ns
from collector.sources import Availability, Poll

Ints = NDArray[np.int64]

_ROUNDS = 64  # calls of 256 datagrams per line and poll; more waits in the kernel, or is dropped and counted


@dataclass(slots=True)
class _Followed:
    settings: ChannelSettings
    channel: Channel
    sockets: list[LineSocket | None]
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
            self._report(self._since_ns, now, clock.error_ns)
            self._since_ns = now
            columns = [*self._rows.take(), *columns]
        return Poll(columns=columns)

    def close(self) -> None:
        """Leave the groups."""
        for one in self._followed.values():
            for line in one.sockets:
                if line is not None:
                    line.close()
        self._followed.clear()

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
            rhythm=Rhythm(all_of.instruments, all_of.stale_factor, all_of.stale_updates),
        )
        sockets: list[LineSocket | None] = []
        for line, text in one.lines.items():
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
            # Arrivals and now are of one clock, so staleness has no clock error but its reading.
            report = one.channel.report(now_ns)
            self._rows.add(name, one.settings.protocol, report, (start_ns, now_ns), drops, error_ns)


def _joined(parts: list[tuple[int, Received]], now_ns: int) -> tuple[Ints, NDArray[np.uint8], Ints, Ints, Ints]:
    """One buffer of all lines' datagrams. A datagram without a receive time gets the present one."""
    offsets = np.cumsum([0, *(len(got.data) for _, got in parts)])
    line = np.concatenate([np.full(len(got.starts), i, dtype=np.int64) for i, got in parts])
    starts = np.concatenate([got.starts + offset for (_, got), offset in zip(parts, offsets, strict=False)])
    times = np.concatenate([got.time_ns for _, got in parts])
    lengths = np.concatenate([got.lengths for _, got in parts])
    return line, np.concatenate([got.data for _, got in parts]), starts, lengths, np.where(times < 0, now_ns, times)
