"""The rolling buffer and what triggers keep of it: bounded on disk, whole in time, read by us, tshark and scapy."""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scapy.layers.l2 import Dot1Q, Ether
from scapy.utils import PcapNgReader

from collector.packet.capture import Capture
from collector.packet.live.captures import Window, keep_newest, write_capture
from collector.packet.live.epb import no_blocks, packet_blocks, section
from collector.packet.live.recorder import Recorder, chunks
from collector.packet.live.settings import BufferSettings
from collector.packet.live.tpacket import read_block
from collector.packet.live.trigger import (
    MOST_WAITING,
    NotRecordingError,
    Trigger,
    request_capture,
    slug,
    take_requests,
)
from tests.collector.packet.live.blocks import Frame, ring_block
from tests.collector.packet.live.netns import as_root, inside, pair
from tests.collector.packet.live.test_source import PORT, Seen, numbered, opened, udp
from tests.needs import program

T0 = 1_700_000_000_000_000_000
ETHERNET = 1


def packets_of(file: Path) -> list[tuple[int, bytes, int]]:
    """(time, bytes, length on the wire) by our own reader; raises for a damaged file."""
    capture = Capture(file)
    out = []
    for block in capture.blocks():
        out += [(int(block.ts_ns[n]), block.packet(n), int(block.origlen[n])) for n in range(len(block))]
    assert capture.damage is None
    return out


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.binary(min_size=14, max_size=90), st.booleans()), min_size=1, max_size=15),
    st.integers(20, 100),
)
def test_what_is_written_is_what_was_captured(
    tmp_path_factory: pytest.TempPathFactory, frames: list[tuple[bytes, bool]], snap: int
) -> None:
    given_frames = [Frame(d, T0 + 7 * n, len(d) + 5, outgoing=out) for n, (d, out) in enumerate(frames)]
    live = read_block(ring_block(given_frames), 0, 1 << 20, 0)
    blocks = packet_blocks(live, 0, np.arange(len(live)), snap)
    file = tmp_path_factory.mktemp("epb") / "x.pcapng"
    file.write_bytes(section("why", [("eth7", ETHERNET)], snap) + no_blocks().with_more(blocks).sorted_before(2**62)[0])
    assert packets_of(file) == [(f.ts_ns, f.data[:snap], f.wire) for f in given_frames]


