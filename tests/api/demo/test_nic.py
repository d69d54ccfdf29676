"""The NICs of the demo's network: Microsoft's own vectors, fixed flows on fixed queues, and what a lost one does."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo.faults import Fault, checked
from api.demo.history.calendar import DAY_NS, day
from api.demo.link_model import RETRANSMISSION_NS
from api.demo.nic import GIVES_UP_NS, Queue, Stream, striking
from api.demo.rss import FLOWS, HOSTS, QUEUES, flow_hash, on_queue, queue_of, toeplitz, used_queues

START = 1_800_000_000_000_000_000
MS = 1_000_000


def lost(host: str = "engine", *, size: float = 1.0, queue: int | None = None, lasts_ns: int | None = None) -> Fault:
    end_ns = None if lasts_ns is None else START + lasts_ns
    return checked(
        Fault(
            id="f", kind="lost_nic_queue", at=host, size=size, amount_ns=0, start_ns=START, end_ns=end_ns, queue=queue
        )
    )


# "Verifying the RSS Hash Calculation", IPv4: destination, source, hash with ports, hash of the addresses alone.
VECTORS = [
    ("161.142.100.80", 1766, "66.9.149.187", 2794, 0x51CCC178, 0x323E8FC2),
    ("65.69.140.83", 4739, "199.92.111.2", 14230, 0xC626B0EA, 0xD718262A),
    ("12.22.207.184", 38024, "24.19.198.95", 12898, 0x5C2B394A, 0xD2D0A5DE),
    ("209.142.163.6", 2217, "38.27.205.30", 48228, 0xAFC7327F, 0x82989176),
    ("202.188.127.2", 1303, "153.39.163.191", 44251, 0x10E828A2, 0x5D1809C5),
]


@pytest.mark.parametrize(("target", "target_port", "source", "source_port", "with_ports", "without"), VECTORS)
def test_the_hash_is_that_of_the_published_vectors(
    target: str, target_port: int, source: str, source_port: int, with_ports: int, without: int
) -> None:
    assert flow_hash(source, source_port, target, target_port) == with_ports
    assert toeplitz(bytes(int(part) for part in f"{source}.{target}".split("."))) == without


@given(a=st.binary(min_size=12, max_size=12), b=st.binary(min_size=12, max_size=12))
@settings(max_examples=50, derandomize=True)
def test_the_hash_is_linear(a: bytes, b: bytes) -> None:
    both = bytes(x ^ y for x, y in zip(a, b, strict=True))
    assert toeplitz(both) == toeplitz(a) ^ toeplitz(b)


def test_a_key_that_is_too_short_is_refused() -> None:
    with pytest.raises(ValueError, match="12 bytes take a key of at least 16 bytes, got 15"):
        toeplitz(bytes(12), bytes(15))


def test_the_table_is_even_and_every_flow_has_its_documented_queue() -> None:
    assert set(Counter(queue_of(h) for h in range(128)).values()) == {128 // QUEUES}
    assert {name: (flow.host, flow.queue) for name, flow in FLOWS.items()} == {
        "line-a": ("engine", 2),
        "line-b": ("engine", 3),
        "orders-east": ("gateway-east", 1),
        "orders-east.back": ("engine", 3),
        "orders-west": ("gateway-west", 1),
        "orders-west.back": ("engine", 1),
        "market-east": ("venue-east", 3),
        "market-east.back": ("gateway-east", 2),
        "market-west": ("venue-west", 2),
        "market-west.back": ("gateway-west", 3),
    }
    for host in HOSTS:
        on = [flow.name for queue in range(QUEUES) for flow in on_queue(host, queue)]
        assert sorted(on) == sorted(name for name, flow in FLOWS.items() if flow.host == host)
        assert checked(lost(host)).queue == used_queues(host)[0]
    assert on_queue("engine", 0) == []


def test_a_fault_strikes_the_flows_of_its_queue_only() -> None:
    for host in HOSTS:
        for queue in range(QUEUES):
            struck = {name for name in FLOWS if striking([lost(host, queue=queue)], name)}
            assert struck == {flow.name for flow in on_queue(host, queue)}


@pytest.mark.parametrize("size", [0.02, 0.3, 1.0])
def test_a_share_of_the_packets_is_lost_while_it_lasts(size: float) -> None:
    queue, faults = Queue("line-a", 1), [lost(size=size, lasts_ns=20_000)]
    taken = [queue.takes(faults, START + at) for at in range(-1_000, 21_000)]
    assert all(taken[:1_000])
    assert all(taken[21_000:])
    assert abs(taken.count(False) / 20_000 - size) <= 0.1 * size
    assert queue.lost == taken.count(False)
    again = Queue("line-a", 1)
    assert [again.takes(faults, START + at) for at in range(-1_000, 21_000)] == taken


@given(
    gaps=st.lists(st.integers(0, 300 * MS), min_size=1, max_size=60),
    size=st.sampled_from([0.1, 0.5, 1.0]),
    lasts_ns=st.integers(0, 9_000 * MS),
)
@settings(max_examples=60, derandomize=True, deadline=None)
def test_both_clocks_let_a_stream_through_alike_in_order_and_lose_nothing(
    gaps: list[int], size: float, lasts_ns: int
) -> None:
    """`Stream` finds out as time passes what `stream_takes_ns` knows beforehand."""
    faults = [lost(size=size, queue=3, lasts_ns=lasts_ns)]
    arrivals, at = [], START
    for gap in gaps:
        at += gap
        arrivals.append(at)
    known = Queue("orders-east.back", 7)
    told = [known.stream_takes_ns(faults, at) for at in arrivals]
    stream: Stream[int] = Stream(Queue("orders-east.back", 7))
    seen: list[tuple[int, int]] = []

    def pass_until(now: int) -> None:
        while stream.due_ns is not None and stream.due_ns <= now:
            due = stream.due_ns
            seen.extend((number, due) for number in stream.again(faults, due, due) or ())

    for number, at in enumerate(arrivals):
        pass_until(at)
        if stream.take(number, faults, at, at):
            seen.append((number, at))
    pass_until(at + GIVES_UP_NS)
    assert seen == list(enumerate(told))
    if size == 1:
        for at, through in zip(arrivals, told, strict=True):
            assert through is not None
            assert (
                through == at >= START + lasts_ns or START + lasts_ns <= through < START + lasts_ns + RETRANSMISSION_NS
            )


def test_a_stream_that_gets_nothing_through_is_given_up() -> None:
    faults = [lost(queue=3)]
    stream: Stream[str] = Stream(Queue("orders-east.back", 1))
    assert not stream.take("a", faults, 5, START)
    assert not stream.take("b", faults, 6, START)
    at = 5
    while (due := stream.due_ns) is not None:
        at, found = due, stream.again(faults, due, START)
        assert found == ([] if at < 5 + GIVES_UP_NS else None)
    assert at == 5 + GIVES_UP_NS
    assert stream.again(faults, at, START) == []
    assert Queue("orders-east.back", 1).stream_takes_ns(faults, START) is None


def test_a_history_has_lost_queues_that_carry_a_flow() -> None:
    days = (day(seed, START - START % DAY_NS + n * DAY_NS) for seed in range(4) for n in range(30))
    found = [fault for one in days for fault in one.incidents if fault.kind == "lost_nic_queue"]
    assert found
    assert all(on_queue(fault.at, -1 if fault.queue is None else fault.queue) for fault in found)
