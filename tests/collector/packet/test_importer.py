"""The import as a whole: several files as one capture, progress, large captures, and its dictionary form."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether

from collector.packet import conversations, row_store
from collector.packet import report as report_module
from collector.packet.conversations import quantiles, rank
from collector.packet.importer import analyse
from collector.packet.tcp_rows import COLUMN_TYPES, TcpRows, by_flow
from tests.collector.packet import writing
from tests.collector.packet.writing import START, Packet


def request(start: int, port: int, rtt: int = 50_000) -> list[Packet]:
    """A connection of one request and its answer; every acknowledgement takes `rtt`."""
    steps = [
        (0, {"seq": 9, "flags": 2}),
        (rtt, {"seq": 99, "ack": 10, "flags": 0x12, "forward": False}),
        (1_000, {"seq": 10, "ack": 100}),
        (1_000, {"seq": 10, "ack": 100, "payload": b"request", "flags": 0x18}),
        (rtt, {"seq": 100, "ack": 17, "payload": b"answer", "flags": 0x18, "forward": False}),
        (rtt, {"seq": 17, "ack": 106}),
    ]
    out, ts = [], start
    for gap, what in steps:
        ts += gap
        out.append((ts, writing.tcp4(ports=(port, 80), **what)))  # type: ignore[arg-type]
    return out


def test_one_capture_in_several_files_is_one_capture(tmp_path: Path) -> None:
    packets = [p for port in range(1000, 1020) for p in request(START + port * 10**6, port)]
    whole = tmp_path / "whole.pcap"
    whole.write_bytes(writing.pcap(packets))
    parts = []
    for number, low in enumerate(range(0, len(packets), 7)):  # conversations are cut in the middle
        parts.append(tmp_path / f"{number}.pcapng")
        parts[-1].write_bytes(writing.pcapng(packets[low : low + 7]))
    one, many = analyse([whole]), analyse(parts)
    left, right = one.to_dict(), many.to_dict()
    assert len(right.pop("files")) == len(parts)
    left.pop("files")
    assert left == right
    assert one.rtt.samples == 4 * 20
    assert (one.handshake.samples, one.handshake.p50_ns) == (20, 51_000)


def test_progress_adds_up_to_the_file(tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap([(START + i, bytes(1500)) for i in range(15_000)]))
    told: list[int] = []
    analyse([file], lambda path, count: told.append(count) if path == file else None)
    assert sum(told) == file.stat().st_size > 20 << 20
    assert len(told) > 2


def test_a_capture_too_large_for_memory_gives_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = sorted(p for port in range(1000, 1200) for p in request(START + port * 777, port))
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(packets))
    in_memory = analyse([file])
    spilled = []
    real = row_store.RowStore._spill
    monkeypatch.setattr(row_store.RowStore.__init__, "__defaults__", (100,))
    monkeypatch.setattr(row_store.RowStore, "_spill", lambda self: (spilled.append(1), real(self))[1])
    on_disk = analyse([file])
    assert spilled
    left, right = in_memory.to_dict(), on_disk.to_dict()
    assert left.pop("worst_conversations") and right.pop("worst_conversations")
    assert left == right
    order = [np.sort(r.conversations, order=["flow", "first_ns"]) for r in (in_memory, on_disk)]
    assert (order[0] == order[1]).all()


def test_of_too_many_conversations_the_worst_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = [p for port in range(1000, 1200) for p in request(START + port * 10**6, port, rtt=port)]
    packets += [(packets[-1][0] + 10**9, packets[9 * 6 + 3][1])]  # the tenth client asks again
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(packets))
    monkeypatch.setattr(report_module, "KEPT", 7)
    monkeypatch.setattr(conversations, "_PIECE", 60)
    report = analyse([file])
    assert (report.tcp_conversations, report.retransmissions, len(report.conversations)) == (200, 1, 7)
    assert [one["from"] for one in report.worst(3)] == ["10.0.0.1:1009", "10.0.0.1:1199", "10.0.0.1:1198"]


def test_the_dictionary_form(tmp_path: Path) -> None:
    packets = [
        *request(START, 4000),
        (START + 10**9, bytes(Ether() / ARP())),
        (START + 10**9 + 1, bytes(Ether() / IPv6(src="::1", dst="::2") / TCP(sport=5, dport=6))),
        (START + 10**9, bytes(Ether() / IP(src="1.2.3.4", dst="4.3.2.1") / UDP(sport=5, dport=6))),
        (START + 10**9, bytes(Ether() / IP(src="4.3.2.1", dst="1.2.3.4") / UDP(sport=6, dport=5))),
    ]
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(packets))
    report = json.loads(json.dumps(analyse([file]).to_dict()))
    for name in ("retransmissions", "fast_retransmissions", "spurious_retransmissions", "out_of_order"):
        assert report[name] == 0
    for name in ("duplicate_acks", "lost_segments", "zero_windows"):
        assert report[name] == 0
    assert report["packets"] == 10
    assert report["flows"] == 3
    assert report["flows_by_protocol"] == {"6": 2, "17": 1}
    assert report["not_ip"] == 1
    assert report["backwards"] == 1
    assert report["rtt"] | {"samples": 4, "p50_ns": 50_000, "p99_ns": 50_000, "max_ns": 50_000} == report["rtt"]
    first = report["worst_conversations"][0]
    assert (first["from"], first["to"], first["packets"]) == ("10.0.0.1:4000", "10.0.0.2:80", 6)
    assert (first["rtt_samples"], first["rtt_max_ns"], first["handshake_ns"]) == (4, 50_000, 51_000)
    assert report["worst_conversations"][1]["from"] == "[::1]:5"
    assert report["worst_conversations"][1]["rtt_p99_ns"] is None


def test_a_file_that_is_missing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        analyse([tmp_path / "no.pcap"])


def test_ranks() -> None:
    assert [rank(p, n) for p, n in [(0.5, 1), (0.5, 2), (0.5, 3), (0.99, 100), (0.99, 101), (1.0, 7)]] == [
        1, 1, 2, 99, 100, 7,
    ]  # fmt: skip
    samples = np.array([5, 1, 4, 2, 3], dtype=np.int64)
    assert quantiles(samples, (0.5, 0.9, 1.0, 0.0)) == [3, 5, 5, 1]


def test_names_that_share_their_upper_bits_stay_apart() -> None:
    flow = np.array([8, 9, 8, 9, 8, 1 << 60], dtype="u8")
    columns = [flow, *(np.arange(6).astype(kind) for kind in list(COLUMN_TYPES.values())[1:])]
    rows = by_flow(TcpRows(*columns))
    assert rows.flow.tolist() == [8, 8, 8, 9, 9, 1 << 60]
    assert rows.seq.tolist() == [0, 2, 4, 1, 3, 5]
