"""The server's own metrics in Prometheus' text format. Label values come from closed lists, never from clients."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

    from api.state import State

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """Counters that the doors count into, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        made = self.registry
        self.requests = Counter(
            "tailsight_http_requests", "Requests by route and status.", ["route", "status"], registry=made
        )
        self.seconds = Histogram(
            "tailsight_http_request_seconds",
            "From the request's headers to the end of the answer.",
            ["route"],
            buckets=_SECONDS,
            registry=made,
        )
        self.batches = Counter("tailsight_ingest_batches", "Batches by what became of them.", ["result"], registry=made)
        self.events = Counter(
            "tailsight_ingest_events", "Events of landed batches by what became of them.", ["result"], registry=made
        )
        self.bytes = Counter("tailsight_ingest_bytes", "Bytes of landed batches.", registry=made)
        self.landing = Histogram(
            "tailsight_ingest_landing_seconds",
            "From a batch's last byte to its durable insert.",
            buckets=_SECONDS,
            registry=made,
        )
        self.refused = Counter(
            "tailsight_auth_refused", "Requests refused for their token or scope.", ["reason"], registry=made
        )
        self.readers_cut = Counter(
            "tailsight_answers_cut", "Answers cut because the client took them too slowly.", registry=made
        )

    def attach(self, state: State) -> None:
        """Also report what other parts count, read at scrape time."""
        self.registry.register(_Parts(state))

    def text(self) -> bytes:
        """All metrics in the text format 0.0.4."""
        return generate_latest(self.registry)


