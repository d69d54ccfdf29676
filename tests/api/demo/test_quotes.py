"""The quote service: prices, requests, decisions, its HTTP, and how it is started."""

from __future__ import annotations

import http.client
import itertools
import json
import math
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.context import Context
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from api.demo.quotes.asker import asks
from api.demo.quotes.plan import Receiver, quote_service, receiver_of, variables
from api.demo.quotes.pricing import MOST_QUANTITY, Request, RequestError, Terms, decide, price
from api.demo.quotes.service import OPERATION, ROUTE, Desk, Server
from api.demo.quotes.telemetry import Exports, Telemetry
from api.demo.quotes.terms import FRESH_NS, TermsCache
from api.up.plan import programs
from collector.agent.__main__ import settings_of
from collector.agent.settings import AgentSettings
from collector.otlp.settings import OtlpSettings
from collector.settings import ConfigError
from tests.collector.test_agent import until
from tests.whole_path import ROOT, environment

if TYPE_CHECKING:
    pass

CALL = Request("ALFA", "call", 80.0, 90, 10)
TERMS = Terms(100.0, 0.25, 0.02)
OPTIONS = st.builds(
    Request,
    symbol=st.sampled_from(["ALFA", "BETA"]),
    right=st.sampled_from(["call", "put"]),
    strike=st.floats(50, 200),
    days=st.integers(1, 365),
    quantity=st.integers(1, 1_000),
)


def black_scholes_call(request: Request, terms: Terms) -> float:
    years = request.days / 365
    deviation = terms.volatility * math.sqrt(years)
    first = (math.log(terms.spot / request.strike) + (terms.interest + terms.volatility**2 / 2) * years) / deviation

    def normal(x: float) -> float:
        return (1 + math.erf(x / math.sqrt(2))) / 2

    discounted = request.strike * math.exp(-terms.interest * years)
    return terms.spot * normal(first) - discounted * normal(first - deviation)


def test_an_american_put_is_worth_what_the_textbook_says() -> None:
    """Hull, Options, Futures and Other Derivatives, section 21.1: 4.29 with 30 steps, 4.28 with more."""
    assert price(Request("X", "put", 50.0, 152, 1), Terms(50.0, 0.4, 0.1)) == pytest.approx(4.28, abs=0.03)


@given(OPTIONS)
def test_a_call_without_dividends_is_worth_the_european_one(request_: Request) -> None:
    call = Request(request_.symbol, "call", request_.strike, request_.days, 1)
    assert price(call, TERMS) == pytest.approx(black_scholes_call(call, TERMS), abs=0.25)


@given(OPTIONS)
def test_an_option_is_worth_at_least_its_exercise_and_at_most_spot_or_strike(request_: Request) -> None:
    value = price(request_, TERMS)
    if request_.right == "call":
        assert max(0.0, TERMS.spot - request_.strike) - 1e-9 <= value <= TERMS.spot
    else:
        assert max(0.0, request_.strike - TERMS.spot) - 1e-9 <= value <= request_.strike


def test_what_is_quoted_and_what_is_declined() -> None:
    small, large = decide(CALL, 5.0), decide(Request("ALFA", "call", 80.0, 90, MOST_QUANTITY), 5.0)
    assert small.quoted and large.quoted
    assert 0 < large.bid < small.bid < 5.0 < small.ask < large.ask
    for quantity, value in ((MOST_QUANTITY + 1, 5.0), (1, 0.04)):
        declined = decide(Request("ALFA", "call", 100.0, 90, quantity), value)
        assert not declined.quoted
        assert set(json.loads(declined.encode())) == {"decision", "reason"}


