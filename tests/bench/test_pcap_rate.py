"""How fast captures are imported, TCP analysis included, against scapy, dpkt and tshark in the same run.

CPU time counts, not wall time: the peers use one core, and what else the machine does must not decide. The rounds are
interleaved and the fastest of each counts. Slow peers read the beginning of the same capture.
"""

from __future__ import annotations

import resource
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import dpkt
import numpy as np
import pytest
from numpy.typing import NDArray
from scapy.layers.inet import IP, TCP
from scapy.utils import PcapReader

from collector.packet.importer import analyse
from tests.collector.packet import writing
from tests.needs import program

pytestmark = [pytest.mark.bench, pytest.mark.timeout(600)]

PACKETS = {"ours": 1_200_000, "tshark": 60_000, "dpkt": 30_000, "scapy": 3_000}
FLOWS = 2_000
ROUNDS = 3
GOALS = {"tshark": 20.0, "dpkt": 10.0, "scapy": 200.0}


def columns(sizes: NDArray[np.int64], up: bool, state: dict[str, NDArray[np.int64]], ts: NDArray[np.int64]) -> bytes:
    """One packet of every flow, in shuffled order, as pcap records."""
    order = np.argsort(ts % 7919, kind="stable")
    own, other = ("client", "server") if up else ("server", "client")
    rows = np.zeros((FLOWS, 70 + int(sizes.max())), dtype=np.uint8)

    def put(at: int, kind: str, values: NDArray[np.int64] | int) -> None:
        width = np.dtype(kind).itemsize
        full = np.broadcast_to(np.asarray(values), (FLOWS,)).astype(kind)
        rows[:, at : at + width] = full.view(np.uint8).reshape(FLOWS, width)

    when = np.sort(ts)
    put(0, "<u4", when // 10**9)
    put(4, "<u4", when % 10**9)
    put(8, "<u4", 54 + sizes)
    put(12, "<u4", 54 + sizes)
    put(28, ">u2", 0x0800)
    put(30, "u1", 0x45)
    put(32, ">u2", 40 + sizes)
    put(38, "u1", 64)
    put(39, "u1", 6)
    put(42 if up else 46, ">u4", 0x0A000000 + order)
    put(46 if up else 42, ">u4", 0x0A800001)
    put(50 if up else 52, ">u2", 10_000 + order)
    put(52 if up else 50, ">u2", 443)
    put(54, ">u4", state[own][order])
    put(58, ">u4", state[other][order])
    put(62, "u1", 0x50)
    put(63, "u1", 0x18)
    put(64, ">u2", 500)
    state[own][order] += sizes
    return rows[np.arange(rows.shape[1]) < (70 + sizes)[:, None]].tobytes()


def generate(folder: Path, mixed: bool) -> dict[str, Path]:
    """The same traffic for everyone: request, ACK, answer, ACK on 2,000 flows, one request in 100 sent twice."""
    rnd = np.random.default_rng(1)
    state = {side: np.full(FLOWS, 1000, dtype=np.int64) for side in ("client", "server")}
    whole = folder / "ours.pcap"
    ts = writing.START
    nothing = np.zeros(FLOWS, dtype=np.int64)
    with whole.open("wb") as out:
        out.write(writing.pcap([]))
        for number in range(PACKETS["ours"] // (4 * FLOWS)):
            for up in (True, False):
                size = rnd.choice([16, 64, 200, 700, 1400], FLOWS) if mixed else np.full(FLOWS, 64)
                for data in (size, nothing):
                    before = state["client"].copy()
                    now = ts + np.cumsum(rnd.integers(100, 900, FLOWS))
                    out.write(columns(data, up == (data is size), state, now))
                    if number % 100 == 99 and up and data is size:
                        state["client"] = before  # every flow sends its request again
                    ts = int(now[-1])
    files = {"ours": whole}
    with PcapReader(str(whole)) as reader:
        head = [(int(p.time * 10**9), bytes(p)) for _, p in zip(range(PACKETS["tshark"]), reader, strict=False)]
    for peer in ("tshark", "dpkt", "scapy"):
        files[peer] = folder / f"{peer}.pcap"
        files[peer].write_bytes(writing.pcap(head[: PACKETS[peer]]))
    return files


def run_ours(file: Path) -> int:
    return analyse([file]).packets


def run_scapy(file: Path) -> int:
    count = 0
    with PcapReader(str(file)) as reader:
        for packet in reader:
            ip, tcp = packet[IP], packet[TCP]
            count += bool((packet.time, ip.src, ip.dst, tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.flags, tcp.window))
    return count


def run_dpkt(file: Path) -> int:
    count = 0
    with file.open("rb") as raw:
        for ts, data in dpkt.pcap.Reader(raw):
            ip = dpkt.ethernet.Ethernet(data).data
            tcp = ip.data
            count += bool((ts, ip.src, ip.dst, tcp.sport, tcp.dport, tcp.seq, tcp.ack, tcp.flags, tcp.win))
    return count


def run_tshark(file: Path) -> int:
    names = ["frame.time_epoch", "ip.src", "ip.dst", "tcp.srcport", "tcp.dstport", "tcp.seq", "tcp.ack"]
    names += ["tcp.analysis.ack_rtt", "tcp.analysis.retransmission"]
    command = [
        program("tshark", "tshark"),
        "-n",
        "-r",
        str(file),
        "-T",
        "fields",
        *(x for n in names for x in ("-e", n)),
    ]
    return subprocess.run(command, check=True, capture_output=True).stdout.count(b"\n")


def cpu_seconds() -> float:
    """CPU time of this process and of the children it has waited for."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


@pytest.mark.parametrize("mixed", [False, True], ids=["64 bytes", "mixed sizes"])
def test_import_rate(tmp_path: Path, mixed: bool, capsys: pytest.CaptureFixture[str]) -> None:
    files = generate(tmp_path, mixed)
    runs: dict[str, Callable[[Path], int]] = {
        "ours": run_ours, "tshark": run_tshark, "dpkt": run_dpkt, "scapy": run_scapy,
    }  # fmt: skip
    best = dict.fromkeys(runs, float("inf"))
    for _ in range(ROUNDS):
        for name, run in runs.items():
            wall, begun = time.perf_counter(), cpu_seconds()
            assert run(files[name]) == PACKETS[name]
            used = (cpu_seconds() - begun) / PACKETS[name] * 1e9
            wall = (time.perf_counter() - wall) / PACKETS[name] * 1e9
            best[name] = min(best[name], used)
    ratios = {name: best[name] / best["ours"] for name in GOALS}
    with capsys.disabled():
        print(f"\n{'mixed' if mixed else '64-byte'}: CPU ns per packet", {n: round(v) for n, v in best.items()},  # noqa: T201
              "ratio", {n: round(v, 1) for n, v in ratios.items()}, f"our last wall {wall:.0f}")  # fmt: skip
    for name, goal in GOALS.items():
        assert ratios[name] >= goal, f"{name}: {ratios[name]:.1f} times, want {goal}"
