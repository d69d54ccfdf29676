"""Each fault is in the raw stamps: ordered by command, found by a query written by hand, before any analytics.

The faults' own records say which messages they touched and when they struck; nothing but the checker reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

import pytest

from api.demo.faults import Fault
from api.demo.rss import FLOWS, on_queue

if TYPE_CHECKING:
    from tests.truth.conftest import Took, World

pytestmark = pytest.mark.timeout(180)
MS = 1_000_000
EDGE_NS = 150 * MS  # as in conftest: programs look for faults 20 times a second


def parted(took: Sequence[Took], fault: Fault) -> tuple[list[int], list[int]]:
    """Durations of the messages that the fault touches, and of the others."""
    touched = [t.ns for t in took if fault.touches(t.key)]
    others = [t.ns for t in took if not fault.touches(t.key)]
    assert touched
    assert others
    return touched, others


def in_and_out(took: Sequence[Took], fault: Fault, at_least_ns: int) -> tuple[list[int], list[int]]:
    """Durations of the messages that meet a pulse with at least so much of it left, and of those that meet none."""
    met = [t.ns for t in took if fault.pulse_left_ns(t.start_ns) > at_least_ns]
    missed = [t.ns for t in took if not fault.pulse_left_ns(t.start_ns)]
    assert met
    assert missed
    return met, missed


def test_without_faults_every_message_passes(world: World) -> None:
    first, second = world.watch(1.5), world.watch(1.5)
    world.watch(0.5)
    sent = world.keys_at("app_egress", "feed", first)
    assert len(sent) > 200
    for letter in "ab":
        assert sent <= world.keys_at(f"arrived_{letter}", "engine", (first[0], second[1]))
    assert sent <= world.keys_at("app_decision", "engine", (first[0], second[1] + 500 * MS))


def test_a_slow_dependency_touches_two_percent_and_degrades_them(world: World) -> None:
    (fault,), span = world.strike(
        ("fault", "start", "slow_dependency", "--at", "inference", "--size", "2%"), seconds=3.0
    )
    took = world.took("featured@inference", "modelled@inference", span)
    touched, others = parted(took, fault)
    assert 0.003 < len(touched) / len(took) < 0.06
    assert min(touched) >= 20 * MS
    assert median(others) < 5 * MS
    sql = "SELECT key, any(toString(mode)) AS mode FROM stamps WHERE point = 'ready' GROUP BY key"
    modes = {row["key"]: row["mode"] for row in world.query(sql, {})}
    degraded = [modes[t.key] in ("cached", "fallback") for t in took if fault.touches(t.key)]
    assert sum(degraded) > 0.8 * len(degraded)  # an engine that is kept from running finds the late signal first
    assert median(modes[t.key] == "normal" for t in took if not fault.touches(t.key))


def test_a_bad_deploy_restarts_the_program_computes_longer_and_is_rolled_back(world: World) -> None:
    pids = {world.pid_of("venue-east")}
    (fault,), span = world.strike(
        ("fault", "start", "bad_deploy", "--at", "venue-east", "--size", "10%"),
        seconds=4.0,
        meanwhile=lambda: pids.add(world.pid_of("venue-east")),
    )
    world.until(lambda: world.pid_of("venue-east") not in pids)
    after = world.watch(2.5)
    new, old = (world.versions_at("app_ingress", "venue", "east", part) for part in (span, after))
    # It may still run in its old version when the fault begins.
    assert {"2"} <= set(new.values()) <= {"1", "2"}
    assert list(old.values())[-1] == "1"
    took = world.took("app_ingress@venue", "app_egress@venue", span, site="east")
    touched, others = parted([t for t in took if new.get(t.key) == "2"], fault)
    assert min(touched) >= 3 * MS
    assert median(others) < 3 * MS
    elsewhere, _ = parted(world.took("app_ingress@venue", "app_egress@venue", span, site="west"), fault)
    assert median(elsewhere) < 3 * MS
    world.watch(1.0)
    told = world.versions_at("reported", "engine", "east", (span[0], after[1]), label="venue")
    both = new | old
    assert len(told) > 100
    assert all(version in ("", both[key]) for key, version in told.items() if key in both)  # "": nobody reported
    assert set(told.values()) >= {"1", "2"}
    sql = """
    SELECT kind, service, version, what, toUnixTimestamp64Nano(ts) AS ts,
           JSONExtractString(labels, 'from_version') AS was
    FROM changes WHERE was != '' ORDER BY ts
    """
    world.until(lambda: len(world.query(sql, {})) == 2)
    deployed, rolled_back = world.query(sql, {})
    assert (deployed["kind"], deployed["service"], deployed["was"], deployed["version"]) == (
        "deploy",
        "venue",
        "1",
        "2",
    )
    assert (rolled_back["was"], rolled_back["version"]) == ("2", "1")
    assert "rolled back" in rolled_back["what"]
    assert 0 <= deployed["ts"] - fault.start_ns < 5_000 * MS < rolled_back["ts"] - fault.start_ns + 2_000 * MS


def test_stale_reference_data_show_in_the_age_of_the_data(world: World) -> None:
    (fault,), span = world.strike(("fault", "start", "stale_reference", "--at", "engine", "--size", "10%"), seconds=4.5)
    sql = """
    SELECT key, data_age_ns AS age, toUnixTimestamp64Nano(ts) AS at_ns, toString(cache) AS cache FROM stamps
    WHERE point = 'app_decision' AND at_ns BETWEEN {a:Int64} AND {b:Int64}
    """
    rows = world.query(sql, {"a": span[0] + 1_500 * MS, "b": span[1]})
    touched = [row for row in rows if fault.touches(row["key"])]
    behind = [row["age"] is not None and row["age"] >= row["at_ns"] - fault.start_ns - 200 * MS for row in touched]
    assert sum(behind) > 0.5 * len(behind) > 0  # a batch of conflated quotes is served as its last one
    assert sum(row["cache"] == "stale" for row in touched) > 5
    assert sum(row["cache"] == "stale" for row in rows if not fault.touches(row["key"])) < 0.05 * len(rows)


@pytest.mark.fault  # it compares times, which other work on the machine can spoil
def test_a_cpu_hog_makes_its_neighbour_wait_to_run(world: World) -> None:
    before = world.watch(2.0)
    world.watch(0.3)
    _, span = world.strike(("fault", "start", "cpu_hog", "--at", "gateway-west"), seconds=3.5)
    hop = ("app_egress@engine", "app_ingress@gateway")
    quiet = sorted(t.ns for t in world.took(*hop, before, site="west"))
    hogged = sorted(t.ns for t in world.took(*hop, (span[0] + 500 * MS, span[1]), site="west"))
    # A scheduler that favours who sleeps much serves most wakeups at once: the tail waits for the hogs' slices.
    assert hogged[len(hogged) * 19 // 20] > 1.5 * quiet[len(quiet) * 19 // 20], (quiet[-5:], hogged[-5:])


def test_a_held_lock_stops_whoever_needs_it(world: World) -> None:
    (fault,), span = world.strike(("fault", "start", "lock_contention", "--at", "engine", "--size", "10%"))
    met, missed = in_and_out(world.took("app_ingress@engine", "app_transform@engine", span), fault, 10 * MS)
    # Only the first in the pulse waits between these two points; the others wait before, in the socket.
    assert max(met) >= 8 * MS
    met, missed = in_and_out(world.took("app_egress@feed", "app_decision@engine", span), fault, 10 * MS)
    assert median(met) >= 9 * MS
    assert median(missed) < median(met)


def test_what_stops_the_engines_reader_is_a_wait_in_its_socket(world: World) -> None:
    """The kernel's own stamps part the way over the line from the wait behind it."""
    quiet = world.watch(2.0)
    (fault,), span = world.strike(("fault", "start", "gc_pauses", "--at", "engine", "--size", "20%"), seconds=3.0)
    late = (span[0] + 800 * MS, span[1])  # the heap has to be made first
    queue, line = ("kernel_rx@engine", "app_ingress@engine"), ("app_egress@feed", "kernel_rx@engine")
    met, _ = in_and_out(world.took(*queue, late), fault, 12 * MS)
    before = median(t.ns for t in world.took(*queue, quiet))
    assert median(met) > before + 2 * MS
    assert median(t.ns for t in world.took(*line, late)) < median(met)


