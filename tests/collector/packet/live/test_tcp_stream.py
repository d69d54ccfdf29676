"""The analysis by pieces comes to what the analysis of the whole comes to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from collector.packet.capture import Capture
from collector.packet.conversations import COUNTED
from collector.packet.headers import parse
from collector.packet.live import tcp_stream
from collector.packet.live.tcp_stream import TcpStream
from collector.packet.tcp_analysis import analyse_tcp
from collector.packet.tcp_rows import ACK, PSH, SYN, TcpRows, by_flow

T0 = 1_700_000_000_000_000_000


class Speaker:
    def __init__(self, rng: np.random.Generator, rows: list[tuple[int, ...]], name: int, at: int, seq: list[int]):
        self.rng, self.rows, self.name, self.at, self.seq = rng, rows, name, at, seq

    def __call__(self, side: int, length: int, flags: int, back: int = 0) -> None:
        self.at += int(self.rng.integers(20_000, 200_000))
        seq = self.seq
        first = (seq[side] - back) & 0xFFFFFFFF
        self.rows.append((self.name, self.at, first, seq[1 - side], length, 1_000, flags, side))
        if not back:
            seq[side] = (seq[side] + length + bool(flags & SYN)) & 0xFFFFFFFF


def talk(flows: int, exchanges: int, seed: int) -> TcpRows:
    """Conversations with requests, answers, losses sent again and duplicate acknowledgements, interleaved."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[int, ...]] = []
    for _ in range(flows):
        name = int(rng.integers(1, 1 << 63)) * 2 + 1
        at = T0 + int(rng.integers(0, 10**7))
        seq = [int(rng.integers(0, 1 << 32)), int(rng.integers(0, 1 << 32))]

        send = Speaker(rng, rows, name, at, seq)
        send(0, 0, SYN)
        send(1, 0, SYN | ACK)
        send(0, 0, ACK)
        for _ in range(exchanges):
            send(0, 100, ACK | PSH)
            send(1, 0, ACK)
            if rng.random() < 0.1:
                send.at += 10**7
                send(0, 100, ACK | PSH, back=100)
            if rng.random() < 0.1:
                for _ in range(3):
                    send(1, 0, ACK)
            send(1, 500, ACK | PSH)
            send(0, 0, ACK)
    rows.sort(key=lambda r: r[1])
    columns = list(zip(*rows, strict=True))
    kinds = ("u8", "i8", "u4", "u4", "u4", "u2", "u1", "u1")
    return TcpRows(*(np.array(c, dtype=k) for c, k in zip(columns, kinds, strict=True)))


def of_whole(rows: TcpRows) -> tuple[dict[str, int], NDArray[np.int64]]:
    sorted_rows = by_flow(rows)
    analysis = analyse_tcp(sorted_rows)
    return {name: int(np.count_nonzero(analysis.mark & np.uint8(m))) for name, m in COUNTED.items()}, analysis.rtt_ns


def by_pieces(rows: TcpRows, size: int, periods: int = 1) -> list[NDArray[Any]]:
    stream = TcpStream()
    out = []
    for period in np.array_split(np.arange(len(rows)), periods):
        for low in range(0, len(period), size):
            stream.add(rows.take(period[low : low + size]))
        out.append(stream.turn())
        stream.next_period()
    return out


@pytest.mark.parametrize(("size", "periods"), [(50, 1), (1_000, 3), (7, 9)])
def test_pieces_and_periods_sum_to_the_whole(size: int, periods: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_stream, "_PIECE", 300)
    rows = talk(5, 120, seed=size)
    wanted, rtt_ns = of_whole(rows)
    tables = by_pieces(rows, size, periods)
    for name, count in wanted.items():
        assert sum(int(t[name].sum()) for t in tables) == count, name
    assert wanted["retransmissions"] > 0
    assert wanted["duplicate_acks"] > 0
    assert sum(int(t["rtt_samples"].sum()) for t in tables) == len(rtt_ns)
    assert max(int(t["rtt_max_ns"].max()) for t in tables) == rtt_ns.max()
    assert min(int(t["rtt_min_ns"][t["rtt_samples"] > 0].min()) for t in tables) == rtt_ns.min()


def test_one_period_has_the_exact_order_statistics() -> None:
    rows = talk(1, 300, seed=3)
    (table,) = by_pieces(rows, 100)
    sorted_rows = by_flow(rows)
    analysis = analyse_tcp(sorted_rows)
    for side in (0, 1):
        mine = np.sort(analysis.rtt_ns[sorted_rows.side[analysis.rtt_row] != side])
        row = table[table["side"] == side][0]
        assert row["rtt_samples"] == len(mine)
        assert row["rtt_p50_ns"] == mine[(len(mine) + 1) // 2 - 1]
        assert row["rtt_p99_ns"] == mine[int(np.ceil(0.99 * len(mine))) - 1]
    assert table["handshake_ns"].max() == analysis.handshake_ns[0]


def test_too_many_packets_leave_whole_flows_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_stream, "_PIECE", 300)
    rows = talk(64, 10, seed=5)
    stream = TcpStream(most=1_000)
    for low in range(0, len(rows), 100):
        stream.add(rows.take(slice(low, low + 100)))
    table = stream.turn()
    assert stream.share < 1
    kept = set(table["flow"].tolist())
    assert 0 < len(kept) < 64
    assert all(stream.analysed(flow) for flow in kept)
    (whole,) = by_pieces(rows, 100)
    for name in (*COUNTED, "rtt_samples", "rtt_p99_ns"):
        mine = whole[np.isin(whole["flow"], table["flow"])]
        assert table[name].tolist() == mine[name].tolist()
    stream.next_period()
    stream.add(rows.take(slice(0, 500)))
    assert len(np.unique(stream.turn()["flow"])) == len(np.unique(rows.flow[:500]))


@pytest.mark.real
@pytest.mark.parametrize("name", ["echo-connections.pcap.gz", "ssh-dups.pcap", "reassembly.pcap"])
def test_real_captures_by_pieces(real_data: Path, name: str) -> None:
    parts = []
    for block in Capture(real_data / "tcp" / name).blocks():
        headers = parse(block)
        tcp, index = headers.tcp, headers.tcp.index
        parts.append(
            TcpRows(
                headers.flow[index],
                block.ts_ns[headers.row[index]].copy(),
                tcp.seq.astype(np.uint32),
                tcp.ack.astype(np.uint32),
                tcp.length.astype(np.uint32),
                tcp.window.astype(np.uint16),
                tcp.flags.astype(np.uint8),
                headers.swapped[index].astype(np.uint8),
            )
        )
    rows = TcpRows.join(parts)
    wanted, rtt_ns = of_whole(rows)
    tables = by_pieces(rows, 2_000, periods=5)
    got = {name: sum(int(t[name].sum()) for t in tables) for name in wanted}
    samples = sum(int(t["rtt_samples"].sum()) for t in tables)
    assert abs(samples - len(rtt_ns)) <= max(2, 0.01 * len(rtt_ns))
    for name, count in wanted.items():
        assert abs(got[name] - count) <= max(3, 0.02 * count), (name, got[name], count)
