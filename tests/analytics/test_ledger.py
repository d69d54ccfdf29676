"""The law of the ledger, on intervals and on real tables read at different moments."""

from __future__ import annotations

import uuid
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics import ledger as ledger_module
from analytics.completeness import completeness
from analytics.ledger import collectors, covered, ledger, outstanding, union
from collector.store import Store
from tests.analytics.world import AGENT, HOUR, beat, put, put_ledger, stamp

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


# A boot's batches: where each begins (in tens), its length, the hour of its cut, what became of its events, how often
# its row was written, and after which of the two readings it came.
batches_of_a_boot = st.lists(
    st.fixed_dictionaries(
        {
            "first": st.integers(0, 12).map(lambda n: n * 10),
            "events": st.sampled_from([10, 10, 10, 20, 3]),
            "hour": st.integers(0, 3),
            "dropped": st.integers(0, 2),
            "quarantined": st.integers(0, 1),
            "copies": st.sampled_from([1, 1, 1, 2]),
            "late": st.booleans(),
        }
    ),
    max_size=14,
    unique_by=lambda batch: batch["first"],
)


def plain(batches: list[dict[str, Any]], produced: int, acked: int) -> dict[str, Any]:
    """The account by adding up every batch once."""
    arrived = [(b["first"], b["first"] + b["events"]) for b in batches]
    spool, flying, difference = outstanding(arrived, produced, acked, 0)
    dropped = Counter({"oversize": sum(b["dropped"] for b in batches)})
    return {
        "produced": max([produced, *(end for _, end in arrived)]),
        "stored_unique": sum(b["events"] - b["dropped"] - b["quarantined"] for b in batches),
        "dropped": dict(+dropped),
        "quarantined": sum(b["quarantined"] for b in batches),
        "in_spool": spool,
        "in_flight": flying,
        "difference": difference,
    }


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    boots=st.lists(batches_of_a_boot, min_size=1, max_size=3),
    chained=st.booleans(),
    produced=st.integers(0, 200),
    acked=st.integers(0, 200),
)
def test_the_account_by_hours_is_the_sum_of_all_batches_however_late_they_come(
    store: Store, boots: list[list[dict[str, Any]]], chained: bool, produced: int, acked: int
) -> None:
    store.execute("TRUNCATE TABLE batches")
    store.execute("TRUNCATE TABLE heartbeats")
    collector = uuid.uuid4()
    if chained:  # without a gap, as in a life without trouble: the hours alone answer
        boots = [[{**b, "first": 10 * i, "events": 10, "copies": 1} for i, b in enumerate(boot)] for boot in boots]
    for boot in range(len(boots)):
        beat(store, HOUR, HOUR, produced=produced, acked=acked, collector=collector, boot=boot)
    for late in (False, True):
        for boot, batches in enumerate(boots):
            put_ledger(store, collector, boot, [b for b in batches if b["late"] == late for _ in range(b["copies"])])
        found = {row.boot: row for row in ledger(store)}
        for boot, batches in enumerate(boots):
            there = [b for b in batches if late or not b["late"]]
            expected = plain(there, produced, acked)
            assert {name: getattr(found[boot], name) for name in expected} == expected


def test_a_ledger_of_whole_hours_is_read_from_the_projections(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without them every look reads all batches there ever were: the plan must name them, and no batch be asked for."""
    batch = {"events": 10, "dropped": 0, "quarantined": 0}
    put_ledger(store, AGENT, 1, [{**batch, "first": 10 * i, "hour": i // 20} for i in range(100)])
    beat(store, HOUR, HOUR, produced=1_000, acked=1_000)
    for sql in (ledger_module._BOOTS, ledger_module._HOURS, ledger_module._LAST):
        plan = "\n".join(store.query(f"EXPLAIN {sql}", {"collector": AGENT, "boot": 1})["explain"].to_list())
        assert "by_hour" in plan, plan
    monkeypatch.setattr(ledger_module, "_BATCHES", "SELECT throwIf(1, 'every batch was read')")
    put_ledger(store, AGENT, 1, [{**batch, "first": 2_000, "hour": 9}])  # a gap between hours is no doubt within one
    (row,) = ledger(store)
    assert (row.stored_unique, row.in_spool, row.difference) == (1_010, 1_000, 0)


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
