"""Metrics: histograms of latencies as they are, gauges and sums as gauges, garbage collection by its names.

Histograms travel unchanged, cumulative ones too: the server makes intervals of them (analytics/histograms.py), so that
nothing depends on what this process remembers. Only rates of counters are made here.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import msgspec

from collector.keys import hash64
from collector.otlp.attributes import Resource, plain, text_of
from collector.otlp.rows import LabelSets, RecordError, Rows, Times
from collector.otlp.settings import OtlpSettings
from collector.record import GAUGES, HISTOGRAMS

UNITS_NS = {"s": 1e9, "ms": 1e6, "us": 1e3, "\u00b5s": 1e3, "\u03bcs": 1e3, "ns": 1.0, "min": 60e9}
_DELTA, _CUMULATIVE = 1, 2
_NO_VALUE = 1
_MAX_BUCKETS = 1_024
_MAX_STREAMS = 20_000
_NAME = 200
_HIGHEST_NS = 1 << 53
# Time in garbage collection, and how often, by the names that runtimes use (semantic conventions, and before them).
_GC_TIME = {
    "jvm.gc.duration", "process.runtime.jvm.gc.duration", "v8js.gc.duration", "nodejs.gc.duration",
    "dotnet.gc.pause.time", "process.runtime.dotnet.gc.duration", "process.runtime.go.gc.pause_ns",
    "process.runtime.go.gc.pause_total_ns", "go.gc.pause.duration", "cpython.gc.duration",
}  # fmt: skip
_GC_COUNT = {
    "dotnet.gc.collections", "cpython.gc.collections", "process.runtime.go.gc.count",
    "process.runtime.dotnet.gc.collections.count", "process.runtime.cpython.gc_count",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Change:
    """What a counter grew by, and in how long."""

    by: float
    ns: int

    @property
    def per_s(self) -> float:
        """Its rate."""
        return self.by * 1e9 / self.ns


class Rates:
    """Changes of counters: remembers the last point of every series, the most recent `limit` of them."""

    def __init__(self, limit: int = _MAX_STREAMS) -> None:
        self._limit = limit
        self._last: OrderedDict[int, tuple[int, float, int]] = OrderedDict()

    def cumulative(self, stream: int, ts_ns: int, value: float, start_ns: int) -> Change | None:
        """The change since the last point. None for the first one, for one out of order, and after a restart that does
        not say when the counter began."""
        before = self._last.get(stream)
        if before is not None and ts_ns <= before[0]:
            return None
        self._last[stream] = (ts_ns, value, start_ns)
        self._last.move_to_end(stream)
        if len(self._last) > self._limit:
            self._last.popitem(last=False)
        if before is None:
            return None
        if value < before[1] or start_ns > before[0]:  # the counter began again at start_ns
            return Change(value, ts_ns - start_ns) if before[0] <= start_ns < ts_ns else None
        return Change(value - before[1], ts_ns - before[0])


def interval_change(ts_ns: int, value: float, start_ns: int) -> Change | None:
    """What a delta point says of its own interval."""
    return Change(value, ts_ns - start_ns) if 0 < start_ns < ts_ns else None


class MetricMapper:
    """Maps `ExportMetricsServiceRequest`. Not thread-safe."""

    def __init__(self, settings: OtlpSettings, labels: LabelSets, times: Times, host: str) -> None:
        self._settings = settings
        self._labels = labels
        self._times = times
        self._host = host
        self._rates = Rates()

    def rows(self, request: Any, now_ns: int, error_ns: int | None) -> Rows:  # noqa: ARG002 - one signature for all
        """The rows of one export."""
        rows = Rows()
        for group in request.resource_metrics:
            try:
                who = Resource(group.resource, self._host, self._settings.attributes)
            except RecordError as error:
                rows.reject(
                    f"resource: {error}", sum(_points(m) for scope in group.scope_metrics for m in scope.metrics)
                )
                continue
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    self._metric(metric, who, rows, now_ns)
        return rows

    def _metric(self, metric: Any, who: Resource, rows: Rows, now_ns: int) -> None:
        kind = metric.WhichOneof("data")
        if kind is None:
            return
        data = getattr(metric, kind)
        name = metric.name[:_NAME]
        if kind == "summary":
            rows.reject("summaries: their quantiles cannot be merged", len(data.data_points))
            return
        if kind in ("histogram", "exponential_histogram") and metric.unit not in UNITS_NS:
            rows.reject("histograms without a unit of time (s, ms, us, ns)", len(data.data_points))
            return
        for point in data.data_points:
            if point.flags & _NO_VALUE:
                continue
            try:
                self._times.check(point.time_unix_nano, now_ns, "time_unix_nano")
                if not 0 <= point.start_time_unix_nano <= point.time_unix_nano:
                    raise RecordError("start_time_unix_nano lies after time_unix_nano")  # noqa: TRY301 - one handler
                if kind in ("gauge", "sum"):
                    self._number(point, name, metric.unit, data if kind == "sum" else None, who, rows)
                else:
                    self._histogram(point, name, metric.unit, data.aggregation_temporality, who, rows)
            except RecordError as error:
                rows.reject(str(error))

    def _number(self, point: Any, name: str, unit: str, total: Any, who: Resource, rows: Rows) -> None:
        value = float(getattr(point, point.WhichOneof("value") or "as_double"))
        if not math.isfinite(value):
            raise RecordError("a value that is not finite")
        given = plain(point.attributes, self._settings.attributes)
        ts_ns, start_ns = point.time_unix_nano, point.start_time_unix_nano
        labels = self._series(given, who, rows)
        rows.add(GAUGES, ts_ns, name, who.host, who.service, labels, value)
        if total is None or not total.is_monotonic:
            return
        if total.aggregation_temporality == _DELTA:
            change = interval_change(ts_ns, value, start_ns)
        else:
            change = self._rates.cumulative(_stream(who, name, given), ts_ns, value, start_ns)
        if change is None:
            return
        rows.add(GAUGES, ts_ns, f"{name}.rate", who.host, who.service, labels, change.per_s)
        if name in _GC_TIME:
            unit_ns = 1.0 if name.endswith("_ns") else UNITS_NS.get(unit, 1e9)
            self._collected("gc.pause", Change(change.by * unit_ns, change.ns), ts_ns, name, given, who, rows)
        elif name in _GC_COUNT:
            self._collected("gc.pauses", change, ts_ns, name, given, who, rows)

    def _histogram(self, point: Any, name: str, unit: str, temporality: int, who: Resource, rows: Rows) -> None:
        if temporality not in (_DELTA, _CUMULATIVE):
            raise RecordError("histograms without a temporality")
        unit_ns = UNITS_NS[unit]
        given = plain(point.attributes, self._settings.attributes)
        explicit = hasattr(point, "explicit_bounds")
        layout, counts = _explicit(point, unit_ns) if explicit else _exponential(point, unit_ns)
        stream = _stream(who, name, given)
        labels = self._series(given, who, rows)
        cumulative = temporality == _CUMULATIVE
        total = _ns(point.sum * unit_ns, "sum") if point.HasField("sum") else None
        ts_ns, start_ns = point.time_unix_nano, point.start_time_unix_nano
        rows.add(
            HISTOGRAMS, ts_ns, start_ns, who.host, who.service, name, stream, int(cumulative), point.count,
            None if total is None else float(total),
            _ns(point.min * unit_ns, "min") if point.HasField("min") else None,
            _ns(point.max * unit_ns, "max") if point.HasField("max") else None,
            labels, layout, counts,
        )  # fmt: skip
        if name in _GC_TIME and total is not None:
            for what, value in (("gc.pause", total), ("gc.pauses", point.count)):
                change = (
                    self._rates.cumulative(hash64("metric", f"{stream}/{what}"), ts_ns, value, start_ns)
                    if cumulative
                    else interval_change(ts_ns, value, start_ns)
                )
                if change is not None:
                    self._collected(what, change, ts_ns, name, given, who, rows)

    def _collected(
        self, what: str, change: Change, ts_ns: int, name: str, given: dict[str, Any], who: Resource, rows: Rows
    ) -> None:
        """Garbage collections of a period: its sum, with the metric that said so, and the share or rate."""
        labels = self._series(given | {"metric": name}, who, rows)
        if what == "gc.pause":
            rows.add(GAUGES, ts_ns, "gc.pause_ns", who.host, who.service, labels, change.by)
            rows.add(GAUGES, ts_ns, "gc.pause.share", who.host, who.service, labels, change.by / change.ns)
        else:
            rows.add(GAUGES, ts_ns, "gc.pauses", who.host, who.service, labels, change.by)
            rows.add(GAUGES, ts_ns, "gc.pauses.rate", who.host, who.service, labels, change.per_s)

    def _series(self, given: dict[str, Any], who: Resource, rows: Rows) -> int:
        labels = {name[:100]: text_of(value)[:200] for name, value in given.items()}
        labels |= {n: v for n, v in who.labels({}, self._settings.labels) if n not in labels}
        return self._labels.intern(labels.items(), rows)


def _points(metric: Any) -> int:
    kind = metric.WhichOneof("data")
    return len(getattr(metric, kind).data_points) if kind else 0


def _stream(who: Resource, name: str, given: dict[str, Any]) -> int:
    """The series' name: the same resource, metric and attributes are the same series."""
    text = msgspec.json.encode([sorted(who.known.items()), who.host, name, sorted(given.items())], enc_hook=str)
    return hash64("metric", text)


