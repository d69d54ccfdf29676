"""The source on real sockets and real namespaces: what is sent is seen once, with the times the kernel took."""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from collector.keys import hash64
from collector.packet.live.settings import BufferSettings, BurstSettings, KeyRule, PacketSettings
from collector.packet.live.source import PacketSource
from collector.packet.live.tap_stamps import DecoderRule
from collector.record import Columns, DropReason
from tests.collector.packet.live.netns import Pair, as_root, inside, pair, reading, run

PORT = 5_555


def opened(interface: str, netns: str = "", folder: Path | None = None, **more: Any) -> PacketSource:
    as_root()
    settings = PacketSettings(**{"interfaces": (interface,), "retire_ms": 5, "ring_mib": 4, "report": "100ms", **more})
    settings.validate()
    source = PacketSource("here", settings)
    if folder is not None:
        source.use_folder(folder)
    if netns:
        with inside(netns):
            available = source.start({})
    else:
        available = source.start({})
    assert available.status != "unavailable", available.reason
    return source


class Seen:
    """Everything a source handed over."""

    def __init__(self) -> None:
        self.columns: dict[str, list[Columns]] = {}
        self.drops = 0

    def poll(self, source: PacketSource, times: int = 1, pause_s: float = 0.03) -> Seen:
        for _ in range(times):
            polled = source.poll(reading())
            for part in polled.columns:
                part.check()
                self.columns.setdefault(part.table.name, []).append(part)
            self.drops += polled.drops.get(DropReason.SOURCE_LOST, 0)
            time.sleep(pause_s)
        return self

    def rows(self, table: str) -> list[dict[str, Any]]:
        out = []
        for part in self.columns.get(table, []):
            lists = {}
            for column in part.table.columns:
                values = part.text(column.name) if column.name in part.texts else part.values[column.name].tolist()
                nulls = part.nulls.get(column.name)
                lists[column.name] = (
                    values if nulls is None else [None if n else v for v, n in zip(values, nulls.tolist(), strict=True)]
                )
            out += [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]
        return out

    def gauge(self, name: str) -> float:
        return sum(row["value"] for row in self.rows("gauges") if row["name"] == name)


def udp(to: tuple[str, int], **options: int) -> socket.socket:
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if "ttl" in options:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, options["ttl"])
    if "dscp" in options:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, options["dscp"] << 2)
    sender.connect(to)
    return sender


def numbered(first: int, count: int, size: int = 64) -> list[bytes]:
    return [struct.pack(">Q", n) + bytes(size - 8) for n in range(first, first + count)]


RULE = KeyRule(space="order", ports=(PORT,), offset=0, width=8)


@pytest.fixture
def namespaces() -> Any:
    with pair() as made:
        with inside(made.right):
            sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # so that nothing is answered with ICMP
            sink.bind(("10.99.0.2", PORT))
        with sink:
            yield made


@pytest.mark.parametrize("rings", [1, 2])
def test_every_packet_is_stamped_once_at_both_ends_or_counted_as_dropped(namespaces: Pair, rings: int) -> None:
    sources = [
        opened("l0", namespaces.left, keys=(RULE,), rings=rings, taps={"l0": "near"}),
        opened("r0", namespaces.right, keys=(RULE,), rings=rings, taps={"r0": "far"}),
    ]
    seen = [Seen(), Seen()]
    try:
        with inside(namespaces.left):
            senders = [udp(("10.99.0.2", PORT)) for _ in range(4)]
        before = time.time_ns()
        for number, payload in enumerate(numbered(1, 20_000)):
            senders[number % 4].send(payload)
            if number % 5_000 == 0:
                for source, got in zip(sources, seen, strict=True):
                    got.poll(source, pause_s=0)
        after = time.time_ns()
        for source, got in zip(sources, seen, strict=True):
            got.poll(source, 6)
    finally:
        for source in sources:
            source.close()
    expected = {hash64("order", n) for n in range(1, 20_001)}
    for got in seen:
        keys = [row["key"] for row in got.rows("stamps")]
        assert len(keys) == len(set(keys))
        assert set(keys) <= expected
        assert len(keys) + got.drops >= 20_000
        assert got.drops == 0 or len(keys) < 20_000
        assert got.gauge("packet_dropped") == got.drops
    near, far = ({row["key"]: row for row in got.rows("stamps")} for got in seen)
    assert {row["service"] for row in near.values()} == {"near"}
    assert {row["service"] for row in far.values()} == {"far"}
    both = near.keys() & far.keys()
    assert len(both) > 10_000
    times = np.array([(near[key]["ts_ns"], far[key]["ts_ns"]) for key in both])
    assert times.min() >= before
    assert times.max() <= after + 50_000_000
    assert (times[:, 1] >= times[:, 0]).all()  # one clock: the far end is never first
    labels = {row["label_set"]: json.loads(row["labels"]) for row in seen[0].rows("label_sets")}
    used = {row["label_set"] for row in near.values()}
    assert [labels[u] for u in used] == [{"interface": "l0", "direction": "out", "source": "sw"}]


