"""Explain on synthetic spans: what changed is named, at every size, and what did not is not."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from analytics.tail import exceedance, proportions
from analytics.tail.explain import FALSE_ALARMS, Sides, named, suspects
from analytics.tail.stages import layer_of
from tests.analytics.tail.synthetic import S, calm, messages, three
from tests.analytics.world import HOUR

N = 5_000
LENGTH = 100 * S


def sides(now: np.ndarray, before: np.ndarray, **columns: object) -> Sides:
    first = messages(before)
    second = messages(now, **columns).with_columns(pl.col("start_ns") + LENGTH)
    return Sides.of(three(), second, first, (HOUR + LENGTH, HOUR + 2 * LENGTH), (HOUR, HOUR + LENGTH))


@pytest.mark.parametrize(("share", "factor"), [(0.01, 5.0), (0.02, 5.0), (0.10, 3.0), (1.0, 1.5)])
def test_a_slower_stage_is_found_at_every_size(share: float, factor: float) -> None:
    now = calm(N, 1)
    slow = np.random.default_rng(3).random(N) < share
    now[slow, 2] = (now[slow, 2] * factor).astype(np.int64)
    (found,) = suspects(sides(now, calm(N, 2)))
    assert found.part == 2
    cause = named(sides(now, calm(N, 2)), found, "", {}, "")
    assert (cause.stage, cause.layer, cause.share) == ("match", "application", 1.0)


def test_two_causes_share_the_added_time() -> None:
    now, rng = calm(N, 1), np.random.default_rng(4)
    now[rng.random(N) < 0.05, 0] += 9_000_000
    now[rng.random(N) < 0.05, 1] += 3_000_000
    first, second = suspects(sides(now, calm(N, 2)))
    assert (first.part, second.part) == (0, 1)
    assert first.ci[0] < 0.75 < first.ci[1]
    assert first.share + second.share == pytest.approx(1.0)


def test_nothing_is_named_at_the_stated_rate_in_bursts_too() -> None:
    """Of 200 pairs of equal spans at most 1 % and its sampling error may have a cause; half of them have bursts."""
    wrong = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        spans = [calm(1_500, 1_000 * seed + side) for side in (1, 2)]
        if seed % 2:
            for span in spans:
                for at in rng.integers(0, 1_450, 6):  # a stall of a second in which everything is slow
                    span[at : at + 25, 1] += 2_000_000
        wrong += bool(suspects(sides(*spans)))
    # Binomial(200, 1 %): more than 6 in 1 of 200.
    assert FALSE_ALARMS == 0.01
    assert wrong <= 6


def test_one_burst_is_no_change_but_a_lasting_one_is() -> None:
    burst, lasting = calm(N, 1), calm(N, 1)
    burst[1_000:1_060, 0] += 5_000_000
    lasting[::80, 0] += 5_000_000
    assert suspects(sides(burst, calm(N, 2))) == []
    assert [one.part for one in suspects(sides(lasting, calm(N, 2)))] == [0]


def test_slots_are_exchanged_so_that_clumps_say_no_more_than_they_are() -> None:
    """Of clumped messages with the same shares, as many come out below a p as p says; not so if they were counted."""
    p, counted = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        slot = np.repeat(np.arange(30), 40)
        spans = []
        for _ in range(2):
            bad = rng.random(60) < 0.1  # of clumps of 20 messages
            spans.append(exceedance.Span(np.where(np.repeat(bad, 20), 9, rng.integers(0, 5, 1_200)), slot))
        (one,) = exceedance.changes([(spans[0], spans[1])], 0.01, seed)
        assert one is not None
        p.append(one.p)
        hits = [int((span.values > 5).sum()) for span in spans]
        counted.append(float(proportions.more(hits[0], 1_200, hits[1], 1_200)[0]))
    # Binomial(150, 10 %): more than 25 in 1 of 200.
    assert sum(value <= 0.1 for value in p) <= 25
    assert sum(value <= 0.1 for value in counted) > 40


def test_p_is_for_all_parts_and_a_part_that_changed_does_not_hide_another() -> None:
    rng = np.random.default_rng(7)
    slot = np.arange(N) * 30 // N

    def part(share: float) -> exceedance.Span:
        return exceedance.Span(rng.integers(0, 1_000, N) + 5_000 * (rng.random(N) < share), slot)

    none = [(part(0.0), part(0.0)) for _ in range(20)]
    one, two, *rest = exceedance.changes([(part(0.1), part(0.01)), (part(0.03), part(0.01)), *none], 0.01)
    assert one is not None
    assert two is not None
    assert one.p <= two.p <= 0.01
    assert min(found.p for found in rest if found is not None) > 0.01
    assert one.now_share - one.before_share == pytest.approx(0.09, abs=0.02)
    # Messages that are not there say nothing of those that are.
    fewer = exceedance.Span(np.zeros(4_500, dtype=np.int64), np.arange(4_500) * 30 // 4_500)
    (same,) = exceedance.changes([(fewer, exceedance.Span(np.zeros(N, dtype=np.int64), slot))], 0.01)
    assert same is not None
    assert same.p == 1.0
    nothing = exceedance.Span(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))
    assert exceedance.changes([(nothing, part(0.1))], 0.01) == [None]


def waits(*, consumer_slow: bool) -> Sides:
    """One thread takes messages over in `wire` (from another thread) and works on them in `match`.

    Every hundredth is held up for 8 ms, at work or before it is taken, and those behind it wait meanwhile.
    """

    def run(seed: int, held: bool) -> np.ndarray:
        rng = np.random.default_rng(seed)
        out, free = np.zeros((N, 3), dtype=np.int64), 0
        for i in range(N):
            arrives = i * 2_000_000 + 100_000
            decide, work = 100_000, int(rng.integers(200_000, 400_000))
            if held and i % 100 == 50:
                work, free = (work + 8_000_000, free) if consumer_slow else (work, arrives + 8_000_000)
            begin = max(arrives + 10_000, free)
            out[i] = decide, begin - arrives, work
            free = begin + work
        return out

    frames = [messages(run(seed, held), per_s=500.0) for seed, held in ((1, True), (2, False))]
    now, before = (one.with_columns(thread_1=pl.lit(3, pl.UInt32), thread_2=pl.lit(3, pl.UInt32)) for one in frames)
    length = N // 500 * S
    return Sides.of(
        three(), now.with_columns(pl.col("start_ns") + length), before, (HOUR + length, HOUR + 2 * length),
        (HOUR, HOUR + length),
    )  # fmt: skip


def test_waiting_for_a_thread_at_slow_work_is_laid_to_that_work() -> None:
    found = suspects(waits(consumer_slow=True))
    assert [one.part for one in found] == [2]
    assert found[0].behind == (1,)


def test_waiting_for_a_thread_that_did_not_come_stays_where_it_is() -> None:
    assert [one.part for one in suspects(waits(consumer_slow=False))] == [1]


def test_unfinished_messages_are_a_cause_at_the_stage_that_they_never_ended() -> None:
    gone = pl.Series(np.random.default_rng(6).random(N) < 0.02)
    found = sides(calm(N, 1), calm(N, 2))
    raw = messages(calm(N, 1)).with_columns(pl.col("start_ns") + LENGTH)
    raw = raw.with_columns(
        e2e_ns=pl.when(gone).then(None).otherwise(pl.col("e2e_ns")),
        ns_2=pl.when(gone).then(None).otherwise(pl.col("ns_2")),
    )
    found = Sides.of(three(), raw, messages(calm(N, 2)), found.now_span, found.before_span)
    (one,) = suspects(found)
    cause = named(found, one, "", {}, "")
    assert (cause.stage, cause.kind, cause.layer) == ("match", "unfinished", "application")


def test_a_stage_that_ends_before_it_begins_is_told_as_a_clock_that_is_wrong() -> None:
    from analytics.tail.why import _clock, negative_share

    now = calm(N, 1)
    now[:2_000, 1] -= 20_000_000
    now[:2_000, 2] += 20_000_000
    found = negative_share(sides(now, calm(N, 2)))
    assert found == {"wire": 0.4}
    assert _clock(found).startswith("A clock is wrong: wire in 40 % of the messages ended before it began")
    now[9:, 1] = 5
    assert negative_share(sides(now, calm(N, 2))) == {}
    assert _clock({}) == ""


def test_what_was_measured_inside_a_stage_goes_before_its_class() -> None:
    assert [layer_of("network"), layer_of("network", "run_queue"), layer_of("compute", "gc")] == [
        "packet", "scheduler", "application",
    ]  # fmt: skip
    assert layer_of("unattributed") == "unknown"
