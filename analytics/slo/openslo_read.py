"""OpenSLO v1 documents read into the values of `analytics.slo.openslo`, every problem with its file and line."""

from __future__ import annotations

import zoneinfo
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from analytics.slo.document import DocumentError, Node, documents
from analytics.slo.fields import Fields
from analytics.slo.openslo import (
    API_VERSION,
    KINDS,
    Condition,
    DataSource,
    Indicator,
    Meta,
    MetricSource,
    Object,
    Policy,
    Problem,
    Service,
    Slo,
    SloTarget,
    Target,
    TimeWindow,
)

MAX_OBJECTS = 20_000
_OPS = ("lte", "gte", "lt", "gt")
_METHODS = ("Occurrences", "Timeslices", "RatioTimeslices")


@dataclass(frozen=True, slots=True)
class Read:
    """What was read: objects in order, and every problem. An object with an error in it is left out."""

    objects: tuple[Object, ...]
    problems: tuple[Problem, ...]


def read(text: str, file: str = "") -> Read:
    """Read a YAML stream of documents, each one object or a list of them. Never raises on bad input."""
    problems: list[Problem] = []
    try:
        roots = documents(text)
    except DocumentError as error:
        return Read((), (Problem(error.line, "YAML", error.problem, "error", file),))
    nodes: list[Node] = []
    for root in roots:
        nodes += root.value if isinstance(root.value, list) else [root] if root.value is not None else []
    if len(nodes) > MAX_OBJECTS:
        return Read((), (Problem(1, "YAML", f"more than {MAX_OBJECTS} objects; split the file", "error", file),))
    found: list[Object] = []
    for node in nodes:
        before = sum(p.severity == "error" for p in problems)
        one = _object(node, problems, file)
        if one is not None and sum(p.severity == "error" for p in problems) == before:
            found.append(one)
    return Read(tuple(found), tuple(problems))


def read_all(files: Sequence[tuple[str, str]]) -> Read:
    """Several files, given as (name, text), as one set of objects."""
    parts = [read(text, name) for name, text in files]
    return Read(tuple(o for part in parts for o in part.objects), tuple(p for part in parts for p in part.problems))


def _object(node: Node, problems: list[Problem], file: str) -> Object | None:
    fields = Fields(node, "document", problems, file)
    if not isinstance(node.value, dict):
        return None
    version = fields.text("apiVersion", required=True)
    kind = fields.text("kind", required=True)
    if version.startswith("openslo/") and version != API_VERSION:
        fields.problem("apiVersion", f"{version} is not read; write it as {API_VERSION}")
        return None
    if version and version != API_VERSION:
        fields.problem("apiVersion", f"must be {API_VERSION}, got {version!r}")
        return None
    if kind not in KINDS:
        if kind:
            fields.problem("kind", f"{kind!r} is no kind of {API_VERSION}; there are {', '.join(KINDS)}")
        return None
    meta = _meta(fields, kind)
    fields.where = meta.where
    spec = fields.inner("spec", required=True)
    fields.done()
    if spec is None or not isinstance(spec.node.value, dict):
        return None
    made = _of_kind(kind, meta, spec)
    spec.done()
    return made


def _of_kind(kind: str, meta: Meta, spec: Fields) -> Object | None:
    match kind:
        case "Service":
            return Service(meta, spec.text("description"))
        case "DataSource":
            spec.text("description")
            spec.node_of("connectionDetails", required=True)
            return DataSource(meta, spec.text("type", required=True))
        case "SLI":
            return _indicator(meta, spec)
        case "AlertCondition":
            return _condition(meta, spec)
        case "AlertNotificationTarget":
            return Target(meta, spec.text("description"), spec.text("target", required=True))
        case "AlertPolicy":
            return _policy(meta, spec)
        case _:
            return _slo(meta, spec)


def _meta(fields: Fields, kind: str, *, named: bool = True) -> Meta:
    inner = fields.inner("metadata", required=named)
    if inner is None:
        return Meta(kind, "", "", {}, {}, fields.node.line, fields.file)
    name = inner.name(required=named)
    shown = inner.text("displayName", longest=200)
    annotations: dict[str, str] = {}
    given = inner.node_of("annotations")
    if given is not None:
        below = Fields(given, f"{inner.where}.annotations", inner._problems, fields.file)
        annotations = {key: below.text(key, longest=65_536) for key in given.keys}
    labels: dict[str, tuple[str, ...]] = {}
    given = inner.node_of("labels")
    if given is not None:
        below = Fields(given, f"{inner.where}.labels", inner._problems, fields.file)
        for key in given.keys:
            one = given.get(key)
            labels[key] = below.texts(key) if one and isinstance(one.value, list) else (below.text(key),)
    inner.done()
    return Meta(kind, name, shown, labels, annotations, fields.node.line, fields.file)