def test_the_flow_rows_say_what_was_sent(namespaces: Pair) -> None:
    source = opened("r0", namespaces.right)
    seen = Seen()
    try:
        with inside(namespaces.left):
            sender = udp(("10.99.0.2", PORT), ttl=61, dscp=46)
        port = sender.getsockname()[1]
        for payload in numbered(0, 300, 100):
            sender.send(payload)
        seen.poll(source, 8)
    finally:
        source.close()
    rows = [row for row in seen.rows("flows") if row["target_port"] == PORT]
    assert sum(row["packets"] for row in rows) == 300
    assert sum(row["bytes"] for row in rows) == 300 * (100 + 42)
    (row, *_) = rows
    assert (row["source"], row["source_port"], row["target"]) == ("10.99.0.1", port, "10.99.0.2")
    assert (row["protocol"], row["direction"], row["interface"], row["time_source"]) == (17, "in", "r0", "sw")
    assert (row["ttl_min"], row["ttl_max"], row["hops"], row["dscp_min"], row["dscp_max"]) == (61, 61, 3, 46, 46)
    assert row["coverage"] == 1.0
    assert row["retransmissions"] is None
    assert row["rtt_p50_ns"] is None


def test_another_ttl_or_class_is_a_change(namespaces: Pair) -> None:
    source = opened("r0", namespaces.right)
    seen = Seen()
    try:
        with inside(namespaces.left):
            sender = udp(("10.99.0.2", PORT), ttl=64, dscp=0)
        for ttl, dscp in ((64, 0), (64, 0), (60, 0), (60, 46)):
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, dscp << 2)
            for payload in numbered(0, 20):
                sender.send(payload)
            reports = len(seen.rows("flows"))
            while len(seen.rows("flows")) == reports:
                seen.poll(source)
    finally:
        source.close()
    changes = seen.rows("changes")
    assert [(c["kind"], c["service"]) for c in changes] == [("network", "r0")] * 2
    assert changes[0]["what"].endswith("udp: 0 hops became 4 (TTL 64 became 60)")
    assert changes[1]["what"].endswith("udp: DSCP 0 became 46")


def test_a_tcp_flow_has_round_trips_and_a_handshake(namespaces: Pair) -> None:
    source = opened("l0", namespaces.left, report="10s")
    seen = Seen()
    try:
        with inside(namespaces.right):
            listener = socket.create_server(("10.99.0.2", PORT))
        with inside(namespaces.left):
            client = socket.create_connection(("10.99.0.2", PORT))
        server, _ = listener.accept()
        for _ in range(100):
            client.sendall(b"ping" * 10)
            server.sendall(server.recv(100))
            client.recv(100)
        client.close()
        server.close()
        seen.poll(source, 3)
        source._report_ns = 0
        seen.poll(source)
    finally:
        source.close()
        listener.close()
    rows = {row["direction"]: row for row in seen.rows("flows") if row["protocol"] == 6}
    assert rows["out"]["rtt_samples"] >= 100
    assert 0 < rows["out"]["rtt_min_ns"] <= rows["out"]["rtt_p50_ns"] <= rows["out"]["rtt_p99_ns"]
    assert rows["out"]["rtt_p99_ns"] <= rows["out"]["rtt_max_ns"] < 1_000_000_000
    assert rows["out"]["handshake_ns"] > 0
    assert rows["out"]["retransmissions"] == rows["in"]["retransmissions"] == 0


