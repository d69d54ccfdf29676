"""The evaluation in the server: every 10 s counts what the window job does not, judges every rule, writes what follows.

The sums in memory are a copy of `objective_counts`, the alerts one of the control state: a new process begins where the
killed one stopped.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from analytics.completeness import completeness, share
from analytics.kpis import KpiDefinition
from analytics.paths import Path
from analytics.runs import Goals
from analytics.slo import kpi_counts, sources, stored
from analytics.slo.burn import Verdict
from analytics.slo.counting import by_path, counted_path
from analytics.slo.episodes import BLIND, OPEN, Alert, Transition
from analytics.slo.evaluate import ARRIVAL, Evaluator, View, budget_of, merged
from analytics.slo.gates import SeenObjective, seen_objective
from analytics.slo.indicators import describe
from analytics.slo.maintenance import Window, covering, paused
from analytics.slo.objectives import Objective
from analytics.slo.rules import Over
from analytics.slo.settings import SloSettings
from analytics.slo.sums import MONTH_S, Sums
from api.costs import CostBook
from api.maintenance import Held, Maintenance, holds, note
from api.slo_book import SloBook
from collector.log import logger
from collector.store import Store
from dashboards.runbooks import runbook_of

NS = 1_000_000_000
_AGAIN_S = 120  # how far back gauges and the like are counted again at every tick, and every so often:
_LATE_S, _LATE_EVERY = 900, 6
_LATE_HOURS = 12  # of business measures that came late, counted again in one tick
_EXACT_S = 24 * 3_600  # how far back a new objective is counted from messages; before that from buckets
_log = logger("slo")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What the last tick said, for readers: it never changes."""

    at_ns: int
    counted_to_s: int
    known_to_s: int
    objectives: Mapping[str, Mapping[str, Any]]
    events: Mapping[str, tuple[int, int]] = field(default_factory=dict)  # bad and all, only ever growing


