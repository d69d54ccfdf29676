"""The messages of a path as one wide frame."""

from __future__ import annotations

import pytest

from analytics import latency, windows
from analytics.population import labels_of, population
from collector.record import Mode
from collector.store import Store
from tests.analytics.world import HOUR, ORDER, path, put, stamp

S = 1_000_000_000


@pytest.fixture
def filled(store: Store) -> Store:
    stamps = []
    for i in range(1, 101):
        at = HOUR + i * S // 10
        stamps += [stamp(i, "app_ingress", at, depth=i % 3), stamp(i, "app_decision", at + 40)]
        stamps += [stamp(i, "app_egress", at + 100 + i, host="b", outcome=2)]
    stamps += [stamp(500, "app_ingress", HOUR + S), stamp(501, "app_ingress", HOUR + S, mode=5)]
    stamps += [stamp(501, "app_egress", HOUR + 2 * S, mode=5)]
    put(store, stamps)
    windows.run_due(store, {"order": path(ORDER)}, now_ns=HOUR + 60 * S)
    return store


def test_every_message_is_a_row_and_what_is_unexplained_is_a_column(filled: Store) -> None:
    found = population(filled, path(ORDER), from_ns=HOUR, to_ns=HOUR + 20 * S)
    assert (found.stages, found.frame.height) == (["decide", "send"], 101)
    unfinished = found.frame.filter(found.frame["e2e_ns"].is_null())
    assert unfinished["key"].to_list() == [500]
    rows = found.finished().sort("start_ns")
    first = rows.row(0, named=True)
    assert (first["key"], first["e2e_ns"], first["ns_0"], first["ns_1"]) == (1, 101, 40, 61)
    assert (first["host_0"], first["host_1"], first["depth_0"], first["depth_1"]) == ("a", "b", 1, None)
    assert (first["outcome"], first["mode"], first["cache"], first["unattributed_ns"]) == (
        "error",
        "normal",
        "unset",
        0,
    )
    assert labels_of(filled, rows["label_set"]).height <= 1


def test_a_share_is_the_same_messages_each_time(filled: Store) -> None:
    some = population(filled, path(ORDER), from_ns=HOUR, to_ns=HOUR + 20 * S, share=0.5, details=False)
    again = population(filled, path(ORDER), from_ns=HOUR, to_ns=HOUR + 20 * S, share=0.5, details=False)
    assert some.frame.equals(again.frame)
    assert 20 < some.frame.height < 80
    assert "host_0" not in some.frame.columns
    with pytest.raises(ValueError, match="share must be in"):
        population(filled, path(ORDER), from_ns=HOUR, to_ns=HOUR + S, share=0)


def test_synthetic_messages_are_asked_for_by_name(filled: Store) -> None:
    found = population(filled, path(ORDER), from_ns=HOUR, to_ns=HOUR + 20 * S, modes=(Mode.SYNTHETIC,))
    assert found.frame["key"].to_list() == [501]
    empty = population(filled, path(ORDER), from_ns=HOUR + 30 * S, to_ns=HOUR + 40 * S)
    assert (empty.frame.height, empty.finished().height) == (0, 0)


def test_percentiles_of_a_time_that_no_window_has_reached_are_empty(filled: Store) -> None:
    """`--from -2m` while the windows are behind the clock is a question without an answer, not a wrong one."""
    order = path(ORDER)
    assert latency.percentiles(filled, order, from_ns=HOUR, to_ns=None) != []
    assert latency.percentiles(filled, order, from_ns=HOUR + 3_600 * S, to_ns=None) == []
    assert latency.percentiles(filled, order, from_ns=None, to_ns=HOUR - 3_600 * S) == []
    with pytest.raises(ValueError, match="empty"):
        latency.percentiles(filled, order, from_ns=HOUR + S, to_ns=HOUR)
