"""What an objective counts: the typed indicators of a metric source of type `tailsight`, read with line numbers.

    metricSource:
      type: tailsight
      spec:
        latency: {path: order, stage: decide, threshold: 150us}

Every indicator turns into good and total counts per 10 s window (`analytics.slo.counting`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import msgspec

from analytics.slo.fields import Fields
from collector.settings import ConfigError, duration_ns

Op = Literal["lte", "gte", "lt", "gt"]
OPS: tuple[Op, ...] = ("lte", "gte", "lt", "gt")
BAD_OUTCOMES = ("error", "rejected", "shed", "timeout")
FEED_BAD = ("missing", "divergent", "late", "duplicates", "out_of_order", "errors", "kernel_drops")
FLOW_BAD = ("retransmissions", "fast_retransmissions", "spurious_retransmissions", "out_of_order", "lost_segments",
            "duplicate_acks", "zero_windows")  # fmt: skip
REDUCE = ("each", "mean", "sum")
MAX_SIDES = 8


@dataclass(frozen=True, slots=True)
class Latency:
    """Messages whose stage took at most `threshold_ns`; those that never finished are bad, or not counted."""

    path: str
    stage: str
    threshold_ns: int
    rollup: str = ""
    unfinished_bad: bool = True
    op: Op = "lte"


@dataclass(frozen=True, slots=True)
class Maximum:
    """Windows of 10 s with messages, good when the slowest took at most `threshold_ns`."""

    path: str
    stage: str
    threshold_ns: int
    rollup: str = ""
    op: Op = "lte"


@dataclass(frozen=True, slots=True)
class Errors:
    """Messages that ended well: bad are those with an outcome of `bad`, and with `unfinished` those that never did."""

    path: str
    bad: tuple[str, ...] = BAD_OUTCOMES
    unfinished: bool = True
    rollup: str = ""


@dataclass(frozen=True, slots=True)
class Gauge:
    """Windows of 10 s of each series with readings, good when each reading (or their mean or sum) holds `op value`."""

    name: str
    op: Op
    value: float
    reduce: str = "each"
    host: str = ""
    service: str = ""


@dataclass(frozen=True, slots=True)
class Feed:
    """Messages of a feed channel after arbitration (or of one line); bad by one of the feeds' counters."""

    channel: str
    bad: str = "missing"
    line: str = ""


@dataclass(frozen=True, slots=True)
class Flow:
    """Packets that the taps saw; bad by one of the TCP analysis's counters."""

    bad: str = "retransmissions"
    host: str = ""
    tap: str = ""


@dataclass(frozen=True, slots=True)
class Kpi:
    """Business results: events by a ratio's own numerator and denominator, or each value that holds `op value`."""

    name: str
    cohort: str = ""
    channel: str = ""
    region: str = ""
    offer: str = ""
    op: Op | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Completeness:
    """Events that the collectors produced; bad are those dropped or quarantined."""


@dataclass(frozen=True, slots=True)
class Combined:
    """Several at once: good when all sides are (`all_of`), or when any is (`any_of`: bad only when all are bad).

    Sides of messages of one path are joined message by message. Others are joined by 10 s window: a side is good in a
    window when at most `bad_share` of its events there are bad.
    """

    every: bool
    sides: tuple[Any, ...]
    bad_share: float = 0.0


Indicator = Latency | Maximum | Errors | Gauge | Feed | Flow | Kpi | Completeness | Combined
KINDS = ("latency", "max", "errors", "gauge", "feed", "flow", "kpi", "completeness", "all_of", "any_of")


def path_of(one: Indicator) -> str | None:
    """The path whose messages are counted one by one; None for what is not about messages of one path."""
    if isinstance(one, Latency | Errors):
        return one.path
    if isinstance(one, Combined):
        paths = {path_of(side) for side in one.sides}
        return paths.pop() if len(paths) == 1 else None
    return None


def canonical(one: Indicator) -> str:
    """The same text for the same counts: what an objective's version is made of."""
    return type(one).__name__.lower() + msgspec.json.encode(one, order="deterministic").decode()


def describe(one: Indicator) -> str:
    """One line for people."""
    match one:
        case Latency():
            return f"{one.path}.{one.stage} <= {_ns(one.threshold_ns)}" + _of(one.rollup)
        case Maximum():
            return f"max of {one.path}.{one.stage} <= {_ns(one.threshold_ns)} per 10 s" + _of(one.rollup)
        case Errors():
            return f"{one.path} without {', '.join((*one.bad, *(('unfinished',) if one.unfinished else ())))}"
        case Gauge():
            by = "" if one.reduce == "each" else f"{one.reduce} of "
            return f"{by}{one.name} {_SIGN[one.op]} {one.value:g} per 10 s" + _of(one.host)
        case Feed():
            return f"feed {one.channel}{'/' + one.line if one.line else ''} without {one.bad}"
        case Flow():
            return f"packets without {one.bad}" + _of(one.tap or one.host)
        case Kpi():
            holds = f" {_SIGN[one.op]} {one.value:g}" if one.op is not None else ""
            return f"KPI {one.name}{holds}" + _of(
                ", ".join(filter(None, (one.cohort, one.channel, one.region, one.offer)))
            )
        case Completeness():
            return "events that were neither dropped nor quarantined"
        case Combined():
            return (" and " if one.every else " or ").join(f"({describe(side)})" for side in one.sides)


