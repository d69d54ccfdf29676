"""One tick: every rule of every objective judged on the counts up to one moment.

Pure over `Sums`: where the counts come from, and who hears of transitions, is not known here. An evaluation looks at
windows that end at `end_s`, the end of what has been counted, not at the wall clock: ingestion takes its time, and
missing counts are not good ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from analytics.slo.burn import Budget, Counts, Verdict, budget, judge
from analytics.slo.episodes import BLIND, OPEN, Alert, Transition, step
from analytics.slo.objectives import Objective
from analytics.slo.rules import Rule
from analytics.slo.sums import Ints, Sums

ARRIVAL = "(arrival)"  # a row of Sums: events arrived of those produced, for all objectives
_ZERO = (0, 0, 0)


@dataclass(frozen=True, slots=True)
class Lag:
    """How far behind the counts may be before answers are held, and how long answers may be held before `blind`."""

    hold_s: int = 60
    blind_s: int = 600


@dataclass(frozen=True, slots=True)
class Judged:
    """A rule of an objective at one tick."""

    objective: Objective
    rule: Rule
    verdict: Verdict
    alert: Alert


class Evaluator:
    """Judges objectives on sums that its owner keeps up to date; remembers the alerts between ticks."""

    def __init__(self, objectives: Sequence[Objective], alerts: Sequence[Alert] = (), lag: Lag | None = None) -> None:
        self.objectives = list(objectives)
        self.by_name = {one.name: one for one in objectives}
        self.lag = lag or Lag()
        self.alerts = {(a.objective, a.rule): a for a in alerts}
        self.judged: dict[tuple[str, str], Judged] = {}

    def tick(
        self, sums: Sums, now_s: int, *, known_to_s: int | None = None, wall_ns: int | None = None
    ) -> list[Transition]:
        """Judge every rule at `now_s` on the counts up to `sums.end_s`; return what somebody has to hear of.

        `known_to_s` is up to when everything has been counted, where that is less than the sums' end: an empty window
        after it is not one without events.
        """
        at_ns = now_s * 1_000_000_000 if wall_ns is None else wall_ns
        view = View(sums)
        late_s = now_s - (sums.end_s if known_to_s is None else min(known_to_s, sums.end_s))
        late = ""
        if late_s > self.lag.hold_s:
            late = f"the newest counts are {late_s} s old, more than {self.lag.hold_s} s"
            if known_to_s == 0:
                late = "no collector has been heard of yet"
        found: list[Transition] = []
        for one in self.objectives:
            held = ""
            for rule in one.rules:
                alert = self.alerts.get((one.name, rule.name)) or Alert(one.name, rule.name)
                verdict = Verdict("held", late) if late else self._judge(view, one, rule, alert.state in OPEN)
                if verdict.answer == "held":
                    held = verdict.why
                found += self._step(one, rule, verdict, alert, at_ns)
            if late:
                held = late
            blind = Rule(BLIND, "page", (), self.lag.blind_s)
            verdict = Verdict("over", held) if held else Verdict("under", "")
            found += self._step(
                one, blind, verdict, self.alerts.get((one.name, BLIND)) or Alert(one.name, BLIND), at_ns
            )
        return found

    def budget(self, sums: Sums, one: Objective, now_s: int) -> Budget:
        """The objective's budget at `now_s`; burned at the rate of the last hour."""
        return budget_of(View(sums), one, now_s)

    def _judge(self, view: View, one: Objective, rule: Rule, firing: bool) -> Verdict:
        counted, targets = [], []
        for over in rule.overs:
            other = self.by_name[over.objective] if over.objective else one
            counted.append(view.counts(other, over.window_s))
            targets.append(other.target)
        return judge(rule, counted, targets, firing=firing)

    def _step(self, one: Objective, rule: Rule, verdict: Verdict, alert: Alert, at_ns: int) -> list[Transition]:
        after, heard = step(alert, verdict.answer, at_ns, for_s=rule.for_s, why=verdict.why)
        self.alerts[one.name, rule.name] = after
        self.judged[one.name, rule.name] = Judged(one, rule, verdict, after)
        return [] if heard is None else [heard]


class View:
    """Windows of sums at one moment, each summed once for all objectives."""

    def __init__(self, sums: Sums) -> None:
        self._sums = sums
        self._row = {name: i for i, name in enumerate(sums.names)}
        self._windows: dict[tuple[int, int], Ints] = {}
        self._missing: dict[tuple[int, int], float] = {}

    @property
    def end_s(self) -> int:
        """Where the windows end."""
        return self._sums.end_s

    def counts(self, one: Objective, seconds: int) -> Counts:
        """The last `seconds`; of time slices, the slices in them."""
        return self.between(one, self.end_s - seconds, self.end_s)

    def between(self, one: Objective, start_s: int, end_s: int) -> Counts:
        """The counts of [start_s, end_s)."""
        missing = self._absent(start_s, end_s)
        if one.slice_ratio:
            share, slices, unsure = self._sums.averaged(one.name, one.slice_s, start_s, end_s)
            return Counts(share, slices, unsure, missing)
        if one.slice_s:
            good, total, uncertain = self._sums.sliced(one.name, one.slice_s, one.slice_target, start_s, end_s)
        else:
            good, total, uncertain = self._of(one.name, start_s, end_s)
        return Counts(good, total, uncertain, missing)

    def first_s(self, one: Objective) -> int:
        """When its counts begin, to the hour; the end where there are none."""
        found = self._sums.first_s(one.name) if one.name in self._row else None
        return self.end_s if found is None else found

    def _of(self, name: str, start_s: int, end_s: int) -> tuple[int, int, int]:
        row = self._row.get(name)
        if row is None:
            return _ZERO
        key = (start_s, end_s)
        if key not in self._windows:
            self._windows[key] = self._sums.between(start_s, end_s)
        good, total, uncertain = self._windows[key][row].tolist()
        return good, total, uncertain

    def _absent(self, start_s: int, end_s: int) -> float:
        key = (start_s, end_s)
        if key not in self._missing:
            arrived, produced, _ = self._of(ARRIVAL, start_s, end_s)
            self._missing[key] = 1 - arrived / produced if produced else 0.0
        return self._missing[key]


def budget_of(view: View, one: Objective, now_s: int) -> Budget:
    """The budget of the period that holds the newest counts, burned at the rate of the last hour."""
    start, end = one.period(view.end_s)
    counts = view.between(one, start, view.end_s)
    hour = view.counts(one, 3_600)
    burn = hour.ratio / (1 - one.target)
    seen = view.end_s - max(start, view.first_s(one))
    left = None if one.window.rolling else float(end - now_s)
    return budget(counts, one.target, end - start, burn, observed_s=max(1, seen), left_s=left)


def merged(alerts: Mapping[tuple[str, str], Alert], stored: Sequence[Alert]) -> dict[tuple[str, str], Alert]:
    """Alerts with what somebody else has written of them meanwhile: an acknowledgement."""
    found = dict(alerts)
    for one in stored:
        known = found.get((one.objective, one.rule))
        if known and one.state == "acknowledged" and known.state == "firing" and known.episode == one.episode:
            found[one.objective, one.rule] = replace(
                known, state="acknowledged", acknowledged_by=one.acknowledged_by, since_ns=one.since_ns
            )
    return found
