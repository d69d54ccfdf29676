"""Scraped families as rows: gauges as they are, counters with rates, histograms of time as the OTLP ones.

Classic and native histograms are cumulative and do not say since when: the first scrape of a series is its base.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import NativeHistogram, Sample

from collector.keys import hash64
from collector.otlp.metrics import Rates
from collector.otlp.rows import LabelSets, Rows
from collector.record import GAUGES, HISTOGRAMS

_TIME = {"_seconds": 1e9, "_milliseconds": 1e6, "_microseconds": 1e3, "_nanoseconds": 1.0}
_MAX_BUCKETS = 1_024
_NAME, _TEXT = 200, 200


@dataclass(frozen=True, slots=True)
class Scraped:
    """Where some families are from and when they were asked for."""

    host: str
    service: str
    instance: str
    ts_ns: int
    stale_ns: int


@dataclass(slots=True)
class _Classic:
    buckets: dict[float, float] = field(default_factory=dict)
    count: float | None = None
    total: float | None = None


class SampleMapper:
    """Turns families into rows. Not thread-safe: it remembers the last point of every counter."""

    def __init__(self, labels: LabelSets) -> None:
        self._labels = labels
        self._rates = Rates()

    def rows(self, families: Iterable[Metric], of: Scraped, max_samples: int) -> tuple[Rows, int]:
        """The rows of one scrape, and how many samples it had.

        Raises ValueError when the body is no exposition, or has more than `max_samples`.
        """
        rows = Rows()
        seen = 0
        for family in families:
            seen += len(family.samples)
            if seen > max_samples:
                raise ValueError(f"more than {max_samples} samples (max_samples)")
            fresh = [s for s in family.samples if not _is_stale(s, of)]
            if len(fresh) < len(family.samples):
                rows.note("samples older than `stale` were left out")
            if family.type == "histogram":
                self._histograms(family.name, fresh, of, rows)
            elif family.type not in ("info", "stateset"):
                for sample in fresh:
                    self._number(sample, family.type, of, rows)
        return rows, seen

    def _number(self, sample: Sample, kind: str, of: Scraped, rows: Rows) -> None:
        if sample.value is None or not math.isfinite(sample.value) or sample.name.endswith("_created"):
            return  # a summary without observations has NaN quantiles
        ts_ns = _ts_ns(sample, of)
        labels = self._series(sample.labels, of, rows)
        rows.add(GAUGES, ts_ns, sample.name[:_NAME], of.host, of.service, labels, float(sample.value))
        if kind == "counter" or (kind == "summary" and "quantile" not in sample.labels):
            stream = _stream(of, sample.name, sample.labels)
            change = self._rates.cumulative(stream, ts_ns, float(sample.value), 0)
            if change is not None:
                rows.add(GAUGES, ts_ns, f"{sample.name[:_NAME]}.rate", of.host, of.service, labels, change.per_s)

    def _histograms(self, name: str, samples: list[Sample], of: Scraped, rows: Rows) -> None:
        unit_ns = next((ns for suffix, ns in _TIME.items() if name.endswith(suffix)), None)
        classic: dict[tuple[tuple[str, str], ...], _Classic] = defaultdict(_Classic)
        for sample in samples:
            labels = {k: v for k, v in (sample.labels or {}).items() if k != "le"}
            if sample.native_histogram is not None:
                if unit_ns is not None:
                    self._native(name, labels, sample.native_histogram, unit_ns, of, rows)
                continue
            one = classic[tuple(sorted(labels.items()))]
            if sample.name.endswith("_bucket"):
                one.buckets[float(sample.labels["le"])] = sample.value
            elif sample.name.endswith("_count"):
                one.count = sample.value
            elif sample.name.endswith("_sum"):
                one.total = sample.value
        for pairs, one in classic.items():
            if unit_ns is not None and one.buckets:
                self._classic(name, dict(pairs), one, unit_ns, of, rows)
            elif one.count is not None:  # of something else than time: how often it happens
                self._number(Sample(f"{name}_count", dict(pairs), one.count), "counter", of, rows)

    def _classic(
        self, name: str, labels: dict[str, str], one: _Classic, unit_ns: float, of: Scraped, rows: Rows
    ) -> None:
        bounds = sorted(one.buckets)
        below = [one.buckets[b] for b in bounds]
        counts = [b - a for a, b in zip([0.0, *below], below, strict=False)]
        if bounds[-1] != math.inf or len(bounds) > _MAX_BUCKETS or any(n < 0 or n != int(n) for n in counts):
            raise ValueError(f"the buckets of {name} do not rise to +Inf, are no counts, or are over {_MAX_BUCKETS}")
        layout = {"bounds": [_ns(b * unit_ns, name) for b in bounds[:-1]]}
        self._add(name, labels, layout, [int(n) for n in counts], int(below[-1]), one.total, unit_ns, of, rows)

    def _native(
        self, name: str, labels: dict[str, str], one: NativeHistogram, unit_ns: float, of: Scraped, rows: Rows
    ) -> None:
        if not -4 <= one.schema <= 8:
            rows.note(f"native histograms of schema {one.schema} were left out")
            return
        positive = _dense(one.pos_spans or (), one.pos_deltas or ())
        negative = _dense(one.neg_spans or (), one.neg_deltas or ())
        # Bucket i is (b^(i-1), b^i] here and (b^i, b^(i+1)] in the exponential histogram.
        counts = {"zero": int(one.zero_count), "positive": positive, "negative": negative}
        layout = {"scale": one.schema, "unit_ns": unit_ns, "zero": _ns(one.zero_threshold * unit_ns, name)}
        self._add(name, labels, layout, counts, int(one.count_value), one.sum_value, unit_ns, of, rows)

    def _add(
        self, name: str, labels: dict[str, str], layout: Any, counts: Any, n: int, total: float | None,
        unit_ns: float, of: Scraped, rows: Rows,
    ) -> None:  # fmt: skip
        total_ns = total * unit_ns if total is not None and math.isfinite(total) else None
        rows.add(
            HISTOGRAMS, of.ts_ns, 0, of.host, of.service, name[:_NAME], _stream(of, name, labels), 1, n, total_ns,
            None, None, self._series(labels, of, rows), msgspec.json.encode(layout).decode(),
            msgspec.json.encode(counts).decode(),
        )  # fmt: skip

    def _series(self, labels: Mapping[str, str], of: Scraped, rows: Rows) -> int:
        named = {name[:100]: value[:_TEXT] for name, value in labels.items()}
        return self._labels.intern({**named, "instance": of.instance}.items(), rows)


def _dense(spans: Iterable[Any], deltas: Iterable[int]) -> list[Any]:
    """[offset, counts] of a native histogram's spans and deltas. Raises ValueError when they do not fit."""
    places: list[int] = []
    at = 0
    for span in spans:
        at += span.offset
        if span.length > _MAX_BUCKETS - len(places):
            raise ValueError(f"a native histogram has more than {_MAX_BUCKETS} buckets")
        places += range(at, at + span.length)
        at += span.length
    numbers: list[int] = []
    count = 0
    for delta in deltas:
        count += int(delta)
        numbers.append(count)
    if len(numbers) != len(places) or min(numbers, default=0) < 0:
        raise ValueError("a native histogram's spans and deltas do not fit")
    if places and places[-1] - places[0] > 16 * _MAX_BUCKETS:
        raise ValueError("a native histogram's buckets lie too far apart")
    have = dict(zip(places, numbers, strict=True))
    low = min(places, default=1)
    return [low - 1, [have.get(i, 0) for i in range(low, max(places, default=0) + 1)]]


def _is_stale(sample: Sample, of: Scraped) -> bool:
    return sample.timestamp is not None and _ts_ns(sample, of) < of.ts_ns - of.stale_ns


def _ts_ns(sample: Sample, of: Scraped) -> int:
    if sample.timestamp is None:
        return of.ts_ns
    seconds = float(sample.timestamp)
    return min(round(seconds * 1e9), of.ts_ns) if math.isfinite(seconds) else of.ts_ns


def _ns(value: float, name: str) -> int:
    if not math.isfinite(value) or abs(value) > 1e22:
        raise ValueError(f"a bound of {name} is not a time")
    return round(value)


def _stream(of: Scraped, name: str, labels: Mapping[str, str]) -> int:
    text = msgspec.json.encode([of.instance, of.service, name, sorted(labels.items())])
    return hash64("prometheus", text)