def _source(parent: Fields, name: str) -> MetricSource | None:
    outer = parent.inner(name)
    return None if outer is None else _metric_source(outer)


def _metric_source(outer: Fields) -> MetricSource | None:
    inner = outer.inner("metricSource", required=True)
    outer.done()
    if inner is None:
        return None
    spec = inner.node_of("spec", required=True)
    made = MetricSource(inner.text("type"), inner.text("metricSourceRef"), spec, inner.node.line)
    inner.done()
    return made


def _indicator(meta: Meta, spec: Fields) -> Indicator | None:
    description = spec.text("description")
    ratio, threshold = spec.inner("ratioMetric"), spec.inner("thresholdMetric")
    if (ratio is None) == (threshold is None):
        spec.problem("", "needs exactly one of ratioMetric and thresholdMetric")
        return None
    if threshold is not None:
        source = _metric_source(threshold)
        return None if source is None else Indicator(meta, description, threshold=source)
    assert ratio is not None  # noqa: S101 - one of the two is there
    counter = ratio.flag("counter")
    good, bad, total, raw = (_source(ratio, name) for name in ("good", "bad", "total", "raw"))
    raw_type = ratio.text("rawType", among=("success", "failure"))
    ratio.done()
    if raw is not None:
        if good or bad or total:
            ratio.problem("raw", "excludes good, bad and total")
            return None
        if not raw_type:
            ratio.problem("rawType", "is required with raw: success or failure")
            return None
        kind = cast(Any, raw_type)
        return Indicator(meta, description, raw=raw, raw_type=kind, counter=counter)
    if (good is None) == (bad is None):
        ratio.problem("", "needs exactly one of good and bad, or raw")
        return None
    if total is None:
        ratio.problem("total", "is required with good or bad")
        return None
    return Indicator(meta, description, good=good, bad=bad, total=total, counter=counter)


def _condition(meta: Meta, spec: Fields) -> Condition | None:
    description, severity = spec.text("description"), spec.text("severity", required=True)
    inner = spec.inner("condition", required=True)
    if inner is None:
        return None
    kind = inner.text("kind", required=True, among=("burnrate",))
    op = inner.text("op", required=True, among=_OPS)
    threshold = inner.number("threshold", required=True)
    lookback = inner.seconds("lookbackWindow", required=True)
    after = inner.seconds("alertAfter", 0, zero=True)
    inner.done()
    if threshold is None or not op:
        return None
    return Condition(meta, description, severity, kind, cast(Any, op), threshold, lookback, after)


def _policy(meta: Meta, spec: Fields) -> Policy | None:
    description = spec.text("description")
    no_data, resolved = spec.flag("alertWhenNoData"), spec.flag("alertWhenResolved")
    breaching = spec.flag("alertWhenBreaching")
    conditions = spec.items("conditions", required=True)
    if len(conditions) != 1:
        spec.problem("conditions", f"must hold exactly one condition, got {len(conditions)}")
        return None
    condition = _reference(spec.of(conditions[0], "conditions", 0), "conditionRef", "AlertCondition")
    targets = [
        _reference(spec.of(item, "notificationTargets", i), "targetRef", "AlertNotificationTarget")
        for i, item in enumerate(spec.items("notificationTargets", required=True))
    ]
    if condition is None or None in targets:
        return None
    return Policy(meta, description, cast(Any, condition), tuple(cast(Any, targets)), no_data, resolved, breaching)


def _reference(fields: Fields, ref: str, kind: str) -> Object | str | None:
    """An object given inline, or the name of one that is given elsewhere."""
    name = fields.text(ref)
    if name:
        fields.done()
        return name
    if not fields.has("spec"):
        fields.problem("", f"needs {ref}, or a whole {kind}")
        return None
    given = fields.text("kind")
    if given and given != kind:
        fields.problem("kind", f"must be {kind}, got {given!r}")
    fields.text("apiVersion")
    meta = _meta(fields, kind)
    spec = fields.inner("spec", required=True)
    fields.done()
    if spec is None:
        return None
    made = _of_kind(kind, meta, spec)
    spec.done()
    return made