def test_a_tag_is_put_back_and_directions_are_kept(tmp_path: Path) -> None:
    inner = bytes(Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02", type=0x0800) / (b"x" * 40))
    frames = [Frame(inner, T0, vlan=0x2007, outgoing=True), Frame(inner, T0 + 1)]
    live = read_block(ring_block(frames), 0, 1 << 20, 0)
    file = tmp_path / "x.pcapng"
    file.write_bytes(section("", [("e", ETHERNET)], 128) + packet_blocks(live, 0, np.arange(2), 128).data.tobytes())
    tagged, plain = PcapNgReader(str(file))
    assert tagged[Dot1Q].vlan == 7
    assert tagged[Dot1Q].prio == 1
    assert bytes(tagged[Dot1Q].payload) == b"x" * 40
    assert bytes(plain) == inner
    assert (tagged.direction, plain.direction) == (2, 1)


def recorded(tmp_path: Path, count: int, blocks: int, most: int = 64 << 20, files: int = 4) -> Recorder:
    recorder = Recorder(tmp_path / "buffer", most, files)
    for number in range(blocks):
        frames = [
            Frame(struct.pack(">Q", number * count + n) * 8, T0 + (number * count + n) * 1_000) for n in range(count)
        ]
        raw = ring_block(frames)
        recorder.write([raw[: int(raw[20:24].view("<u4")[0])]], number % 2)
    return recorder


def test_a_window_over_several_files_and_rings_is_whole_and_in_order(tmp_path: Path) -> None:
    recorder = recorded(tmp_path, 500, 40, most=3 << 20, files=4)
    done = write_capture(
        recorder.segments(),
        Window(T0 + 14_000_500, T0 + 18_000_500, "late"),
        tmp_path / "x.pcapng",
        [("a", ETHERNET), ("b", ETHERNET)],
        64,
        1 << 30,
        [0, 3],
    )
    assert (done.packets, done.cut) == (4_000, "")
    assert done.bytes == done.path.stat().st_size
    numbers = [struct.unpack_from(">Q", data)[0] for _, data, _ in packets_of(done.path)]
    assert numbers == list(range(14_001, 18_001))
    capture = Capture(done.path)
    for _ in capture.blocks():
        pass
    assert capture.dropped == 3


def test_what_the_buffer_no_longer_has_is_said(tmp_path: Path) -> None:
    recorder = recorded(tmp_path, 500, 40, most=1 << 20, files=4)
    assert recorder.size_bytes <= 1 << 20
    assert sum(p.stat().st_size for p in (tmp_path / "buffer").iterdir()) == recorder.size_bytes
    window = Window(T0, T0 + 10**10, "all")
    args = ([("a", ETHERNET), ("b", ETHERNET)], 64, 1 << 30, [0, 0])
    done = write_capture(recorder.segments(), window, tmp_path / "x.pcapng", *args)
    assert done.cut == "the buffer does not reach back to the start of the window"
    assert 0 < done.packets < 20_000
    small = write_capture(recorder.segments(), window, tmp_path / "y.pcapng", *args[:2], 50_000, [0, 0])
    assert "more than 50000 bytes" in small.cut
    assert small.path.stat().st_size < 60_000
    assert len(packets_of(small.path)) == small.packets


def test_a_pinned_window_outlives_its_turn_but_not_twice_the_size(tmp_path: Path) -> None:
    recorder = recorded(tmp_path, 500, 5, most=1 << 20, files=4)
    first = recorder.segments()[0].path
    recorder.pinned_ns = T0
    raw = ring_block([Frame(bytes(60_000), T0 + 10**9)])
    raw = raw[: int(raw[20:24].view("<u4")[0])]
    while recorder.size_bytes < 3 << 19:
        recorder.write([raw], 0)
    assert first.exists()
    for _ in range(40):
        recorder.write([raw], 0)
    assert not first.exists()
    assert recorder.unpinned
    assert recorder.size_bytes <= 2 << 20


def test_a_full_disk_stops_the_buffer_with_a_reason(tmp_path: Path) -> None:
    recorder = recorded(tmp_path, 10, 1)
    recorder._file = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115 - the recorder closes it
    raw = ring_block([Frame(bytes(100))])
    recorder.write([raw[:4096]], 0)
    assert "No space left on device" in recorder.problem
    recorder.write([raw[:4096]], 0)
    recorder.retry()
    recorder.write([raw[:4096]], 0)
    assert recorder.problem == ""
    recorder.close()
    assert not list((tmp_path / "buffer").iterdir())


def test_a_damaged_file_ends_where_it_is_damaged(tmp_path: Path) -> None:
    recorder = recorded(tmp_path, 100, 3)
    (segment,) = recorder.segments()
    starts = [c.at for c in chunks(segment)]
    assert len(starts) == 3
    with segment.path.open("r+b") as file:
        file.seek(starts[1] - 32)
        file.write(b"\xff" * 20)
    assert len(list(chunks(segment))) < 3


def test_the_newest_captures_are_kept(tmp_path: Path) -> None:
    import os

    for n in range(6):
        (tmp_path / f"{n}.pcapng").write_bytes(bytes(1_000))
        os.utime(tmp_path / f"{n}.pcapng", (n, n))
    gone = keep_newest(tmp_path, 3_500, 10)
    assert sorted(p.name for p in gone) == ["0.pcapng", "1.pcapng", "2.pcapng"]
    keep_newest(tmp_path, 1 << 30, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["4.pcapng", "5.pcapng"]


def test_requests_are_small_files_that_are_checked(tmp_path: Path) -> None:
    with pytest.raises(NotRecordingError, match="packet buffer"):
        request_capture(tmp_path, before_ns=1, after_ns=1, reason="x")
    folder = tmp_path / "agent" / "triggers"
    folder.mkdir(parents=True)
    with pytest.raises(ValueError, match="is none"):
        request_capture(tmp_path, before_ns=0, after_ns=0, reason="x")
    path, asked = request_capture(tmp_path, before_ns=5, after_ns=6, reason="p99 of ../order!", at_ns=T0)
    assert path == tmp_path / "agent" / "captures" / "20231114T221320.000Z-p99-of-order.pcapng"
    (folder / "1-bad.json").write_text("{}")
    found, wrong = take_requests(folder)
    assert found == [asked] == [Trigger(at_ns=T0, before_ns=5, after_ns=6, reason="p99 of ../order!")]
    assert len(wrong) == 1
    assert not list(folder.iterdir())
    for _ in range(MOST_WAITING):
        request_capture(tmp_path, before_ns=5, after_ns=6, reason="x")
    with pytest.raises(NotRecordingError, match="triggers wait"):
        request_capture(tmp_path, before_ns=5, after_ns=6, reason="x")


@given(st.text(max_size=200))
def test_a_reason_never_leaves_the_folder(reason: str) -> None:
    name = slug(reason)
    assert 0 < len(name) <= 60
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


def test_a_trigger_keeps_what_passed_before_and_after_it(tmp_path: Path) -> None:
    tshark = program("tshark", "tshark")
    with pair() as made:
        source = opened(
            "l0", made.left, folder=tmp_path / "agent", buffer=BufferSettings(bytes=32 << 20, files=4), snap=100
        )
        seen = Seen()
        try:
            with inside(made.right), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
                sink.bind(("10.99.0.2", PORT))
                with inside(made.left):
                    sender = udp(("10.99.0.2", PORT))
                for payload in numbered(0, 50, 200):
                    sender.send(payload)
                seen.poll(source, 3)
                path, _ = request_capture(tmp_path, before_ns=10 * 10**9, after_ns=200_000_000, reason="slow order")
                seen.poll(source)
                for payload in numbered(50, 50, 200):
                    sender.send(payload)
                deadline = time.monotonic() + 10
                while not path.exists() and time.monotonic() < deadline:
                    seen.poll(source)
                for payload in numbered(100, 5, 200):
                    sender.send(payload)
                seen.poll(source)
        finally:
            source.close()
    numbers = [int.from_bytes(data[42:50], "big") for _, data, _ in packets_of(path) if len(data) == 100]
    assert numbers == list(range(100))
    assert {wire for _, data, wire in packets_of(path) if len(data) == 100} == {242}
    assert path.stat().st_mode & 0o777 == 0o600
    out = subprocess.run(
        [tshark, "-r", str(path), "-Y", "udp", "-T", "fields", "-e", "frame.number"], capture_output=True, check=True
    )
    assert len(out.stdout.split()) == 100
    from collector.packet.importer import analyse

    assert analyse([path]).packets >= 100
    assert not (tmp_path / "agent" / "triggers").exists()  # nobody listens any more
    assert not list((tmp_path / "agent" / "packet-buffer").iterdir())


def test_the_same_packets_at_the_same_times_as_tcpdump(tmp_path: Path) -> None:
    as_root()
    tcpdump = program("tcpdump", "tcpdump")
    port, count = PORT + 7, 3_000
    file = tmp_path / "theirs.pcap"
    expression, precise = f"udp dst port {port}", "--time-stamp-precision=nano"
    source = opened(
        "lo",
        folder=tmp_path / "agent",
        filter=expression,
        ring_mib=32,
        retire_ms=20,
        buffer=BufferSettings(bytes=32 << 20),
    )
    try:
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink,
            subprocess.Popen(
                [
                    tcpdump,
                    *f"-i lo -w {file} -s 128 -B 65536 -U -Z root --immediate-mode".split(),
                    precise,
                    expression,
                ],
                stderr=subprocess.PIPE,
            ) as theirs,
        ):
            sink.bind(("127.0.0.1", port))
            assert theirs.stderr is not None
            while b"listening" not in theirs.stderr.readline():
                assert theirs.poll() is None
            sender = udp(("127.0.0.1", port))
            for payload in numbered(0, count, 80):
                sender.send(payload)
            time.sleep(0.3)
            theirs.terminate()
            report = theirs.stderr.read().decode()
        seen = Seen().poll(source, 3)
        path, asked = request_capture(tmp_path, before_ns=60 * 10**9, after_ns=1, reason="compare")
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            seen.poll(source)
    finally:
        source.close()
    assert "0 packets dropped by kernel" in report
    ours, reference = packets_of(path), packets_of(file)
    assert len(ours) == len(reference) == count
    assert [data for _, data, _ in ours] == [data for _, data, _ in reference]
    # One stamp per packet, taken once by the stack, and seen by both.
    assert [ts for ts, _, _ in ours] == [ts for ts, _, _ in reference]
    assert json.loads(json.dumps(asked.reason)) == "compare"
