"""Whole columns are judged as the state machine and tshark judge packet by packet."""

# ruff: noqa: S311  # seeded test data
from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.packet.importer import analyse
from collector.packet.tcp_analysis import analyse_tcp
from collector.packet.tcp_columns import first_reaching
from collector.packet.tcp_rows import ACK, COLUMN_TYPES, FIN, RST, SYN, TcpRows, by_flow
from collector.packet.tcp_state import Mark, marks
from tests.collector.packet import writing
from tests.collector.packet.tshark import fields, ns
from tests.collector.packet.writing import START, Packet

BASES = [0, 1000, 2**31 - 20, 2**32 - 30]


@st.composite
def capture_rows(draw: st.DrawFn) -> TcpRows:
    """A few conversations over three flows, with all that can go wrong on them."""
    rnd = random.Random(draw(st.integers(0, 2**32)))
    rows = []
    ts = 0
    heads = {(flow, side): rnd.choice(BASES) for flow in range(3) for side in (0, 1)}
    one_way = rnd.random() < 0.2
    for _ in range(draw(st.integers(1, 120))):
        flow, side = rnd.randrange(3), 0 if one_way else rnd.randrange(2)
        ts += rnd.choice([0, 1, 1000, 2_000_000, 30_000_000, -500])
        own, other = heads[flow, side], heads[flow, 1 - side]
        length = rnd.choice([0, 0, 0, 1, 2, 10, 10])
        flags = rnd.choice([ACK] * 12 + [SYN, SYN | ACK, FIN | ACK, RST, RST | ACK])
        seq = (own + rnd.choice([0] * 12 + [-1, -10, -20, 10, 30])) % 2**32
        ack = (other + rnd.choice([0] * 8 + [-10, -20, 5])) % 2**32 if flags & ACK else 0
        if flags & SYN and rnd.random() < 0.5:
            seq = rnd.choice(BASES)
        end = seq + length + bool(flags & (SYN | FIN))
        if (end - own) % 2**32 < 2**31:
            heads[flow, side] = end % 2**32
        rows.append((flow, ts, seq, ack, length, rnd.choice([500, 500, 500, 400, 0]), flags, side))
    columns = zip(*rows, strict=True)
    return TcpRows(*(np.array(c, dtype=k) for c, k in zip(columns, COLUMN_TYPES.values(), strict=True)))


def split(rows: TcpRows, starts: list[int]) -> list[TcpRows]:
    return [rows.take(slice(a, b)) for a, b in zip(starts, [*starts[1:], len(rows)], strict=True)]


@settings(max_examples=50, deadline=None)
@given(capture_rows())
def test_columns_judge_like_the_state_machine(rows: TcpRows) -> None:
    rows = by_flow(rows)
    got = analyse_tcp(rows)
    expected = np.concatenate([marks(part) for part in split(rows, got.starts.tolist())])
    assert got.mark.tolist() == expected.tolist()


@settings(max_examples=50, deadline=None)
@given(capture_rows())
def test_round_trips_are_those_of_a_list_of_unanswered_segments(rows: TcpRows) -> None:
    rows = by_flow(rows)
    got = analyse_tcp(rows)
    if np.isin(rows.flags & (SYN | RST), [SYN, SYN | RST, RST]).any():
        return  # numbers may jump anywhere then; the next test and tshark cover handshakes
    expected = []
    for start, part in zip(got.starts.tolist(), split(rows, got.starts.tolist()), strict=True):
        waiting: dict[int, list[tuple[int, int]]] = {0: [], 1: []}
        for at in range(len(part)):
            side, ts, ack = int(part.side[at]), int(part.ts_ns[at]), int(part.ack[at])
            if part.flags[at] & ACK:
                exact = [sent for end, sent in waiting[1 - side] if end == ack]
                if exact:
                    expected.append((start + at, ts - exact[0]))
                waiting[1 - side] = [w for w in waiting[1 - side] if 0 < (w[0] - ack) % 2**32 < 2**31]
            if part.length[at] or part.flags[at] & (SYN | FIN):
                end = int(part.seq[at]) + int(part.length[at]) + bool(part.flags[at] & (SYN | FIN))
                waiting[side].append((end % 2**32, ts))
    assert list(zip(got.rtt_row.tolist(), got.rtt_ns.tolist(), strict=True)) == expected


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 30), min_size=1, max_size=70), st.data())
def test_first_reaching(values: list[int], data: st.DataObject) -> None:
    queries = data.draw(st.lists(st.tuples(st.integers(0, len(values)), st.integers(0, 32)), max_size=20))
    expected = [
        next((i for i in range(start, len(values)) if values[i] >= least), len(values)) for start, least in queries
    ]
    start, least = (np.array([q[k] for q in queries], dtype=np.int64) for k in (0, 1))
    assert first_reaching(np.array(values, dtype=np.int64), start, least).tolist() == expected