def _slo(meta: Meta, spec: Fields) -> Slo | None:
    description, service = spec.text("description"), spec.text("service", required=True)
    indicator = _slo_indicator(spec, "indicator", "indicatorRef")
    method = spec.text("budgetingMethod", required=True, among=_METHODS)
    windows = spec.items("timeWindow", required=True)
    if len(windows) != 1:
        spec.problem("timeWindow", f"must hold exactly one window, got {len(windows)}")
        return None
    window = _window(spec.of(windows[0], "timeWindow", 0))
    objectives = [
        one
        for i, item in enumerate(spec.items("objectives", required=True))
        if (one := _objective(spec.of(item, "objectives", i), method)) is not None
    ]
    if not objectives and not spec.items("objectives"):
        spec.problem("objectives", "must hold at least one objective")
    policies: list[Policy | str] = []
    for i, item in enumerate(spec.items("alertPolicies")):
        if isinstance(item.value, str):  # the form of the specification's first text
            policies.append(item.value)
        elif (one_policy := _reference(spec.of(item, "alertPolicies", i), "alertPolicyRef", "AlertPolicy")) is not None:
            policies.append(cast(Any, one_policy))
    if indicator is None and not all(one.indicator for one in objectives):
        spec.problem("", "needs an indicator or an indicatorRef, here or in every objective")
    if window is None or not method or not objectives:
        return None
    return Slo(meta, description, service, indicator, window, cast(Any, method), tuple(objectives), tuple(policies))


def _slo_indicator(spec: Fields, inline: str, reference: str) -> Indicator | str | None:
    ref = spec.text(reference)
    inner = spec.inner(inline)
    if ref and inner is not None:
        spec.problem(reference, f"excludes {inline}")
    if inner is None:
        return ref or None
    meta = _meta(inner, "SLI", named=False)
    inner.text("kind")
    inner.text("apiVersion")
    below = inner.inner("spec", required=True)
    inner.done()
    if below is None:
        return None
    made = _indicator(meta, below)
    below.done()
    return made


def _window(fields: Fields) -> TimeWindow | None:
    count, unit = fields.shorthand("duration")
    rolling = fields.flag("isRolling")
    calendar = fields.inner("calendar")
    start = zone = ""
    if rolling and calendar is not None:
        fields.problem("calendar", "excludes isRolling: true")
    if not rolling and calendar is None:
        fields.problem("calendar", "is required when isRolling is not true")
    if calendar is not None:
        start, zone = calendar.text("startTime", required=True), calendar.text("timeZone", required=True)
        calendar.done()
        try:
            if start:
                datetime.fromisoformat(start)
        except ValueError:
            calendar.problem("startTime", f"{start!r} is not a time; write 2026-01-01 12:00:00")
        try:
            if zone:
                zoneinfo.ZoneInfo(zone)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):
            calendar.problem("timeZone", f"{zone!r} is no time zone; write one of the tz database, Europe/Zurich")
    if rolling and unit in ("M", "Q", "Y"):
        fields.problem("duration", f"a rolling window of {count}{unit} has no fixed length; write days, such as 30d")
    fields.done()
    return TimeWindow(count, unit, rolling, start, zone, fields.node.line) if unit else None


def _objective(fields: Fields, method: str) -> SloTarget | None:
    shown = fields.text("displayName", longest=200)
    target, percent = fields.number("target"), fields.number("targetPercent")
    op, value = fields.text("op", among=_OPS), fields.number("value")
    slice_target, slice_s = fields.number("timeSliceTarget"), fields.seconds("timeSliceWindow")
    weight = fields.number("compositeWeight")
    indicator = _slo_indicator(fields, "indicator", "indicatorRef")
    fields.done()
    if (target is None) == (percent is None):
        fields.problem("target", "needs exactly one of target and targetPercent")
        return None
    share = target if target is not None else cast(float, percent) / 100
    name, top = ("target", "1") if target is not None else ("targetPercent", "100")
    if not 0 <= share < 1:
        fields.problem(name, f"must be at least 0 and below {top}: without an error budget there is nothing to burn")
        return None
    slices = method in ("Timeslices", "RatioTimeslices")
    if slices and not slice_s:
        fields.problem("timeSliceWindow", f"is required with {method}")
    if method == "Timeslices" and slice_target is None:
        fields.problem("timeSliceTarget", "is required with Timeslices")
    if slice_target is not None and not 0 < slice_target <= 1:
        fields.problem("timeSliceTarget", f"must be above 0 and at most 1, got {slice_target:g}")
    if not slices and (slice_target is not None or slice_s):
        fields.problem("timeSliceTarget", "belongs to Timeslices")
    return SloTarget(
        shown, share, cast(Any, op or None), value, slice_target, slice_s or None, weight, indicator, fields.node.line
    )


@dataclass(frozen=True, slots=True)
class Source:
    """One object as it was written, without places."""

    kind: str
    name: str
    body: Any


def sources(text: str) -> list[Source]:
    """The objects of a YAML stream one by one, to be kept and read again. Raises DocumentError."""
    found = []
    for root in documents(text):
        nodes = root.value if isinstance(root.value, list) else [root]
        for node in nodes:
            meta, kind = node.get("metadata"), node.get("kind")
            name = meta.get("name") if meta is not None else None
            if kind is not None and name is not None:
                found.append(Source(str(kind.value), str(name.value), node.plain()))
    return found
