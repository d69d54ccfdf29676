"""One message's timeline, with its parents' stamps, and the slowest messages."""

from __future__ import annotations

import pytest

from analytics import messages, windows
from collector.store import Store
from tests.analytics.world import HOUR, ORDER, link, path, put, stamp

S = 1_000_000_000


def test_a_timeline_holds_the_parents_stamps(store: Store) -> None:
    put(
        store,
        [stamp(1, "app_ingress", HOUR), stamp(7, "app_egress", HOUR + 50, depth=3), stamp(8, "app_egress", HOUR + 60)],
        [link(1, 7, HOUR + 40), link(1, 8, HOUR + 41)],
    )
    found = messages.timeline(store, 7)
    assert [(s.key, s.point, s.since_start_ns, s.depth) for s in found] == [
        (1, "app_ingress", 0, None),
        (7, "app_egress", 50, 3),
    ]
    assert messages.timeline(store, 7, HOUR + 10**9) == []


def test_the_slowest_come_first(store: Store) -> None:
    order = path(ORDER)
    stamps = []
    for i in range(1, 10):
        stamps += [stamp(i, "app_ingress", HOUR + i * S), stamp(i, "app_egress", HOUR + i * S + i * 1_000)]
    put(store, [*stamps, stamp(50, "app_ingress", HOUR + S), stamp(50, "app_egress", HOUR + S + 10**8, mode=5)])
    windows.run_due(store, {"order": order}, now_ns=HOUR + 60 * S)
    found = messages.slowest(store, order, from_ns=HOUR, to_ns=HOUR + 10 * S, limit=3)
    assert [(m.key, m.e2e_ns, m.unattributed_ns, m.stage_ns) for m in found] == [
        (9, 9_000, 9_000, [None, None]),
        (8, 8_000, 8_000, [None, None]),
        (7, 7_000, 7_000, [None, None]),
    ]
    with pytest.raises(KeyError, match="has no stage 'nope'"):
        messages.slowest(store, order, from_ns=HOUR, to_ns=HOUR + S, stage="nope")
