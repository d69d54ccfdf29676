"""Spans as stamps, links and events. Exact rules: docs/otlp.md.

A span is two points in time. They are stamped on the key of the span itself where it is an entry (a root, a server or
consumer span, a span with a remote parent): such a span is a message, and has a path of its own. They are stamped on
the key of its parent where it has one: there the span is a stage. So stages need no state here, and spans may come in
any order, from any number of programs.
"""

from __future__ import annotations

from typing import Any

from collector.keys import hash64
from collector.otlp.attributes import Resource, plain, text_of
from collector.otlp.rows import LabelSets, RecordError, Rows, Times, attributes_json
from collector.otlp.settings import OtlpSettings
from collector.points import CHILD_END, CHILD_START, SPAN_END, SPAN_START
from collector.record import EVENTS, LINKS, STAMPS, Cache, Mode, Outcome

_SERVER, _CONSUMER = 2, 5
_OK, _ERROR = 1, 2
_HAS_IS_REMOTE, _IS_REMOTE = 0x100, 0x200  # SpanFlags of trace.proto
_KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")
_MAX_LINKS = 128
_MAX_EVENTS = 32
_NAME = 120
_OTHER = "(other)"
_TIMEOUTS = frozenset({"408", "504", "4", "DEADLINE_EXCEEDED", "timeout"})
_SHED = frozenset({"429", "503", "8", "RESOURCE_EXHAUSTED"})
_CODES = ("http.response.status_code", "http.status_code", "rpc.grpc.status_code", "rpc.response.status_code",
          "error.type")  # fmt: skip


def trace_key(trace_id: bytes) -> int:
    """The key of a trace: key space `trace`, the id as 32 hex digits."""
    return hash64("trace", trace_id.hex())


def span_key(trace_id: bytes, span_id: bytes) -> int:
    """The key of a span: key space `span`, both ids as hex digits with a dash between."""
    return hash64("span", f"{trace_id.hex()}-{span_id.hex()}")


def check_ids(trace_id: bytes, span_id: bytes) -> None:
    """Raise RecordError for ids that W3C Trace Context does not allow."""
    if len(trace_id) != 16 or not any(trace_id):
        raise RecordError(f"trace id of {len(trace_id)} bytes, 16 are needed, not all zero")
    if len(span_id) != 8 or not any(span_id):
        raise RecordError(f"span id of {len(span_id)} bytes, 8 are needed, not all zero")


