"""The server's jobs: windows, stale generations, objectives and what they cost, notifications, audit log, token use."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path as File

from analytics.declared import Declared
from analytics.histograms import HistogramJob
from analytics.learned import LearnedSettings, PathLearner, load
from analytics.paths import Path
from analytics.slo.episodes import OPEN
from analytics.slo.gates import GateSettings
from analytics.slo.maintenance import Window
from analytics.slo.settings import SloSettings
from analytics.sweep import sweep
from analytics.windows import WindowJob, WindowSettings
from api.costs import CostBook, Explainer
from api.gates import GateBook, GateKeeper, hooks_of
from api.jobs import Job, Jobs
from api.kpi_sources import KpiSource, read_source
from api.maintenance import Maintenance
from api.notify.deliveries import Deliveries
from api.notify.heartbeat import Heartbeat, Watcher
from api.notify.sender import Sender
from api.notify.settings import NotifyTarget
from api.reports.desk import Desk
from api.reports.making import Known
from api.reports.settings import ReportSettings
from api.reports.shelf import Shelf
from api.routes.stream import windows_since
from api.slo_book import SloBook
from api.slo_engine import SloEngine
from api.standby import journal
from api.standby.follower import Standby
from api.standby.settings import StandbySettings
from api.state import State

_READ_LEARNED_S = 30.0


def jobs_of(
    state: State,
    windows: WindowSettings,
    learned: LearnedSettings | None = None,
    sources: Mapping[str, KpiSource] | None = None,
    slo: SloSettings | None = None,
    notify: Mapping[str, NotifyTarget] | None = None,
    gates: Mapping[str, GateSettings] | None = None,
    maintenance: Sequence[Window] = (),
    watchers: Mapping[str, Watcher] | None = None,
    standby: StandbySettings | None = None,
    reports: Mapping[str, ReportSettings] | None = None,
    base: File | None = None,
) -> Jobs:
    """The jobs over a state, not started. Files that `reports` name are relative to `base`."""
    engine = state.slos = SloEngine(
        SloBook(state.control), slo or SloSettings(), Maintenance(state.control, maintenance), state.kpis
    )
    costs = engine.costs = CostBook(state.money)
    explainer = Explainer(engine.book, costs)
    state.gates = dict(gates or {})
    calendars = engine.settings.calendars
    keeper = GateKeeper(GateBook(state.control), state.audit, state.gates, state.kpis, calendars)
    targets = notify or {}
    deliveries = Deliveries(state.control, targets, hooks_of(state.gates))
    if standby is None or not standby.peer:
        deliveries.begin(time.time_ns())
    public_url = state.settings.public_url
    state.senders = tuple(Sender(name, target, deliveries, public_url) for name, target in targets.items())
    desk = state.reports = Desk(
        state.store, state.control, Shelf(state.control.path.parent / "reports"),
        lambda: Known(paths=state.paths, kpis=state.kpis, money=state.money), reports or {}, slo or SloSettings(),
        base or state.control.path.parent,
    )  # fmt: skip
    state.beats = tuple(Heartbeat(name, watcher) for name, watcher in (watchers or {}).items())
    pair = state.standby = _pair(state, standby)
    follow = WindowFollower(state)
    declared = Declared()
    job = WindowJob(windows)
    learner = PathLearner(learned)
    histograms = HistogramJob(windows, (learned or LearnedSettings()).max_paths)
    configured = dict(state.paths)
    read_s = float("-inf")

    def learn() -> None:
        """Before windows are computed: a batch with a new operation must not be settled without its path."""
        now = time.time_ns()
        found = learner.learn(state.store, now)
        written = histograms.run_due(state.store, now)
        if written:
            learner.add(state.store, written, now)
            found = learner.known or found
        state.unlearned = learner.unlearned
        if found != state.learned:
            state.learned = {name: one for name, one in found.items() if name not in configured}
            state.paths = {**configured, **{name: one.path for name, one in state.learned.items()}}

    def read_learned() -> None:
        """On a server that does not learn: what the active one has learned, so that its paths can be asked for here."""
        nonlocal read_s
        if time.monotonic() - read_s > _READ_LEARNED_S:
            found = load(state.store)
            state.learned = {name: one for name, one in found.items() if name not in configured}
            state.paths = {**configured, **{name: one.path for name, one in state.learned.items()}}
            read_s = time.monotonic()

    def stitched() -> dict[str, Path]:
        """The paths whose windows are made of stamps; those of histograms have been written by now."""
        made = {name for name, one in state.learned.items() if one.origin == "histogram"}
        return {name: path for name, path in state.paths.items() if name not in made}

    def acts() -> bool:
        return pair is None or pair.active()

    def alone(run: Callable[[], int]) -> Callable[[], int]:
        """A job of which one of a pair of servers is enough, and two would be too many."""
        return lambda: run() if acts() else 0

    def took_over() -> None:
        deliveries.begin(time.time_ns())
        engine.forget()

    if pair is not None:
        pair.on_active = took_over
        deliveries.unconfirmed = pair.unconfirmed

    def compute() -> int:
        count = 0
        if not acts():
            read_learned()
            return follow.publish()
        # A call does a bounded share of a backlog: go on while there is some, and tell the readers in between.
        while not state.stopping:
            learn()
            job.goals = engine.goals
            try:
                done = job.run_due(state.store, stitched(), time.time_ns())
            finally:
                follow.publish()
            count += len(done)
            if not done:
                break
        return count

    def heartbeats() -> int:
        state.book.mark_silent(time.time_ns())
        return state.book.flush(state.store)

    def tokens() -> int:
        state.tokens.write_last_used()
        return 0

    def reading(name: str, source: KpiSource) -> Callable[[], int]:
        return lambda: read_source(state.store, name, source, state.kpis)

    def objectives() -> int:
        """Judged on what the window job has counted: where it stands still, nothing is known from then on."""
        jobs = state.jobs
        counting = jobs.states["windows"] if jobs is not None else None
        last_ns = counting.last_success_ns if counting is not None else None
        known = None if last_ns is None else last_ns // 10**9
        now = time.time_ns()
        done = engine.tick(state.store, state.paths, now, jobs_known_to_s=known)
        keeper.look(state.store, engine.seen(keeper.objectives), time.time_ns())
        declared.paths(state.store, state.paths, now)
        declared.objectives(state.store, engine.objectives, now)
        return done

    def pricing() -> int:
        firing = [one for one in engine.book.alerts() if one.state in OPEN]
        found = costs.refresh(state.reader, engine.objectives, firing, time.time_ns())
        if acts():
            costs.write(state.store)
        return found

    def explaining() -> int:
        return explainer.run(state.reader, engine.objectives, state.paths)

    def telling(sender: Sender) -> Callable[[], int]:
        return lambda: sender.run(lambda: state.stopping or not acts()) if acts() else 0

    def beating(beat: Heartbeat) -> Callable[[], int]:
        return lambda: beat.run(state)

    def tidy() -> int:
        now = time.time_ns()
        engine.maintenance.tidy(now)
        return deliveries.tidy(now)

    return Jobs(
        state.control,
        [
            Job("windows", 1.0, compute),
            Job("sweep", 600.0, alone(lambda: sweep(state.store, time.time_ns()))),
            Job("objectives", 10.0, alone(objectives)),
            Job("costs", 30.0, pricing),
            Job("causes", 10.0, alone(explaining)),
            *(Job(f"notify-{sender.name}", 1.0, telling(sender)) for sender in state.senders),
            *([Job("standby", pair.settings.ns("every") / 1e9, pair.run)] if pair is not None else []),
            *(Job(f"heartbeat-{beat.name}", 1.0, beating(beat)) for beat in state.beats),
            Job("outbox", 60.0, alone(tidy)),
            Job("heartbeats", 1.0, heartbeats),
            Job("audit", 1.0, lambda: state.audit.flush(state.store)),
            Job("tokens", 5.0, tokens),
            *([Job("reports", 60.0, alone(lambda: desk.run_due(time.time_ns())))] if reports else []),
            *(
                Job(f"kpis-{name}", source.every_s, alone(reading(name, source)))
                for name, source in (sources or {}).items()
            ),
        ],
    )


def _pair(state: State, settings: StandbySettings | None) -> Standby | None:
    if settings is None or not settings.peer:
        journal.remove(state.control)
        return None
    state.audit.name(settings.name)  # the other one writes to the same store
    return Standby(settings, state.control)


class WindowFollower:
    """Turns new commit records of windows into events, and remembers how far each path is."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._seen_ns = time.time_ns()

    def publish(self) -> int:
        """Publish windows that were committed since the last call; how many."""
        rows = windows_since(self._state, self._seen_ns, None)
        for row in rows:
            self._seen_ns = max(self._seen_ns, row.pop("computed_ns"))
            end_ns = row["window_ns"] + row["level"] * 10**9
            newest = self._state.window_ends_ns.get(row["path"], 0)
            self._state.window_ends_ns[row["path"]] = max(newest, end_ns)
            self._state.broker.publish("window", row, row["path"])
        return len(rows)
