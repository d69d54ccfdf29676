"""Scrapes /metrics of programs and exporters: consumer lag, pool sizes, histograms of time.

A sample lies at the moment when its scrape began, unless it says its own time. `up` is 1 for a target that was read and
0 for one that was not; why not is logged when it changes. Cost: some 20 us of one core per sample and scrape, in
threads of its own.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import structlog
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from collector.clock import ClockReading
from collector.otlp.rows import LabelSets, Rows
from collector.prometheus.samples import SampleMapper, Scraped
from collector.prometheus.settings import PrometheusSettings, Target
from collector.record import GAUGES, Columns
from collector.settings import duration_ns
from collector.sources import Availability, Poll

_PROTOBUF = "application/vnd.google.protobuf"
_OPENMETRICS = "application/openmetrics-text"
_TEXT = f"{_OPENMETRICS};version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3"
_THREADS = 4
_WAITING = 64  # scrapes whose rows no poll has taken: a full spool makes the rest be skipped


log = structlog.get_logger("agent")


class ScrapeError(Exception):
    """A target could not be read; the message says why."""


def fetch(client: httpx.Client, target: Target, settings: PrometheusSettings, accept: str) -> tuple[str, bytes]:
    """The content type and body of a target. Raises ScrapeError, also when it is too large or too slow."""
    deadline = time.monotonic() + settings.timeout_s
    body = bytearray()
    try:
        with client.stream("GET", target.url, headers={"Accept": accept, "Accept-Encoding": "identity"}) as answer:
            if answer.status_code != 200:
                raise ScrapeError(f"answered {answer.status_code}")
            if answer.headers.get("content-encoding", "identity") != "identity":
                raise ScrapeError("answered with a content encoding that was not asked for")
            for part in answer.iter_raw():
                body += part
                if len(body) > settings.max_body_bytes:
                    raise ScrapeError(f"more than {settings.max_body_bytes} bytes (max_body_bytes)")
                if time.monotonic() > deadline:
                    raise ScrapeError(f"not read within {settings.timeout_s:g} s (timeout_s)")
            return answer.headers.get("content-type", ""), bytes(body)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ScrapeError(f"{type(error).__name__}: {error}"[:200]) from None


def families(content_type: str, body: bytes) -> Iterable[Metric]:
    """The metric families of a body by its content type. Raises ValueError, perhaps only while it is read."""
    media = content_type.partition(";")[0].strip().lower()
    if media == _PROTOBUF:
        from collector.prometheus.protobuf import families as read

        return read(body)
    text = body.decode("utf-8")
    if media == _OPENMETRICS:
        return openmetrics.text_string_to_metric_families(text)  # type: ignore[no-any-return,no-untyped-call]
    return text_string_to_metric_families(text)


class PrometheusSource:
    """Scrapes its targets in threads of its own and hands over what they found."""

    name = "prometheus"
    period_s = 0.25

    def __init__(self, host: str, settings: PrometheusSettings | None = None) -> None:
        self._host = host
        self._settings = settings or PrometheusSettings()
        self._stale_ns = duration_ns(self._settings.stale, "stale")
        self._interval_s = duration_ns(self._settings.interval, "interval") / 1e9
        self._labels = LabelSets(self._settings.label_sets)
        self._mapper = SampleMapper(self._labels)
        self._lock = threading.Lock()  # of the mapper; a poll never waits for it
        self._waiting: deque[list[Columns]] = deque()
        self._due: dict[str, float] = {}
        self._running: set[str] = set()
        self.problems: dict[str, str] = {}
        self._accept = _TEXT
        self._pool: ThreadPoolExecutor | None = None
        self._client: httpx.Client | None = None

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 - a scrape has no past to read
        """Begin; degraded without targets, or without the packages that read native histograms as protobuf."""
        if not self._settings.targets:
            return Availability("degraded", "no targets: name some in [agent.prometheus] targets")
        self._client = httpx.Client(
            timeout=self._settings.timeout_s, trust_env=False, follow_redirects=False,
            limits=httpx.Limits(max_connections=_THREADS),
        )  # fmt: skip
        self._pool = ThreadPoolExecutor(_THREADS, thread_name_prefix="scrape")
        try:
            import google.protobuf  # noqa: F401 - asked for, not used

            self._accept = f"{_PROTOBUF};proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,{_TEXT}"
        except ImportError:
            return Availability("degraded", "native histograms as protobuf need the extra `otlp`: "
                                "pip install 'tailsight[otlp]'")  # fmt: skip
        return Availability("running")

    def poll(self, clock: ClockReading) -> Poll:  # noqa: ARG002 - rows hold the time of their scrape
        """Start the scrapes that are due, and hand over those that have ended."""
        now = time.monotonic()
        pool = self._pool
        if pool is not None and len(self._waiting) < _WAITING:
            for target in self._settings.targets:
                if now >= self._due.get(target.url, 0.0) and target.url not in self._running:
                    self._due[target.url] = now + self._interval_s
                    self._running.add(target.url)
                    pool.submit(self._scrape, target)
        found: list[Columns] = []
        while self._waiting:
            found += self._waiting.popleft()
        return Poll(found)

    def close(self) -> None:
        """End the threads; what they still read is not waited for."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
        if self._client is not None:
            self._client.close()
        self._pool = self._client = None
        self._running.clear()
        self._labels.forget()

    @property
    def problem(self) -> str:
        """The targets that cannot be read, and why; empty when all are."""
        bad = [f"{url}: {said}" for url, said in sorted(self.problems.items()) if said]
        more = [f"and {len(bad) - 3} more"] if len(bad) > 3 else []
        return "; ".join([*bad[:3], *more])

    def _scrape(self, target: Target) -> None:
        began_ns, began = time.time_ns(), time.monotonic()
        parts = urlsplit(target.url)
        instance = parts.netloc.rpartition("@")[2]
        here = parts.hostname in ("localhost", "127.0.0.1", "::1", socket.gethostname())
        of = Scraped(
            self._host if here else parts.hostname or "", target.service or instance, instance, began_ns, self._stale_ns
        )
        rows, seen, problem = Rows(), 0, ""
        try:
            if self._client is None:
                return
            content_type, body = fetch(self._client, target, self._settings, self._accept)
            with self._lock:
                rows, seen = self._mapper.rows(families(content_type, body), of, self._settings.max_samples)
                rows.columns()  # raises for what does not fit a column
        except (ScrapeError, ValueError, KeyError, OverflowError, TypeError, AttributeError, IndexError) as error:
            rows, problem = Rows(), str(error)[:200] or type(error).__name__
            with self._lock:
                self._labels.forget()
        except RuntimeError as error:  # the client was closed
            rows, problem = Rows(), str(error)[:200]
        finally:
            self._running.discard(target.url)
        with self._lock:
            labels = self._labels.intern([("instance", instance)], rows)
            for name, value in (
                ("up", float(not problem)),
                ("scrape.seconds", time.monotonic() - began),
                ("scrape.samples", float(seen)),
            ):
                rows.add(GAUGES, began_ns, name, of.host, of.service, labels, value)
            self._waiting.append(rows.columns())
        if problem != self.problems.get(target.url, ""):
            log.warning("scrape", target=target.url, problem=problem or "it is read again")
        self.problems[target.url] = problem
