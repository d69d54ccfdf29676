"""What an import found, as plain values that become JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import NO_TIME, Block
from collector.packet.capture import Capture
from collector.packet.conversations import CONVERSATION, COUNTED, NEVER, quantiles
from collector.packet.flow_table import FlowTable
from collector.packet.headers import Headers
from collector.packet.link import Reason
from collector.packet.tcp_analysis import TcpAnalysis

LISTED = 20  # conversations named in the dictionary form
KEPT = 100_000  # conversations kept one by one; of more, the worst


@dataclass(slots=True)
class FileReport:
    """One file.

    Attributes:
        path, kind, gzip: what was read; `kind` is pcap, pcapng, erf, or "" if it is none.
        packets: packets read from it.
        dropped: packets the capturing program says it lost, where the format tells.
        trailer: layout of the hardware time trailer, "" if there is none.
        damage_offset, damage: byte (of the decompressed stream) at which reading stopped early, and why.
    """

    path: str
    kind: str = ""
    gzip: bool = False
    packets: int = 0
    dropped: int = 0
    trailer: str = ""
    damage_offset: int | None = None
    damage: str = ""


@dataclass(slots=True)
class Times:
    """Exact order statistics of measured times, ns; None where there is no sample. Rank is max(1, ceil(p N))."""

    samples: int
    negative: int
    min_ns: int | None
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    p999_ns: int | None
    max_ns: int | None


@dataclass(slots=True)
class PcapReport:
    """What capture files hold. The definitions are in docs/pcap.md.

    Attributes:
        packets: packets read, of any kind.
        bytes: their bytes on the wire.
        first_ns, last_ns: least and greatest time; None if no packet has one.
        backwards: packets whose time lies before that of the packet before.
        without_time: packets that have no time (simple packet blocks).
        flows: address and port pairs with a protocol, both directions together.
        flows_by_protocol: the same per IP protocol number.
        tcp_packets, tcp_conversations: what the TCP analysis covers.
        not_ip, fragments, cut: packets that are not IP, are IP fragments, or were cut in a header by the snap length.
        malformed: packets with a header that cannot be, by reason.
        rtt: from a segment to the packet that acknowledges exactly its end.
        handshake: from the SYN to the first ACK after it.
        hardware: capture time minus hardware time, where packets carry one (source `hw`).
        retransmissions: all of them; the fast and the spurious ones are counted again on their own.
        conversations: one row per TCP conversation, dtype `conversations.CONVERSATION`; of more than `KEPT` the worst.
        files: per file, with damage.
    """

    packets: int = 0
    bytes: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    backwards: int = 0
    without_time: int = 0
    flows: int = 0
    flows_by_protocol: dict[int, int] = field(default_factory=dict)
    tcp_packets: int = 0
    tcp_conversations: int = 0
    not_ip: int = 0
    fragments: int = 0
    cut: int = 0
    malformed: dict[str, int] = field(default_factory=dict)
    rtt: Times = field(default_factory=lambda: times([]))
    handshake: Times = field(default_factory=lambda: times([]))
    hardware: Times = field(default_factory=lambda: times([]))
    retransmissions: int = 0
    fast_retransmissions: int = 0
    spurious_retransmissions: int = 0
    out_of_order: int = 0
    duplicate_acks: int = 0
    lost_segments: int = 0
    zero_windows: int = 0
    conversations: NDArray[Any] = field(default_factory=lambda: np.empty(0, dtype=CONVERSATION))
    files: list[FileReport] = field(default_factory=list)
    table: FlowTable = field(default_factory=FlowTable)

    @property
    def damaged(self) -> bool:
        """Whether any file could not be read to its end."""
        return any(f.damage for f in self.files)

    def worst(self, count: int = LISTED) -> list[dict[str, Any]]:
        """The conversations with the most retransmissions, then the longest round trip, with their endpoints."""
        listed = []
        for row in _worst(self.conversations, count):
            one: dict[str, Any] = {name: int(row[name]) for name in CONVERSATION.names or ()}
            sender, receiver = self.table.endpoints(one.pop("flow"))
            for name in ("rtt_p50_ns", "rtt_p99_ns", "rtt_max_ns"):
                one[name] = one[name] if one["rtt_samples"] else None
            one["handshake_ns"] = None if one["handshake_ns"] == NEVER else one["handshake_ns"]
            listed.append({"from": sender, "to": receiver, **one})
        return listed

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `tailsight import pcap --json` prints them; `LISTED` conversations, the worst first."""
        plain = {name: getattr(self, name) for name in self.__slots__ if name not in ("conversations", "table")}
        for name in ("rtt", "handshake", "hardware"):
            plain[name] = asdict(plain[name])
        plain["files"] = [asdict(f) for f in self.files]
        plain["flows_by_protocol"] = {str(k): v for k, v in self.flows_by_protocol.items()}
        plain["worst_conversations"] = self.worst()
        return plain