def test_a_burst_names_its_flow_class_and_process() -> None:
    source = opened("lo", filter=f"udp port {PORT + 1}", bursts=BurstSettings(bytes_100us=20_000, bytes_1ms=60_000))
    seen = Seen()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", PORT + 1))
    sender = udp(("127.0.0.1", PORT + 1), dscp=34)
    try:
        seen.poll(source)
        for _ in range(60):
            sender.send(bytes(8_000))
        seen.poll(source, 6)
    finally:
        source.close()
        receiver.close()
    rows = [row for row in seen.rows("intervals") if row["kind"] == "microburst_1ms"]
    assert rows
    flow = f"127.0.0.1:{sender.getsockname()[1]} > 127.0.0.1:{PORT + 1} udp"
    labels = {row["label_set"]: json.loads(row["labels"]) for row in seen.rows("label_sets")}
    for row in rows:
        about = labels[row["label_set"]]
        assert row["culprit"] == flow
        assert row["thread"] == os.getpid()
        assert row["ts_ns"] % 1_000_000 == 0
        assert row["duration_ns"] % 1_000_000 == 0
        assert about["dscp"] == "AF41 100%"
        assert about["window"] == "1ms"
        assert about["threshold_bytes"] == "60000"
        assert about["flows"] == f"{flow} 100%"
        assert int(about["peak_bytes"]) >= 60_000
        assert f"[{os.getpid()}]" in about["processes"]
    assert seen.gauge("packet_bursts") >= len(rows)


def test_a_small_ring_loses_packets_and_counts_every_one() -> None:
    source = opened("lo", filter=f"udp dst port {PORT + 2}", ring_mib=2, keys=(RULE,), retire_ms=1000)
    seen = Seen()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", PORT + 2))
    sender = udp(("127.0.0.1", PORT + 2))
    sent = 60_000
    try:
        for payload in numbered(0, sent, 32):
            sender.send(payload)
        time.sleep(1.2)
        seen.poll(source, 4, 0.35)
    finally:
        source.close()
        receiver.close()
    assert seen.drops > 0
    assert seen.gauge("packet_packets") + seen.drops == sent
    assert seen.gauge("packet_coverage") > 0
    coverage = [row["coverage"] for row in seen.rows("flows") if row["target_port"] == PORT + 2]
    assert coverage
    assert min(coverage) < 1


def test_an_interface_that_is_not_there_is_named_beside_those_that_are() -> None:
    as_root()
    source = PacketSource("here", PacketSettings(interfaces=("nosuch0",)))
    available = source.start({})
    assert available.status == "unavailable"
    assert "there is no interface nosuch0; here are lo" in available.reason
    source = PacketSource("here", PacketSettings(interfaces=("nosuch0", "lo")))
    available = source.start({})
    assert available.status == "degraded"
    assert "nosuch0" in available.reason
    source.close()


def test_no_interface_is_said() -> None:
    assert "no interface is named" in PacketSource("here").start({}).reason


def test_a_buffer_without_a_folder_is_said() -> None:
    as_root()
    source = PacketSource("here", PacketSettings(interfaces=("lo",), buffer=BufferSettings(bytes=64 << 20)))
    assert "no folder" in source.start({}).reason
    source.close()


class Twice:
    """A decoder that finds two messages in each payload."""

    def decode(self, data: Any, starts: Any, lengths: Any) -> Any:
        firsts = [int.from_bytes(data[at : at + 8].tobytes(), "big") for at in starts]
        assert all(length >= 8 for length in lengths)
        return SimpleNamespace(
            row=np.repeat(np.arange(len(starts)), 2),
            key=np.array([(2 * n, 2 * n + 1) for n in firsts], dtype=np.uint64).ravel(),
        )


def test_a_decoder_may_find_several_keys_in_a_packet() -> None:
    as_root()
    settings = PacketSettings(interfaces=("lo",), retire_ms=5, ring_mib=4)
    source = PacketSource("here", settings, [DecoderRule(Twice(), (PORT + 3,), direction="in")])
    source.start({})
    seen = Seen()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", PORT + 3))
    sender = udp(("127.0.0.1", PORT + 3))
    try:
        for payload in numbered(0, 50):
            sender.send(payload)
        seen.poll(source, 3)
    finally:
        source.close()
        receiver.close()
    assert sorted(row["key"] for row in seen.rows("stamps")) == list(range(100))


