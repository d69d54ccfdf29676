"""`python -m api.demo.quotes.asker`: asks for quotes at intended times, whoever answers (open loop)."""

from __future__ import annotations

import argparse
import http.client
import logging
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from opentelemetry import trace
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from api.demo.market import SYMBOLS
from api.demo.quotes.pricing import MOST_QUANTITY, RIGHTS, Request
from api.demo.quotes.telemetry import Telemetry, over_otlp
from api.demo.stopping import Stop

SERVICE = "quotes-client"
OPERATION = "ask for a quote"
_ROUTE = "/quotes"
_AT_ONCE = 4
_PENDING = 64
_TIMEOUT_S = 3.0
_GIVEN = TraceContextTextMapPropagator()


def asks(rate: float, seed: int) -> Iterator[tuple[int, Request]]:
    """Yield (nanoseconds after the start, what is asked for then), for ever: a Poisson process from one seed."""
    draw = random.Random(seed)  # noqa: S311 - not for secrets: the same seed must ask the same
    after_s = 0.0
    while True:
        after_s += draw.expovariate(rate)
        # One in fifty asks for more than is quoted.
        quantity = MOST_QUANTITY + 1 if draw.random() < 0.02 else draw.randint(1, 100)
        strike = round(draw.uniform(70.0, 160.0), 1)
        yield (
            round(after_s * 1e9),
            Request(draw.choice(SYMBOLS), draw.choice(RIGHTS), strike, draw.randint(5, 180), quantity),
        )


class Asker:
    """A few connections that are kept open, and as many threads. What does not fit is not asked, and counted."""

    def __init__(self, port: int, telemetry: Telemetry) -> None:
        self._port = port
        self._telemetry = telemetry
        self._own = threading.local()
        self._places = threading.BoundedSemaphore(_PENDING)
        self._pool = ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="ask")
        self._abandoned = telemetry.meter.create_counter("quotes.client.abandoned", unit="{request}")

    def run(self, stop: Stop, rate: float, seed: int) -> None:
        """Ask until `stop`."""
        start_ns = time.monotonic_ns()
        for after_ns, request in asks(rate, seed):
            stop.sleep_until_ns(start_ns + after_ns)
            if stop:
                break
            if self._places.acquire(blocking=False):
                self._pool.submit(self._ask, request, start_ns + after_ns)
            else:
                self._abandoned.add(1)
        self._pool.shutdown(cancel_futures=True)

    def _ask(self, request: Request, intended_ns: int) -> None:
        """One request. Its span begins when it was meant to be asked, so that waiting for a thread counts."""
        try:
            begin_ns = time.time_ns() - (time.monotonic_ns() - intended_ns)
            attributes: dict[str, str | int] = {
                "http.request.method": "POST",
                "server.address": "127.0.0.1",
                "server.port": self._port,
            }
            span = self._telemetry.tracer.start_span(
                OPERATION, kind=SpanKind.CLIENT, start_time=begin_ns, attributes=attributes
            )
            try:
                self._exchange(request, span)
            finally:
                span.end()
        except Exception:
            logging.getLogger(__name__).exception("a request failed")
            raise
        finally:
            self._places.release()

    def _exchange(self, request: Request, span: Span) -> None:
        headers = {"Content-Type": "application/json"}
        _GIVEN.inject(headers, trace.set_span_in_context(span))
        connection: http.client.HTTPConnection | None = getattr(self._own, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT_S)
            self._own.connection = connection
        try:
            connection.request("POST", _ROUTE, request.encode(), headers)
            answer = connection.getresponse()
            answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()  # the next request opens it again
            span.set_attribute("error.type", "timeout" if isinstance(error, TimeoutError) else type(error).__name__)
            span.set_status(StatusCode.ERROR, str(error))
            return
        span.set_attribute("http.response.status_code", answer.status)
        if answer.status >= 400:
            span.set_status(StatusCode.ERROR)


def main() -> None:
    """Read the arguments and ask until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True, help="where the service listens on 127.0.0.1")
    parser.add_argument("--rate", type=float, default=8.0, help="requests per second on average")
    parser.add_argument("--seed", type=int, default=1, help="the same seed asks the same")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    stop = Stop()
    telemetry = Telemetry(SERVICE, over_otlp())
    Asker(options.port, telemetry).run(stop, options.rate, options.seed)
    telemetry.close()


if __name__ == "__main__":
    main()
