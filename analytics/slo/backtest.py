"""What objectives would have done over recorded history: the live evaluation, tick by tick, on recorded counts.

Ticks at which no rule can be over while nothing is pending or fires change nothing and are passed over; all others go
through the very evaluator of the server.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.slo.burn import burn_rate
from analytics.slo.episodes import Transition
from analytics.slo.evaluate import ARRIVAL, Evaluator, Lag, View, budget_of
from analytics.slo.objectives import Objective
from analytics.slo.recorded import Recorded
from analytics.slo.rules import TICK_S, Rule
from analytics.slo.sums import CELL_S

NS = 1_000_000_000
POINTS = 240
MAX_SPAN_S = 35 * 86_400
_IDLE = ("inactive", "resolved")


class TooLongError(ValueError):
    """More would have to be judged than is allowed; the message says what to do."""


@dataclass(slots=True)
class Work:
    """How many ticks may still be judged. `take` raises TooLongError when there are none left."""

    left: int

    def take(self) -> None:
        """One tick."""
        self.left -= 1
        if self.left < 0:
            raise TooLongError("so much of this time burns that judging it takes too long; ask for less time")


@dataclass(frozen=True, slots=True)
class Fired:
    """One episode: which rule, when it breached, fired and ended; `resolved_ns` 0 while it lasts."""

    rule: str
    severity: str
    breach_ns: int
    fired_ns: int
    resolved_ns: int = 0


@dataclass(frozen=True, slots=True)
class Point:
    """The budget that remained, and the burn rate of the last hour, at one moment."""

    at_ns: int
    remaining: float
    burn: float


@dataclass(frozen=True, slots=True)
class Detection:
    """A declared incident: the first page in it and how long after its begin; None: no page came."""

    from_ns: int
    to_ns: int
    fired_ns: int | None
    rule: str
    after_s: float | None


@dataclass(frozen=True, slots=True)
class Backtest:
    """What one objective would have done. `surplus` are pages that lie in no declared incident."""

    objective: Objective
    fired: tuple[Fired, ...]
    burned: float
    remaining: float
    events: int
    bad: float
    points: tuple[Point, ...]
    detections: tuple[Detection, ...] = ()
    surplus: int = 0
    ticks: int = 0
    judged: int = 0

    def count(self, severity: str) -> int:
        """Episodes of a severity, `blind` apart."""
        return sum(one.severity == severity and one.rule != "blind" for one in self.fired)


def backtest(
    one: Objective,
    needed: Sequence[Objective],
    sums: Recorded,
    from_s: int,
    to_s: int,
    *,
    delay_s: int = 20,
    lag: Lag | None = None,
    incidents: Sequence[tuple[int, int]] = (),
    points: int = POINTS,
    work: Work | None = None,
) -> Backtest:
    """Replay `one` over [from_s, to_s); `needed` are it and the objectives that its rules look at.

    A tick at t judges what was counted up to t - `delay_s`, as the server does. `incidents` are begin and end, ns.
    Raises TooLongError when `work` is used up.
    """
    evaluator = Evaluator(needed, lag=lag)
    hot = possible(one, {n.name: n for n in needed}, sums, from_s, to_s)
    heard: list[Transition] = []
    ends = range(from_s + TICK_S, to_s + 1, TICK_S)
    judged, active = 0, False
    for number, end in enumerate(ends):
        if not (hot[number] or active):
            continue
        if work is not None:
            work.take()
        sums.move(end)
        judged += 1
        heard += [h for h in evaluator.tick(sums, end + delay_s) if h.alert.objective == one.name]
        active = any(a.state not in _IDLE or a.held_ns for (name, _), a in evaluator.alerts.items() if name == one.name)
    fired = _episodes(one, heard)
    series = [_point(one, sums, end) for end in _moments(from_s, to_s, points)] if points else []
    sums.move(to_s)
    view = View(sums)
    budget, counts = budget_of(view, one, to_s), view.between(one, from_s, to_s)
    pages = [f for f in fired if f.severity == "page" and f.rule != "blind"]
    found = tuple(_detected(begin, end, pages) for begin, end in incidents)
    surplus = sum(not any(a <= f.fired_ns < b for a, b in incidents) for f in pages) if incidents else 0
    return Backtest(one, fired, budget.burned, budget.remaining, counts.total, counts.bad, tuple(series), found,
                    surplus, len(ends), judged)  # fmt: skip


def possible(
    one: Objective, known: Mapping[str, Objective], sums: Recorded, from_s: int, to_s: int
) -> NDArray[np.bool_]:
    """For each tick, whether any rule could be over: all others are surely under, with what may be bad as bad."""
    ends = np.arange(from_s + TICK_S, to_s + 1, TICK_S, dtype=np.int64)
    if one.slice_s:
        return np.ones(len(ends), bool)
    hot = np.zeros(len(ends), bool)
    for rule in one.rules:
        every = np.ones(len(ends), bool)
        for over in rule.overs:
            other = known.get(over.objective, one)
            if other.slice_s:
                continue
            good, total = (_window(sums, other.name, ends, over.window_s)[:, i] for i in range(2))
            arrived, produced = (
                (_window(sums, ARRIVAL, ends, over.window_s)[:, i] for i in range(2))
                if ARRIVAL in sums.names else (np.zeros(len(ends)), np.zeros(len(ends)))
            )  # fmt: skip
            burn = burn_rate(1.0, other.target) * (total - good) / np.maximum(total, 1)
            every &= (burn >= over.factor * (1 - 1e-9)) & (total > 0) | (arrived < produced)
        hot |= every
    return hot


def _window(sums: Recorded, name: str, ends: NDArray[np.int64], seconds: int) -> NDArray[np.int64]:
    """Counts of the windows that end at `ends`, with their begin rounded as the sums do."""
    all_sums = sums.cumulative(name)
    first_s = sums._first_s
    cell = 10 if seconds <= 22_500 else 60 if seconds <= 352_740 else 3_600
    starts = ends - seconds
    low = np.clip((starts - starts % cell - first_s) // CELL_S, 0, len(all_sums) - 1)
    high = np.clip((ends - first_s) // CELL_S, 0, len(all_sums) - 1)
    found: NDArray[np.int64] = all_sums[high] - all_sums[low]
    return found


def _episodes(one: Objective, heard: Sequence[Transition]) -> tuple[Fired, ...]:
    severity = {rule.name: rule.severity for rule in one.rules} | {"blind": "page"}
    found: dict[str, Fired] = {}
    for h in heard:
        if h.kind == "firing":
            found[h.alert.episode] = Fired(h.alert.rule, severity[h.alert.rule], h.alert.breach_ns, h.alert.fired_ns)
        elif h.kind == "resolved" and h.alert.episode in found:
            found[h.alert.episode] = replace(found[h.alert.episode], resolved_ns=h.alert.resolved_ns)
    return tuple(sorted(found.values(), key=lambda f: (f.fired_ns, f.rule)))


def _moments(from_s: int, to_s: int, points: int) -> list[int]:
    step = max(TICK_S, -(-(to_s - from_s) // points // TICK_S) * TICK_S)
    return [*range(from_s + step, to_s, step), to_s]


def _point(one: Objective, sums: Recorded, end_s: int) -> Point:
    sums.move(end_s)
    budget = budget_of(View(sums), one, end_s)
    return Point(end_s * NS, budget.remaining, budget.burn)


def _detected(begin_ns: int, end_ns: int, pages: Sequence[Fired]) -> Detection:
    hit = next((f for f in pages if begin_ns <= f.fired_ns < end_ns), None)
    if hit is None:
        return Detection(begin_ns, end_ns, None, "", None)
    return Detection(begin_ns, end_ns, hit.fired_ns, hit.rule, (hit.fired_ns - begin_ns) / NS)


def targets(rules: Sequence[Rule], count: int) -> list[float]:
    """Targets to try, from the loosest that every rule can reach to 99.999 %, evenly in the budget's logarithm."""
    loosest = min((1 / over.factor for rule in rules for over in rule.overs if not over.objective), default=0.5)
    loosest = min(0.5, loosest * 0.999)
    exponents = np.linspace(math.log10(loosest), -5, count)
    return sorted({round(1 - 10.0 ** float(e), 8) for e in exponents})


def answer(found: Backtest) -> dict[str, Any]:
    """A backtest for an answer."""
    one = found.objective
    return {
        "name": one.name, "target": one.target, "window": one.window.text, "events": found.events,
        "bad": found.bad, "pages": found.count("page"), "tickets": found.count("ticket"),
        "burned": found.burned, "remaining": found.remaining,
        "fired": [
            {"rule": f.rule, "severity": f.severity, "breach_ns": f.breach_ns, "fired_ns": f.fired_ns,
             "resolved_ns": f.resolved_ns}
            for f in found.fired
        ],
        "detections": [
            {"from_ns": d.from_ns, "to_ns": d.to_ns, "fired_ns": d.fired_ns, "rule": d.rule, "after_s": d.after_s}
            for d in found.detections
        ],
        "surplus_pages": found.surplus,
        "points": [{"at_ns": p.at_ns, "remaining": p.remaining, "burn": p.burn} for p in found.points],
    }  # fmt: skip