def test_garbage_collections_stop_the_program(world: World) -> None:
    (fault,), span = world.strike(("fault", "start", "gc_pauses", "--at", "venue-east", "--size", "20%"), seconds=5.0)
    late = (span[0] + 800 * MS, span[1])  # the heap has to be made first
    met, missed = in_and_out(world.took("app_egress@gateway", "app_egress@venue", late, site="east"), fault, 12 * MS)
    assert median(met) > median(missed) + 2 * MS


def test_a_backed_up_queue_is_deep_and_then_caught_up_with(world: World) -> None:
    (fault,), span = world.strike(("fault", "start", "queue_backlog", "--at", "engine", "--size", "20%"))
    met, missed = in_and_out(world.took("ready@engine", "dequeued@engine", span), fault, 40 * MS)
    assert median(met) >= 20 * MS
    assert median(missed) < median(met)
    sql = """
    SELECT max(depth) AS depth FROM stamps
    WHERE point = 'ready' AND toUnixTimestamp64Nano(ts) BETWEEN {a:Int64} AND {b:Int64}
    """
    (row,) = world.query(sql, {"a": span[0], "b": span[1]})
    assert row["depth"] >= 5


def test_a_delayed_link_and_a_slow_venue_strike_together_each_at_its_site(world: World) -> None:
    (_, slow), span = world.strike(
        ("link", "market-east", "--delay", "5ms"),
        ("fault", "start", "slow_dependency", "--at", "venue-west", "--size", "5%", "--amount", "30ms"),
    )
    hop = ("app_egress@gateway", "app_ingress@venue")
    assert min(t.ns for t in world.took(*hop, span, site="east")) >= 5 * MS
    touched, _ = parted(world.took("app_ingress@venue", "app_egress@venue", span, site="west"), slow)
    assert min(touched) >= 30 * MS
    assert median(t.ns for t in world.took("app_ingress@venue", "app_egress@venue", span, site="east")) < 5 * MS