def lossy_transfer(seed: int, wrap: bool) -> list[Packet]:
    """A client sends to a server over a path that loses, delays and repeats; what a capture at the client sees."""
    rnd = random.Random(seed)
    a, b = (2**32 - 5_000, 2**32 - 20) if wrap else (1_000, 9_000)
    ts = START
    out: list[Packet] = []

    def put(gap: int, **what: object) -> None:
        nonlocal ts
        ts += gap
        out.append((ts, writing.tcp4(**what)))  # type: ignore[arg-type]

    put(0, seq=a, flags=SYN, forward=True)
    put(400_000, seq=b, ack=a + 1, flags=SYN | ACK, forward=False)
    put(5_000, seq=a + 1, ack=b + 1)
    a, b = a + 1, b + 1
    acked = sent = 0
    window = 3000
    missing: set[int] = set()
    while acked < 400 * 100:
        for _ in range(rnd.randrange(1, 5)):
            lose = rnd.random()
            if lose < 0.05:
                missing.add(sent)  # lost behind the capture: the server never gets it
            if lose < 0.98:  # else lost by the capture
                put(rnd.choice([3_000, 50_000]), seq=a + sent, ack=b, payload=bytes(100), flags=0x18)
            sent += 100
        hole = min(missing, default=None)
        if hole is None:
            acked = sent
            put(rnd.choice([100_000, 600_000]), seq=b, ack=a + acked, window=window, forward=False)
        else:
            acked = max(acked, hole)
            for _ in range(rnd.choice([1, 3, 4])):
                put(rnd.choice([50_000, 2_000_000]), seq=b, ack=a + acked, window=window, forward=False)
            late = rnd.choice([100_000, 1_000_000, 25_000_000])
            put(late, seq=a + hole, ack=b, payload=bytes(100), flags=0x18)
            missing.discard(hole)
            if rnd.random() < 0.2:
                put(100, seq=a + hole, ack=b, payload=bytes(100), flags=0x18)
        if rnd.random() < 0.03:
            put(10_000, seq=b, ack=a + acked, window=0, forward=False)
            put(10_000, seq=b, ack=a + acked, window=window, forward=False)
        if rnd.random() < 0.02:
            put(10_000, seq=a + sent - 1, ack=b)  # keep-alive
            put(10_000, seq=b, ack=a + acked, window=window, forward=False)
        if rnd.random() < 0.05:
            put(10_000, seq=b, ack=a + acked, payload=b"answer", window=window, forward=False)
            b += 6
            put(10_000, seq=a + sent, ack=b)
    put(10_000, seq=a + sent, ack=b, flags=FIN | ACK)
    put(10_000, seq=b, ack=a + sent + 1, flags=FIN | ACK, forward=False)
    put(10_000, seq=a + sent + 1, ack=b + 1)
    return out


@pytest.mark.parametrize(("seed", "wrap"), [(1, False), (2, True), (3, False), (4, True), (5, False)])
def test_generated_losses_agree_with_tshark(tmp_path: Path, seed: int, wrap: bool) -> None:
    packets = lossy_transfer(seed, wrap)
    # The ports are used again by a second connection.
    pause = packets[-1][0] - START + 1_000_000_000
    packets += [(ts + pause, data) for ts, data in lossy_transfer(seed + 100, not wrap)]
    file = tmp_path / "lossy.pcap"
    file.write_bytes(writing.pcap(packets))
    names = {
        "retransmissions": "tcp.analysis.retransmission",
        "fast_retransmissions": "tcp.analysis.fast_retransmission",
        "spurious_retransmissions": "tcp.analysis.spurious_retransmission",
        "out_of_order": "tcp.analysis.out_of_order",
        "duplicate_acks": "tcp.analysis.duplicate_ack",
        "lost_segments": "tcp.analysis.lost_segment",
        "zero_windows": "tcp.analysis.zero_window",
    }
    rows = fields(file, "tcp.stream", "tcp.analysis.ack_rtt", "tcp.analysis.initial_rtt", *names.values())
    report = analyse([file])
    expected = {figure: sum(bool(row[3 + i]) for row in rows) for i, figure in enumerate(names)}
    assert {figure: getattr(report, figure) for figure in names} == expected
    assert min(expected[k] for k in ("retransmissions", "duplicate_acks", "lost_segments", "zero_windows")) > 0
    rtt = [ns(row[1]) for row in rows if row[1]]
    assert (report.rtt.samples, report.rtt.max_ns) == (len(rtt), max(rtt))
    assert report.tcp_conversations == len({row[0] for row in rows}) == 2
    assert report.handshake.samples == 2


def test_a_zero_window_probe_does_not_advance_and_is_judged_by_steps() -> None:
    row = [
        (0, 0, 100, 1, 10, 500, ACK, 0),
        (0, 1, 1, 110, 0, 0, ACK, 1),
        (0, 2, 110, 1, 1, 500, ACK, 0),  # the probe
        (0, 3, 1, 110, 0, 0, ACK, 1),
        (0, 4, 110, 1, 10, 500, ACK, 0),  # new data from the same number: no repetition
    ]
    rows = TcpRows(*(np.array(c, dtype=k) for c, k in zip(zip(*row, strict=True), COLUMN_TYPES.values(), strict=True)))
    got = analyse_tcp(rows)
    assert got.stepped == 1
    assert got.mark.tolist() == [0, Mark.ZERO_WINDOW, 0, Mark.ZERO_WINDOW, 0]


def test_nothing_in_nothing_out() -> None:
    got = analyse_tcp(TcpRows.join([]))
    assert len(got.mark) == len(got.rtt_ns) == len(got.starts) == 0
