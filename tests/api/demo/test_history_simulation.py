"""The order path on the virtual clock: the same seed is the same bytes, nothing is lost, and each fault shows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from tailsight_probe import hash64

from api.demo.faults import KINDS, Fault, checked
from api.demo.history.calendar import DAY_NS, HOUR_NS, NS, day
from api.demo.history.hours import Settings, day_of, play, simulate
from api.demo.history.making import make, pack
from api.demo.history.tape import Tape
from api.demo.history.virtual import Events, Thread
from api.demo.market import Market
from api.demo.measure import _SPANS
from api.demo.rss import FLOWS
from collector.record import Columns, Mode, Outcome

BEGIN = 1_790_000_000 * NS // HOUR_NS * HOUR_NS
MS = 1_000_000


def run(
    faults: Sequence[Fault] = (), *, seconds: int = 40, rate: float = 30.0, seed: int = 3
) -> tuple[pl.DataFrame, Tape, list[Any]]:
    path = play(Market(rate, seed), BEGIN, BEGIN + seconds * NS, faults, seed)
    return frame(path.tape), path.tape, path.done


def frame(tape: Tape) -> pl.DataFrame:
    (stamps,) = [c for c in tape.columns() if c.table.name == "stamps"]
    stamps.check()
    named = {name: pl.Series(stamps.text(name)) for name in ("point", "service")}
    plain = {n: stamps.values[n] for n in ("ts_ns", "key", "outcome", "mode", "cache", "data_age_ns", "depth")}
    return pl.DataFrame({**plain, **named})


def took(stamps: pl.DataFrame, start: tuple[str, str], end: tuple[str, str]) -> pl.DataFrame:
    def at(where: tuple[str, str], name: str) -> pl.DataFrame:
        here = stamps.filter((pl.col("point") == where[0]) & (pl.col("service") == where[1]))
        return here.group_by("key").agg(pl.col("ts_ns").min().alias(name))

    both = at(start, "start").join(at(end, "end"), on="key")
    return both.select("key", "start", (pl.col("end") - pl.col("start")).alias("ns"))


def keys(stamps: pl.DataFrame, point: str, service: str) -> list[int]:
    return stamps.filter((pl.col("point") == point) & (pl.col("service") == service))["key"].to_list()


def fault(kind: str, at: str, size: float = 0.2, **more: Any) -> Fault:
    amount = more.pop("amount_ns", KINDS[kind].amount_ns)
    return checked(
        Fault(
            id=f"{kind}-1", kind=kind, at=at, size=size, amount_ns=amount,
            start_ns=BEGIN, end_ns=BEGIN + 3_600 * NS, **more,
        )
    )  # fmt: skip


def raw(columns: list[Columns]) -> list[bytes]:
    return [c.values[name].tobytes() for c in columns for name in sorted(c.values)]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    one, again, other = (run(seed=seed, seconds=10)[1].columns() for seed in (3, 3, 4))
    assert raw(one) == raw(again)
    assert [c.texts for c in one] == [c.texts for c in again]
    assert raw(one) != raw(other)


def test_an_hour_is_the_same_frames_wherever_it_is_made() -> None:
    what = Settings(rate=0.5, profile="flat")
    one, again = make(what, BEGIN), make(what, BEGIN)
    assert one == again
    assert one.stamps > 20_000
    assert all(BEGIN <= created < BEGIN + HOUR_NS for created, _ in one.frames)
    assert [created for created, _ in one.frames] == sorted(created for created, _ in one.frames)
    assert make(Settings(rate=0.5, profile="flat", seed=2), BEGIN).frames != one.frames
    assert make(what, BEGIN + HOUR_NS).frames != one.frames


def test_a_closed_market_makes_nothing() -> None:
    midnight = BEGIN - BEGIN % DAY_NS
    path = simulate(Settings(profile="day"), midnight + 2 * HOUR_NS)
    assert pack(path, midnight, midnight + HOUR_NS).frames == ()
    assert path.done == path.copies == []


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    rate=st.sampled_from((2.0, 40.0, 400.0)),
    kind=st.sampled_from([None, *(k for k in KINDS if k != "clock_step")]),
    data=st.data(),
)
def test_nothing_is_lost_or_doubled_and_nothing_is_negative(
    seed: int, rate: float, kind: str | None, data: st.DataObject
) -> None:
    faults = []
    if kind is not None:
        place = data.draw(st.sampled_from(KINDS[kind].places))
        more = {"delay_ns": 2 * MS, "loss": 0.1} if kind == "link" else {}
        faults = [fault(kind, place, 0.3, **more)]
    stamps, tape, done = run(faults, seconds=4 if rate > 100 else 15, rate=rate, seed=seed)
    assert set(stamps["mode"].to_list()) <= {int(Mode.SYNTHETIC)}
    sent = keys(stamps, "app_egress", "feed")
    arrived = set(keys(stamps, "arrived_a", "engine")) | set(keys(stamps, "arrived_b", "engine"))
    taken = keys(stamps, "app_ingress", "engine")
    refused = (pl.col("point") == "app_transform") & (pl.col("outcome") == int(Outcome.SHED))
    shed = set(stamps.filter(refused)["key"].to_list())
    decided, orders = keys(stamps, "app_decision", "engine"), keys(stamps, "app_egress", "engine")
    held = {
        "every quote is sent once": len(sent) == len(set(sent)) == tape.quotes,
        "what one line lost the other brought": set(taken) == arrived <= set(sent),
        "each is taken in once": len(taken) == len(set(taken)),
        "each is shed or decided once": sorted(decided) == sorted(set(taken) - shed),
        "every order is sent once": len(orders) == len(set(orders)) == len(done),
        "and reported once": sorted(keys(stamps, "reported", "engine")) == sorted(orders),
        "and known": sorted(hash64("order", one.id) for one in done) == sorted(orders),
    }
    for links in (c for c in tape.columns() if c.table.name == "links"):
        held["every order has a quote"] = set(links.values["child"].tolist()) == set(orders)
        held["that was decided"] = set(links.values["parent"].tolist()) <= set(decided)
    assert [words for words, holds in held.items() if not holds] == []  # not the keys: there are thousands
    for name, ends in _SPANS.items():
        spans = took(stamps, *ends)
        if name == "engine.arbitrate":  # the copy of line B may have been the first
            continue
        assert spans.is_empty() or spans["ns"].min() >= 0, name  # type: ignore[operator] # a number


def test_a_clock_step_makes_hops_negative_and_touches_no_link() -> None:
    stamps, tape, _ = run([fault("clock_step", "gateway-east", 1.0, amount_ns=-20 * MS)])
    hops = took(stamps, ("app_egress", "engine"), ("app_ingress", "gateway"))
    assert 0.2 < (hops["ns"] < 0).mean() < 0.8  # one of two sites
    quiet, quiet_tape, _ = run()
    assert raw([c for c in tape.columns() if c.table.name == "links"]) == raw(
        [c for c in quiet_tape.columns() if c.table.name == "links"]
    )
    assert quiet.filter(pl.col("service") == "venue").equals(stamps.filter(pl.col("service") == "venue"))


@pytest.mark.parametrize(
    ("kind", "at", "start", "end", "least_ns"),
    [
        ("slow_dependency", "inference", ("featured", "inference"), ("modelled", "inference"), 20 * MS),
        ("bad_deploy", "inference", ("featured", "inference"), ("modelled", "inference"), 3 * MS),
        ("bad_deploy", "engine", ("dequeued", "engine"), ("app_decision", "engine"), 3 * MS),
    ],
)
def test_faults_of_messages_touch_the_messages_they_name(
    kind: str, at: str, start: tuple[str, str], end: tuple[str, str], least_ns: int
) -> None:
    struck = fault(kind, at, 0.1)
    stamps, _, _ = run([struck])
    spans = took(stamps, start, end)
    touched = spans.filter(pl.Series([struck.touches(key) for key in spans["key"].to_list()]))
    others = spans.filter(pl.Series([not struck.touches(key) for key in spans["key"].to_list()]))
    assert 0.03 < len(touched) / len(spans) < 0.25
    assert touched["ns"].min() >= least_ns * (0.99 if at == "inference" else 0)  # type: ignore[operator] # a number
    assert touched["ns"].median() >= least_ns  # type: ignore[operator] # a number
    assert others["ns"].median() < 1 * MS  # type: ignore[operator] # a number


def test_a_slow_dependency_degrades_whom_it_touches() -> None:
    struck = fault("slow_dependency", "inference", 0.05)
    stamps, _, done = run([struck])
    late = stamps.filter((pl.col("point") == "signalled") & (pl.col("outcome") == int(Outcome.TIMEOUT)))
    assert {key for key in late["key"].to_list() if struck.touches(key)}
    assert late.height > 20
    assert any(one.degraded for one in done)
    assert not run()[0].filter(pl.col("outcome") == int(Outcome.TIMEOUT)).height > late.height / 5


def test_stale_reference_data_show_in_the_age_of_the_data() -> None:
    struck = fault("stale_reference", "engine", 0.3)
    stamps, _, _ = run([struck])
    decided = stamps.filter(
        (pl.col("point") == "app_decision") & pl.col("ts_ns").is_between(BEGIN + 5 * NS, BEGIN + 12 * NS)
    )
    ages = [
        (struck.touches(key), age)
        for key, age in zip(decided["key"].to_list(), decided["data_age_ns"].to_list(), strict=True)
    ]
    assert median(age for touched, age in ages if touched) > 3 * NS
    assert median(age for touched, age in ages if not touched) < 2 * NS


@pytest.mark.parametrize(
    ("kind", "at", "start", "end"),
    [
        ("lock_contention", "engine", ("app_egress", "feed"), ("app_decision", "engine")),
        ("gc_pauses", "venue-east", ("app_egress", "gateway"), ("app_ingress", "venue")),
        ("gc_pauses", "feed", ("intended", "feed"), ("app_egress", "feed")),
        ("cpu_hog", "gateway-east", ("app_egress", "engine"), ("app_ingress", "gateway")),
        ("queue_backlog", "inference", ("app_ingress", "inference"), ("dequeued", "inference")),
        ("queue_backlog", "engine", ("ready", "engine"), ("dequeued", "engine")),
    ],
)
def test_pulses_make_whoever_meets_them_wait(kind: str, at: str, start: tuple[str, str], end: tuple[str, str]) -> None:
    struck = fault(kind, at, 0.2)
    quiet = took(run()[0], start, end)["ns"].quantile(0.95)
    spans = took(run([struck])[0], start, end)
    met = spans.filter(pl.Series([struck.pulse_left_ns(t) > 10 * MS for t in spans["start"].to_list()]))
    missed = spans.filter(pl.Series([struck.pulse_left_ns(t) == 0 for t in spans["start"].to_list()]))
    share = 0.3 if kind in ("gc_pauses", "cpu_hog") and "-" in at else 0.7  # one of two sites
    assert (met["ns"] > 2 * quiet).mean() > share  # type: ignore[operator] # a number
    assert missed["ns"].median() < 2 * quiet  # type: ignore[operator] # a number


def test_a_backlog_shows_in_the_depth_of_the_queue() -> None:
    deepest = run([fault("queue_backlog", "engine", 0.2)], rate=300, seconds=10)[0]
    assert deepest.filter(pl.col("point") == "ready")["depth"].max() > 5  # type: ignore[operator] # a number


def test_links_lose_delay_and_retransmit() -> None:
    lossy, _, _ = run([fault("link", "line-a", 1.0, loss=0.2)])
    a, b = (len(keys(lossy, f"arrived_{line}", "engine")) for line in "ab")
    assert 0.7 < a / b < 0.9
    slow = took(
        run([fault("link", "orders-east", 1.0, delay_ns=5 * MS)])[0],
        ("app_egress", "engine"),
        ("app_ingress", "gateway"),
    )
    assert 0.2 < (slow["ns"] >= 5 * MS).mean() < 0.8
    again = took(
        run([fault("link", "market-west", 1.0, loss=0.05)])[0], ("app_egress", "gateway"), ("app_ingress", "venue")
    )
    assert again["ns"].max() >= 200 * MS  # type: ignore[operator] # a number


def test_a_silent_line_is_a_run_of_missing_copies() -> None:
    struck = fault("feed_gap", "line-b", 0.2)
    stamps, _, _ = run([struck])
    missing = set(keys(stamps, "arrived_a", "engine")) - set(keys(stamps, "arrived_b", "engine"))
    when = dict(stamps.filter(pl.col("point") == "arrived_a").select("key", "ts_ns").iter_rows())
    assert len(missing) > 50
    assert np.mean([struck.pulse_left_ns(when[key] - 300_000) > 0 for key in missing]) > 0.9


def test_both_lines_silent_is_a_gap_that_is_given_up_in_time() -> None:
    stamps, _, _ = run([fault("feed_gap", line, 0.2) for line in ("line-a", "line-b")])
    lost = set(keys(stamps, "app_egress", "feed")) - set(keys(stamps, "app_ingress", "engine"))
    assert len(lost) > 50
    assert took(stamps, ("arrived_a", "engine"), ("app_ingress", "engine"))["ns"].max() < 10 * MS  # type: ignore[operator]


def test_a_lost_receive_queue_loses_datagrams_and_holds_streams() -> None:
    line = fault("lost_nic_queue", "engine", 1.0, queue=FLOWS["line-b"].queue)
    stamps, _, _ = run([line])
    assert keys(stamps, "arrived_b", "engine") == []
    assert set(keys(stamps, "arrived_a", "engine")) == set(keys(stamps, "app_egress", "feed"))
    back = BEGIN + 6 * NS
    venue = fault("lost_nic_queue", "venue-east", 1.0, queue=FLOWS["market-east"].queue)
    stamps, _, done = run([structs.replace(venue, end_ns=back)], seconds=12)
    hops = took(stamps, ("app_egress", "gateway"), ("app_ingress", "venue"))
    early = hops.filter((pl.col("start") < back) & (pl.col("start") + pl.col("ns") >= back))
    assert len(early) > 10
    assert (early["start"] + early["ns"]).max() < back + 250 * MS  # type: ignore[operator] # a number
    assert sorted(hash64("order", one.id) for one in done) == sorted(keys(stamps, "app_egress", "engine"))


def test_a_stream_whose_queue_never_comes_back_is_given_up() -> None:
    struck = fault("lost_nic_queue", "gateway-west", 1.0, queue=FLOWS["orders-west"].queue)
    stamps, _, done = run([structs.replace(struck, end_ns=None)], seconds=10)
    sent, taken = (set(keys(stamps, *at)) for at in (("app_egress", "engine"), ("app_ingress", "gateway")))
    assert 0.2 < len(taken) / len(sent) < 0.8  # the other site's
    assert {hash64("order", one.id) for one in done} == taken


def test_every_kind_of_fault_has_a_test_here() -> None:
    from pathlib import Path

    text = Path(__file__).read_text()
    assert all(f'"{kind}"' in text for kind in KINDS)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 20)), max_size=30))
def test_a_thread_does_one_thing_at_a_time_in_order(work: list[tuple[int, int]]) -> None:
    events, thread = Events(), Thread(1)
    seen: list[tuple[int, int, int]] = []

    def handle(now: int, number: int, lasts: int) -> int:
        seen.append((now, number, lasts))
        return now + lasts

    for number, (at, lasts) in enumerate(work):
        events.at(at, thread, handle, number, lasts)
    events.run()
    assert [number for _, number, _ in seen] == [n for n, _ in sorted(enumerate(work), key=lambda w: (w[1][0], w[0]))]
    for (a, _, lasts), (b, _, _) in itertools.pairwise(seen):
        assert b >= a + lasts
    assert all(now >= work[number][0] for now, number, _ in seen)


def test_a_day_is_a_function_of_seed_and_date() -> None:
    midnight = BEGIN - BEGIN % DAY_NS
    days = [day(1, midnight + n * DAY_NS) for n in range(60)]
    assert days == [day(1, midnight + n * DAY_NS) for n in range(60)]
    assert [d.seed for d in days] != [day(2, d.start_ns).seed for d in days]
    assert day_of(1, midnight + 5 * HOUR_NS) == days[0]
    faults = [f for d in days for f in d.faults]
    assert len({f.id for f in faults}) == len(faults) > 30
    assert {f.kind for f in faults} >= {"bad_deploy", "link", "gc_pauses"}
    assert any(d.campaign for d in days)
    assert not all(d.campaign for d in days)
    for d in days:
        assert all(d.start_ns <= deploy.ts_ns < d.start_ns + DAY_NS for deploy in d.deploys)
        assert all(f.end_ns is not None and f.end_ns < d.start_ns + DAY_NS for f in d.faults)


def test_faults_strike_only_when_they_are_asked_for() -> None:
    midnight = BEGIN - BEGIN % DAY_NS
    struck = next(
        (d, f)
        for d in (day(1, midnight + n * DAY_NS) for n in range(90))
        for f in d.faults
        if f.kind == "slow_dependency"
    )
    hour = struck[1].start_ns // HOUR_NS * HOUR_NS
    with_faults, without = (make(Settings(rate=0.2, profile="flat", faults=one), hour) for one in (True, False))
    assert with_faults.frames != without.frames
    assert with_faults.quotes == without.quotes
