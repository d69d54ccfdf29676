"""Which windows of a path are to be computed now: a pure decision over what the ledger and the windows say.

A window depends on the batches whose event times touch its reach, from `Path.reach_before_ns` before it to
`Path.reach_ns` after its end. The xor of their names (`basis`) stands in its commit row: a window whose basis differs
from the ledger's has late stamps. Nothing is remembered between calls but the position in the ledger before which
everything is settled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from analytics.window_settings import WindowSettings

NS = 1_000_000_000
LEVEL_NS = 10 * NS
Why = Literal["new", "late", "final"]


@dataclass(frozen=True, slots=True)
class Touched:
    """A window that batches touch: its start in seconds, their xor, and when the first unsettled one was received.

    `events` estimates how many of their events it holds.
    """

    window: int
    basis: int
    received_ns: int
    events: int = 0


@dataclass(frozen=True, slots=True)
class Committed:
    """The current generation of a window."""

    generation: int
    basis: int
    final: bool
    computed_ns: int


@dataclass(frozen=True, slots=True)
class Due:
    """A window to compute, and why; `final` says what it will be."""

    window: int
    basis: int
    why: Why
    final: bool
    recount: bool  # False: only its state changes, the rows stand


def due(
    touched: Iterable[Touched],
    committed: Mapping[int, Committed],
    *,
    now_ns: int,
    watermark_ns: int | None,
    reach_ns: int,
    settings: WindowSettings,
) -> list[Due]:
    """What to compute, oldest first, new windows before late ones.

    `watermark_ns`: every event before it has landed, by all live collectors; None when none is live. `reach_ns` is how
    long after its end a window can still gain stamps.
    """
    found = []
    for one in sorted(touched, key=lambda t: t.window):
        end = one.window * NS + LEVEL_NS
        final = now_ns >= end + settings.lateness_ns
        done = committed.get(one.window)
        if done is None:
            landed = watermark_ns is not None and watermark_ns >= end + reach_ns
            if landed or now_ns >= end + reach_ns + settings.grace_ns:
                found.append(Due(one.window, one.basis, "new", final, recount=True))
        elif done.basis != one.basis and not out_of_reach(one, now_ns, settings):
            if now_ns >= done.computed_ns + settings.rerun_after_ns or (final and not done.final):
                found.append(Due(one.window, one.basis, "late", final, recount=True))
        elif final and not done.final:
            found.append(Due(one.window, one.basis, "final", final=True, recount=False))
    return sorted(found, key=lambda d: (d.why != "new", d.window))


def out_of_reach(one: Touched, now_ns: int, settings: WindowSettings) -> bool:
    """Whether a window is too old to be computed again: its stamps may have passed their retention."""
    return one.window * NS + LEVEL_NS < now_ns - settings.recount_within_ns


def settled(one: Touched, done: Committed | None, now_ns: int, settings: WindowSettings) -> bool:
    """Whether nothing is left to do for a window until a new batch touches it."""
    return done is not None and done.final and (done.basis == one.basis or out_of_reach(one, now_ns, settings))
