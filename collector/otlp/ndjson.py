"""JSON lines as events: one object per line, what is not a known field becomes an attribute.

{"ts": "2026-11-21T09:30:00.123456789Z", "key": "order:17", "kind": "decision", "service": "engine",
 "body": "buy", "reason": "signal above threshold", "inputs": {"feed": 981, "quote": 55}, "model": "m-12"}
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import msgspec

from collector.keys import key_of
from collector.otlp.rows import MAX_BODY, RecordError, Rows, Times, attributes_json
from collector.record import EVENTS

_FIELDS = ("ts", "ts_ns", "key", "host", "service", "kind", "body")
_NAME = 200


@dataclass(frozen=True, slots=True)
class Said:
    """What holds for every line that does not say otherwise, and how many attributes a line may have."""

    host: str
    service: str = ""
    kind: str = "event"
    attributes: int = 128


def event_rows(body: bytes, said: Said, times: Times, now_ns: int) -> Rows:
    """The events of some lines; a line that is wrong is rejected with its number, the others are taken."""
    rows = Rows()
    for number, line in enumerate(body.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            _event(line, rows, said, times, now_ns)
        except RecordError as error:
            rows.reject(f"line {number}: {error}")
    return rows


def _event(line: bytes, rows: Rows, said: Said, times: Times, now_ns: int) -> None:
    try:
        given: Any = msgspec.json.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise RecordError(f"not JSON: {error}"[:200]) from None
    if not isinstance(given, dict):
        raise RecordError("not a JSON object")
    if len(given) > said.attributes + len(_FIELDS):
        raise RecordError(f"{len(given)} fields, at most {said.attributes} are taken (attributes)")
    ts_ns = times.check(_time(given, now_ns), now_ns, "ts")
    key = given.get("key", 0)
    if isinstance(key, str):
        try:
            key = key_of(key) if key else 0
        except ValueError as error:
            raise RecordError(str(error)) from None
    if isinstance(key, bool) or not isinstance(key, int) or not 0 <= key < 1 << 64:
        raise RecordError("key is neither SPACE:ID nor a number of 64 bits")
    rest = {name: value for name, value in given.items() if name not in _FIELDS}
    text = _text(given, "body", "", MAX_BODY)
    rows.add(
        EVENTS,
        ts_ns,
        key,
        _text(given, "host", said.host, _NAME),
        _text(given, "service", said.service, _NAME),
        _text(given, "kind", said.kind, _NAME),
        text,
        attributes_json(rest),
    )


def _text(given: dict[str, Any], name: str, default: str, longest: int) -> str:
    value = given.get(name, default)
    if not isinstance(value, str):
        raise RecordError(f"{name} is not a text")
    if len(value) > longest:
        raise RecordError(f"{name} has more than {longest} characters")
    return value


def _time(given: dict[str, Any], now_ns: int) -> int:
    """Epoch nanoseconds from `ts_ns`, or `ts` (RFC 3339, or epoch seconds); now when neither is there."""
    value = given.get("ts_ns", given.get("ts"))
    if value is None:
        return now_ns
    if isinstance(value, str):
        return rfc3339_ns(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecordError("ts is neither a number nor RFC 3339")
    if "ts_ns" in given and not isinstance(value, int):
        raise RecordError("ts_ns is not a whole number")
    if not math.isfinite(value):
        raise RecordError("ts is not finite")
    return int(value) if "ts_ns" in given else round(value * 1e9)


def rfc3339_ns(text: str) -> int:
    """A time with an offset as epoch nanoseconds, all nine digits. Raises RecordError."""
    whole, dot, rest = text.strip().partition(".")
    digits = ""
    while rest[:1].isdigit():
        digits, rest = digits + rest[0], rest[1:]
    zone = rest if dot else ""
    try:
        moment: datetime | None = datetime.fromisoformat(whole + zone)
    except (ValueError, OverflowError):
        moment = None
    if moment is None or moment.tzinfo is None or len(digits) > 9 or (dot and not digits):
        raise RecordError(f"ts {text[:40]!r} is not RFC 3339 with an offset")
    return int(moment.timestamp()) * 10**9 + int(digits.ljust(9, "0"))
