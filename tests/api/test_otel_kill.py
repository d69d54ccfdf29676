"""An agent killed under a real exporter: what the exporter was told is kept reaches the server, and the books close."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanKind

from tests.api.live import running
from tests.collector.test_agent import ENV, ROOT, until

pytestmark = pytest.mark.timeout(120)


class Keep(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans += spans
        return SpanExportResult.SUCCESS


def spans(count: int, name: str) -> list[ReadableSpan]:
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    keep = Keep()
    provider = TracerProvider(resource=Resource.create({"service.name": "killed"}))
    provider.add_span_processor(SimpleSpanProcessor(keep))
    for _ in range(count):
        provider.get_tracer("t").start_span(name, kind=SpanKind.SERVER).end()
    return keep.spans


def start(url: str, data: Path) -> tuple[subprocess.Popen[str], str]:
    command = [sys.executable, "-m", "tests.collector.otlp.agent_process", url, str(data)]
    process = subprocess.Popen(command, cwd=ROOT, env=ENV, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout is not None
    return process, process.stdout.readline().split()[0]


def test_what_the_exporter_was_told_is_kept_reaches_the_server(tmp_path: Path) -> None:
    acknowledged: set[int] = set()
    with running(tmp_path / "server") as live:
        for round_ in range(3):
            process, where = start(live.url, tmp_path / "agent")
            exporter = OTLPSpanExporter(endpoint=f"http://{where}/v1/traces", timeout=2)
            batches = [spans(20, "work") for _ in range(60)]
            threading.Timer(0.4 + 0.2 * round_, process.kill).start()
            for batch in batches:
                if exporter.export(batch) is not SpanExportResult.SUCCESS:
                    break
                acknowledged |= {span.get_span_context().trace_id for span in batch}
            exporter.shutdown()
            process.wait(10)
        process, where = start(live.url, tmp_path / "agent")
        try:
            with live.client() as http:

                def kept() -> set[int]:
                    found, cursor = set(), None
                    while True:
                        asked = {"kind": "span", "from": "-10m", "limit": 1000} | ({"cursor": cursor} if cursor else {})
                        page = http.get("/v1/events", params=asked).json()
                        found |= {int(e["attributes"]["trace_id"], 16) for e in page["events"]}
                        cursor = page["next"]
                        if cursor is None:
                            return found

                until(lambda: acknowledged <= kept(), "everything that was acknowledged", 30)
                assert acknowledged

                def closed() -> bool:
                    rows = http.get("/v1/ledger").json()["ledger"]
                    return all(r["difference"] == 0 and not r["in_spool"] and not r["in_flight"] for r in rows)

                until(closed, "the books to close", 20)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
