"""The law of the ledger, on intervals and on real tables read at different moments."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.completeness import completeness
from analytics.ledger import collectors, covered, ledger, outstanding, union
from collector.store import Store
from tests.analytics.world import AGENT, HOUR, beat, put, stamp

S = 1_000_000_000
ranges = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)).map(lambda t: (t[0], t[0] + t[1])), max_size=12)


@settings(max_examples=50)
@given(ranges, st.integers(0, 80), st.integers(0, 80), st.integers(0, 20))
def test_the_parts_always_add_up(arrived: list[tuple[int, int]], produced: int, acked: int, in_flight: int) -> None:
    there = {n for a, b in arrived for n in range(a, b)}
    top = max([produced, *(n + 1 for n in there)])
    spool, flying, difference = outstanding(arrived, produced, acked, in_flight)
    assert len(there) + spool + flying + difference == top
    assert difference == len(set(range(min(acked, top))) - there)
    assert covered(arrived, 10, 30) == len(there & set(range(10, 30)))
    assert union(union(arrived)) == union(arrived)


def test_the_ledger_adds_up_while_batches_arrive_after_the_heartbeat(store: Store) -> None:
    from tests.analytics import world

    first = put(store, [stamp(i, "app_ingress", HOUR + i) for i in range(10)])
    start = first * 1_000_000
    beat(store, HOUR + S, HOUR, produced=start + 30, acked=start + 10)
    (row,) = ledger(store)
    assert (row.stored_unique, row.produced, row.in_spool) == (10, start + 30, 20)
    assert row.difference == start  # everything below the first batch was acknowledged and never arrived
    world.put(store, [stamp(99, "app_ingress", HOUR)])
    (later,) = ledger(store)
    assert later.stored_unique == 11
    assert later.produced == later.stored_unique + later.in_spool + later.in_flight + later.difference


def test_collectors_say_what_they_last_said(store: Store) -> None:
    beat(store, HOUR, HOUR - S, boot=1, status="running")
    beat(store, HOUR + 5 * S, HOUR + 4 * S, boot=2, status="degraded")
    (one,) = collectors(store, HOUR + 6 * S)
    assert (one.collector, one.boot, one.status, one.live, one.watermark_ns) == (
        str(AGENT),
        2,
        "degraded",
        True,
        HOUR + 4 * S,
    )
    assert not collectors(store, HOUR + 60 * S)[0].live


def test_completeness_is_unknown_until_the_watermark_passes(store: Store) -> None:
    put(store, [stamp(i, "app_ingress", HOUR + i) for i in range(8)], received_ns=HOUR + S)
    beat(store, HOUR + 3 * S, HOUR + 2 * S)
    (behind,) = completeness(store, HOUR, HOUR + 10 * S, now_ns=HOUR + 60 * S)
    assert (behind.share, behind.waiting_for, behind.produced) == (None, ("agent",), 8)
    assert (behind.known_to_ns, behind.known_share) == (HOUR + 2 * S, 1.0)
    beat(store, HOUR + 12 * S, HOUR + 11 * S)
    (known,) = completeness(store, HOUR, HOUR + 10 * S, now_ns=HOUR + 60 * S)
    assert known.share == 1.0
    assert [c.produced for c in completeness(store, HOUR, HOUR + 10 * S, 5, now_ns=HOUR + 60 * S)] == [8, 0]
