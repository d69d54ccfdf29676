"""Windows behind the landing: in pieces that follow each other, and what goes wrong in one is heard; what is kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from api.demo.history.calendar import HOUR_NS
from api.demo.history.counting import STAMPS_AT_ONCE, Counting
from api.demo.history.kept import kept_hours, sentences
from api.demo.history.plan import Range
from collector.store.schema import Retention


def test_pieces_follow_each_other_and_end_an_hour_before_what_is_there() -> None:
    pieces: list[tuple[int, int]] = []

    def compute(piece: Range, _given_up: Callable[[], bool]) -> int:
        pieces.append((piece.from_ns // HOUR_NS, piece.to_ns // HOUR_NS))
        return 5

    with Counting(compute, 0) as counting:
        counting.landed(HOUR_NS, STAMPS_AT_ONCE)  # nothing is settled yet
        assert pieces == []
        for hour in range(2, 9):
            counting.landed(hour * HOUR_NS, STAMPS_AT_ONCE // 2)
        assert counting.finish(8 * HOUR_NS) == 5 * len(pieces)
    begins, ends = zip(*pieces, strict=True)
    assert (begins[0], ends[-1]) == (0, 8)
    assert begins[1:] == ends[:-1]
    assert all(end <= 7 for end in ends[:-1])


def test_what_a_piece_raises_is_raised_and_a_break_ends_the_running_one() -> None:
    def broken(_piece: Range, _given_up: Callable[[], bool]) -> int:
        raise OSError("disk")

    with Counting(broken, 0) as counting, pytest.raises(OSError, match="disk"):
        counting.landed(3 * HOUR_NS, STAMPS_AT_ONCE)
        counting.finish(4 * HOUR_NS)

    begun, ended = threading.Event(), threading.Event()

    def long(_piece: Range, given_up: Callable[[], bool]) -> int:
        begun.set()
        while not given_up():
            time.sleep(0.001)
        ended.set()
        return 0

    with pytest.raises(KeyboardInterrupt), Counting(long, 0) as counting:
        counting.landed(3 * HOUR_NS, STAMPS_AT_ONCE)
        begun.wait()
        raise KeyboardInterrupt
    assert ended.is_set()


def test_what_is_kept_is_said_with_what_is_configured() -> None:
    (one,) = sentences(kept_hours(Retention()), 24)
    assert "stamps 24 h, messages 7 days, counts by 10 s 3 days, by minutes 30 days, by hours 730 days" in one
    longer, gone = sentences(kept_hours(Retention(stamps=72, heartbeats=24)), 25)
    assert "stamps 3 days" in longer
    assert "the last 24 h only" in gone
