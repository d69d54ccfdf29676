"""Which stored windows tile a range exactly: the coarsest ones inside it, finer ones at its edges.

A coarse window is used where it includes the newest generation of its 10 s windows; where late stamps have made it
stale, its finer windows are used until it is summed again. So every level gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Span = tuple[int, int]  # [from, to) in seconds


@dataclass(frozen=True, slots=True)
class Cover:
    """Per level the spans, in seconds, whose windows of that level are to be summed."""

    spans: Mapping[int, tuple[Span, ...]]


def widen(from_ns: int, to_ns: int, step_s: int = 10) -> Span:
    """The smallest range of whole steps, in seconds, that holds [from_ns, to_ns)."""
    step = step_s * 1_000_000_000
    return from_ns // step * step_s, -(-to_ns // step) * step_s


def cover(from_s: int, to_s: int, usable: Mapping[int, Sequence[int]], levels: Sequence[int] = (3600, 60, 10)) -> Cover:
    """Tile [from_s, to_s), multiples of the finest level, with windows of `levels` (coarsest first).

    `usable[level]` are the starts of the windows of a coarse level that may be used.
    """
    spans: dict[int, tuple[Span, ...]] = {}
    left: list[Span] = [(from_s, to_s)]
    for level in levels[:-1]:
        found: list[Span] = []
        rest: list[Span] = []
        good = usable.get(level, ())
        for begin, end in left:
            at = begin
            for start in sorted(w for w in good if begin <= w and w + level <= end):
                if start > at:
                    rest.append((at, start))
                if found and found[-1][1] == start:
                    found[-1] = (found[-1][0], start + level)
                else:
                    found.append((start, start + level))
                at = start + level
            if at < end:
                rest.append((at, end))
        spans[level] = tuple(found)
        left = rest
    spans[levels[-1]] = tuple(left)
    return Cover(spans)