class SpanMapper:
    """Maps `ExportTraceServiceRequest`. Not thread-safe."""

    def __init__(self, settings: OtlpSettings, labels: LabelSets, times: Times, host: str) -> None:
        self._settings = settings
        self._labels = labels
        self._times = times
        self._host = host
        self._operations: set[tuple[str, str]] = set()

    def rows(self, request: Any, now_ns: int, error_ns: int | None) -> Rows:
        """The rows of one export. `error_ns` bounds this host's clock against UTC."""
        rows = Rows()
        for group in request.resource_spans:
            try:
                who = Resource(group.resource, self._host, self._settings.attributes)
            except RecordError as problem:
                rows.reject(f"resource: {problem}", sum(len(scope.spans) for scope in group.scope_spans))
                continue
            error = None if error_ns is None or who.host != self._host else min(error_ns, 0xFFFF_FFFE)
            for scope in group.scope_spans:
                for span in scope.spans:
                    try:
                        self._span(span, who, rows, now_ns, error)
                    except RecordError as problem:
                        rows.reject(str(problem))
        return rows

    def _span(self, span: Any, who: Resource, rows: Rows, now_ns: int, error_ns: int | None) -> None:
        check_ids(span.trace_id, span.span_id)
        if span.parent_span_id and len(span.parent_span_id) != 8:
            raise RecordError(f"parent span id of {len(span.parent_span_id)} bytes, 8 are needed or none")
        start = self._times.check(span.start_time_unix_nano, now_ns, "start_time_unix_nano")
        end = self._times.check(span.end_time_unix_nano, now_ns, "end_time_unix_nano")
        given = plain(span.attributes, self._settings.attributes)
        has_parent = any(span.parent_span_id)
        remote = span.flags & (_HAS_IS_REMOTE | _IS_REMOTE) == _HAS_IS_REMOTE | _IS_REMOTE
        entry = not has_parent or span.kind in (_SERVER, _CONSUMER) or remote
        name = self._operation(who.service, span.name, rows)
        own, trace = span_key(span.trace_id, span.span_id), trace_key(span.trace_id)
        parent = span_key(span.trace_id, span.parent_span_id) if has_parent else 0
        home = own if entry else parent
        details = self._details(span, given) if entry else ""
        # From here on nothing raises: a record is taken whole or not at all.
        thread = _number(given.get("thread.id"), 0, 0xFFFF_FFFF) or 0
        same = (who.host, who.service, thread, "REALTIME", error_ns)
        if entry:
            label_set = self._labels.intern(who.labels(given, self._settings.labels), rows)
            mode = _member(Mode, given.get("tailsight.mode"))
            depth = _number(given.get("tailsight.depth"), -(1 << 31), (1 << 31) - 1)
            age = _number(given.get("tailsight.data_age_ns"), 0, (1 << 63) - 1)
            cache = _member(Cache, given.get("tailsight.cache"))
            outcome = outcome_of(span.status.code, given)
            rows.add(STAMPS, start, own, SPAN_START + name, *same, depth, label_set, 0, mode, 0, None)
            rows.add(STAMPS, end, own, SPAN_END + name, *same, None, label_set, outcome, mode, cache, age)
            rows.add(EVENTS, start, own, who.host, who.service, "span", name, details)
        if has_parent:
            rows.add(STAMPS, start, parent, CHILD_START + name, *same, None, 0, 0, 0, 0, None)
            rows.add(STAMPS, end, parent, CHILD_END + name, *same, None, 0, 0, 0, 0, None)
            rows.add(LINKS, start, parent, own, who.host, who.service)
        rows.add(LINKS, start, trace, own, who.host, who.service)
        self._linked(span, own, start, who, rows)
        self._said(span, home, who, rows, now_ns)

    def _linked(self, span: Any, own: int, start: int, who: Resource, rows: Rows) -> None:
        for link in span.links[:_MAX_LINKS]:
            if len(link.trace_id) == 16 and len(link.span_id) == 8:
                rows.add(LINKS, start, span_key(link.trace_id, link.span_id), own, who.host, who.service)
            else:
                rows.note("span links with ids of a wrong length were left out")
        if len(span.links) > _MAX_LINKS:
            rows.note(f"span links beyond {_MAX_LINKS} were left out")

    def _said(self, span: Any, home: int, who: Resource, rows: Rows, now_ns: int) -> None:
        """The events of a span (exceptions, annotations)."""
        for event in span.events[:_MAX_EVENTS]:
            try:
                ts_ns = self._times.check(event.time_unix_nano, now_ns, "time_unix_nano of a span event")
                text = attributes_json(
                    {
                        **plain(event.attributes, self._settings.attributes),
                        "trace_id": span.trace_id.hex(),
                        "span_id": span.span_id.hex(),
                    }
                )
            except RecordError as error:
                rows.note(f"span events were left out: {error}")
                continue
            rows.add(EVENTS, ts_ns, home, who.host, who.service, "span_event", event.name[:_NAME], text)
        if len(span.events) > _MAX_EVENTS:
            rows.note(f"span events beyond {_MAX_EVENTS} were left out")

    def _details(self, span: Any, given: dict[str, Any]) -> str:
        kind = _KINDS[span.kind] if 0 <= span.kind < len(_KINDS) else "unspecified"
        details: dict[str, Any] = {
            **given,
            "trace_id": span.trace_id.hex(),
            "span_id": span.span_id.hex(),
            "span.kind": kind,
        }
        if any(span.parent_span_id):
            details["parent_span_id"] = span.parent_span_id.hex()
        if span.status.message:
            details["status.message"] = span.status.message[:1_000]
        return attributes_json(details)

    def _operation(self, service: str, name: str, rows: Rows) -> str:
        """The span's name as part of a point; one name for all once there are too many."""
        name = "".join(c if c.isprintable() else " " for c in name[:_NAME]).strip() or "(unnamed)"
        if (service, name) in self._operations:
            return name
        if len(self._operations) >= self._settings.operations:
            rows.note(f"span names beyond {self._settings.operations} are stamped as {_OTHER} (operations)")
            return _OTHER
        self._operations.add((service, name))
        return name


def outcome_of(code: int, given: dict[str, Any]) -> Outcome:
    """How a span ended: its status, an error made precise by the HTTP or gRPC code where there is one."""
    if code == _OK:
        return Outcome.OK
    if code != _ERROR:
        return Outcome.UNSET
    said = {text_of(given[name]) for name in _CODES if name in given}
    if said & _TIMEOUTS:
        return Outcome.TIMEOUT
    return Outcome.SHED if said & _SHED else Outcome.ERROR


def _member(kind: type[Mode] | type[Cache], value: Any) -> int:
    return int(getattr(kind, value.upper(), 0)) if isinstance(value, str) and value.upper() in kind.__members__ else 0


def _number(value: Any, low: int, high: int) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and low <= value <= high else None
