"""What the doors share: the store, the configuration, control state, limits, events. One instance per server."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from analytics.money.declared import Money
from api.audit import Audit
from api.auth import Tokens
from api.collectors import CollectorBook
from api.control import Control
from api.ingest_queue import IngestQueue
from api.limits import QuerySlots, Rates
from api.metrics import Metrics
from api.server_settings import ServerSettings
from api.sessions import Sessions
from api.store_guard import GuardedStore, LimitedStore
from api.stream import Broker
from collector.store import Limits, Store

if TYPE_CHECKING:
    from analytics.kpis import KpiDefinition
    from analytics.learned import LearnedPath
    from analytics.paths import Path
    from analytics.slo.gates import GateSettings
    from api.jobs import Jobs
    from api.notify.heartbeat import Heartbeat
    from api.notify.sender import Sender
    from api.reports.desk import Desk
    from api.slo_engine import SloEngine
    from api.standby.follower import Standby
    from collector.landing import Landing


@dataclass
class State:
    """Everything a route may need; passed to `create_app`."""

    settings: ServerSettings
    store: GuardedStore
    reader: Store  # the same, for queries that clients cause
    control: Control
    paths: Mapping[str, Path]
    landing: Landing
    tokens: Tokens
    sessions: Sessions
    audit: Audit
    rates: Rates
    slots: QuerySlots
    queue: IngestQueue
    pool: ThreadPoolExecutor
    broker: Broker
    book: CollectorBook
    metrics: Metrics
    jobs: Jobs | None = None
    kpis: Mapping[str, KpiDefinition] = field(default_factory=dict)
    money: Money = field(default_factory=Money)
    migrated: bool = False
    started_ns: int = field(default_factory=time.time_ns)
    stopping: bool = False
    learned: Mapping[str, LearnedPath] = field(default_factory=dict)  # among `paths`: those that nobody configured
    unlearned: int = 0  # operations that were seen and did not fit among them
    slos: SloEngine | None = None  # made with the jobs
    senders: tuple[Sender, ...] = ()  # one per target of alerts; made with the jobs
    reports: Desk | None = None  # made with the jobs
    standby: Standby | None = None  # this server's half of a pair
    beats: tuple[Heartbeat, ...] = ()  # one per outside watcher
    gates: Mapping[str, GateSettings] = field(default_factory=dict)  # judged after the objectives
    window_ends_ns: dict[str, int] = field(default_factory=dict)  # per path, the end of the newest computed window

    def windows_lag_s(self) -> dict[str, float]:
        """Per path, how old the newest computed window's end is; paths without a window yet are absent."""
        now = time.time_ns()
        return {path: (now - end) / 1e9 for path, end in self.window_ends_ns.items()}


def build(
    settings: ServerSettings, store: GuardedStore, control: Control, paths: Mapping[str, Path], landing: Landing
) -> State:
    """A state with fresh queues, counters and books around a store, a control database and a landing."""
    broker = Broker(buffer=settings.stream_buffer, history=settings.stream_history, readers=settings.stream_readers)
    tokens = Tokens(control)
    return State(
        settings=settings,
        store=store,
        reader=LimitedStore(store, Limits(settings.query_seconds, settings.query_memory_bytes)),
        control=control,
        paths=paths,
        landing=landing,
        tokens=tokens,
        sessions=Sessions(control, tokens, round(settings.session_hours * 3600e9)),
        audit=Audit(control),
        rates=Rates(settings),
        slots=QuerySlots(settings),
        queue=IngestQueue(settings.ingest_queue_bytes),
        pool=ThreadPoolExecutor(settings.ingest_threads, thread_name_prefix="landing"),
        broker=broker,
        book=CollectorBook(broker, round(settings.heartbeat_seconds * 1e9)),
        metrics=Metrics(),
    )
