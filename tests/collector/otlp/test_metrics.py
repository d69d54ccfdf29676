"""Metrics as rows: what is refused, rates with resets, garbage collection by its names."""

from __future__ import annotations

import time
from typing import Any

from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2 as metrics

from collector.otlp.metrics import Change, MetricMapper, Rates
from collector.otlp.rows import LabelSets, Rows, Times
from collector.otlp.settings import OtlpSettings

S = 1_000_000_000
NOW = time.time_ns()


def mapped(*batches: list[dict[str, Any]]) -> Rows:
    settings = OtlpSettings()
    mapper = MetricMapper(settings, LabelSets(100), Times(settings), "here")
    rows = Rows()
    for batch in batches:
        from google.protobuf import json_format

        request = metrics.ExportMetricsServiceRequest()
        json_format.ParseDict({"resourceMetrics": [{"scopeMetrics": [{"metrics": batch}]}]}, request)
        made = mapper.rows(request, NOW, None)
        for name, found in made.tables.items():
            rows.tables[name] += found
        rows.kinds |= made.kinds
        rows.rejected += made.rejected
        rows.reasons |= made.reasons
    rows.columns()
    return rows


def gauges(rows: Rows) -> list[tuple[str, float]]:
    return [(row[1], row[5]) for row in rows.tables["gauges"]]


def number(value: float, at_s: float = 0, start_s: float = -100) -> dict[str, Any]:
    times = {"timeUnixNano": str(NOW + round(at_s * S)), "startTimeUnixNano": str(NOW + round(start_s * S))}
    return {"asDouble": value, **times}


def counter(name: str, unit: str, *points: dict[str, Any], temporality: int = 2) -> dict[str, Any]:
    return {
        "name": name, "unit": unit,
        "sum": {"isMonotonic": True, "aggregationTemporality": temporality, "dataPoints": list(points)},
    }  # fmt: skip


def histogram(unit: str = "s", **point: Any) -> dict[str, Any]:
    body = {"count": "2", "bucketCounts": ["1", "1"], "explicitBounds": [0.1], **number(0), **point}
    del body["asDouble"]
    return {"name": "h", "unit": unit, "histogram": {"aggregationTemporality": 1, "dataPoints": [body]}}


def test_rates_of_counters_survive_resets_and_disorder() -> None:
    rates = Rates(limit=2)
    assert rates.cumulative(1, 10 * S, 5, 1) is None
    assert rates.cumulative(1, 20 * S, 25, 1) == Change(20, 10 * S)
    assert rates.cumulative(1, 15 * S, 9, 1) is None, "out of order"
    assert rates.cumulative(1, 30 * S, 4, 22 * S) == Change(4, 8 * S), "began again at 22 s"
    assert rates.cumulative(1, 40 * S, 1, 1) is None, "fell, and does not say since when"
    assert rates.cumulative(1, 50 * S, 11, 1) == Change(10, 10 * S)
    assert Change(10, 20 * S).per_s == 0.5
    rates.cumulative(2, S, 1, 0)
    rates.cumulative(3, S, 1, 0)
    assert rates.cumulative(1, 60 * S, 21, 1) is None, "forgotten: there is room for two"


def test_counters_and_collections_become_gauges() -> None:
    rows = mapped(
        [
            counter("dotnet.gc.pause.time", "s", number(1.0, -10)),
            counter("orders", "1", number(6, -10, -12), temporality=1),
        ],
        [counter("dotnet.gc.pause.time", "s", number(1.5, 0))],
        [counter("dotnet.gc.collections", "1", number(1, -10)), counter("dotnet.gc.collections", "1", number(3, 0))],
        [{"name": "lag", "gauge": {"dataPoints": [{"asInt": "4", "timeUnixNano": str(NOW)}]}}],
    )
    assert gauges(rows) == [
        ("dotnet.gc.pause.time", 1.0), ("orders", 6.0), ("orders.rate", 3.0), ("dotnet.gc.pause.time", 1.5),
        ("dotnet.gc.pause.time.rate", 0.05), ("gc.pause_ns", 5e8), ("gc.pause.share", 0.05),
        ("dotnet.gc.collections", 1.0), ("dotnet.gc.collections", 3.0), ("dotnet.gc.collections.rate", 0.2),
        ("gc.pauses", 2.0), ("gc.pauses.rate", 0.2), ("lag", 4.0),
    ]  # fmt: skip


def test_what_cannot_be_kept_is_rejected_with_its_reason() -> None:
    rows = mapped([
        histogram(), histogram(unit="By"), histogram(count="5"), histogram(explicitBounds=[0.1, 0.2]),
        histogram(bucketCounts=["1", "0", "1"], explicitBounds=[2, 1]), histogram(sum="NaN"), histogram(max=1e300),
        histogram(bucketCounts=["0"] * 2_000), histogram(timeUnixNano="5"),
        {"name": "s", "summary": {"dataPoints": [{"timeUnixNano": str(NOW)}]}},
        {"name": "g", "gauge": {"dataPoints": [number(1) | {"asDouble": "NaN"}, number(1, 0, 5)]}},
        {"name": "e", "unit": "s", "exponentialHistogram": {"aggregationTemporality": 1, "dataPoints": [
            {"timeUnixNano": str(NOW), "count": "3", "scale": 99, "zeroCount": "3"},
            {"timeUnixNano": str(NOW), "count": "3", "scale": 3, "zeroCount": "1"},
            {"timeUnixNano": str(NOW), "count": "1", "scale": 3, "zeroCount": "1"},
        ]}},
    ])  # fmt: skip
    assert len(rows.tables["histograms"]) == 2
    assert rows.rejected == 13
    for word in ("unit of time", "sum to their count", "do not fit", "do not rise", "is not a time", "2000 buckets",
                 "max_past", "summaries", "not finite", "after time_unix_nano", "out of range"):  # fmt: skip
        assert any(word in reason for reason in rows.reasons), (word, rows.reasons)


def test_a_resource_that_is_refused_takes_all_its_points_along() -> None:
    settings = OtlpSettings(attributes=1)
    mapper = MetricMapper(settings, LabelSets(100), Times(settings), "here")
    request = metrics.ExportMetricsServiceRequest()
    group = request.resource_metrics.add()
    for name in ("a", "b"):
        group.resource.attributes.add(key=name)
        group.scope_metrics.add().metrics.add(name=name).gauge.data_points.add(as_int=1)
    rows = mapper.rows(request, NOW, None)
    assert rows.rejected == 2 and not rows.tables
