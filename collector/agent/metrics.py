"""The agent's own figures: Prometheus text on loopback, and `status.json` for whoever looks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from collector.agent.runner import Runner
from collector.heartbeat import Heartbeat
from collector.shipper import Shipper


class AgentMetrics(Collector):
    """Reads the spools and the shipper when it is scraped; nothing is counted twice."""

    def __init__(self, runners: Sequence[Runner], shipper: Shipper) -> None:
        self._runners = runners
        self._shipper = shipper

    def serve(self, port: int) -> None:
        """Serve them on 127.0.0.1. Raises OSError when the port is taken."""
        registry = CollectorRegistry()
        registry.register(self)
        start_http_server(port, addr="127.0.0.1", registry=registry)

    def collect(self) -> Iterable[Metric]:
        """All figures, as prometheus_client wants them."""
        yield from self._spools()
        stats = self._shipper.stats
        yield CounterMetricFamily("tailsight_agent_sent_bytes", "Bytes of batches posted", stats.sent_bytes)
        yield CounterMetricFamily("tailsight_agent_acked_events", "Events the server has", stats.acked_events)
        yield CounterMetricFamily("tailsight_agent_acked_batches", "Batches the server has", stats.acked_batches)
        yield CounterMetricFamily("tailsight_agent_duplicates", "Batches it had already", stats.duplicates)
        yield CounterMetricFamily("tailsight_agent_refused_batches", "Batches quarantined", stats.refused_batches)
        retries = CounterMetricFamily("tailsight_agent_retries", "Tries that were not the last", labels=["outcome"])
        for outcome, n in list(stats.retries.items()):
            retries.add_metric([outcome], n)
        yield retries
        sources = CounterMetricFamily(
            "tailsight_agent_source", "What a collector counts of itself", labels=["collector", "what"]
        )
        for runner in self._runners:
            figures = getattr(runner.source, "figures", None)
            for what, n in (figures() if figures else {}).items():
                sources.add_metric([runner.name, what], n)
        yield sources

    def _spools(self) -> Iterator[Metric]:
        produced = CounterMetricFamily("tailsight_agent_produced_events", "Durable events", labels=["collector"])
        waiting = GaugeMetricFamily("tailsight_agent_spool_events", "Events not acknowledged", labels=["collector"])
        size = GaugeMetricFamily("tailsight_agent_spool_bytes", "Bytes in the spool", labels=["collector"])
        dropped = CounterMetricFamily(
            "tailsight_agent_dropped_events", "Events lost here, all boots", labels=["collector", "reason"]
        )
        for runner in self._runners:
            books = runner.spool.boots()
            produced.add_metric([runner.name], runner.spool.durable_seq)
            waiting.add_metric([runner.name], sum(s.produced - s.acked_events for s, _ in books))
            size.add_metric([runner.name], runner.spool.size_bytes)
            for reason, n in runner.spool.counters.items():
                dropped.add_metric([runner.name, reason], n)
        yield from (produced, waiting, size, dropped)


def write_status(path: Path, beats: Sequence[Heartbeat], last_error: str) -> None:
    """Replace `status.json`, the heartbeats and the last trouble with the server, whole."""
    temporary = path.with_suffix(".tmp")
    document = {"pid": os.getpid(), "collectors": beats, "server_trouble": last_error}
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(msgspec.json.encode(document))
    temporary.replace(path)
