"""A case of the test language, run tick by tick through the product's own evaluator."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import numpy as np

from analytics.slo.burn import Budget
from analytics.slo.episodes import Alert, Transition, acknowledge
from analytics.slo.evaluate import ARRIVAL, Evaluator, Judged, Lag
from analytics.slo.gates import (
    Decision,
    GateState,
    GateVerdict,
    SeenObjective,
    judge_gate,
    kpi_side,
    measured,
    rule_sides,
    seen_objective,
    step,
)
from analytics.slo.indicators import Kpi
from analytics.slo.kpi_counts import NS, Cells
from analytics.slo.rehearsed_kpis import Business
from analytics.slo.scenario import Action, Case, Expectation, Gap, Scenario, Traffic
from analytics.slo.settings import SloSettings
from analytics.slo.sums import CELL_S, HOUR_S, Sums

ORIGIN_S = 1_800_000_000  # a whole hour: the moment 0 of every case
_OF_GATES = ("gate", "passes", "trigger", "triggers")
_WEIGH = 1_000_000  # events produced per arrival cell: `missing` is a share to a millionth


@dataclass(frozen=True, slots=True)
class Failure:
    """An expectation that does not hold, and what was true instead."""

    file: str
    line: int
    case: str
    text: str
    found: str

    def __str__(self) -> str:
        name = f" ({self.case})" if self.case else ""
        return f"{self.file}:{self.line}{name}: expect {self.text}: {self.found}"


@dataclass(frozen=True, slots=True)
class Result:
    """A case that was run: how many expectations it had, which failed, what was heard, and what gates decided."""

    case: str
    expectations: int
    failures: tuple[Failure, ...]
    heard: tuple[tuple[float, Transition], ...]
    decided: tuple[tuple[float, Decision], ...] = ()


def run(scenario: Scenario) -> list[Result]:
    """Run every case."""
    return [_Run(scenario, case).run() for case in scenario.cases]


class _Run:
    def __init__(self, scenario: Scenario, case: Case) -> None:
        self.scenario, self.case = scenario, case
        reach = max((one.period_s for one in scenario.objectives), default=HOUR_S)
        self.names = [*(one.name for one in scenario.objectives), ARRIVAL]
        self.sums = Sums(self.names, ORIGIN_S, reach)
        self.evaluator = Evaluator(scenario.objectives, lag=Lag())
        self.traffic = {name: _Counted([t for t in case.traffic if t.objective == name]) for name in self.names}
        self.heard: list[tuple[float, Transition]] = []
        self.seen: dict[tuple[int, str, str], Judged] = {}
        self.budgets: dict[tuple[int, str], Budget] = {}
        self.clock_s = Fraction(0)
        self.measures = {o.name: o.indicator for o in scenario.objectives if isinstance(o.indicator, Kpi)}
        self.business = Business(case.values, scenario.kpis, ORIGIN_S, SloSettings().kpi_late_s)
        asked = {one.objective for one in case.expectations if one.kind in _OF_GATES}
        self.gates = {name: GateState(name) for name in scenario.gates if name in asked}
        self.gated: dict[tuple[int, str], GateVerdict] = {}
        self.decided: list[tuple[float, Decision]] = []

    def run(self) -> Result:
        self._history()
        wanted = self._wanted()
        until = math.ceil(self.case.until or 0)
        actions = sorted(self.case.actions, key=lambda one: one.at)
        for now in range(self.case.tick_s, until + self.case.tick_s, self.case.tick_s):
            while actions and actions[0].at <= now:
                self._act(actions.pop(0), now)
            self._count(now)
            wall_ns = int((ORIGIN_S + now + self.clock_s) * 1_000_000_000)
            for heard in self.evaluator.tick(self.sums, ORIGIN_S + now, wall_ns=wall_ns):
                self.heard.append((float(now), heard))
            self._judge_gates(now, wall_ns)
            for objective, rule in wanted.get(now, ()):
                if rule:
                    self.seen[now, objective, rule] = self.evaluator.judged[objective, rule]
                else:
                    one = self.evaluator.by_name[objective]
                    self.budgets[now, objective] = self.evaluator.budget(self.sums, one, ORIGIN_S + now)
        failures = [f for one in self.case.expectations if (f := self._check(one)) is not None]
        count, decided = len(self.case.expectations), tuple(self.decided)
        return Result(self.case.name, count, tuple(failures), tuple(self.heard), decided)

    def _history(self) -> None:
        """What happened before 0, into every ring."""
        self.business.take(0)
        for cell_s in (CELL_S, 60, HOUR_S):
            start, end = self.sums.reach(cell_s)
            for name, measure in self.measures.items():
                self._load(name, measure, cell_s, start, end)
            for name in self.names:
                if name in self.measures:
                    continue
                first = max(start, self._first_s(name, cell_s))
                starts = np.arange(first, min(end, ORIGIN_S), cell_s, dtype=np.int64)
                values = np.array([self._cell(name, int(s) - ORIGIN_S, cell_s) for s in starts], np.int64)
                if len(starts):
                    self.sums.load(cell_s, [name] * len(starts), starts, values)

    def _first_s(self, name: str, cell_s: int) -> int:
        earliest = min((t.start for t in self.case.traffic if name in (t.objective, ARRIVAL)), default=Fraction(0))
        at = ORIGIN_S + math.floor(earliest)
        return at - at % cell_s

    def _count(self, now: int) -> None:
        """Put in what was counted up to `now`; while the counting stalls, nothing, and after it all at once."""
        if any(g.kind == "stall" and g.start < now <= g.end for g in self.case.gaps):
            return
        first = self.sums.end_s
        last = ORIGIN_S + now
        if first >= last:
            return
        self.sums.advance(last)
        self._count_measures(now)
        starts = np.arange(first, last, CELL_S, dtype=np.int64)
        for name in self.names:
            if name in self.measures:
                continue
            values = np.array([self._cell(name, int(s) - ORIGIN_S, CELL_S) for s in starts], np.int64)
            self.sums.put([name] * len(starts), starts, values)

    def _count_measures(self, now: int) -> None:
        """Count the times again of which business values have come, in every ring that holds them."""
        for kpi, start_s, end_s in _joined(self.business.take(now)):
            for name, measure in self.measures.items():
                if measure.name == kpi:
                    fine, _ = self.sums.reach(CELL_S)
                    start = max(start_s, fine)
                    starts = np.arange(start, min(end_s, self.sums.end_s), CELL_S, dtype=np.int64)
                    cells = self.business.cells(measure, start, end_s, CELL_S)
                    values = np.array([self._kept(name, cells, int(s), CELL_S) for s in starts], np.int64)
                    if len(starts):
                        self.sums.put([name] * len(starts), starts, values)
                    for cell_s in (60, HOUR_S):  # before the fine ring corrections do not reach them
                        self._load(name, measure, cell_s, start_s - start_s % cell_s, min(end_s, fine - fine % cell_s))

    def _load(self, name: str, measure: Kpi, cell_s: int, start: int, end: int) -> None:
        cells = self.business.cells(measure, start, end, cell_s)
        starts = np.arange(max(start, self.sums.reach(cell_s)[0]), end, cell_s, dtype=np.int64)
        if cells or len(self.business):
            values = np.array([self._kept(name, cells, int(s), cell_s) for s in starts], np.int64)
            if len(starts):
                self.sums.load(cell_s, [name] * len(starts), starts, values)

    def _kept(self, name: str, cells: Cells, start: int, cell_s: int) -> tuple[int, int, int]:
        """A cell of a measure, empty where its calendar is not open from beginning to end."""
        shut = any(
            g.objective in ("", name) and _overlap(g, start - ORIGIN_S, start - ORIGIN_S + cell_s)
            for g in self._gaps("closed")
        )
        return (0, 0, 0) if shut else cells.get(start, (0, 0, 0))

    def _judge_gates(self, now: int, wall_ns: int) -> None:
        """Look at every gate, as the server does after every tick."""
        shut = any(not g.objective and g.start <= now < g.end for g in self._gaps("closed"))
        for name in self.gates:
            gate = self.scenario.gates[name]
            named = {*gate.objectives, *(rule.split()[0] for rule in gate.rules)} & self.evaluator.by_name.keys()
            sides = rule_sides(gate, {one: self._seen(one) for one in named})
            for rule in gate.kpis:
                portions = [
                    one for one in self.business.portions(rule, (ORIGIN_S + now) * NS)
                    if not any(
                        not g.objective and gate.calendar and g.start <= one.at_ns / NS - ORIGIN_S < g.end
                        for g in self._gaps("closed")
                    )
                ]  # fmt: skip
                found = measured(portions, self.scenario.kpis[rule.kpi].kind)
                sides.append(kpi_side(gate, rule, found, (ORIGIN_S + now) * NS))
            verdict = judge_gate(gate, sides, shut=shut and bool(gate.calendar))
            self.gates[name], decisions = step(gate, self.gates[name], verdict, wall_ns)
            self.gated[now, name] = verdict
            self.decided += [(float(now), one) for one in decisions]

    def _seen(self, name: str) -> SeenObjective:
        one = self.evaluator.by_name[name]
        judged = [self.evaluator.judged[name, rule.name] for rule in one.rules]
        budget = self.evaluator.budget(self.sums, one, self.sums.end_s)
        return seen_objective(judged, budget)

    def _cell(self, name: str, start: int, length: int) -> tuple[int, int, int]:
        """Good, total and uncertain of one cell, with its closed and missing parts taken out."""
        if name == ARRIVAL:
            lost = sum((g.share * _overlap(g, start, start + length) for g in self._gaps("missing")), Fraction(0))
            return round(_WEIGH * (1 - lost / length)) * length, _WEIGH * length, 0
        good = total = 0
        for a, b, missing in self._open(name, start, start + length):
            bad, every = self.traffic[name].between(a, b)
            kept = 1 - missing
            total += math.floor(every * kept)
            good += math.floor(every * kept) - math.floor(bad * kept)
        return good, total, 0

    def _open(self, name: str, start: int, end: int) -> Iterator[tuple[Fraction, Fraction, Fraction]]:
        """The parts of a cell in which the calendar is open, each with the share that did not arrive."""
        edges = {Fraction(start), Fraction(end)}
        for gap in self.case.gaps:
            edges |= {edge for edge in (gap.start, gap.end) if start < edge < end}
        ordered = sorted(edges)
        for a, b in pairwise(ordered):
            if any(g.start <= a < g.end and g.objective in ("", name) for g in self._gaps("closed")):
                continue
            yield a, b, sum((g.share for g in self._gaps("missing") if g.start <= a < g.end), Fraction(0))

    def _gaps(self, kind: str) -> list[Gap]:
        return [g for g in self.case.gaps if g.kind == kind]

    def _act(self, action: Action, now: int) -> None:
        if action.kind == "clock":
            self.clock_s += action.by_s
        elif action.kind == "acknowledge":
            key = (action.objective, action.rule)
            alert = self.evaluator.alerts.get(key) or Alert(*key)
            if alert.state == "firing":
                taken, heard = acknowledge(alert, action.who, (ORIGIN_S + now) * 1_000_000_000)
                self.evaluator.alerts[key] = taken
                self.heard.append((float(now), heard))
        else:  # a new process: nothing is left but the alerts that were stored, and the counts in the store
            stored = list(self.evaluator.alerts.values())
            self.evaluator = Evaluator(self.scenario.objectives, stored, Lag())

    def _wanted(self) -> dict[int, list[tuple[str, str]]]:
        found: dict[int, list[tuple[str, str]]] = {}
        for one in self.case.expectations:
            if one.at is not None and one.kind not in ("transition", *_OF_GATES):
                found.setdefault(self._tick(one.at), []).append((one.objective, one.rule))
        return found

    def _tick(self, at: Fraction) -> int:
        """The first tick at or after a moment."""
        return max(self.case.tick_s, math.ceil(at / self.case.tick_s) * self.case.tick_s)

    def _check(self, one: Expectation) -> Failure | None:
        found = self._found(one)
        if found is None:
            return None
        return Failure(self.scenario.file, one.line, self.case.name, one.text, found)

    def _found(self, one: Expectation) -> str | None:
        """What was true instead; None when the expectation holds."""
        if one.kind in _OF_GATES:
            return self._found_gate(one)
        mine = [(t, h) for t, h in self.heard if (h.alert.objective, h.alert.rule) == (one.objective, one.rule)]
        fired = [t for t, h in mine if h.kind == "firing"]
        if one.kind == "never":
            return f"it fired at {_times(fired)}" if fired else None
        if one.kind == "episodes":
            episodes = {h.alert.episode for _, h in mine if h.kind == "firing"}
            return None if len(episodes) == one.value == len(fired) else f"it fired {len(fired)} times"
        if one.kind == "transition":
            kind = "firing" if one.word == "fires" else "resolved"
            times = [t for t, h in mine if h.kind == kind]
            near = [t for t in times if 0 <= t - float(one.at or 0) + 1e-9 <= one.within + 2e-9]
            return None if near else f"it {one.word} at {_times(times)}"
        assert one.at is not None  # noqa: S101 - the reader asks for it
        tick = self._tick(one.at)
        if one.kind in ("budget", "exhausted"):
            budget = self.budgets.get((tick, one.objective))
            return "the case ends before" if budget is None else _budget(one, budget)
        judged = self.seen.get((tick, one.objective, one.rule))
        if judged is None:
            return "the case ends before"
        if one.kind == "state":
            state = judged.alert.state
            return (
                None if state == one.word else f"it is {state}" + (f": {judged.alert.why}" if judged.alert.why else "")
            )
        if one.kind == "answer":
            return (
                None if judged.verdict.answer == one.word else f"it says {judged.verdict.answer} {judged.verdict.why}"
            )
        for side in judged.verdict.sides:
            if side.over.window_s == one.window_s:
                holds = {
                    ">": side.burn > one.value, "<": side.burn < one.value,
                    "=": abs(side.burn - one.value) <= one.within,
                }[one.op]  # fmt: skip
                return None if holds else f"it is {side.burn:.6g}"
        return f"the rule does not look at {one.window_s} s, or its answer is held: {judged.verdict.why}"

    def _found_gate(self, one: Expectation) -> str | None:
        """The same of an expectation about a gate."""
        times = [t for t, d in self.decided if d.kind == "rollback" and d.gate == one.objective]
        if one.kind == "triggers":
            return None if len(times) == one.value else f"it triggers at {_times(times)}"
        assert one.at is not None  # noqa: S101 - the reader asks for it
        if one.kind == "trigger":
            near = any(0 <= t - float(one.at) + 1e-9 <= one.within + 2e-9 for t in times)
            return None if near else f"it triggers at {_times(times)}"
        verdict = self.gated.get((self._tick(one.at), one.objective))
        if verdict is None:
            return "the case ends before"
        found = verdict.verdict if one.kind == "gate" else "passes" if verdict.passes else "refuses"
        return None if found == one.word else f"it {'is ' if one.kind == 'gate' else ''}{found}: {verdict.why}"


def _joined(changed: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """Times of the same measure that touch, as one."""
    found: list[tuple[str, int, int]] = []
    for kpi, start, end in sorted(changed):
        if found and found[-1][0] == kpi and start <= found[-1][2]:
            found[-1] = (kpi, found[-1][1], max(end, found[-1][2]))
        else:
            found.append((kpi, start, end))
    return found


class _Counted:
    """Traffic with its bad events spread evenly: whole numbers that add up over any cells."""

    def __init__(self, parts: list[Traffic]) -> None:
        self._parts = parts

    def between(self, start: Fraction, end: Fraction) -> tuple[int, int]:
        """Bad and all events in [start, end)."""
        bad = every = 0
        for one in self._parts:
            a, b = max(start, one.start), min(end, one.end)
            if a < b:
                done, until = (math.floor((x - one.start) * one.per_s) for x in (a, b))
                every += until - done
                bad += math.floor(until * one.bad) - math.floor(done * one.bad)
        return bad, every


def _overlap(gap: Gap, start: int, end: int) -> Fraction:
    return max(Fraction(0), min(gap.end, Fraction(end)) - max(gap.start, Fraction(start)))


def _times(times: list[float]) -> str:
    return ", ".join(f"{t:g} s ({t / 60:.4g} m)" for t in times) or "no time"


def _budget(one: Expectation, budget: Budget) -> str | None:
    if one.kind == "exhausted":
        if budget.exhausted_s is None:
            return "nothing burns"
        near = abs(budget.exhausted_s - one.value) <= one.within
        return None if near else f"it is in {budget.exhausted_s:g} s"
    value = budget.remaining if one.word == "remaining" else budget.burned
    return None if abs(value - one.value) <= one.within else f"it is {100 * value:.6g} %"