def _worst(table: NDArray[Any], count: int) -> NDArray[Any]:
    return table[np.lexsort((-table["rtt_max_ns"], -table["retransmissions"]))[:count]]


def times(parts: list[NDArray[np.int64]]) -> Times:
    """Order statistics over all parts."""
    samples = np.concatenate(parts) if parts else np.empty(0, dtype=np.int64)
    if not len(samples):
        return Times(0, 0, None, None, None, None, None, None)
    p50, p90, p99, p999 = quantiles(samples, (0.5, 0.9, 0.99, 0.999))
    return Times(len(samples), int((samples < 0).sum()), int(samples.min()), p50, p90, p99, p999, int(samples.max()))


class ReportBuilder:
    """Adds up what blocks and conversations say."""

    def __init__(self) -> None:
        self._report = PcapReport()
        self._reasons: NDArray[np.int64] = np.zeros(len(Reason), dtype=np.int64)
        self._rtt: list[NDArray[np.int64]] = []
        self._handshake: list[NDArray[np.int64]] = []
        self._hardware: list[NDArray[np.int64]] = []
        self._tables: list[NDArray[Any]] = []
        self._held = 0
        self._previous_ns: int | None = None

    def file(self, capture: Capture) -> FileReport:
        """Open the entry of a file."""
        entry = FileReport(str(capture.path))
        self._report.files.append(entry)
        return entry

    def close_file(self, entry: FileReport, capture: Capture, trailer: str) -> None:
        """Complete the entry when the file has been read."""
        entry.kind, entry.gzip, entry.dropped, entry.trailer = capture.kind, capture.gzip, capture.dropped, trailer
        if capture.damage:
            entry.damage_offset, entry.damage = capture.damage.offset, capture.damage.reason

    def packets(self, entry: FileReport, block: Block, headers: Headers, hardware: NDArray[np.int64] | None) -> None:
        """Count a parsed block; `hardware` holds its hardware times, if it has any."""
        total = self._report
        entry.packets += len(block)
        total.packets += len(block)
        total.bytes += int(block.origlen.sum())
        total.tcp_packets += len(headers.tcp.index)
        total.fragments += int(headers.fragment.sum())
        if headers.reason.any():
            self._reasons += np.bincount(headers.reason, minlength=len(Reason))
        seen = np.zeros(len(block), dtype=np.bool_)
        seen[headers.row] = True
        total.not_ip += int((~seen & (headers.reason == Reason.NONE)).sum())
        timed = block.ts_ns if (block.ts_ns != NO_TIME).all() else block.ts_ns[block.ts_ns != NO_TIME]
        total.without_time += len(block) - len(timed)
        self._time_range(timed)
        if hardware is not None:
            has = (hardware != NO_TIME) & (block.ts_ns != NO_TIME)
            self._hardware.append(block.ts_ns[has] - hardware[has])

    def _time_range(self, ts_ns: NDArray[np.int64]) -> None:
        if not len(ts_ns):
            return
        total = self._report
        low, high = int(ts_ns.min()), int(ts_ns.max())
        total.first_ns = low if total.first_ns is None else min(low, total.first_ns)
        total.last_ns = high if total.last_ns is None else max(high, total.last_ns)
        total.backwards += int((ts_ns[1:] < ts_ns[:-1]).sum())
        if self._previous_ns is not None and int(ts_ns[0]) < self._previous_ns:
            total.backwards += 1
        self._previous_ns = int(ts_ns[-1])

    def conversations(self, table: NDArray[Any], analysis: TcpAnalysis) -> None:
        """Add analysed conversations."""
        total = self._report
        total.tcp_conversations += len(table)
        for name in COUNTED:
            setattr(total, name, getattr(total, name) + int(table[name].sum()))
        self._tables.append(table)
        self._held += len(table)
        if self._held > 2 * KEPT:
            self._tables = [_worst(np.concatenate(self._tables), KEPT)]
            self._held = KEPT
        self._rtt.append(analysis.rtt_ns)
        self._handshake.append(analysis.handshake_ns)

    def report(self, flows: FlowTable) -> PcapReport:
        """The finished report."""
        total = self._report
        total.table = flows
        total.flows, total.flows_by_protocol = len(flows), flows.by_protocol()
        if self._tables:
            every = np.concatenate(self._tables)
            total.conversations = every if len(every) <= KEPT else _worst(every, KEPT)
        total.cut = int(self._reasons[Reason.CUT])
        total.malformed = {
            reason.name.lower(): int(self._reasons[reason])
            for reason in Reason
            if reason not in (Reason.NONE, Reason.CUT) and self._reasons[reason]
        }
        total.rtt, total.handshake, total.hardware = times(self._rtt), times(self._handshake), times(self._hardware)
        return total
