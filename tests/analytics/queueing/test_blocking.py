from __future__ import annotations

import numpy as np
import pytest

from analytics.queueing.blocking import head_of_line, order_of

US = 1_000


def columns(*rows: tuple[int, int, int, int, int]) -> list[np.ndarray]:
    """class, arrived, taken, done, server (times in us)."""
    table = np.array(rows, dtype=np.int64)
    return [table[:, 0], table[:, 1] * US, table[:, 2] * US, table[:, 3] * US, table[:, 4]]


def test_a_wait_is_split_by_whose_service_ran() -> None:
    found = head_of_line(
        *columns(
            (1, 0, 0, 10, 1),  # low, served at once
            (0, 2, 10, 12, 1),  # high: 8 behind the low one
            (0, 4, 12, 13, 1),  # high: 6 behind the low one, 2 behind its own
            (1, 5, 16, 17, 1),  # low: 5 behind low, 3 behind high, 3 nobody served
            (0, 5, 5, 6, 2),  # another server has nothing to do with it
        ),
        names=("high", "low"),
        groups=[[0], [1]],
    )
    high, low = found
    assert (high.name, high.count, high.waited_ns) == ("high", 3, 16 * US)
    assert high.behind_lower_share == pytest.approx(14 / 16)
    assert high.behind_equal_share == pytest.approx(2 / 16)
    assert (high.behind_urgent_share, high.unseen_share) == (0, pytest.approx(0, abs=1e-12))
    assert low.behind_urgent_share == pytest.approx(3 / 11)
    assert low.behind_equal_share == pytest.approx(5 / 11)
    assert low.unseen_share == pytest.approx(3 / 11)


def test_taken_out_together_is_served_one_after_the_other() -> None:
    found = head_of_line(
        *columns((0, 0, 10, 12, 1), (0, 0, 10, 15, 1), (0, 11, 15, 16, 1)), names=("all",), groups=[[0]]
    )
    # The third came at 11: 1 behind the first's service, 3 behind the second's.
    assert found[0].behind_equal_share == pytest.approx(4 / 24)
    assert found[0].unseen_share == pytest.approx(20 / 24)


def test_one_long_message_blocks_those_behind_it() -> None:
    n = 400
    arrived = np.arange(n, dtype=np.int64) * 100
    service = np.full(n, 50)
    service[[100, 300]] = 2_000
    work = np.cumsum(service) - service
    taken = work + np.maximum.accumulate(arrived - work)
    zero = np.zeros(n, dtype=np.int64)
    one = head_of_line(zero, arrived, taken, taken + service, zero, names=("all",))[0]
    behind = np.minimum(taken, np.where(arrived > 30_000 - 1, taken[300], taken[100]) + 2_000)
    expected = np.clip(behind - arrived, 0, None)[(taken > arrived)].sum() / (taken - arrived).sum()
    assert one.behind_long_share == pytest.approx(float(expected), rel=0.02)
    assert one.blocked == int(
        ((taken - arrived) > 0).sum() - ((behind - arrived) * 2 <= taken - arrived)[taken > arrived].sum()
    )
    assert 50 <= one.long_ns < 2_000
    assert sum((one.behind_urgent_share, one.behind_equal_share, one.behind_lower_share, one.unseen_share)) == 1


def test_who_goes_first_is_seen_from_who_overtakes() -> None:
    rng = np.random.default_rng(8)
    n = 3_000
    name = rng.integers(0, 3, n)
    urgency = np.array([2, 0, 0])[name]  # class 0 last; 1 and 2 alike
    arrived = np.cumsum(rng.exponential(100, n)).astype(np.int64)
    waiting: list[tuple[int, int]] = []
    taken, now, i = np.zeros(n, dtype=np.int64), 0, 0
    for _ in range(n):
        while i < n and (arrived[i] <= now or not waiting):
            now = max(now, int(arrived[i])) if not waiting else now
            waiting.append((int(urgency[i]), i))
            i += 1
        waiting.sort()
        _, at = waiting.pop(0)
        taken[at] = now
        now += int(rng.exponential(90))
    assert order_of(name, arrived, taken, 3) == [[1, 2], [0]]
    assert order_of(np.zeros(0, dtype=np.int64), arrived[:0], taken[:0], 0) == []
    fifo = np.sort(taken)
    assert order_of(name, arrived, fifo, 3) == [[0, 1, 2]]
