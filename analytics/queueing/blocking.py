"""Head of line: whose service a message waited for, and how much of it was one long one.

A thread serves one message at a time. The time a message waits on a thread is split by whose service ran meanwhile:
of a more urgent class, of its own, of a less urgent one, or nobody's that was seen (the thread was off its CPU, or did
something that is no service of this queue).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy import stats

_REACH = 32  # neighbours in order of arrival that are looked at for overtaking


class HeadOfLine(msgspec.Struct, frozen=True, kw_only=True):
    """Shares of one class's waiting time. They and `unseen_share` sum to 1; `behind_long_share` is part of them.

    `long_ns` is the 99th percentile of all services; `blocked` messages spent more than half of their wait behind one
    service longer than it.
    """

    name: str
    count: int
    waited_ns: int
    behind_urgent_share: float
    behind_equal_share: float
    behind_lower_share: float
    unseen_share: float
    behind_long_share: float
    long_ns: int
    blocked: int


def order_of(
    name: NDArray[np.int64], arrived_ns: NDArray[np.int64], taken_ns: NDArray[np.int64], classes: int
) -> list[list[int]]:
    """Groups of classes, the most urgent first, by who overtakes whom; classes that do not differ share a group.

    Class a goes before b when, of the messages of a and b that overtook each other, more of a did (sign test, 0.1 %).
    """
    order = np.argsort(arrived_ns, kind="stable")
    kind, taken = name[order], taken_ns[order]
    wins = np.zeros((classes, classes), dtype=np.int64)
    for lag in range(1, min(_REACH, len(order) - 1) + 1):
        overtook = taken[lag:] < taken[:-lag]
        np.add.at(wins, (kind[lag:][overtook], kind[:-lag][overtook]), 1)

    def before(a: int, b: int) -> bool:
        n = int(wins[a, b] + wins[b, a])
        return n > 0 and float(stats.binom.sf(wins[a, b] - 1, n, 0.5)) < 0.001

    beaten = {c: sum(before(other, c) for other in range(classes) if other != c) for c in range(classes)}
    return [[c for c in range(classes) if beaten[c] == rank] for rank in sorted(set(beaten.values()))]


def head_of_line(
    name: NDArray[np.int64],
    arrived_ns: NDArray[np.int64],
    taken_ns: NDArray[np.int64],
    done_ns: NDArray[np.int64],
    server: NDArray[np.int64],
    names: Sequence[str],
    groups: Sequence[Sequence[int]] | None = None,
) -> list[HeadOfLine]:
    """Per class what its messages waited behind. Row i came at `arrived_ns`, was served by `server` from `taken_ns` on.

    `name` indexes `names`; `groups` are indices of classes, the most urgent first (None: `order_of`).
    """
    chosen = order_of(name, arrived_ns, taken_ns, len(names)) if groups is None else groups
    place = {c: rank for rank, group in enumerate(chosen) for c in group}
    rank_of = np.array([place.get(c, len(chosen)) for c in range(len(names))], dtype=np.int64)
    n = len(name)
    long_ns = int(np.quantile(done_ns - taken_ns, 0.99)) if n else 0
    urgent, equal, lower, behind, worst = (np.zeros(n) for _ in range(5))
    for one in np.unique(server):
        rows = np.flatnonzero(server == one)
        rows = rows[np.argsort(done_ns[rows], kind="stable")]
        ends = np.maximum.accumulate(done_ns[rows])
        # Taken out together, served one after the other: each has what the ones before it leave.
        starts = np.maximum(taken_ns[rows], np.concatenate([taken_ns[rows[:1]], ends[:-1]]))
        starts = np.minimum(starts, ends)
        ranks, took = rank_of[name[rows]], ends - starts
        from_ns, until_ns = arrived_ns[rows], taken_ns[rows]
        per_rank = [_within(starts, ends, took * (ranks == r), from_ns, until_ns) for r in range(len(chosen) + 1)]
        for r, part in enumerate(per_rank):
            urgent[rows] += np.where(ranks > r, part, 0)
            equal[rows] += np.where(ranks == r, part, 0)
            lower[rows] += np.where(ranks < r, part, 0)
        is_long = took > long_ns
        behind[rows] = _within(starts, ends, took * is_long, from_ns, until_ns)
        worst[rows] = _longest(starts[is_long], ends[is_long], from_ns, until_ns)
    waited = (taken_ns - arrived_ns).astype(np.float64)
    found = []
    for c, text in enumerate(names):
        mine = (name == c) & (waited >= 0)
        total = float(waited[mine].sum())
        parts = [float(each[mine].sum()) / total if total else 0.0 for each in (urgent, equal, lower, behind)]
        found.append(
            HeadOfLine(
                name=text,
                count=int(mine.sum()),
                waited_ns=int(total),
                behind_urgent_share=parts[0],
                behind_equal_share=parts[1],
                behind_lower_share=parts[2],
                unseen_share=max(0.0, 1 - sum(parts[:3])) if total else 0.0,
                behind_long_share=parts[3],
                long_ns=long_ns,
                blocked=int((worst[mine] > waited[mine] / 2).sum()),
            )
        )
    return found


def _within(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    busy: NDArray[np.int64],
    from_ns: NDArray[np.int64],
    until_ns: NDArray[np.int64],
) -> NDArray[np.float64]:
    """How much of [from, until) the services with `busy` > 0 ran; services do not overlap and are in order."""
    mine = busy > 0
    if not mine.any():
        return np.zeros(len(from_ns))
    zero = int(min(starts[0], from_ns.min()))
    edges = np.stack([starts[mine], ends[mine]], axis=1).ravel() - zero
    done = np.cumsum(np.stack([np.zeros(int(mine.sum()), dtype=np.int64), busy[mine]], axis=1).ravel())
    at = [np.interp(t - zero, edges, done, left=0, right=float(done[-1])) for t in (from_ns, until_ns)]
    return np.asarray(np.maximum(at[1] - at[0], 0.0), dtype=np.float64)


def _longest(
    starts: NDArray[np.int64], ends: NDArray[np.int64], from_ns: NDArray[np.int64], until_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The largest part of [from, until) that one service took; whole ones in between count with their length."""
    longest = np.zeros(len(from_ns))
    if not len(starts):
        return longest
    first = np.searchsorted(ends, from_ns, side="right")
    for step in range(4):  # of services that long, few fit into one wait
        i = np.minimum(first + step, len(starts) - 1)
        part = np.minimum(ends[i], until_ns) - np.maximum(starts[i], from_ns)
        longest = np.maximum(longest, np.where(first + step < len(starts), part, 0))
    return longest
