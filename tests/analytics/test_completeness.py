"""Completeness over hours and days: by the tables' projections as by reading every second of every batch."""

from __future__ import annotations

import itertools
import random

import pytest

from analytics.completeness import completeness
from collector.store import Store
from tests.analytics.world import AGENT, HOUR

S = 1_000_000_000
HOURS = 6


@pytest.fixture
def said(store: Store) -> dict[int, tuple[int, int]]:
    """Six hours of a ledger whose batches cross hours; per second, what was produced and what is missing."""
    draw = random.Random(7)  # noqa: S311 - a fixed sequence
    by_second: dict[int, tuple[int, int]] = {}
    rows, at, seq = [], HOUR // S, 0
    while at < HOUR // S + HOURS * 3_600:
        seconds = sorted(draw.sample(range(at, at + 90), 3))
        made = [draw.randrange(1, 50) for _ in seconds]
        lost = [draw.randrange(n + 1) if draw.random() < 0.2 else 0 for n in made]
        for second, p, m in zip(seconds, made, lost, strict=True):
            before = by_second.get(second, (0, 0))
            by_second[second] = (before[0] + p, before[1] + m)
        rows.append(
            f"(cityHash64({seq}), '{AGENT}', 'agent', 1, {seq}, {sum(made)}, {sum(made) - sum(lost)}, {sum(lost)},"
            f" toDateTime64({seconds[0]}, 9, 'UTC'), '2025-06-15', {seconds}, {made}, {lost})"
        )
        seq += sum(made)
        at = seconds[-1] - draw.randrange(20)
    columns = "batch, collector, name, boot, seq_first, events, stored, dropped, cut, cut_day, seconds"
    store.execute(
        f"INSERT INTO batches ({columns}, produced_by_second, missing_by_second) VALUES {', '.join(rows)}"  # noqa: S608
    )
    beats = [HOUR + minute * 60 * S for minute in range(HOURS * 60 + 5)]
    store.execute(
        "INSERT INTO heartbeats (ts, watermark, collector, name, boot, status, produced, acked) VALUES "  # noqa: S608
        + ", ".join(f"({at / S}, {at / S}, '{AGENT}', 'agent', 1, 'running', {seq}, {seq})" for at in beats)
    )
    return by_second


def test_hours_by_the_projection_are_the_sum_of_their_seconds(store: Store, said: dict[int, tuple[int, int]]) -> None:
    draw = random.Random(11)  # noqa: S311 - a fixed sequence
    ranges = [(HOUR, HOUR + HOURS * 3_600 * S), (HOUR + 3_600 * S, HOUR + 5 * 3_600 * S)]
    for _ in range(12):
        a, b = sorted(draw.sample(range(HOURS * 3_600), 2))
        ranges.append((HOUR + a * S, HOUR + b * S + draw.choice((0, 1, S - 1))))
    for start, end in ranges:
        (one,) = completeness(store, start, end, now_ns=HOUR + HOURS * 3_700 * S)
        inside = [said[second] for second in range(start // S, -(-end // S)) if second in said]
        assert (one.produced, one.missing) == (sum(p for p, _ in inside), sum(m for _, m in inside)), (start, end)


def test_steps_are_the_sum_of_their_seconds(store: Store, said: dict[int, tuple[int, int]]) -> None:
    for step_s, shift in itertools.product((10, 90, 3_600, 5_000), (0, 10 * S, 5)):
        start, end = HOUR + 3_000 * S + shift, HOUR + (4_100 if step_s < 3_600 else 18_500) * S
        steps = completeness(store, start, end, step_s, now_ns=HOUR + HOURS * 3_700 * S)
        for one in steps:
            inside = [said[second] for second in range(one.from_ns // S, -(-one.to_ns // S)) if second in said]
            assert (one.produced, one.missing) == (sum(p for p, _ in inside), sum(m for _, m in inside))
        assert [s.from_ns for s in steps] == list(range(start, end, step_s * S))


def test_what_is_known_of_a_range_ends_at_the_watermark(store: Store, said: dict[int, tuple[int, int]]) -> None:
    until = HOUR + HOURS * 3_600 * S + 240 * S  # the last heartbeat
    end = until + 3_600 * S
    (whole,) = completeness(store, HOUR, end, now_ns=end)
    assert (whole.share, whole.waiting_for, whole.known_to_ns) == (None, ("agent",), until)
    made, lost = sum(p for p, _ in said.values()), sum(m for _, m in said.values())
    assert whole.known_share == (made - lost) / made
    hours = completeness(store, HOUR, end, 3_600, now_ns=end)
    assert [h.share is None for h in hours] == [False] * HOURS + [True] * 2 or hours[-1].known_share is None


@pytest.mark.usefixtures("said")
def test_the_projections_answer(store: Store) -> None:
    """Without them an answer about a month reads the whole ledger: the plan must name them."""
    from analytics import completeness as module

    params = {"from_s": HOUR // S, "to_s": HOUR // S + 3_600, "hour": HOUR // S, "from_ns": HOUR, "to_ns": HOUR + S}
    params |= {"lived": 0, "collector": AGENT, "boot": 1}
    for sql in (module._HOURS, module._LANDED, module._STORED):
        plan = "\n".join(store.query(f"EXPLAIN {sql}", params)["explain"].to_list())
        assert "by_hour" in plan, plan
