"""Flow counters and bursts against plain loops over the same packets."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from collector.packet.headers import parse
from collector.packet.live.bursts import WIDTHS_NS, BurstWatch
from collector.packet.live.flows import LiveFlows, hops
from collector.packet.live.holders import Holders
from collector.packet.live.tpacket import LiveBlock, read_block
from tests.collector.packet.live.blocks import Frame, ring_block

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
T0 = 1_700_000_000_000_000_000
One = tuple[int, int, int, int, bool]  # source host, source port, ttl, dscp, IPv6?


def frame(packet: One, ts_ns: int) -> Frame:
    host, port, ttl, dscp, six = packet
    ip: Any = (
        IPv6(src=f"fd00::{host + 1}", dst="fd00::99", hlim=ttl, tc=dscp << 2)
        if six
        else IP(src=f"10.0.0.{host + 1}", dst="10.0.0.99", ttl=ttl, tos=dscp << 2)
    )
    return Frame(bytes(ETHER / ip / UDP(sport=port, dport=9) / bytes(port % 50)), ts_ns)


def blocks_of(packets: list[One]) -> LiveBlock:
    return read_block(ring_block([frame(p, T0 + n * 1_000) for n, p in enumerate(packets)]), 0, 1 << 20, 0)


PACKETS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 255), st.integers(0, 63), st.booleans()),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40)
@given(st.lists(PACKETS, min_size=1, max_size=3), st.integers(1, 40))
def test_every_packet_is_counted_once(batches: list[list[One]], most: int) -> None:
    flows = LiveFlows(most)
    wanted: Counter[tuple[str, int]] = Counter()
    ttls: dict[tuple[str, int], list[int]] = defaultdict(list)
    known: dict[tuple[str, int], None] = {}
    other = 0
    for batch in batches:
        live = blocks_of(batch)
        flows.add(live, parse(live.block))
        for host, port, ttl, _, six in batch:
            name = (f"fd00::{host + 1}" if six else f"10.0.0.{host + 1}", port)
            known.setdefault(name, None)
            wanted[name] += 1
            ttls[name].append(ttl)
    period = flows.period(flows.active())
    got = dict(zip(zip(period.source, period.source_port.tolist(), strict=True), period.packets.tolist(), strict=True))
    other = flows.other_packets
    assert len(got) == min(most, len(known)) == len(flows)
    assert sum(got.values()) + other == sum(wanted.values())
    for name, count in got.items():
        assert wanted[name] == count
    low = dict(zip(zip(period.source, period.source_port.tolist(), strict=True), period.ttl_min.tolist(), strict=True))
    assert all(low[name] == min(ttls[name]) for name in got)


def test_idle_flows_are_forgotten_and_rows_move() -> None:
    flows = LiveFlows(100)
    first = blocks_of([(n % 4, 1 + n, 64, 0, False) for n in range(40)])
    flows.add(first, parse(first.block))
    assert flows.turn(0) is None
    later = read_block(ring_block([frame((0, 1, 64, 0, False), T0 + 10**12)]), 0, 1 << 20, 0)
    row = int(flows.add(later, parse(later.block))[0])
    name = str(flows.ends(row))
    moved = flows.turn(T0 + 10**11)
    assert moved is not None
    assert len(flows) == 1
    assert str(flows.ends(int(moved[row]))) == name
    assert np.count_nonzero(moved >= 0) == 2
    assert int(flows.add(later, parse(later.block))[0]) == moved[row]
    assert flows.period(flows.active()).packets.tolist() == [1]


def test_a_full_table_makes_room_by_the_silent() -> None:
    flows = LiveFlows(16)
    first = blocks_of([(0, 1 + n, 64, 0, False) for n in range(20)])
    flows.add(first, parse(first.block))
    assert (len(flows), flows.other_packets) == (16, 4)
    flows.turn(0)
    second = blocks_of([(1, 1 + n, 64, 0, False) for n in range(16)])
    flows.turn(0)
    flows.add(second, parse(second.block))
    assert (len(flows), flows.other_packets) == (16, 0)


def test_only_a_settled_value_is_a_change() -> None:
    flows = LiveFlows()

    def period(*ttls: int) -> list[tuple[str, int, int]]:
        live = blocks_of([(0, 1, ttl, 0, False) for ttl in ttls])
        flows.add(live, parse(live.block))
        found = [(c.what, c.before, c.after) for c in flows.changes()]
        flows.turn(0)
        return found

    assert period(64, 64) == []
    assert period(64, 61, 64) == []  # both within a period: not settled
    assert period(61, 61) == [("ttl", 64, 61)]
    assert period(61) == []


@pytest.mark.parametrize(("ttl", "wanted"), [(64, 0), (61, 3), (128, 0), (115, 13), (255, 0), (240, 15), (1, 63)])
def test_hops_are_guessed_from_the_next_start_value(ttl: int, wanted: int) -> None:
    assert hops(ttl) == wanted


@given(
    st.lists(st.tuples(st.integers(0, 6_000_000), st.integers(60, 9_000), st.integers(-1, 4)), min_size=1, max_size=80),
    st.integers(100, 30_000),
    st.booleans(),
)
def test_bursts_are_the_runs_of_bins_over_the_threshold(
    packets: list[tuple[int, int, int]], threshold: int, in_order: bool
) -> None:
    if in_order:
        packets = sorted(packets)
    watch = BurstWatch({"100us": threshold})
    ts, size, row = (np.array(c, dtype=np.int64) for c in zip(*packets, strict=True))
    half = len(ts) // 2
    for part in (slice(0, half), slice(half, None)):
        watch.add(T0 + ts[part], size[part], row[part], np.zeros(len(ts[part]), np.bool_), np.zeros_like(ts[part]))
    bursts = watch.close(T0 + 10_000_000)
    bins: Counter[int] = Counter()
    for at, length, _ in packets:
        bins[(T0 + at) // 100_000] += length
    high = sorted(b for b, total in bins.items() if total >= threshold)
    runs = [b for b in high if b - 1 not in high]
    assert [b.start_ns for b in bursts] == [b * 100_000 for b in runs]
    assert sum(b.duration_ns for b in bursts) == len(high) * 100_000
    assert sum(b.bytes for b in bursts) == sum(bins[b] for b in high)
    for burst in bursts:
        inside: Counter[int] = Counter()
        for at, length, flow in packets:
            if burst.start_ns <= T0 + at < burst.start_ns + burst.duration_ns:
                inside[flow] += length
        assert inside[burst.top[0][0]] == max(inside.values())
        assert burst.peak_bytes == max(
            bins[b] for b in high if burst.start_ns <= b * 100_000 < burst.start_ns + burst.duration_ns
        )
    peaks = watch.take_peaks()
    assert peaks[("100us", False)].bytes == max(bins.values())
    assert peaks[("100us", False)].bursts == len(bursts)
    assert peaks[("1ms", False)].bursts == 0  # no threshold: measured, not judged


def test_a_bin_is_judged_once_and_what_is_late_is_counted() -> None:
    watch = BurstWatch({"1ms": 100})
    one = np.ones(1, dtype=np.int64)
    watch.add(T0 + one * 500_000, one * 200, one, np.zeros(1, np.bool_), one)
    assert watch.close(T0 + 900_000) == []  # the millisecond has not ended
    assert len(watch.close(T0 + 1_100_000)) == 1
    assert watch.close(T0 + 1_200_000) == []
    watch.add(T0 + one * 500_000, one * 200, one, np.zeros(1, np.bool_), one)
    assert watch.close(T0 + 5_000_000) == []
    assert watch.late == 1


def test_the_clock_standing_still_does_not_hold_packets_for_ever() -> None:
    watch = BurstWatch({})
    many = np.zeros(1_500_000, dtype=np.int64)
    for _ in range(4):
        watch.add(many + T0 + 10**12, many, many, many.astype(np.bool_), many)
        watch.close(T0)
    assert watch.late == 3_000_000


def test_widths_nest() -> None:
    assert WIDTHS_NS["1ms"] % WIDTHS_NS["100us"] == 0


def test_holders_are_found_by_real_sockets() -> None:
    import os
    import socket

    receiver = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with receiver, socket.create_server(("127.0.0.1", 0)) as server:
        receiver.bind(("::", 0))
        holders = Holders()
        client = socket.create_connection(server.getsockname())
        port = receiver.getsockname()[1]
        for protocol, one, other in (
            (17, ("10.1.2.3", 77), ("10.9.9.9", port)),
            (6, client.getsockname(), server.getsockname()),
        ):
            holder = holders.find(protocol, one, other)
            assert holder is not None
            assert holder.pid == os.getpid()
            assert holder.command
        client.close()
        assert holders.find(17, ("10.1.2.3", 77), ("10.9.9.9", 9)) is None
        assert holders.find(132, ("10.1.2.3", 77), ("10.9.9.9", port)) is None


def test_the_lists_are_read_again_only_after_a_while(tmp_path: Any) -> None:
    (tmp_path / "net").mkdir()
    now = [0.0]
    holders = Holders(tmp_path, lambda: now[0])
    line = "  0: 0100007F:0050 00000000:0000 07 0 0 0 0 0 {} 2 0 0"
    (tmp_path / "net" / "udp").write_text("head\n" + line.format(7))
    (tmp_path / "9" / "fd").mkdir(parents=True)
    (tmp_path / "9" / "comm").write_text("program\n")
    (tmp_path / "9" / "fd" / "3").symlink_to("socket:[7]")
    flow = (17, ("127.0.0.1", 80), ("127.0.0.1", 81))
    found = holders.find(*flow)
    assert found is not None
    assert (found.pid, found.command) == (9, "program")
    (tmp_path / "net" / "udp").write_text("head\nnonsense : x\n" + line.format(8))
    assert holders.find(*flow) == found
    now[0] = 1.5
    assert holders.find(*flow) is None  # socket 8 belongs to nobody that was seen
    (tmp_path / "9" / "fd" / "4").symlink_to("socket:[8]")
    assert holders.find(*flow) is None
    now[0] = 7.0
    assert holders.find(*flow) is not None