def test_a_lossy_line_loses_packets_and_the_other_line_brings_them(world: World) -> None:
    _, span = world.strike(("link", "line-a", "--loss", "50%"))
    wide = (span[0] - 1_000 * MS, span[1] + 1_000 * MS)
    sent = world.keys_at("app_egress", "feed", span)
    arrived = {letter: sent & world.keys_at(f"arrived_{letter}", "engine", wide) for letter in "ab"}
    assert 0.3 < len(arrived["a"]) / len(sent) < 0.7
    assert arrived["b"] == sent == sent & world.keys_at("app_ingress", "engine", wide)


def test_a_gap_on_one_line_is_a_run_of_missing_packets(world: World) -> None:
    (fault,), span = world.strike(("fault", "start", "feed_gap", "--at", "line-b", "--size", "20%"))
    wide = (span[0] - 1_000 * MS, span[1] + 1_000 * MS)
    sent = world.took("app_egress@feed", "app_ingress@engine", span)
    lost = {t.key for t in sent} - world.keys_at("arrived_b", "engine", wide)
    in_gap = {t.key for t in sent if fault.pulse_left_ns(t.start_ns) > 20 * MS}
    assert len(in_gap & lost) > 0.9 * len(in_gap) > 0
    assert len(lost) < 0.5 * len(sent)


def test_a_lost_receive_queue_loses_one_line_and_nothing_else(world: World) -> None:
    flow = FLOWS["line-a"]
    (fault,), span = world.strike(("fault", "start", "lost_nic_queue", "--at", "engine", "--queue", str(flow.queue)))
    assert (fault.queue, on_queue("engine", flow.queue)) == (flow.queue, [flow])
    after = world.watch(1.0)
    world.watch(0.5)
    wide = (span[0] - 1_000 * MS, after[1] + 1_000 * MS)
    sent = world.keys_at("app_egress", "feed", span)
    assert len(sent) > 200
    assert not sent & world.keys_at("arrived_a", "engine", wide)
    assert (
        sent == sent & world.keys_at("arrived_b", "engine", wide) == sent & world.keys_at("app_ingress", "engine", wide)
    )
    later = world.keys_at("app_egress", "feed", after)
    assert later == later & world.keys_at("arrived_a", "engine", wide)


def test_orders_on_a_lost_receive_queue_wait_until_it_is_back_and_none_is_lost(world: World) -> None:
    queue = str(FLOWS["orders-east"].queue)
    # It ends by itself: a connection that is silent for 3 s would be closed, and a busy machine starts commands slowly.
    fault = world.tailsight(
        "demo", "fault", "start", "lost_nic_queue", "--at", "gateway-east", "--queue", queue, "--for", "1200ms"
    )
    world.watch(2.5)
    span = (fault["start_ns"] + EDGE_NS, fault["end_ns"] - EDGE_NS)
    sql = """
    SELECT toString(service) AS service, countDistinct(key) AS n, min(toUnixTimestamp64Nano(ts)) AS first_ns FROM stamps
    WHERE (point, service) IN (('app_egress', 'engine'), ('app_ingress', 'gateway'))
        AND key IN (
            SELECT key FROM stamps INNER JOIN label_sets USING label_set
            WHERE JSONExtractString(labels, 'site') = 'east'
        )
        AND key IN (
            SELECT key FROM stamps WHERE point = 'app_egress' AND service = 'engine'
                AND toUnixTimestamp64Nano(ts) >= {a:Int64} AND toUnixTimestamp64Nano(ts) < {b:Int64}
        )
    GROUP BY service
    """
    found = {row["service"]: row for row in world.query(sql, {"a": span[0], "b": span[1]})}
    assert found["engine"]["n"] == found["gateway"]["n"] > 20
    assert fault["end_ns"] <= found["gateway"]["first_ns"]
    other = world.took("app_egress@engine", "app_ingress@gateway", span, site="west")
    assert median(t.ns for t in other) < 50 * MS


def test_a_clock_step_makes_messages_arrive_before_they_were_sent(world: World) -> None:
    _, span = world.strike(("fault", "start", "clock_step", "--at", "gateway-east", "--amount", "-200ms"))
    hop = ("app_egress@engine", "app_ingress@gateway")
    stepped = [t.ns for t in world.took(*hop, span, site="east")]
    assert median(stepped) < 0
    assert min(t.ns for t in world.took(*hop, span, site="west")) > 0
    back = world.took("app_egress@venue", "reported@engine", span, site="east")  # both clocks are right
    assert min(t.ns for t in back) > 0
