"""Flows of real taps in the store: summed over reports, filtered, ordered; and latency between two taps of a path."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from analytics import latency, windows
from analytics.flows import ORDERS, flows
from collector.packet.live.settings import KeyRule
from collector.record import FLOWS, Columns
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types
from tests.analytics.world import HOUR, beat, path, put
from tests.collector.packet.live.netns import inside, pair, run
from tests.collector.packet.live.test_source import Seen, opened, udp
from tests.needs import program

S = 10**9
IN, OUT = 6_001, 6_002
DELAY_S = 0.004


def row(**more: Any) -> dict[str, Any]:
    plain = {
        "ts": HOUR, "duration_ns": S, "host": "a", "tap": "near", "interface": "l0", "direction": "in",
        "time_source": "sw", "source": "10.0.0.1", "target": "10.0.0.2", "source_port": 7, "target_port": 9,
        "protocol": 6, "packets": 10, "bytes": 1_000, "hops": 3, "ttl_min": 61, "ttl_max": 61, "dscp_min": 0,
        "dscp_max": 0, "coverage": 1.0, "retransmissions": 1, "rtt_samples": 5, "rtt_min_ns": 100, "rtt_p50_ns": 200,
        "rtt_p99_ns": 300, "rtt_max_ns": 400, "batch": 1, "seq": 0, "cut_day": 20_254,
    }  # fmt: skip
    return {**dict.fromkeys(table_types()["flows"]), **plain, **more}


def keep(store: Store, *rows: dict[str, Any]) -> None:
    store.insert("flows", from_rows(table_types()["flows"], rows), token=f"flows#{time.monotonic_ns()}")


def test_reports_are_summed_and_percentiles_are_not(store: Store) -> None:
    keep(
        store,
        row(),
        row(ts=HOUR + S, packets=5, bytes=70, retransmissions=2, rtt_min_ns=90, rtt_p50_ns=150, rtt_p99_ns=900,
            rtt_max_ns=1_000, coverage=0.5, ttl_min=60, hops=4),
        row(source="10.0.0.2", target="10.0.0.1", source_port=9, target_port=7, bytes=1),
        row(source="", target="", source_port=0, target_port=0, protocol=0, hops=None, ttl_min=None, ttl_max=None,
            dscp_min=None, dscp_max=None, retransmissions=None, rtt_samples=None, rtt_min_ns=None, rtt_p50_ns=None,
            rtt_p99_ns=None, rtt_max_ns=None, bytes=5),
        row(ts=HOUR + 3_600 * S, bytes=10**9),
    )  # fmt: skip
    found = flows(store, from_ns=HOUR, to_ns=HOUR + 10 * S)
    assert [f.bytes for f in found] == [1_070, 5, 1]
    first, other, back = found
    assert (first.packets, first.reports, first.from_ns, first.to_ns) == (15, 2, HOUR, HOUR + 2 * S)
    assert (first.retransmissions, first.rtt_samples, first.rtt_min_ns, first.rtt_max_ns) == (3, 10, 90, 1_000)
    assert (first.rtt_p50_worst_ns, first.rtt_p99_worst_ns) == (200, 900)
    assert (first.hops_min, first.hops_max, first.ttl_min, first.ttl_max) == (3, 4, 60, 61)
    assert (first.coverage, first.protocol, first.vlan) == (0.5, "tcp", None)
    assert (other.source, other.hops_max, other.rtt_samples, other.retransmissions) == ("", None, None, None)
    assert (back.source, back.target_port) == ("10.0.0.2", 7)


def test_filters_and_orders(store: Store) -> None:
    keep(
        store,
        row(tap="t1", bytes=1, packets=9, retransmissions=0, rtt_p99_ns=5, hops=9, source="fd00::1"),
        row(tap="t2", bytes=9, packets=1, retransmissions=5, rtt_p99_ns=None, hops=None, host="b", target_port=443),
    )
    reach = {"from_ns": HOUR, "to_ns": HOUR + S}
    assert [f.tap for f in flows(store, **reach, host="b")] == ["t2"]
    assert [f.tap for f in flows(store, **reach, tap="t1")] == ["t1"]
    assert [f.tap for f in flows(store, **reach, address="fd00::1")] == ["t1"]
    assert [f.tap for f in flows(store, **reach, port=443)] == ["t2"]
    firsts = {order: flows(store, **reach, order=order, limit=1)[0].tap for order in ORDERS}
    assert firsts == {"bytes": "t2", "packets": "t1", "retransmissions": "t2", "rtt": "t1", "hops": "t1"}


@contextmanager
def relayed(middle: str) -> Iterator[None]:
    """A program in the namespace `middle` that keeps each datagram for DELAY_S and passes it on."""
    stop = threading.Event()
    with inside(middle):
        taken = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        taken.bind(("10.99.0.2", IN))
        onward = udp(("10.98.0.2", OUT))
    taken.settimeout(0.1)

    def relay() -> None:
        while not stop.is_set():
            try:
                payload = taken.recv(2_000)
            except TimeoutError:
                continue
            time.sleep(DELAY_S)
            onward.send(payload)

    thread = threading.Thread(target=relay)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        taken.close()
        onward.close()


def test_latency_between_two_taps_is_the_delay_in_between(store: Store) -> None:
    ip = program("ip", "iproute2")
    seen = [Seen(), Seen()]
    with ExitStack() as stack:
        first, far = stack.enter_context(pair()), stack.enter_context(pair())
        middle = first.right
        # A second link from the middle to the right namespace of the other pair.
        run(ip, "-n", middle, "link", "add", "m1", "type", "veth", "peer", "name", "n0", "netns", far.right)
        for name, device, address in ((middle, "m1", "10.98.0.1/24"), (far.right, "n0", "10.98.0.2/24")):
            run(ip, "-n", name, "address", "add", address, "dev", device)
            run(ip, "-n", name, "link", "set", device, "up")
        with inside(far.right):
            sink = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            sink.bind(("10.98.0.2", OUT))
        rule = KeyRule(space="order", ports=(IN, OUT), offset=4)
        sources = [
            opened("l0", first.left, keys=(rule,), taps={"l0": "near"}, ring_mib=16),
            opened("n0", far.right, keys=(rule,), taps={"n0": "far"}, ring_mib=16),
        ]
        for source in sources:
            stack.callback(source.close)
        stack.enter_context(relayed(middle))
        with inside(first.left):
            sender = udp(("10.99.0.2", IN))
        for number in range(100):
            sender.send(b"head" + struct.pack(">Q", number))
            time.sleep(DELAY_S * 1.5)
            for source, got in zip(sources, seen, strict=True):
                got.poll(source, pause_s=0)
        for source, got in zip(sources, seen, strict=True):
            got.poll(source, 4)
    stamps = [{k: v for k, v in r.items() if k != "seq"} for got in seen for r in got.rows("stamps")]
    assert len(stamps) == 200
    put(store, stamps)
    now = max(s["ts_ns"] for s in stamps) + 30 * S
    beat(store, now, now)
    ends = 'from = {point = "tap", service = "near"}, to = {point = "tap", service = "far"}'
    wire = path(f'max_age = "1s"\nstages = [{{name = "wire", class = "network", {ends}}}]', "wire")
    windows.run_due(store, {"wire": wire}, now_ns=now)
    (stage,) = [s for s in latency.percentiles(store, wire) if s.stage == "wire"]
    assert stage.count == 100
    assert stage.negative == 0
    sent = {s["key"]: s["ts_ns"] for s in stamps if s["service"] == "near"}
    exact = sorted(s["ts_ns"] - sent[s["key"]] for s in stamps if s["service"] == "far")
    assert stage.min_ns == exact[0] >= DELAY_S * 1e9  # the delay is the least it can be
    assert stage.max_ns == exact[-1]
    assert stage.p50_ns == pytest.approx(exact[49], rel=0.004)
    assert stage.p50_ns < 5 * DELAY_S * 1e9


def test_what_a_tap_hands_over_is_what_the_store_takes(store: Store) -> None:
    columns = Columns.from_rows(
        FLOWS, [{"ts_ns": HOUR, "source": "10.0.0.1", "protocol": 17, "packets": 3, "vlan": 7, "coverage": 0.9}]
    )
    columns.check()
    values = {name: array.tolist()[0] for name, array in columns.values.items() if name not in columns.texts}
    keep(store, row(vlan=values["vlan"], protocol=values["protocol"], packets=values["packets"]))
    (flow,) = flows(store, from_ns=HOUR, to_ns=HOUR + 1)
    assert (flow.vlan, flow.protocol, flow.packets) == (7, "udp", 3)
