"""`python -m api.demo.quotes.service`: answers requests for a quote over HTTP; one worker behind a bounded queue."""

from __future__ import annotations

import argparse
import json
import logging
import queue
import sqlite3
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from api.demo.quotes.pricing import Decision, Request, RequestError, decide, price
from api.demo.quotes.telemetry import Telemetry, over_otlp
from api.demo.quotes.terms import TermsCache, TermsFile
from api.demo.stopping import Stop

SERVICE = "quotes-api"
ROUTE = "/quotes"
OPERATION = f"POST {ROUTE}"
_BODY_BYTES = 4_096
_CONNECTIONS = 32
_WAITING = 64
_IDLE_S = 30.0
_ANSWER_S = 2.0
_TAKEN = TraceContextTextMapPropagator()


@dataclass(slots=True)
class Job:
    """A request in the queue, the span that lasts while it waits, and where the answer goes."""

    request: Request
    here: Context
    waiting: Span
    done: threading.Event = field(default_factory=threading.Event)
    decision: Decision | None = None  # None: it failed


class Desk:
    """The queue and the worker that prices."""

    def __init__(self, telemetry: Telemetry, terms: Path) -> None:
        self._telemetry = telemetry
        self._file = TermsFile(terms)
        self._cache = TermsCache()
        self._jobs: queue.Queue[Job | None] = queue.Queue(_WAITING)
        telemetry.meter.create_observable_gauge("quotes.queue.depth", [self._depth], unit="{request}")
        self._thread = threading.Thread(target=self._run, name="pricing", daemon=True)
        self._thread.start()

    def ask(self, request: Request, here: Context) -> Job | None:
        """Queue a request; None when the queue is full."""
        job = Job(request, here, self._telemetry.tracer.start_span("queue", context=here))
        try:
            self._jobs.put_nowait(job)
        except queue.Full:
            job.waiting.end()
            return None
        return job

    def close(self) -> None:
        """Answer what is queued, and end."""
        self._jobs.put(None)
        self._thread.join(_ANSWER_S)

    @property
    def waiting(self) -> int:
        """How many requests are queued."""
        return self._jobs.qsize()

    def _depth(self, _options: CallbackOptions) -> Iterable[Observation]:
        return [Observation(self.waiting)]

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.waiting.end()
            try:
                job.decision = self._decide(job)
            except (sqlite3.Error, ArithmeticError):  # the file is locked or damaged, or has terms that make no sense
                logging.getLogger(__name__).exception("%s cannot be priced", job.request)
            job.done.set()
        self._file.close()

    def _decide(self, job: Job) -> Decision:
        tracer, request = self._telemetry.tracer, job.request
        with tracer.start_as_current_span("cache lookup", context=job.here) as span:
            terms = self._cache.get(request.symbol, time.monotonic_ns())
            span.set_attribute("cache.hit", terms is not None)
            if terms is None:
                with tracer.start_as_current_span("load terms", attributes={"db.system.name": "sqlite"}):
                    terms = self._file.load(request.symbol)
                if terms is not None:
                    self._cache.put(request.symbol, terms, time.monotonic_ns())
        if terms is None:
            decision = Decision(False, "unknown instrument")
        else:
            with tracer.start_as_current_span("price", context=job.here):
                decision = decide(request, price(request, terms))
        told: dict[str, str | int | float] = {"symbol": request.symbol, "right": request.right, "days": request.days}
        told |= {"strike": request.strike, "quantity": request.quantity, "reason": decision.reason}
        told |= {"bid": decision.bid, "ask": decision.ask} if decision.quoted else {}
        self._telemetry.log("decision", "quoted" if decision.quoted else "declined", told, job.here)
        return decision


class Server(ThreadingHTTPServer):
    """HTTP/1.1 on loopback, one thread per connection, at most `_CONNECTIONS` of them."""

    daemon_threads = True

    def __init__(self, port: int, telemetry: Telemetry, desk: Desk) -> None:
        self.telemetry = telemetry
        self.desk = desk
        self.duration = telemetry.meter.create_histogram("http.server.request.duration", unit="s")
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection, or close it when there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """As the base does, and give the connection's place back."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the base's signature
        """A connection that broke is the client's business; it is not a traceback."""
        logging.getLogger(__name__).info("a connection of %s ended early", client_address, exc_info=True)


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = _IDLE_S

    def do_POST(self) -> None:
        """Answer one request, inside the span of whoever asked."""
        telemetry = self.server.telemetry
        began_ns = time.perf_counter_ns()
        known = self.path == ROUTE
        method = {"http.request.method": "POST", **({"http.route": ROUTE} if known else {})}
        carrier = {name.lower(): value for name, value in self.headers.items()}
        span = telemetry.tracer.start_span(
            OPERATION if known else "POST", context=_TAKEN.extract(carrier), kind=SpanKind.SERVER, attributes=method
        )
        status, body = 500, b"{}"
        try:
            status, body = self._answer(trace.set_span_in_context(span))
            self._send(status, body)
        finally:
            span.set_attribute("http.response.status_code", status)
            if status >= 500:
                span.set_status(StatusCode.ERROR)
            span.end()
            taken_s = (time.perf_counter_ns() - began_ns) * 1e-9
            self.server.duration.record(taken_s, {**method, "http.response.status_code": status})

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are told of by telemetry."""

    def _answer(self, here: Context) -> tuple[int, bytes]:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit() and len(length) < 10 and int(length) <= _BODY_BYTES):
            self.close_connection = True  # the body is not read, so nothing can follow it
            return 413 if length.isdigit() else 411, _problem(f"send at most {_BODY_BYTES} bytes with Content-Length")
        body = self.rfile.read(int(length))
        if self.path != ROUTE:
            return 404, _problem(f"ask at {ROUTE}")
        try:
            request = Request.decode(body)
        except RequestError as error:
            return 400, _problem(str(error))
        job = self.server.desk.ask(request, here)
        if job is None:
            return 503, _problem("the queue is full")
        if not job.done.wait(_ANSWER_S):
            return 504, _problem("not priced in time")
        return (500, _problem("it cannot be priced")) if job.decision is None else (200, job.decision.encode())

    def _send(self, status: int, body: bytes) -> None:
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if status == 503:
            self.send_header("Retry-After", "1")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _problem(text: str) -> bytes:
    return json.dumps({"error": text}).encode()


def main() -> None:
    """Read the arguments and serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", type=int, required=True, help="TCP port on 127.0.0.1")
    parser.add_argument("--terms", type=Path, required=True, help="SQLite file of the instruments' terms")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stop = Stop()
    telemetry = Telemetry(SERVICE, over_otlp())
    desk = Desk(telemetry, options.terms)
    server = Server(options.listen, telemetry, desk)
    threading.Thread(target=server.serve_forever, name="accept", daemon=True).start()
    while not stop:
        stop.sleep_until_ns(time.monotonic_ns() + 3_600_000_000_000)
    server.shutdown()
    desk.close()
    telemetry.close()


if __name__ == "__main__":
    main()