def _explicit(point: Any, unit_ns: float) -> tuple[str, str]:
    bounds, counts = list(point.explicit_bounds), list(point.bucket_counts)
    if len(counts) > _MAX_BUCKETS:
        raise RecordError(f"histograms with {len(counts)} buckets, at most {_MAX_BUCKETS} are taken")
    if not counts and not bounds:
        counts = [point.count]
    if len(counts) != len(bounds) + 1 or any(not math.isfinite(b) for b in bounds):
        raise RecordError("histograms whose bounds and counts do not fit")
    if any(a >= b for a, b in itertools.pairwise(bounds)) or sum(counts) != point.count:
        raise RecordError("histograms whose bounds do not rise or whose counts do not sum to their count")
    edges = [_ns(b * unit_ns, "a bound") for b in bounds]
    return msgspec.json.encode({"bounds": edges}).decode(), msgspec.json.encode(counts).decode()


def _exponential(point: Any, unit_ns: float) -> tuple[str, str]:
    positive, negative = point.positive, point.negative
    if len(positive.bucket_counts) + len(negative.bucket_counts) > _MAX_BUCKETS:
        raise RecordError(f"histograms with more than {_MAX_BUCKETS} buckets")
    if not -10 <= point.scale <= 20 or any(abs(each.offset) > 1 << 30 for each in (positive, negative)):
        raise RecordError("exponential histograms whose scale or offset is out of range")
    total = point.zero_count + sum(positive.bucket_counts) + sum(negative.bucket_counts)
    if total != point.count:
        raise RecordError("histograms whose counts do not sum to their count")
    zero = _ns(point.zero_threshold * unit_ns, "zero_threshold")
    layout = {"scale": point.scale, "unit_ns": unit_ns, "zero": zero}
    counts = {
        "zero": point.zero_count,
        "positive": [positive.offset, list(positive.bucket_counts)],
        "negative": [negative.offset, list(negative.bucket_counts)],
    }
    return msgspec.json.encode(layout).decode(), msgspec.json.encode(counts).decode()


def _ns(value: float, what: str) -> int:
    if not math.isfinite(value) or abs(value) > _HIGHEST_NS * 1e6:
        raise RecordError(f"histograms where {what} is not a time")
    return round(value)
