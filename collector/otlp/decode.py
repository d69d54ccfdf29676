"""Bodies of OTLP/HTTP as protobuf messages: gzip, protobuf and JSON, bounded and checked."""

from __future__ import annotations

import base64
import binascii
import zlib
from typing import Any

import msgspec
from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, status_pb2

from collector.otlp.http import RefusedError

PROTOBUF, JSON = "application/x-protobuf", "application/json"
_STEP = 262_144
_CODES = {
    400: code_pb2.INVALID_ARGUMENT,
    404: code_pb2.UNIMPLEMENTED,
    405: code_pb2.UNIMPLEMENTED,
    408: code_pb2.DEADLINE_EXCEEDED,
    413: code_pb2.RESOURCE_EXHAUSTED,
    415: code_pb2.INVALID_ARGUMENT,
    429: code_pb2.RESOURCE_EXHAUSTED,
    503: code_pb2.UNAVAILABLE,
}


def decompress(body: bytes, encoding: str, limit: int) -> bytes:
    """The body without its Content-Encoding. Raises RefusedError: 415 unknown, 413 beyond `limit`, 400 damaged."""
    encoding = encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise RefusedError(415, f"content encoding {encoding[:40]!r} is not taken; use gzip or none")
    out = bytearray()
    left = body
    try:
        while left:
            unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
            while left and not unpack.eof:
                out += unpack.decompress(left, _STEP)
                left = unpack.unconsumed_tail
                if len(out) > limit:
                    raise RefusedError(413, f"the body has more than {limit} bytes decompressed (max_body_bytes)")
            if not unpack.eof:
                raise RefusedError(400, "the gzip body is cut short")
            left = unpack.unused_data
    except zlib.error as error:
        raise RefusedError(400, f"the body is not gzip: {error}") from None
    return bytes(out)


def message_of(body: bytes, content_type: str, kind: type[Message]) -> Message:
    """The request in a body. Raises RefusedError: 415 for another type, 400 for what is not the message."""
    message = kind()
    if content_type == PROTOBUF:
        try:
            message.ParseFromString(body)
        except (DecodeError, RecursionError) as error:
            raise RefusedError(400, f"not the protobuf message {message.DESCRIPTOR.name}: {error}") from None
        return message
    if content_type != JSON:
        raise RefusedError(415, f"content type {content_type[:80]!r} is not taken; use {PROTOBUF} or {JSON}")
    try:
        document = msgspec.json.decode(body)
        if not isinstance(document, dict):
            raise RefusedError(400, "not a JSON object")
        _hex_ids(document)
        json_format.ParseDict(document, message, ignore_unknown_fields=True)
    except (msgspec.DecodeError, UnicodeDecodeError, json_format.ParseError, RecursionError, TypeError) as error:
        raise RefusedError(400, f"not {message.DESCRIPTOR.name} in JSON: {error}"[:500]) from None
    except (ValueError, AttributeError, OverflowError) as error:
        raise RefusedError(400, f"not {message.DESCRIPTOR.name} in JSON: {error}"[:500]) from None
    return message


def encoded(message: Message, content_type: str) -> tuple[bytes, str]:
    """A response in the request's own content type."""
    if content_type == JSON:
        return json_format.MessageToJson(message, indent=None).encode(), JSON
    return message.SerializeToString(), PROTOBUF


def status(http_status: int, reason: str, content_type: str) -> tuple[bytes, str]:
    """A google.rpc.Status, as OTLP/HTTP wants errors."""
    code = _CODES.get(http_status, code_pb2.UNKNOWN)
    return encoded(status_pb2.Status(code=code, message=reason), content_type)


def _hex_ids(document: dict[str, Any]) -> None:
    """OTLP's JSON writes ids in hex, protobuf's in base64: change the ids of spans, links and log records."""
    for group in _lists(document, "resourceSpans"):
        for scope in _lists(group, "scopeSpans"):
            for span in _lists(scope, "spans"):
                _ids(span, ("traceId", "spanId", "parentSpanId"))
                for link in _lists(span, "links"):
                    _ids(link, ("traceId", "spanId"))
    for group in _lists(document, "resourceLogs"):
        for scope in _lists(group, "scopeLogs"):
            for record in _lists(scope, "logRecords"):
                _ids(record, ("traceId", "spanId"))
    for group in _lists(document, "resourceMetrics"):
        for scope in _lists(group, "scopeMetrics"):
            for metric in _lists(scope, "metrics"):
                for kind in ("gauge", "sum", "histogram", "exponentialHistogram"):
                    body = metric.get(kind)
                    for point in _lists(body, "dataPoints") if isinstance(body, dict) else ():
                        for exemplar in _lists(point, "exemplars"):
                            _ids(exemplar, ("traceId", "spanId"))


def _lists(document: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = document.get(name)
    return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


def _ids(record: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        value = record.get(name)
        if isinstance(value, str):
            try:
                record[name] = base64.b64encode(binascii.unhexlify(value)).decode()
            except (binascii.Error, ValueError):
                raise RefusedError(400, f"{name} {value[:40]!r} is not hex digits") from None
