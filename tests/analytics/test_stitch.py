"""Stitching in SQL gives exactly the messages that the slow stitcher gives."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics.paths import Path
from analytics.stitch import headless, stitch
from collector.record import Mode
from collector.store import Store
from tests.analytics import reference
from tests.analytics.world import HOUR, ORDER, link, path, put, stamp

MS = 1_000_000
S = 1_000_000_000


def messages(store: Store, p: Path, from_ns: int, to_ns: int) -> list[reference.Message]:
    found = stitch(store, p, from_ns, to_ns)
    if found is None:
        return []
    sql = f"""SELECT key, toUnixTimestamp64Nano(start) AS s, e2e_ns, stage_ns, stage_error_ns, duplicates, repeated,
        toInt8(outcome) AS o, toInt8(mode) AS m, label_set FROM ({found.sql}) ORDER BY s, key"""  # noqa: S608
    return [
        reference.Message(k, s, e, tuple(v), tuple(err), d, r, o, m, ls)
        for k, s, e, v, err, d, r, o, m, ls in store.query(sql, found.params).iter_rows()
    ]


def test_23_messages_in_23_out(store: Store) -> None:
    stamps = []
    for i in range(23):
        start = HOUR + i * 300 * MS
        stamps += [
            stamp(i + 1, "app_ingress", start),
            stamp(i + 1, "app_decision", start + 1_000 + i),
            stamp(i + 1, "app_egress", start + 3_000 + i, outcome=1),
        ]
    put(store, stamps)
    got = messages(store, path(), HOUR, HOUR + 10 * S)
    assert len(got) == 23
    assert [m.e2e for m in got] == [3_000 + i for i in range(23)]
    assert all(m.stages == (1_000 + i, 2_000) for i, m in enumerate(got))
    assert got == reference.stitch(path(), stamps, [], HOUR, HOUR + 10 * S)


def test_one_tick_three_orders_share_the_ticks_stamps(store: Store) -> None:
    p = path(ORDER + "hops = 1\n")
    stamps = [stamp(1, "app_ingress", HOUR + S), stamp(1, "app_decision", HOUR + S + 500)]
    links = [link(1, key, HOUR + S + 600) for key in (11, 12, 13)]
    stamps += [stamp(key, "app_egress", HOUR + S + key * 100) for key in (11, 12, 13)]
    put(store, stamps, links)
    got = messages(store, p, HOUR, HOUR + 10 * S)
    assert [(m.key, m.e2e) for m in got] == [(11, 1_100), (12, 1_200), (13, 1_300)]


@pytest.mark.parametrize(("which", "e2e"), [("first", 900), ("last", 700)])
def test_conflation_takes_the_first_or_last_parent(store: Store, which: str, e2e: int) -> None:
    p = path(ORDER + f'hops = 1\nconflation = "{which}"\n')
    stamps = [stamp(1, "app_ingress", HOUR), stamp(2, "app_ingress", HOUR + 200), stamp(9, "app_egress", HOUR + 900)]
    put(store, stamps, [link(1, 9, HOUR + 300), link(2, 9, HOUR + 400)])
    assert [(m.key, m.e2e) for m in messages(store, p, HOUR, HOUR + 10 * S)] == [(9, e2e)]


def test_a_rejected_tick_without_a_child_is_an_unfinished_message(store: Store) -> None:
    p = path(ORDER + "hops = 1\n")
    put(
        store,
        [stamp(1, "app_ingress", HOUR), stamp(2, "app_ingress", HOUR), stamp(2, "app_decision", HOUR + 9, outcome=4)],
    )
    assert [(m.key, m.e2e, m.outcome) for m in messages(store, p, HOUR, HOUR + 10 * S)] == [(2, None, 4)]
    counted = path(ORDER + 'hops = 1\nunlinked = "unfinished"\n')
    assert [(m.key, m.outcome) for m in messages(store, counted, HOUR, HOUR + 10 * S)] == [(1, 5), (2, 4)]


def test_reused_keys_are_separate_messages_and_negative_stages_are_kept(store: Store) -> None:
    stamps = [
        stamp(7, "app_ingress", HOUR),
        stamp(7, "app_egress", HOUR + 100),
        stamp(7, "app_ingress", HOUR + 2 * S),
        stamp(7, "app_egress", HOUR + 2 * S - 50, host="b"),
    ]
    put(store, stamps)
    got = messages(store, path(), HOUR, HOUR + 10 * S)
    assert [(m.start - HOUR, m.e2e, m.stages) for m in got] == [(0, 100, (None, None)), (2 * S, -50, (None, None))]


def test_error_is_drift_on_one_clock_the_sum_across_clocks_and_unknown_without_a_bound(store: Store) -> None:
    stamps = [
        stamp(1, "app_ingress", HOUR, error_ns=700),
        stamp(1, "app_decision", HOUR + 20 * MS, error_ns=700),
        stamp(1, "app_egress", HOUR + 30 * MS, host="b", error_ns=900),
        stamp(2, "app_ingress", HOUR + S, error_ns=700),
        stamp(2, "app_decision", HOUR + S + 5, clock="REALTIME"),
    ]
    put(store, stamps)
    first, second = messages(store, path(), HOUR, HOUR + 10 * S)
    assert first.errors == (50 + 1_000, 1_600)
    assert second.errors == (None, None)


def test_a_message_without_its_first_end_is_counted_once_where_its_earliest_stamp_lies(store: Store) -> None:
    stamps = [
        stamp(1, "app_decision", HOUR + 9 * S + 1),  # one message, two stamps, the later one in the next window
        stamp(1, "app_egress", HOUR + 10 * S),
        stamp(2, "app_egress", HOUR + 4 * S),  # two uses of a key: more than max_age apart
        stamp(2, "app_egress", HOUR + 6 * S),
        stamp(3, "app_ingress", HOUR + 2 * S),
        stamp(3, "app_egress", HOUR + 3 * S),  # exactly max_age after its start: in time
        stamp(4, "app_ingress", HOUR + 2 * S),
        stamp(4, "app_egress", HOUR + 3 * S + 1),  # too late for its start, which stays unfinished
        stamp(5, "app_egress", HOUR + 5 * S),  # before its start by no more than the skew
        stamp(5, "app_ingress", HOUR + 5 * S + 100 * MS),
    ]
    put(store, stamps)
    assert headless(store, path(), HOUR, HOUR + 20 * S) == {HOUR // S: 4}
    assert headless(store, path(), HOUR, HOUR + 10 * S) == {HOUR // S: 4}
    assert headless(store, path(), HOUR + 10 * S, HOUR + 20 * S) == {}


def test_copies_for_a_shadow_are_no_headless_messages(store: Store) -> None:
    stamps = [stamp(key, "app_egress", HOUR + key * S, mode=mode) for key, mode in enumerate(Mode)]
    put(store, stamps)
    users = [Mode.UNSET, Mode.NORMAL, Mode.CACHED, Mode.FALLBACK]
    assert headless(store, path(), HOUR, HOUR + 10 * S) == {HOUR // S: len(users)}


def test_a_link_to_a_copy_takes_the_place_of_a_message_that_ends_without_a_child(store: Store) -> None:
    """Why the demo does not link what it copies for a shadow: docs/demo.md."""
    p = path(ORDER + 'hops = 1\nconflation = "last"\n')
    shed = stamp(1, "app_ingress", HOUR + S, outcome=4)
    copied = stamp(21, "app_decision", HOUR + S + 50, mode=4)
    put(store, [shed, copied])
    assert [(m.key, m.mode) for m in messages(store, p, HOUR, HOUR + 10 * S)] == [(1, Mode.NORMAL)]
    put(store, [], [link(1, 21, HOUR + S + 40)])
    assert [(m.key, m.mode) for m in messages(store, p, HOUR, HOUR + 10 * S)] == [(21, Mode.SHADOW)]


def test_a_copy_whose_last_parent_is_the_order_itself_is_cut_off_from_the_tick(store: Store) -> None:
    p = path(ORDER + 'hops = 1\nconflation = "last"\n')
    stamps = [stamp(1, "app_ingress", HOUR + S), *(stamp(key, "app_egress", HOUR + S + key) for key in (11, 21))]
    put(store, stamps, [link(1, key, HOUR + S + 5) for key in (11, 21)])
    assert [m.key for m in messages(store, p, HOUR, HOUR + 10 * S)] == [11, 21]
    put(store, [], [link(11, 21, HOUR + S + 6)])
    assert [m.key for m in messages(store, p, HOUR, HOUR + 10 * S)] == [11]


def test_a_child_whose_parent_is_unknown_is_headless(store: Store) -> None:
    p = path(ORDER + "hops = 1\n")
    stamps = [stamp(1, "app_ingress", HOUR + S), *(stamp(key, "app_egress", HOUR + S + key) for key in (11, 12, 13))]
    put(store, stamps, [link(1, 11, HOUR + S + 5), link(2, 12, HOUR + S + 5)])
    assert [m.key for m in messages(store, p, HOUR, HOUR + 10 * S)] == [11]
    assert headless(store, p, HOUR, HOUR + 10 * S) == {HOUR // S: 2}


@pytest.mark.parametrize("which", ["first", "last"])
def test_parents_that_conflation_passes_over_have_a_start_and_are_not_headless(store: Store, which: str) -> None:
    p = path(ORDER + f'hops = 2\nconflation = "{which}"\n')
    stamps = [stamp(key, "app_ingress", HOUR + key) for key in (1, 2, 3)]
    stamps += [stamp(key, "app_decision", HOUR + key + 10) for key in (1, 2, 3)]
    # Three ticks lead to order 8; of the orders 8 and 7 that lead to one fill (9), one counts as its parent.
    stamps += [
        stamp(7, "app_decision", HOUR + 30),
        stamp(8, "app_decision", HOUR + 31),
        stamp(9, "app_egress", HOUR + 50),
    ]
    links = [link(key, 8, HOUR + 20 + key) for key in (1, 2, 3)]
    links += [link(3, 7, HOUR + 25), link(8, 9, HOUR + 40), link(7, 9, HOUR + 41)]
    put(store, stamps, links)
    assert [m.key for m in messages(store, p, HOUR, HOUR + 10 * S)] == [9]
    assert headless(store, p, HOUR, HOUR + 10 * S) == {}


POINTS = ("app_ingress", "app_decision", "app_egress")
stamps_of_a_world = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.integers(1, 4),
            "point": st.sampled_from(POINTS),
            "at": st.integers(0, 45),
            "host": st.sampled_from(["a", "b"]),
            "service": st.sampled_from(["engine", "gateway"]),
            "clock": st.sampled_from(["MONOTONIC", "REALTIME"]),
            "error_ns": st.sampled_from([None, 10, 2_000_000_000]),
            "outcome": st.sampled_from([0, 0, 0, 1, 3, 4]),
            "mode": st.sampled_from([0, 0, 2, 4]),
            "label_set": st.sampled_from([0, 5, 6]),
        }
    ),
    max_size=28,
)
links_of_a_world = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 45)), max_size=8)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    world=stamps_of_a_world,
    connections=links_of_a_world,
    hops=st.integers(0, 3),
    conflation=st.sampled_from(["first", "last"]),
    unlinked=st.sampled_from(["ignored", "unfinished"]),
    gateway=st.booleans(),
    step=st.sampled_from([300 * MS, 70 * MS]),
)
def test_random_worlds_agree_with_the_slow_stitcher(
    store: Store, world: list[dict[str, Any]], connections: list[tuple[int, int, int]], hops: int, conflation: str,
    unlinked: str, gateway: bool, step: int,
) -> None:  # fmt: skip
    text = ORDER + f'hops = {hops}\nconflation = "{conflation}"\nunlinked = "{unlinked}"\nskew = "150ms"\n'
    if gateway:
        text = text.replace('point = "app_egress",', 'point = "app_egress", service = "gateway",')
    p = path(text)
    store.execute("TRUNCATE TABLE stamps")
    store.execute("TRUNCATE TABLE links")
    # Distinct times: which of two stamps of one instant comes first is nobody's to say.
    stamps = [
        {**{k: v for k, v in s.items() if k != "at"}, "ts_ns": HOUR + s["at"] * step + i} for i, s in enumerate(world)
    ]
    links = [link(a, b, HOUR + at * step + 1_000 + i) for i, (a, b, at) in enumerate(connections)]
    put(store, stamps, links)
    for start in (HOUR, HOUR + 3 * S):
        end = start + 10 * S
        assert messages(store, p, start, end) == reference.stitch(p, stamps, links, start, end)
        assert sum(headless(store, p, start, end).values()) == reference.headless(p, stamps, links, start, end)