class _Parts(Collector):
    """Reads the state's own counters when asked."""

    def __init__(self, state: State) -> None:
        self._state = state

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        state = self._state
        health = state.store.health()
        yield _gauge("tailsight_store_up", "1 while the store answers.", float(health.ok and not state.store.away))
        yield _counter("tailsight_store_opened", "Times the store was opened.", state.store.opened)
        for name, text, value in (
            ("tailsight_store_disk_bytes", "Bytes the store has on disk.", health.disk_bytes),
            ("tailsight_store_disk_free_bytes", "Bytes free where the store is.", health.disk_free_bytes),
            ("tailsight_store_resident_bytes", "Resident memory of the store process.", health.resident_bytes),
        ):
            if value is not None:
                yield _gauge(name, text, value)
        yield _gauge("tailsight_ingest_queue_bytes", "Bytes of batches being landed.", state.queue.held_bytes)
        yield _gauge("tailsight_queries_running", "Queries that run.", state.slots.running)
        yield _gauge("tailsight_queries_waiting", "Queries that wait for a slot.", state.slots.waiting)
        yield _gauge("tailsight_stream_readers", "Open event streams.", state.broker.readers)
        yield _counter("tailsight_stream_events", "Events published.", state.broker.published)
        yield _counter("tailsight_stream_readers_dropped", "Readers cut for lagging.", state.broker.dropped_readers)
        yield _gauge("tailsight_audit_staged", "Audit leaves that the store does not have yet.", state.audit.staged())
        yield _counter("tailsight_heartbeats_lost", "Heartbeats that were never stored.", state.book.lost)
        yield from self._jobs()
        yield from self._objectives()
        yield from self._targets()
        yield from self._maintenance()
        yield from self._beats()
        pair = state.standby
        yield _gauge("tailsight_active", "1 while this server judges and tells.", float(pair is None or pair.active()))
        if pair is not None:
            yield _gauge("tailsight_standby_epoch", "Take-overs that this server knows of.", pair.me.epoch)
            yield _gauge("tailsight_standby_followed", "1 while the peer answers.", float(not pair.problem))

    def _objectives(self) -> Iterable[Metric]:
        """What exported alert rules read (`tailsight slo export`)."""
        engine = self._state.slos
        events = CounterMetricFamily("tailsight_objective_events", "Events of an objective.", labels=["objective"])
        bad = CounterMetricFamily("tailsight_objective_bad_events", "Bad ones among them.", labels=["objective"])
        for name, (spoiled, every) in engine.snapshot.events.items() if engine is not None else ():
            events.add_metric([name], every)
            bad.add_metric([name], spoiled)
        yield from (events, bad)

    def _beats(self) -> Iterable[Metric]:
        """Whether the outside watchers hear of us."""
        last = GaugeMetricFamily(
            "tailsight_heartbeat_last_success_timestamp_seconds", "When a watcher last took one.", labels=["watcher"]
        )
        failures = CounterMetricFamily("tailsight_heartbeat_failures", "Tries that failed.", labels=["watcher"])
        withheld = CounterMetricFamily(
            "tailsight_heartbeat_withheld", "Looks at which alerts might not have come.", labels=["watcher"]
        )
        for beat in self._state.beats:
            last.add_metric([beat.name], beat.last_ns / 1e9)
            failures.add_metric([beat.name], beat.failures)
            withheld.add_metric([beat.name], beat.withheld)
        yield from (last, failures, withheld)

    def _maintenance(self) -> Iterable[Metric]:
        """How much is silent at this moment, on purpose."""
        engine = self._state.slos
        if engine is None:
            return
        now = time.time_ns()
        active = sum(one.at(now) for one in engine.maintenance.windows())
        yield _gauge("tailsight_maintenance_active", "Maintenance windows that are in force.", active)
        yield _gauge("tailsight_maintenance_held", "Episodes that they hold.", len(engine.maintenance.held()))

    def _targets(self) -> Iterable[Metric]:
        """Who is told of alerts, and who does not take them."""
        told = CounterMetricFamily("tailsight_notify_accepted", "Notifications taken by a target.", labels=["target"])
        failures = CounterMetricFamily("tailsight_notify_failures", "Tries that failed.", labels=["target"])
        waiting = GaugeMetricFamily("tailsight_notify_waiting", "Notifications not taken yet.", labels=["target"])
        oldest = GaugeMetricFamily("tailsight_notify_oldest_seconds", "Age of the oldest of them.", labels=["target"])
        for sender in self._state.senders:
            count, oldest_ns = sender.deliveries.waiting(sender.name)
            told.add_metric([sender.name], sender.count.accepted)
            failures.add_metric([sender.name], sender.count.failures)
            waiting.add_metric([sender.name], count)
            oldest.add_metric([sender.name], max(0.0, (time.time_ns() - oldest_ns) / 1e9) if count else 0.0)
        yield from (told, failures, waiting, oldest)

    def _jobs(self) -> Iterable[Metric]:
        runs = CounterMetricFamily("tailsight_job_runs", "Runs of a job.", labels=["job"])
        errors = CounterMetricFamily("tailsight_job_errors", "Runs that failed.", labels=["job"])
        done = CounterMetricFamily(
            "tailsight_job_done", "What a job has done: windows, heartbeats, leaves.", labels=["job"]
        )
        seconds = GaugeMetricFamily("tailsight_job_last_seconds", "Duration of the last run.", labels=["job"])
        success = GaugeMetricFamily(
            "tailsight_job_last_success_timestamp_seconds", "When a run last succeeded.", labels=["job"]
        )
        for job in self._state.jobs.states.values() if self._state.jobs else ():
            runs.add_metric([job.name], job.runs)
            errors.add_metric([job.name], job.errors)
            done.add_metric([job.name], job.done)
            if job.last_seconds is not None:
                seconds.add_metric([job.name], job.last_seconds)
            if job.last_success_ns is not None:
                success.add_metric([job.name], job.last_success_ns / 1e9)
        yield from (runs, errors, done, seconds, success)
        lag = GaugeMetricFamily(
            "tailsight_windows_lag_seconds", "Age of the newest computed window's end.", labels=["path"]
        )
        for path, seconds_behind in self._state.windows_lag_s().items():
            lag.add_metric([path], seconds_behind)
        yield lag


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, text, value=value)


def _counter(name: str, text: str, value: float) -> CounterMetricFamily:
    return CounterMetricFamily(name, text, value=value)
