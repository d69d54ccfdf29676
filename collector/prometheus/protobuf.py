"""The protobuf exposition format, the one in which most clients offer native histograms, as prometheus_client's values.

The messages are those of io.prometheus.client (https://github.com/prometheus/client_model/blob/master/io/prometheus/client/metrics.proto);
only the fields that are read are declared here, so that no generated code is needed. Needs the extra `otlp`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import BucketSpan, NativeHistogram, Sample

_PACKAGE = "tailsight.prometheus"
_KINDS = ("counter", "gauge", "summary", "unknown", "histogram", "gaugehistogram")
_SCALARS = {"string": 9, "double": 1, "uint64": 4, "int64": 3, "uint32": 13, "sint32": 17, "sint64": 18, "enum": 5}
# message: {field: (number, type)}; * is repeated.
_MESSAGES: dict[str, dict[str, tuple[int, str]]] = {
    "Label": {"name": (1, "string"), "value": (2, "string")},
    "Value": {"value": (1, "double")},
    "Quantile": {"quantile": (1, "double"), "value": (2, "double")},
    "Summary": {"count": (1, "uint64"), "sum": (2, "double"), "quantile": (3, "*Quantile")},
    "Bucket": {"count": (1, "uint64"), "upper": (2, "double")},
    "Span": {"offset": (1, "sint32"), "length": (2, "uint32")},
    "Histogram": {
        "count": (1, "uint64"), "sum": (2, "double"), "bucket": (3, "*Bucket"), "schema": (5, "sint32"),
        "zero_threshold": (6, "double"), "zero_count": (7, "uint64"), "negative_span": (9, "*Span"),
        "negative_delta": (10, "*sint64"), "positive_span": (12, "*Span"), "positive_delta": (13, "*sint64"),
    },
    "Metric": {
        "label": (1, "*Label"), "gauge": (2, "Value"), "counter": (3, "Value"), "summary": (4, "Summary"),
        "untyped": (5, "Value"), "timestamp_ms": (6, "int64"), "histogram": (7, "Histogram"),
    },
    "MetricFamily": {"name": (1, "string"), "help": (2, "string"), "type": (3, "enum"), "metric": (4, "*Metric")},
}  # fmt: skip


def families(body: bytes) -> Iterator[Metric]:
    """The metric families of a delimited body. Raises ValueError for what is not one."""
    kind = _family()
    at = 0
    while at < len(body):
        size, at = _varint(body, at)
        if at + size > len(body):
            raise ValueError("a metric family is cut short")
        message = kind()
        try:
            message.ParseFromString(body[at : at + size])
        except DecodeError as error:
            raise ValueError(f"not a metric family: {error}") from None
        at += size
        yield _metric(message)


def _metric(family: Any) -> Metric:
    kind = _KINDS[family.type] if 0 <= family.type < len(_KINDS) else "unknown"
    name = family.name.removesuffix("_total") if kind == "counter" else family.name
    made = Metric(name, "", kind)
    for one in family.metric:
        labels = {label.name: label.value for label in one.label}
        when = one.timestamp_ms / 1e3 if one.timestamp_ms else None
        for sample in _samples(family.name, kind, one):
            made.samples.append(Sample(sample[0], labels | sample[1], sample[2], when, None, sample[3]))
    return made


def _samples(name: str, kind: str, one: Any) -> Iterator[tuple[str, dict[str, str], Any, Any]]:
    if kind in ("histogram", "gaugehistogram"):
        yield from _histogram(name, one.histogram)
    elif kind == "summary":
        for quantile in one.summary.quantile:
            yield name, {"quantile": str(quantile.quantile)}, quantile.value, None
        yield f"{name}_count", {}, one.summary.count, None
        yield f"{name}_sum", {}, one.summary.sum, None
    else:
        part = {"counter": one.counter, "gauge": one.gauge}.get(kind, one.untyped)
        yield name, {}, part.value, None


def _histogram(name: str, one: Any) -> Iterator[tuple[str, dict[str, str], Any, Any]]:
    if one.positive_span or one.negative_span or one.zero_count or one.zero_threshold:
        native = NativeHistogram(
            one.count, one.sum, one.schema, one.zero_threshold, one.zero_count,
            [BucketSpan(s.offset, s.length) for s in one.positive_span],
            [BucketSpan(s.offset, s.length) for s in one.negative_span],
            list(one.positive_delta), list(one.negative_delta),
        )  # fmt: skip
        yield name, {}, None, native
        return
    for bucket in one.bucket:
        yield f"{name}_bucket", {"le": str(bucket.upper)}, bucket.count, None
    yield f"{name}_bucket", {"le": "+Inf"}, one.count, None
    yield f"{name}_count", {}, one.count, None
    yield f"{name}_sum", {}, one.sum, None


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value, shift = 0, 0
    while at < len(body) and shift < 35:
        value |= (body[at] & 0x7F) << shift
        at += 1
        if not body[at - 1] & 0x80:
            return value, at
        shift += 7
    raise ValueError("a metric family does not say its length")


@cache
def _family() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="tailsight_prometheus.proto", package=_PACKAGE, syntax="proto2")
    for name, fields in _MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, (number, text) in fields.items():
            word = text.removeprefix("*")
            made = message.field.add(name=field, number=number, label=3 if text != word else 1)
            if word in _SCALARS:
                made.type = _SCALARS[word]
            else:
                made.type, made.type_name = 11, f".{_PACKAGE}.{word}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.MetricFamily"))
