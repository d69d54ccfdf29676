"""Log records as events: on the key that they name, else on the span that they belong to."""

from __future__ import annotations

from typing import Any

import msgspec

from collector.keys import key_of
from collector.otlp.attributes import Resource, plain, text_of, value_of
from collector.otlp.rows import MAX_BODY, LabelSets, RecordError, Rows, Times, attributes_json
from collector.otlp.settings import OtlpSettings
from collector.otlp.spans import span_key, trace_key
from collector.record import EVENTS


class LogMapper:
    """Maps `ExportLogsServiceRequest`. Not thread-safe."""

    def __init__(self, settings: OtlpSettings, labels: LabelSets, times: Times, host: str) -> None:  # noqa: ARG002 - one signature for all
        self._settings = settings
        self._times = times
        self._host = host

    def rows(self, request: Any, now_ns: int, error_ns: int | None) -> Rows:  # noqa: ARG002 - one signature for all
        """The rows of one export."""
        rows = Rows()
        for group in request.resource_logs:
            try:
                who = Resource(group.resource, self._host, self._settings.attributes)
            except RecordError as error:
                rows.reject(f"resource: {error}", sum(len(scope.log_records) for scope in group.scope_logs))
                continue
            for scope in group.scope_logs:
                for record in scope.log_records:
                    try:
                        self._record(record, who, rows, now_ns)
                    except RecordError as error:
                        rows.reject(str(error))
        return rows

    def _record(self, record: Any, who: Resource, rows: Rows, now_ns: int) -> None:
        given_ns = record.time_unix_nano or record.observed_time_unix_nano or now_ns
        ts_ns = self._times.check(given_ns, now_ns, "time_unix_nano")
        given = plain(record.attributes, self._settings.attributes)
        key = self._key(record, given)
        if record.trace_id:
            given["trace_id"] = record.trace_id.hex()
        if record.span_id:
            given["span_id"] = record.span_id.hex()
        if record.severity_text or record.severity_number:
            given["severity"] = record.severity_text[:40] or record.severity_number
        body = value_of(record.body)
        text = body if isinstance(body, str) else "" if body is None else msgspec.json.encode(body).decode()
        if len(text) > MAX_BODY:
            rows.note(f"bodies of logs are cut after {MAX_BODY} characters")
            text = text[:MAX_BODY] + "..."
        kind = (record.event_name or text_of(given.get("event.name")) or "log")[:200]
        rows.add(EVENTS, ts_ns, key, who.host, who.service, kind, text, attributes_json(given))

    def _key(self, record: Any, given: dict[str, Any]) -> int:
        named = given.get(self._settings.key)
        if named is not None:
            if isinstance(named, int) and not isinstance(named, bool) and 0 <= named < 1 << 64:
                return named
            try:
                return key_of(text_of(named))
            except ValueError as error:
                raise RecordError(f"{self._settings.key}: {error}") from None
        if len(record.trace_id) not in (0, 16) or len(record.span_id) not in (0, 8):
            raise RecordError("logs with a trace or span id of a wrong length")
        if any(record.trace_id):
            return span_key(record.trace_id, record.span_id) if any(record.span_id) else trace_key(record.trace_id)
        return 0
