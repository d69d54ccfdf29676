"""JSON logs on stderr: one object per line, secrets removed, control characters escaped by JSON itself."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

TOKEN = re.compile(r"ts_([0-9a-f]{1,32})_[A-Za-z0-9_-]{6,}")
_SECRET_NAME = re.compile(r"secret|password|passwd|authorization|cookie|api_?key|private|credential", re.IGNORECASE)
_BEARER = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")


def redact(value: Any) -> Any:
    """The value without tokens and without anything under a name that speaks of a secret; nested containers too."""
    if isinstance(value, str):
        return _BEARER.sub(r"\1 [redacted]", TOKEN.sub(r"ts_\1_[redacted]", value))
    if isinstance(value, bytes):
        return redact(value.decode("utf-8", "replace"))
    if isinstance(value, dict):
        return {k: "[redacted]" if _SECRET_NAME.search(str(k)) else redact(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [redact(v) for v in value]
    return value


def _redact_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = "[redacted]" if _SECRET_NAME.search(key) else redact(value)
    return event


def configure(level: str = "info", stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's records through the same processors to `stream` (stderr)."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="ts"),
        structlog.processors.format_exc_info,
        _redact_event,
    ]
    target = stream or sys.stderr
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:-1], structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                _redact_event,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # One line per request of a client that ships several batches a second says nothing that the counters do not.
    logging.getLogger("httpx").setLevel(logging.WARNING)


def logger(name: str) -> Any:
    """A structlog logger whose events carry `part`."""
    return structlog.get_logger(part=name)
