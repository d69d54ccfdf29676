"""One tap: the rings of an interface, and what is counted of their packets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from collector.packet.headers import Headers, parse
from collector.packet.link import Reason
from collector.packet.live.bursts import BurstWatch
from collector.packet.live.flows import LiveFlows
from collector.packet.live.line_tap import LineTap
from collector.packet.live.recorder import Recorder
from collector.packet.live.ring import PacketRing
from collector.packet.live.tap_stamps import Found, Rules, stamp
from collector.packet.live.tcp_stream import TcpStream
from collector.packet.live.tpacket import LiveBlock
from collector.packet.tcp_rows import TcpRows
from collector.packet.uniform import uniform_udp


@dataclass(slots=True)
class TapCounts:
    """What a tap saw since the last report."""

    packets: int = 0
    bytes: int = 0
    dropped: int = 0
    freezes: int = 0
    not_ip: int = 0
    hardware: int = 0
    damaged_blocks: int = 0
    malformed: dict[Reason, int] = field(default_factory=dict)

    @property
    def coverage(self) -> float:
        """Share of the packets that passed the filter which the rings did not lose; 1.0 when none passed."""
        return self.packets / (self.packets + self.dropped) if self.packets else float(self.dropped == 0)


class Tap:
    """Reads the rings of one interface. Not thread-safe."""

    def __init__(
        self,
        name: str,
        number: int,
        rings: Sequence[PacketRing],
        flows: LiveFlows,
        tcp: TcpStream,
        bursts: BurstWatch,
    ) -> None:
        self.name = name
        self.number = number
        self.rings = rings
        self.flows = flows
        self.tcp = tcp
        self.bursts = bursts
        self.counts = TapCounts()
        self.lines: list[LineTap] = []  # of feeds that are followed on this tap

    @property
    def interface(self) -> str:
        """The interface's name."""
        return self.rings[0].interface

    def drain(self, rules: Rules, found: Found, recorder: Recorder | None) -> None:
        """Take what the rings have: count it, stamp it, record it."""
        rows: list[TcpRows] = []
        for ring in self.rings:
            for live, raw in ring.batches():
                headers = uniform_udp(live.block) or parse(live.block)
                self._count(live, headers)
                if len(headers.tcp.index):
                    rows.append(_tcp_rows(live, headers))
                for line in self.lines:
                    line.offer(live, headers)
                if rules:
                    stamp(found, self.name, live, headers, rules)
                if recorder is not None:
                    recorder.write(raw, self.number)
            self.counts.damaged_blocks += ring.damaged
            ring.damaged = 0
        if rows:
            joined = TcpRows.join(rows)
            if len(self.rings) > 1:  # rings are read one after another
                joined = joined.take(np.argsort(joined.ts_ns, kind="stable"))
            self.tcp.add(joined)

    def _count(self, live: LiveBlock, headers: Headers) -> None:
        counts, block = self.counts, live.block
        size = np.maximum(block.origlen, block.caplen)
        counts.packets += len(block)
        counts.bytes += int(size.sum())
        counts.hardware += int(np.count_nonzero(live.hardware))
        row = self.flows.add(live, headers)
        dscp = headers.dscp
        if len(headers.row) < len(block):
            everything = np.full(len(block), -1, dtype=np.int64)
            everything[headers.row] = row
            classes = np.zeros(len(block), dtype=np.int64)
            classes[headers.row] = dscp
            row, dscp = everything, classes
            counts.not_ip += len(block) - len(headers.row)
        self.bursts.add(block.ts_ns, size, row, live.outgoing, dscp)
        if headers.reason.any():
            for reason, count in enumerate(np.bincount(headers.reason).tolist()):
                if reason and count:
                    counts.malformed[Reason(reason)] = counts.malformed.get(Reason(reason), 0) + count

    def read_statistics(self) -> int:
        """Add what the kernel counted; returns how many packets it dropped since the last call."""
        dropped = 0
        for ring in self.rings:
            statistics = ring.statistics()
            dropped += statistics.drops
            self.counts.freezes += statistics.freezes
        self.counts.dropped += dropped
        for line in self.lines:
            line.ring_lost += dropped
        return dropped

    def hardware_problems(self) -> list[str]:
        """Why the NIC gives no times, where it was asked to."""
        return sorted({ring.hardware_problem for ring in self.rings if ring.hardware_problem})

    def close(self) -> None:
        """Close the rings."""
        for ring in self.rings:
            ring.close()
        for line in self.lines:
            line.open = False


def _tcp_rows(live: LiveBlock, headers: Headers) -> TcpRows:
    tcp, index = headers.tcp, headers.tcp.index
    return TcpRows(
        flow=headers.flow[index],
        ts_ns=live.block.ts_ns[headers.row[index]],
        seq=tcp.seq.astype(np.uint32),
        ack=tcp.ack.astype(np.uint32),
        length=tcp.length.astype(np.uint32),
        window=tcp.window.astype(np.uint16),
        flags=tcp.flags.astype(np.uint8),
        side=headers.swapped[index].astype(np.uint8),
    )
