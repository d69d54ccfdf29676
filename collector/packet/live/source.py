"""The source `packet`: what passes on the tapped interfaces, by flow, by message, by burst, and kept around a trigger.

It measures between one tap's packet time and another's (stamps at the point `tap`, by key), and between a segment and
its acknowledgement at one tap (the round trips of flows). The time is the kernel's, taken when the packet enters the
network stack on its way in and when it is handed to the driver on its way out; or the NIC's, where that is asked for
and it has one. docs/packets.md has the costs and what each permission allows.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import structlog

from collector.changes import change_columns
from collector.clock import ClockReading
from collector.packet.live import bpf
from collector.packet.live.bpf_expression import compile_filter
from collector.packet.live.burst_rows import BurstRows
from collector.packet.live.bursts import WIDTHS_NS, BurstWatch
from collector.packet.live.flows import LiveFlows
from collector.packet.live.holders import Holders
from collector.packet.live.keeper import Keeper
from collector.packet.live.line_tap import LineTap
from collector.packet.live.report import flow_columns, gauges, route_changes
from collector.packet.live.ring import NEW_GROUP, PacketRing, link_bits_s, link_type
from collector.packet.live.settings import KeyRule, PacketSettings
from collector.packet.live.tap import Tap, TapCounts
from collector.packet.live.tap_stamps import DecoderRule, Found, Rules, columns
from collector.packet.live.tcp_stream import TcpStream
from collector.packet.live.trigger import Trigger
from collector.record import GAUGES, INTERVALS, Columns, DropReason
from collector.sched.culprits import LabelSets
from collector.settings import duration_ns
from collector.sources import Availability, Poll

_FORGET_PERIODS = 6
_MS = 1_000_000
_LATE_MS = 20  # beyond the ring's own delay, until a packet is taken to have been seen

log = structlog.get_logger("packet")


class PacketSource:
    """A `collector.sources.Source`. `decoders` are further rules that find keys in payloads."""

    name = "packet"
    period_s = 0.05

    def __init__(self, host: str, settings: PacketSettings | None = None, decoders: Sequence[DecoderRule] = ()) -> None:
        self._host = host
        self._settings = settings or PacketSettings()
        self._decoders = tuple(decoders)
        self._rules: Rules = ()
        self._report_ns = duration_ns(self._settings.report, "report")
        self._labels = LabelSets()
        self._bursts = BurstRows(host, Holders(), self._settings.bursts.rows_s)
        self._taps: list[Tap] = []
        self._speeds: dict[str, int | None] = {}
        self._stamp_labels: dict[tuple[str, int], int] = {}
        self._lines: list[LineTap] = []
        self._folder: Path | None = None
        self._keeper: Keeper | None = None
        self._period_start_ns = 0
        self._reported_mono_ns = 0
        self._short = 0
        self._left = Poll()  # of a period that ended with the tap

    def use_folder(self, folder: Path) -> None:
        """Where the buffer and the captures go: the agent's folder."""
        self._folder = folder

    def line(self, tap: str, address: str, port: int, most_bytes: int) -> LineTap:
        """Have the tap set aside what comes for an address and port. Raises LookupError naming the taps there are."""
        names = [self._settings.taps.get(one, one) for one in self._settings.interfaces]
        if tap not in names:
            raise LookupError(f"the packet collector has no tap {tap!r}; it has {', '.join(names) or 'none'}")
        made = LineTap(tap, address, port, most_bytes, self._settings.snap - 46)
        self._lines = [*(line for line in self._lines if not line.closed), made]
        self._lead_lines()
        return made

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 - a live source has no place to resume
        """Open a ring on each interface. An interface that cannot be tapped leaves the others working."""
        if not self._settings.interfaces:
            there = ", ".join(name for _, name in socket.if_nameindex())
            return Availability("unavailable", f"no interface is named in [agent.packet] interfaces; here are {there}")
        problems: list[str] = []
        for number, interface in enumerate(self._settings.interfaces):
            try:
                self._taps.append(self._tap(interface, number))
            except OSError as error:
                problems.append(_why(interface, error, self._settings))
        if not self._taps:
            return Availability("unavailable", "; ".join(dict.fromkeys(problems)))
        self._lead_lines()
        for tap in self._taps:
            problems += tap.hardware_problems()
            if self._speeds[tap.interface] is None and not self._settings.bursts.bytes_100us:
                problems.append(
                    f"{tap.interface} does not state its rate, so no burst is judged there: set "
                    "[agent.packet.bursts] bytes_100us and bytes_1ms"
                )
        problems += self._make_rules()
        problems += self._start_keeper()
        return Availability("degraded" if problems else "running", "; ".join(problems))

    def poll(self, clock: ClockReading) -> Poll:
        """Stamps and bursts as they pass; every report period the flows, gauges and changes.

        Raises OSError when an interface is gone: the agent then starts the collector again on what is left.
        """
        due = clock.monotonic_ns - self._reported_mono_ns >= self._report_ns
        for tap in self._taps if due and self._reported_mono_ns else ():
            if tap.rings[0].is_gone():
                self._report(self._left, clock)  # what was counted goes with the next poll
                raise OSError(f"the interface {tap.interface} is gone")
        poll, self._left = self._left, Poll()
        found = Found()
        recorder = self._keeper.recorder if self._keeper else None
        settled_ns = clock.realtime_ns - (self._settings.retire_ms + _LATE_MS) * _MS
        if not self._reported_mono_ns:
            self._reported_mono_ns, self._period_start_ns = clock.monotonic_ns, clock.realtime_ns
        intervals: list[dict[str, Any]] = []
        of_bursts = LabelSets()  # no two bursts have the same: they are not remembered
        dropped = 0
        for tap in self._taps:
            tap.drain(self._rules, found, recorder)
            lost = tap.read_statistics()
            dropped += lost
            if self._keeper is not None:
                self._keeper.dropped(clock.realtime_ns, tap.number, lost)
            bursts = tap.bursts.close(settled_ns)
            if bursts:
                intervals += self._bursts.rows(tap, bursts, self._speeds[tap.interface], of_bursts)
        if dropped:
            poll.drops[DropReason.SOURCE_LOST] = dropped
        stamps = columns(found, self._host, clock, self._stamp_labels)
        if stamps is not None:
            poll.columns.append(stamps)
        self._short += found.short
        if intervals:
            poll.columns.append(Columns.from_rows(INTERVALS, intervals))
        if clock.monotonic_ns - self._reported_mono_ns >= self._report_ns:
            self._report(poll, clock)
        if self._keeper is not None:
            self._keeper.poll(clock.realtime_ns, settled_ns)
        poll.columns += [labels for labels in (self._labels.take(), of_bursts.take()) if labels is not None]
        return poll

    def rest(self, clock: ClockReading) -> Poll:
        """What the rings still have, and the flows of the period that has begun."""
        poll = self.poll(clock)
        if clock.monotonic_ns > self._reported_mono_ns:
            self._report(poll, clock)
            labels = self._labels.take()
            poll.columns += [] if labels is None else [labels]
        return poll

    def trigger(self, trigger: Trigger) -> None:
        """Keep a capture, as `collector.packet.live.trigger.request_capture` asks from outside.

        Raises RuntimeError when there is no buffer.
        """
        if self._keeper is None:
            raise RuntimeError("there is no packet buffer; set [agent.packet.buffer] bytes")
        self._keeper.ask(trigger)

    def close(self) -> None:
        """Close the rings; what was asked for is written as far as it is there."""
        if self._keeper is not None:
            self._keeper.close()
            self._keeper = None
        for tap in self._taps:
            tap.close()
        self._taps = []
        self._reported_mono_ns = 0

    def _lead_lines(self) -> None:
        for tap in self._taps:
            tap.lines = [line for line in self._lines if line.tap == tap.name and not line.closed]
            for line in tap.lines:
                line.open = True

    def _make_rules(self) -> list[str]:
        rules: list[KeyRule | DecoderRule] = []
        problems = []
        for rule in self._settings.keys:
            if not rule.decoder:
                rules.append(rule)
                continue
            try:
                made = import_module("collector.decode.registry").make(rule.decoder, keys=True, digests=False)
            except (ImportError, ValueError, RuntimeError) as error:
                problems.append(f"the decoder {rule.decoder!r} cannot be used: {error}")
            else:
                rules.append(DecoderRule(made, rule.ports, rule.protocol, rule.direction))
        self._rules = (*rules, *self._decoders)
        return problems

    def _tap(self, interface: str, number: int) -> Tap:
        settings = self._settings
        link = link_type(interface)
        if settings.program:
            program = bpf.with_snap(bpf.from_text(settings.program), settings.snap)
        elif settings.filter:
            program = compile_filter(settings.filter, settings.snap, link)
        else:
            program = bpf.everything(settings.snap)
        rings: list[PacketRing] = []
        try:
            for _ in range(settings.rings):
                rings.append(
                    PacketRing(
                        interface,
                        number=number,
                        mib=settings.ring_mib,
                        program=program,
                        retire_ms=settings.retire_ms,
                        promiscuous=settings.promiscuous,
                        outgoing=settings.outgoing,
                        fanout=None if settings.rings == 1 else rings[0].group if rings else NEW_GROUP,
                        hardware=settings.timestamps == "hardware",
                    )
                )
        except OSError:
            for ring in rings:
                ring.close()
            raise
        self._speeds[interface] = speed = link_bits_s(interface)
        name = settings.taps.get(interface, interface)
        for kind in range(4):
            self._stamp_labels[(name, kind)] = self._labels.intern(
                {
                    "interface": interface,
                    "direction": "out" if kind & 1 else "in",
                    "source": "hw" if kind & 2 else "sw",
                }
            )
        return Tap(
            name,
            number,
            rings,
            LiveFlows(settings.flows),
            TcpStream(settings.tcp_packets),
            BurstWatch(self._thresholds(speed)),
        )

    def _thresholds(self, bits_s: int | None) -> dict[str, int]:
        bursts = self._settings.bursts
        given = {"100us": bursts.bytes_100us, "1ms": bursts.bytes_1ms}
        share = {w: round(bursts.share * bits_s * ns / 8e9) if bits_s else 0 for w, ns in WIDTHS_NS.items()}
        return {window: given[window] or share[window] for window in WIDTHS_NS}

    def _start_keeper(self) -> list[str]:
        settings = self._settings
        if not settings.buffer.bytes:
            return []
        if self._folder is None:
            return ["there is no folder for the packet buffer"]
        links = {tap.number: tap.rings[0].link for tap in self._taps}
        interfaces = [(name, links.get(number, 1)) for number, name in enumerate(settings.interfaces)]
        try:
            self._keeper = Keeper(self._folder, settings.buffer, interfaces, settings.snap)
        except OSError as error:
            return [f"the packet buffer cannot be made in {self._folder}: {error.strerror or error}"]
        return []

    def _report(self, poll: Poll, clock: ClockReading) -> None:
        start_ns, duration = self._period_start_ns, clock.monotonic_ns - self._reported_mono_ns
        self._period_start_ns, self._reported_mono_ns = clock.realtime_ns, clock.monotonic_ns
        rows = []
        for tap in self._taps:
            changes = list(route_changes(tap, self._host))
            if changes:
                poll.columns.append(change_columns(changes))
            flows = flow_columns(tap, self._host, start_ns, duration)
            if flows is not None:
                poll.columns.append(flows)
            for name, value, labels in gauges(tap, self._speeds[tap.interface]):
                about = {"tap": tap.name, "interface": tap.interface, **labels}
                rows.append((name, value, about))
            moved = tap.flows.turn(start_ns - _FORGET_PERIODS * self._report_ns)
            if moved is not None:
                tap.bursts.move(moved)
            tap.counts = TapCounts()
        if self._short:
            rows.append(("packet_keys_short", self._short, {}))
            self._short = 0
        if self._keeper is not None:
            recorder = self._keeper.recorder
            rows.append(("packet_buffer_bytes", recorder.size_bytes, {}))
            if recorder.problem:
                log.warning("not recording", problem=recorder.problem)
                recorder.retry()
        poll.columns.append(
            Columns.from_rows(
                GAUGES,
                [
                    {
                        "ts_ns": clock.realtime_ns,
                        "name": name,
                        "host": self._host,
                        "service": about.get("tap", ""),
                        "label_set": self._labels.intern(about),
                        "value": value,
                    }
                    for name, value, about in rows
                ],
            )
        )


def _why(interface: str, error: OSError, settings: PacketSettings) -> str:
    """Why a tap cannot be opened, and what would help."""
    if error.errno in (errno.EPERM, errno.EACCES):
        return (
            "packets may not be captured: CAP_NET_RAW is missing. Grant it with AmbientCapabilities=CAP_NET_RAW in the "
            "agent's unit, or by hand: setcap cap_net_raw+ep on the interpreter of the agent's own environment"
        )
    if error.errno in (errno.ENODEV, errno.ENXIO):
        there = ", ".join(name for _, name in socket.if_nameindex())
        return f"there is no interface {interface}; here are {there}"
    if error.errno == errno.ENOMEM:
        return f"{interface}: no memory for a ring of {settings.ring_mib} MiB; lower [agent.packet] ring_mib"
    if error.errno == errno.EINVAL and (settings.filter or settings.program):
        return f"{interface}: the kernel refuses the filter or the ring ({error.strerror})"
    return f"{interface}: {error.strerror or error}"