class SloEngine:
    """Evaluates the objectives in force. `tick` is called by one job; `snapshot` may be read by anybody."""

    def __init__(
        self,
        book: SloBook,
        settings: SloSettings,
        maintenance: Maintenance | None = None,
        kpis: Mapping[str, KpiDefinition] | None = None,
    ) -> None:
        self.book, self.settings, self.kpis = book, settings, dict(kpis or {})
        self.maintenance = maintenance or Maintenance(book.control)
        self._calendars = dict(settings.calendars)
        self.snapshot = Snapshot(0, 0, 0, {})
        self.costs: CostBook | None = None  # what was computed of them last; the evaluation never computes any
        self.goals = Goals()
        self._revision: object = None
        self._sums: Sums | None = None
        self._evaluator = Evaluator([])
        self._extra: list[Objective] = []
        self._versions: dict[str, int] = {}
        self._generation = 0
        self._since_s = self._summed_s = self._touched_s = self._ticks = self._known_to_s = self._counted_s = 0
        self._began_s = int(time.time()) // 3_600 * 3_600
        self._events: dict[str, tuple[int, int]] = {}
        self._late_hours: set[int] = set()
        self._looked_s = 0
        self._round = 0

    def prepare(self, store: Store, paths: Mapping[str, Path], now_ns: int) -> bool:
        """Take over objectives that were applied since the last call; whether there were any changes."""
        pauses = [one for one in self.maintenance.windows() if not one.budget_burns]
        revision = (self.book.revision(), tuple(sorted(paths)), tuple(pauses))
        if revision == self._revision:
            return False
        made = self.book.compiled(paths, self.settings.calendars, self.kpis)
        for problem in made.errors:
            _log.warning("objective_not_evaluated", problem=str(problem))
        self._end_removed(now_ns)
        objectives = list(made.objectives[: self.settings.max_objectives])
        if len(objectives) < len(made.objectives):
            left = len(made.objectives) - len(objectives)
            _log.warning("objectives_not_evaluated", left_out=left, max_objectives=self.settings.max_objectives)
        hours, self._calendars = paused(objectives, self.settings.calendars, pauses)
        objectives = [replace(one, paused_in=hours.get(one.name, "")) for one in objectives]
        self._extra = sources.sides(objectives)
        counted = [*objectives, *self._extra]
        self._versions = {one.name: one.version for one in counted}
        self.goals = Goals(by_path(counted), self._calendars)
        self._generation = max(self._generation, stored.newest_generation(store))
        self._begin(store, counted, paths, now_ns // NS)
        end_s = self._end_s(now_ns)
        reach = max([MONTH_S, *(one.period_s for one in objectives)])
        sums = Sums([*(one.name for one in objectives), ARRIVAL], end_s, reach)
        stored.load(store, sums, self._versions)
        self._sums, self._since_s = sums, stored.clock_s(store) - 60
        self._counted_s = stored.newest_s(store, [o.name for o in objectives if counted_path(o.indicator) is None])
        self._evaluator = Evaluator(objectives, self.book.alerts(), self.settings.lag)
        self._arrived(store, end_s - 6 * 3_600, end_s, now_ns)
        self._revision = revision
        return True

    def tick(self, store: Store, paths: Mapping[str, Path], now_ns: int, *, jobs_known_to_s: int | None = None) -> int:
        """Count, judge and write; how many rules were judged. Raises StoreError: then nothing was judged."""
        if self._sums is not None and self._end_s(now_ns) < self._sums.end_s - 10:
            # The clock was set back: windows that end in what is the future now would stand still until it is past.
            _log.warning("clock_set_back", seconds=self._sums.end_s - self._end_s(now_ns))
            self.forget()
        self.prepare(store, paths, now_ns)
        sums = self._sums
        if sums is None or not self._evaluator.objectives:
            return 0
        now_s, end_s = now_ns // NS, self._end_s(now_ns)
        self._ticks += 1
        sums.advance(end_s)
        self._count(store, end_s, now_ns)
        self._count_late(store, end_s, now_ns)
        self._levels(store, now_s, now_ns)
        # A second of overlap and one of insertion: rows are stamped when their insert begins.
        # By the store's own clock, which stamps them: it may be another host's, and either may be set.
        at_s = stored.clock_s(store)
        stored.refresh(store, sums, self._versions, min(self._since_s, at_s) - 30)
        self._since_s = at_s
        self._arrived(store, end_s - _AGAIN_S, end_s, now_ns)
        known_to_s = self._known(store, now_ns)
        if jobs_known_to_s is not None:
            known_to_s = min(known_to_s, jobs_known_to_s)
        self._evaluator.alerts = merged(self._evaluator.alerts, self.book.alerts())
        before = dict(self._evaluator.alerts)
        heard = self._evaluator.tick(sums, now_s, known_to_s=known_to_s, wall_ns=now_ns)
        blank = Alert("", "")
        changed = [
            a
            for key, a in self._evaluator.alerts.items()
            if replace(before.get(key, blank), why="") != replace(a, why="")
        ]
        view = View(sums)
        windows = self.maintenance.windows()
        self.book.save(
            changed, [(one, self._body(view, one, now_s, windows)) for one in heard], self._holds(heard, windows)
        )
        self.maintenance.let_go(now_ns)
        for one in heard:
            _log.info("alert", kind=one.kind, objective=one.alert.objective, rule=one.alert.rule, why=one.alert.why)
        self._add_up(view)
        self.snapshot = self._snapshot(view, now_ns, known_to_s, windows)
        return len(self._evaluator.judged)

    def seen(self, names: Collection[str]) -> dict[str, SeenObjective]:
        """Some objectives as the last tick found them, for gates; called by the job that ticks."""
        sums, found = self._sums, {}
        if sums is not None and self._evaluator.judged:
            view, now_s = View(sums), self.snapshot.at_ns // NS
            for one in self._evaluator.objectives:
                if one.name not in names:
                    continue
                judged = [self._evaluator.judged[one.name, rule.name] for rule in one.rules]
                found[one.name] = seen_objective(judged, budget_of(view, one, now_s))
        return found

    def forget(self) -> None:
        """Begin anew from the control state and the store at the next tick: another server has acted meanwhile."""
        self._revision, self._summed_s, self._known_to_s = None, 0, 0

    def _newer(self, now_ns: int) -> int:
        """A generation above all that there are: of a clock that was set back, time alone would not be."""
        self._generation = max(self._generation + 1, now_ns)
        return self._generation

    @property
    def objectives(self) -> list[Objective]:
        """The objectives in force."""
        return list(self._evaluator.objectives)

    def _end_removed(self, now_ns: int) -> None:
        """End the alerts of rules that are no longer in force: nobody would judge them, and they would fire for ever.

        A path that is not configured now may be learned again in a moment: its objectives are not gone.
        """
        rules = {(one.name, rule.name) for one in self.book.compiled().objectives for rule in one.rules}
        names = {name for name, _ in rules}
        why = "the objective or its rule was removed"
        for alert in self.book.alerts():
            here = alert.objective in names if alert.rule == BLIND else (alert.objective, alert.rule) in rules
            if here or alert.state in ("inactive", "resolved"):
                continue
            if alert.state not in OPEN:
                self.book.save([replace(alert, state="inactive", since_ns=now_ns, breach_ns=0, episode="")], [])
                continue
            ended = replace(alert, state="resolved", since_ns=now_ns, resolved_ns=now_ns, why=why)
            body = {"kind": "resolved", "why": why, "breach_ns": alert.breach_ns, "fired_ns": alert.fired_ns}
            self.book.save([ended], [(Transition("resolved", ended, now_ns), body)])

    def _end_s(self, now_ns: int) -> int:
        at = now_ns // NS - self.settings.delay_s
        return at - at % 10

    def _begin(self, store: Store, counted: Sequence[Objective], paths: Mapping[str, Path], now_s: int) -> None:
        """Count the past of objectives that have no counts yet: exactly where messages live, else from buckets."""
        frame = store.query("SELECT DISTINCT toString(objective) AS name, version FROM objective_counts")
        have = {(name, version) for name, version in frame.iter_rows()}
        new = [one for one in counted if (one.name, one.version) not in have]
        exact_s = (now_s - _EXACT_S) // 3_600 * 3_600
        for name, some in by_path(new).items():
            if name in paths:
                stored.recount(store, paths[name], some, self._calendars, exact_s, now_s)
            for one in some:
                for level, span in ((60, 4 * 86_400), (3_600, one.period_s)):
                    stored.count_buckets(
                        store, one, self._calendars, level, (now_s - span) // 3_600 * 3_600, exact_s, 1
                    )
        if new:
            rest = [one for one in new if counted_path(one.indicator) is None]
            for start in range(exact_s, now_s, 3_600):
                end = min(start + 3_600, self._end_s(now_s * NS))
                if start < end and rest:
                    rows = sources.count(store, rest, self._calendars, start, end, now_s * NS, self.kpis)
                    stored.insert(store, rows, start + 1)
            for level, span in ((60, 4 * 86_400), (3_600, max(one.period_s for one in new))):
                first = (now_s - span) // 3_600 * 3_600
                stored.insert(
                    store,
                    sources.count_measures(store, rest, self._calendars, self.kpis, level, first, exact_s),
                    1,
                )
            _log.info("objectives_counted_back", objectives=len(new))
            stored.sum_levels(store, stored.touched(store, stored.clock_s(store) - 600), now_s, self._newer(now_s * NS))

    def _count(self, store: Store, end_s: int, now_ns: int) -> None:
        """What the window job does not count; written where it differs from what the sums hold."""
        assert self._sums is not None  # noqa: S101 - tick has made it
        back = _LATE_S if self._ticks % _LATE_EVERY == 0 else _AGAIN_S
        # After a pause or a new start also what lies between; an hour at a time, so that a day stays small.
        first = max(min(end_s - back, self._counted_s), end_s - _EXACT_S)
        for start in range(first, end_s, 3_600):
            end = min(start + 3_600, end_s)
            rows = sources.count(store, self._evaluator.objectives, self._calendars, start, end, now_ns, self.kpis)
            stored.insert(store, [row for row in rows if not self._held(row)], self._newer(now_ns))
        self._counted_s = end_s

    def _count_late(self, store: Store, end_s: int, now_ns: int) -> None:
        """Count hours again of which business values came in since the last tick, or were corrected.

        One further hour is looked at in every tick, round and round: a correction may have moved what was in it.
        """
        mine = [one for one in self._evaluator.objectives if kpi_counts.leaves([one])]
        if not mine:
            return
        now_s = now_ns // NS
        oldest = (end_s - self.settings.kpi_late_s) // 3_600 * 3_600
        names = {leaf.name for leaf in kpi_counts.leaves(mine)}
        # As of window rows: the database stamps when an insert begins.
        since = self._looked_s - 30 if self._looked_s else now_s - self.settings.kpi_late_s
        self._late_hours |= kpi_counts.touched_hours(store, names, since, oldest, end_s)
        self._looked_s = now_s
        hours = sorted((hour for hour in self._late_hours if hour >= oldest), reverse=True)
        self._round = (self._round + 1) % max(1, self.settings.kpi_late_s // 3_600)
        chosen = dict.fromkeys([*hours[:_LATE_HOURS], end_s // 3_600 * 3_600 - self._round * 3_600])
        for hour in chosen:
            to_s = min(hour + 3_600, end_s)
            if hour < to_s:
                rows = sources.count(store, mine, self._calendars, hour, to_s, now_ns, self.kpis)
                stored.insert(store, stored.different(store, mine, rows, hour, to_s), self._newer(now_ns))
        self._late_hours = set(hours[_LATE_HOURS:])

    def _held(self, row: stored.Row) -> bool:
        """Whether the sums hold this very row already; what lies before their cells is written again."""
        assert self._sums is not None  # noqa: S101 - tick has made it
        start, _ = self._sums.reach(10)
        if row.window < start:
            return False
        _, values = self._sums.cells(row.objective, 10, row.window, row.window + 10)
        return len(values) == 1 and tuple(values[0].tolist()) == (row.good, row.total, row.uncertain)

    def _levels(self, store: Store, now_s: int, now_ns: int) -> None:
        assert self._sums is not None  # noqa: S101 - tick has made it
        first = not self._summed_s
        if not first and now_s - self._summed_s < 60:
            return
        at_s = stored.clock_s(store)
        since = min(stored.last_summed_s(store) if first else self._touched_s, at_s)
        # A coarse window is summed when it is over: after an hour's end, what touched it was written within that hour.
        hour_ended = first or now_s // 3_600 != self._summed_s // 3_600
        touched = stored.touched(store, since - (4_200 if hour_ended else 180))
        done = stored.sum_levels(store, touched, now_s, self._newer(now_ns))
        self._summed_s, self._touched_s = now_s, at_s
        stored.reload(store, self._sums, self._versions, done)

    def _arrived(self, store: Store, from_s: int, to_s: int, now_ns: int) -> None:
        """Of the events that were produced, how many arrived; the same for all objectives."""
        assert self._sums is not None  # noqa: S101 - its callers have made it
        shares = completeness(store, from_s * NS, to_s * NS, 10, now_ns=now_ns)
        some = [one for one in shares if one.produced]
        if some:
            starts = np.array([one.from_ns // NS for one in some], np.int64)
            values = np.array([(one.produced - one.missing, one.produced, 0) for one in some], np.int64)
            self._sums.put([ARRIVAL] * len(some), starts, values)

    def _known(self, store: Store, now_ns: int) -> int:
        """Up to when everything that live collectors produced has landed, epoch seconds; it never goes back."""
        found = share(store, now_ns - 120 * NS, now_ns, now_ns=now_ns)
        if found.known_to_ns is not None:
            self._known_to_s = max(self._known_to_s, found.known_to_ns // NS)
        return min(self._known_to_s, now_ns // NS)

    def _holds(self, heard: Sequence[Transition], windows: Sequence[Window]) -> list[Held]:
        """The episodes that begin in a maintenance window that holds them."""
        found = []
        for one in heard:
            if one.kind == "firing":
                alert, service = one.alert, self._evaluator.by_name[one.alert.objective].service
                hold = holds(windows, alert.episode, alert.objective, alert.rule, service, one.at_ns)
                found += [] if hold is None else [hold]
        return found

    def _body(self, view: View, one: Transition, now_s: int, windows: Sequence[Window] = ()) -> dict[str, Any]:
        """What a notification says: what burns, how fast, since when, until when the budget lasts."""
        objective = self._evaluator.by_name[one.alert.objective]
        window = covering(windows, objective.name, objective.service, one.at_ns)
        judged = self._evaluator.judged[one.alert.objective, one.alert.rule]
        alert, over = one.alert, one.kind == "resolved"
        costs = {} if self.costs is None else self.costs.fields(alert.objective, alert.episode, over=over)
        return {
            **costs,
            **rule_fields(one.alert, judged.rule.severity, judged.verdict),
            "kind": one.kind,
            "service": objective.service,
            "display_name": objective.display_name,
            "indicator": describe(objective.indicator),
            "target": objective.target,
            "budget": budget_fields(view, objective, now_s),
            "labels": dict(objective.labels),
            "annotations": dict(objective.annotations),
            "counted_to_s": view.end_s,
            "path": counted_path(objective.indicator) or "",
            "queries": [self._asked(objective, side.over, view.end_s) for side in judged.verdict.sides],
            **({"maintenance": note(window)} if window is not None else {}),
        }

    def _asked(self, objective: Objective, over: Over, end_s: int) -> dict[str, Any]:
        """One window of a rule, and the statement that gives its counts."""
        asked = self._evaluator.by_name[over.objective] if over.objective else objective
        start_s = end_s - over.window_s
        statement = stored.window_statement(asked.name, asked.version, start_s, end_s)
        return {"objective": asked.name, "from_s": start_s, "to_s": end_s, "sql": statement}

    def _snapshot(self, view: View, now_ns: int, known_to_s: int, windows: Sequence[Window]) -> Snapshot:
        found: dict[str, dict[str, Any]] = {}
        held = {one.episode: one.window for one in self.maintenance.held()}
        for one in self._evaluator.objectives:
            names = [*(rule.name for rule in one.rules), "blind"]
            judged = [self._evaluator.judged[one.name, name] for name in names]
            open_ = [j for j in judged if j.alert.state in OPEN]
            worst = "firing" if open_ else max((j.alert.state for j in judged), key=_ORDER.index)
            window = covering(windows, one.name, one.service, now_ns)
            found[one.name] = {
                **described(one),
                "state": worst,
                "maintenance": window.name if window is not None else "",
                "budget": budget_fields(view, one, now_ns // NS),
                "rules": [
                    {**rule_fields(j.alert, j.rule.severity, j.verdict), "held_by": held.get(j.alert.episode, "")}
                    for j in judged
                ],
            }
        return Snapshot(now_ns, view.end_s, known_to_s, found, dict(self._events))

    def _add_up(self, view: View) -> None:
        """Events since the hour in which this process began; corrections never lower a counter."""
        for one in self._evaluator.objectives:
            counts = view.between(replace(one, slice_s=0, slice_ratio=False), self._began_s, view.end_s)
            bad, total = self._events.get(one.name, (0, 0))
            self._events[one.name] = max(bad, int(counts.bad)), max(total, counts.total)


_ORDER = ["inactive", "resolved", "pending", "firing", "acknowledged"]


def described(one: Objective) -> dict[str, Any]:
    """An objective for an answer."""
    return {
        "name": one.name, "slo": one.slo, "service": one.service, "display_name": one.display_name,
        "description": one.description, "target": one.target, "indicator": describe(one.indicator),
        "window": one.window.text, "rolling": one.window.rolling,
        "method": one.method, "calendar": one.calendar, "version": one.version,
        "runbook": runbook_of(one.annotations, None),
    }  # fmt: skip


def budget_fields(view: View, one: Objective, now_s: int) -> dict[str, Any]:
    """A budget for an answer."""
    found = budget_of(view, one, now_s)
    return {
        "period_s": found.period_s, "good": found.counts.good, "total": found.counts.total,
        "uncertain": found.counts.uncertain, "missing": found.counts.missing, "burned": found.burned,
        "remaining": found.remaining, "burn": found.burn, "exhausted_s": found.exhausted_s,
        "forecast": found.forecast,
    }  # fmt: skip


def rule_fields(alert: Alert, severity: str, verdict: Verdict) -> dict[str, Any]:
    """A rule and its alert for an answer and for a notification."""
    return {
        "objective": alert.objective, "rule": alert.rule, "severity": severity, "state": alert.state,
        "since_ns": alert.since_ns, "breach_ns": alert.breach_ns, "fired_ns": alert.fired_ns,
        "resolved_ns": alert.resolved_ns, "episode": alert.episode, "acknowledged_by": alert.acknowledged_by,
        "answer": verdict.answer, "why": verdict.why,
        "sides": [
            {
                "objective": s.over.objective or alert.objective, "window_s": s.over.window_s,
                "factor": s.over.factor, "burn": s.burn, "least": s.least, "most": s.most, "good": s.counts.good,
                "total": s.counts.total, "uncertain": s.counts.uncertain, "missing": s.counts.missing,
            }
            for s in verdict.sides
        ],
    }  # fmt: skip