@given(OPTIONS)
def test_a_request_is_read_as_it_was_written(request_: Request) -> None:
    assert Request.decode(request_.encode()) == request_


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"symbol": ""}, "symbol"), ({"symbol": "X" * 17}, "symbol"), ({"right": "swap"}, "right"),
        ({"strike": 0}, "strike"), ({"strike": "7"}, "strike"), ({"strike": True}, "strike"),
        ({"days": 0}, "days"), ({"days": 366}, "days"), ({"days": 1.5}, "days"), ({"quantity": -1}, "quantity"),
    ],
)  # fmt: skip
def test_a_wrong_request_names_its_field(changed: dict[str, Any], named: str) -> None:
    body = json.dumps(json.loads(CALL.encode()) | changed).encode()
    with pytest.raises(RequestError, match=f"^{named}: "):
        Request.decode(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_an_error(body: bytes) -> None:
    with pytest.raises(RequestError):
        Request.decode(body)


@pytest.mark.parametrize("body", [b'{"strike": NaN}', b"[" * 4_000, b"[]", b"null"])
def test_odd_json_is_refused(body: bytes) -> None:
    with pytest.raises(RequestError):
        Request.decode(body)


def test_terms_are_read_again_when_they_are_old() -> None:
    cache = TermsCache()
    assert cache.get("ALFA", 1) is None
    cache.put("ALFA", TERMS, 1)
    assert cache.get("ALFA", 1 + FRESH_NS) == TERMS
    assert cache.get("ALFA", 2 + FRESH_NS) is None


def test_a_seed_asks_the_same_at_the_rate() -> None:
    first, again = (list(itertools.islice(asks(8.0, 3), 2_000)) for _ in range(2))
    assert first == again
    times = [after_ns for after_ns, _ in first]
    assert times == sorted(times)
    assert 2_000 / (times[-1] * 1e-9) == pytest.approx(8.0, rel=0.1)
    for _, request in first:
        assert Request.decode(request.encode()) == request
    assert 10 < sum(request.quantity > MOST_QUANTITY for _, request in first) < 90


class Served:
    """The real server and desk in this process; what they tell stays in memory."""

    def __init__(self, folder: Path) -> None:
        self.terms = folder / "demo" / "quotes.sqlite"
        self.spans, self.logs, self.metrics = (
            InMemorySpanExporter(),
            InMemoryLogRecordExporter(),
            InMemoryMetricReader(),
        )
        self.telemetry = Telemetry("quotes-api", Exports(self.spans, self.metrics, self.logs))
        self.desk = Desk(self.telemetry, self.terms)
        self.server = Server(0, self.telemetry, self.desk)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ask(self, body: bytes, path: str = ROUTE, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server_address[1], timeout=10)
        try:
            connection.request("POST", path, body, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.desk.close()
        self.telemetry.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    served = Served(tmp_path)
    yield served
    served.close()


def test_a_request_is_told_of_as_spans_a_duration_and_a_decision(served: Served) -> None:
    trace_id, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    for _ in range(2):
        status, answer = served.ask(CALL.encode(), traceparent=f"00-{trace_id}-{caller}-01")
        assert (status, answer["decision"]) == (200, "quoted")
        assert answer["bid"] < answer["ask"]
    depth = served.metrics.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics
    served.close()
    spans = {}
    for span in served.spans.get_finished_spans():
        spans.setdefault(span.name, []).append(span)
        assert f"{span.context.trace_id:032x}" == trace_id
    assert {name: len(found) for name, found in spans.items()} == {
        OPERATION: 2, "queue": 2, "cache lookup": 2, "load terms": 1, "price": 2,
    }  # fmt: skip
    entry = spans[OPERATION][0]
    assert f"{entry.parent.span_id:016x}" == caller
    assert entry.attributes["http.response.status_code"] == 200
    for name in ("queue", "cache lookup", "price"):
        assert [s.parent.span_id for s in spans[name]] == [s.context.span_id for s in spans[OPERATION]]
    assert [s.attributes["cache.hit"] for s in spans["cache lookup"]] == [False, True]
    assert spans["load terms"][0].parent.span_id == spans["cache lookup"][0].context.span_id
    logged = [found.log_record for found in served.logs.get_finished_logs()]
    assert [(record.event_name, record.body) for record in logged] == [("decision", "quoted")] * 2
    assert logged[0].span_id == entry.context.span_id and logged[0].attributes["reason"] == "within limits"
    found = {metric.name: metric.data.data_points[0] for metric in depth}
    assert found["quotes.queue.depth"].value == 0
    assert found["http.server.request.duration"].count == 2


@pytest.mark.parametrize(
    ("body", "path", "headers", "status"),
    [
        (b"{}", ROUTE, {}, 400),
        (CALL.encode(), "/other", {}, 404),
        (b"", ROUTE, {"Content-Length": "many"}, 411),
        (b"", ROUTE, {"Content-Length": "4097"}, 413),
        (b"", ROUTE, {"Content-Length": "9" * 40}, 413),
    ],
)
def test_wrong_requests_get_an_answer(
    served: Served, body: bytes, path: str, headers: dict[str, str], status: int
) -> None:
    got, answer = served.ask(body, path, **headers)
    assert got == status and answer["error"]
    assert served.ask(CALL.encode())[0] == 200


def test_an_unknown_instrument_is_declined(served: Served) -> None:
    request = Request("NONE", "put", 10.0, 5, 1)
    assert served.ask(request.encode()) == (200, {"decision": "declined", "reason": "unknown instrument"})


def test_a_full_queue_sheds_and_terms_that_cannot_be_read_are_an_error(served: Served) -> None:
    with sqlite3.connect(served.terms) as other:
        other.execute("BEGIN EXCLUSIVE")  # the worker waits a second for it
        jobs = [served.desk.ask(CALL, Context())]
        until(lambda: served.desk.waiting == 0, "the worker has the first")
        jobs += [served.desk.ask(CALL, Context()) for _ in range(70)]
        status, answer = served.ask(CALL.encode())
        assert (status, answer) == (503, {"error": "the queue is full"})
        assert jobs[0] is not None and jobs[0].done.wait(10)
        assert jobs[0].decision is None
        other.rollback()
    taken = [job for job in jobs if job is not None]
    assert len(taken) == 65
    assert all(job.done.wait(10) for job in taken)
    assert taken[-1].decision is not None and taken[-1].decision.quoted
    assert served.ask(CALL.encode())[0] == 200


def test_the_programs_know_nothing_of_the_product() -> None:
    code = """
import sys
import api.demo.quotes.service, api.demo.quotes.asker
print([name for name in sys.modules if name.split(".")[0] in ("tailsight_probe", "collector", "analytics")])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True,
                          env=environment(Path("/nowhere")))  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_the_sdk_is_told_where_to_export_to_by_its_own_variables() -> None:
    told = variables("127.0.0.1:7", {"NO_PROXY": "example.org"})
    for name in ("traces", "metrics", "logs"):
        assert told[f"OTEL_EXPORTER_OTLP_{name.upper()}_ENDPOINT"] == f"http://127.0.0.1:7/v1/{name}"
    assert (told["NO_PROXY"], told["no_proxy"]) == ("example.org,127.0.0.1", "127.0.0.1")


def test_an_agent_of_ours_gets_a_door_of_its_own_unless_it_has_one(tmp_path: Path) -> None:
    own = receiver_of(AgentSettings(), own=True)
    assert own.agent == ("--otlp", own.http) and own.http.startswith("127.0.0.1:")
    settings = settings_of(None, None, None, own.http)
    assert settings.collectors == (*AgentSettings().collectors, "otlp")
    assert (settings.otlp.http, settings.otlp.grpc) == (own.http, "")
    declared = AgentSettings(collectors=("otlp",), otlp=OtlpSettings(http="0.0.0.0:99"))
    assert receiver_of(declared, own=True) == Receiver("127.0.0.1:99")
    assert receiver_of(AgentSettings(), own=False) == Receiver("127.0.0.1:4318")
    for nowhere in (OtlpSettings(http=""), OtlpSettings(http="127.0.0.1:0")):
        with pytest.raises(ConfigError, match=r"agent\.otlp\.http"):
            receiver_of(AgentSettings(collectors=("otlp",), otlp=nowhere), own=True)
    with pytest.raises(ConfigError, match=r"agent\.otlp\.http"):
        settings_of(None, None, None, "nowhere")

    server, agent, *rest = programs(tmp_path, None, "127.0.0.1", "http://127.0.0.1:1", demo=False, quotes=own)
    assert agent.arguments[-4:] == ("--otlp", own.http, "--server", "http://127.0.0.1:1")
    assert [program.name for program in rest] == ["quotes-api", "quotes-client"]
    assert rest[1].phase > rest[0].phase > agent.phase > server.phase


def test_service_and_client_meet_at_one_port(tmp_path: Path) -> None:
    service, client = quote_service(tmp_path, Receiver("127.0.0.1:7"), seed=5)
    listens = service.arguments[service.arguments.index("--listen") + 1]
    assert client.arguments[client.arguments.index("--port") + 1] == listens
    assert "5" in client.arguments


@pytest.mark.parametrize("command", ["up", "demo"])
def test_without_the_sdk_the_command_says_how_to_install_it(command: str, tmp_path: Path) -> None:
    (tmp_path / "opentelemetry").mkdir()
    (tmp_path / "opentelemetry" / "__init__.py").write_text("")  # hides the real one
    env = environment(tmp_path / "rings")
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", command, "--otel", "--json", "--data", str(tmp_path / "data")],
        env=env | {"PYTHONPATH": f"{tmp_path}:{env['PYTHONPATH']}"}, capture_output=True, text=True, timeout=60,
        cwd=tmp_path,
    )  # fmt: skip
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["kind"]) == (2, "extra_missing")
    assert "otel-demo" in error["message"] and "-m pip install 'tailsight[otel-demo" in error["hint"]


def test_a_history_has_no_quote_service(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "demo", "--history", "1h", "--otel", "--json", "--data", str(tmp_path)],
        env=environment(tmp_path), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 2 and "--otel" in json.loads(done.stdout)["error"]["message"]