def test_an_unknown_decoder_is_said_and_the_tap_runs() -> None:
    as_root()
    rule = KeyRule(decoder="nosuch", ports=(PORT,))
    source = PacketSource("here", PacketSettings(interfaces=("lo",), keys=(rule,)))
    available = source.start({})
    assert available.status == "degraded"
    assert "decoder 'nosuch' cannot be used" in available.reason
    source.close()


def test_identifiers_of_any_width_order_and_kind_and_what_is_cut() -> None:
    as_root()
    rules = (
        KeyRule(space="a", ports=(PORT + 4,), offset=1, width=3, endian="little"),
        KeyRule(space="b", ports=(PORT + 4,), offset=2, width=5),
        KeyRule(space="c", ports=(PORT + 4,), offset=0, width=16, kind="bytes"),
        KeyRule(space="d", ports=(PORT + 4,), offset=40, width=8),
    )
    source = opened("lo", keys=rules, snap=64)
    seen = Seen()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", PORT + 4))
    payload = bytes(range(1, 61))
    try:
        udp(("127.0.0.1", PORT + 4)).send(payload)
        seen.poll(source, 8)
    finally:
        source.close()
        receiver.close()
    wanted = [
        hash64("a", int.from_bytes(payload[1:4], "little")),
        hash64("b", int.from_bytes(payload[2:7], "big")),
        hash64("c", payload[:16]),
    ]
    assert sorted(row["key"] for row in seen.rows("stamps")) == sorted(wanted)
    assert seen.gauge("packet_keys_short") == 1  # beyond the snap length: counted, not guessed


def test_a_shipped_decoder_stamps_the_messages_of_a_datagram() -> None:
    as_root()
    registry = pytest.importorskip("collector.decode.registry", reason="no protocol decoders in this build")
    payload = b"SESSION001" + struct.pack(">QH", 7, 2) + 2 * (struct.pack(">H", 12) + b"S" + bytes(10) + b"O")
    data = np.frombuffer(payload, dtype=np.uint8)
    wanted = registry.make("itch", keys=True, digests=False).decode(data, np.array([0]), np.array([len(data)])).key
    source = opened("lo", keys=(KeyRule(decoder="itch", ports=(PORT + 5,)),))
    seen = Seen()
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", PORT + 5))
    try:
        udp(("127.0.0.1", PORT + 5)).send(payload)
        seen.poll(source, 3)
    finally:
        source.close()
        receiver.close()
    assert len(wanted) == 2
    assert sorted(row["key"] for row in seen.rows("stamps")) == sorted(wanted.tolist())


def test_an_interface_that_goes_away_is_an_error_and_one_that_is_down_is_not(namespaces: Pair) -> None:
    source = opened("r0", namespaces.right)
    seen = Seen().poll(source)
    run("ip", "-n", namespaces.right, "link", "set", "r0", "down")
    seen.poll(source, 5)
    run("ip", "-n", namespaces.right, "link", "set", "r0", "up")
    with inside(namespaces.left):
        sender = udp(("10.99.0.2", PORT))
    for _ in range(20):
        sender.send(bytes(30))
        seen.poll(source)
    assert [row for row in seen.rows("flows") if row["target_port"] == PORT]
    run("ip", "-n", namespaces.left, "link", "delete", "l0")
    with pytest.raises(OSError, match="r0 is gone"):
        seen.poll(source, 20)
    source.close()
    with inside(namespaces.right):
        assert "there is no interface r0" in source.start({}).reason


def test_rings_share_an_interface_and_no_other_programs_packets() -> None:
    sources = [opened("lo", rings=3, filter=f"udp dst port {PORT + 6}") for _ in range(2)]
    groups = [{ring.group for ring in source._taps[0].rings} for source in sources]
    assert all(len(group) == 1 for group in groups)
    assert groups[0] != groups[1]
    seen = [Seen(), Seen()]
    receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    receiver.bind(("127.0.0.1", PORT + 6))
    try:
        for source, got in zip(sources, seen, strict=True):
            got.poll(source, pause_s=0)
        senders = [udp(("127.0.0.1", PORT + 6)) for _ in range(24)]
        for sender in senders:
            for payload in numbered(0, 10):
                sender.send(payload)
        for source, got in zip(sources, seen, strict=True):
            got.poll(source, 8)
    finally:
        for source in sources:
            source.close()
        receiver.close()
    for got in seen:
        assert sum(row["packets"] for row in got.rows("flows")) == 240
        assert len({row["source_port"] for row in got.rows("flows")}) == 24