_SIGN = {"lte": "<=", "gte": ">=", "lt": "<", "gt": ">"}


def _ns(value: int) -> str:
    for unit, size in (("s", 10**9), ("ms", 10**6), ("us", 10**3)):
        if value >= size and value % (size // 1000 or 1) == 0:
            return f"{value / size:g} {unit}"
    return f"{value} ns"


def _of(what: str) -> str:
    return f" ({what})" if what else ""


def read_indicator(spec: Fields, op: Op | None, value: float | None, depth: int = 0) -> Indicator | None:
    """The indicator of a `tailsight` spec; problems are noted with their lines and give None.

    `op` and `value` are those of a threshold metric's objective, None for a raw ratio.
    """
    found = [name for name in KINDS if spec.has(name)]
    if len(found) != 1:
        spec.problem(
            "", f"must name exactly one indicator of {', '.join(KINDS)}; it names {', '.join(found) or 'none'}"
        )
        return None
    kind = found[0]
    if kind in ("all_of", "any_of"):
        return _combined(spec, kind, depth)
    fields = spec.inner(kind, required=True)
    assert fields is not None  # noqa: S101 - it is among the members
    made = _read_one(kind, fields, op, value)
    fields.done()
    spec.done()
    return made


def _combined(spec: Fields, kind: str, depth: int) -> Indicator | None:
    items = spec.items(kind, most=MAX_SIDES)
    share = spec.number("bad_share")
    sides = [read_indicator(spec.of(item, kind, i), None, None, depth + 1) for i, item in enumerate(items)]
    spec.done()
    if depth:
        spec.problem(kind, "cannot lie within another; write the sides in one list")
        return None
    if len(items) < 2:
        spec.problem(kind, "needs at least two sides")
        return None
    if share is not None and not 0 <= share < 1:
        spec.problem("bad_share", f"must be at least 0 and below 1, got {share:g}")
        return None
    if any(side is None for side in sides):
        return None
    return Combined(kind == "all_of", tuple(sides), share or 0.0)


def _read_one(kind: str, fields: Fields, op: Op | None, value: float | None) -> Indicator | None:
    match kind:
        case "latency" | "max":
            return _latency(kind, fields, op, value)
        case "errors":
            bad = fields.texts("outcomes") or BAD_OUTCOMES
            for one in bad:
                if one not in BAD_OUTCOMES:
                    fields.problem("outcomes", f"{one!r} is no bad outcome; there are {', '.join(BAD_OUTCOMES)}")
            path, rollup = fields.text("path", required=True), fields.text("rollup")
            return Errors(path, tuple(bad), fields.flag("unfinished", True), rollup)
        case "gauge":
            name, host, service = fields.text("name", required=True), fields.text("host"), fields.text("service")
            reduce = fields.text("reduce", among=REDUCE) or "each"
            own_op = cast(Any, fields.text("op", among=OPS)) or op
            own = fields.number("value")
            limit = own if own is not None else value
            if own_op is None or limit is None:
                fields.problem("value", "op and value are needed, here or in the objective of a thresholdMetric")
                return None
            return Gauge(name, own_op, limit, reduce, host, service)
        case "feed":
            channel = fields.text("channel", required=True)
            return Feed(channel, fields.text("bad", among=FEED_BAD) or "missing", fields.text("line"))
        case "flow":
            return Flow(
                fields.text("bad", among=FLOW_BAD) or "retransmissions", fields.text("host"), fields.text("tap")
            )
        case "kpi":
            return _kpi(fields, op, value)
        case _:
            return Completeness()


def _kpi(fields: Fields, op: Op | None, value: float | None) -> Indicator | None:
    name = fields.text("name", required=True)
    of = [fields.text(one) for one in ("cohort", "channel", "region", "offer")]
    own_op, own = cast("Op | None", fields.text("op", among=OPS) or None), fields.number("value")
    own_op, limit = own_op or op, own if own is not None else value
    if (own_op is None) != (limit is None):
        fields.problem("value", "op and value belong together: a value is good when it holds them")
        return None
    return Kpi(name, of[0], of[1], of[2], of[3], own_op, limit)


def _latency(kind: str, fields: Fields, op: Op | None, value: float | None) -> Indicator | None:
    path, rollup = fields.text("path", required=True), fields.text("rollup")
    stage = fields.text("stage") or "end_to_end"
    unfinished = fields.text("unfinished", among=("bad", "excluded")) if kind == "latency" else ""
    text, number = fields.text("threshold"), fields.whole("threshold_ns")
    if text and number is not None:
        fields.problem("threshold_ns", "excludes threshold")
        return None
    if text:
        try:
            number = duration_ns(text, "threshold")
        except ConfigError as error:
            fields.problem("threshold", error.problem)
            return None
    own = number is not None
    if number is None and value is not None:
        number = round(value)
    if number is None:
        fields.problem("threshold", "is needed, here or as op and value (ns) of the objective of a thresholdMetric")
        return None
    if op in ("gte", "gt") and not own:
        fields.problem("", f"a latency is good when it is small: op {op} in the objective cannot be meant; write lte")
        return None
    if op == "lt" and not own:
        number -= 1  # whole nanoseconds
    if kind == "max":
        return Maximum(path, stage, number, rollup)
    bad = unfinished != "excluded" if stage == "end_to_end" else unfinished == "bad"
    return Latency(path, stage, number, rollup, bad)
