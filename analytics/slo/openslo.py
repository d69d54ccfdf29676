"""OpenSLO v1 as plain values: the seven kinds, and what can be wrong with a document.

Field names, defaults and which fields exclude each other are those of the specification
(https://github.com/OpenSLO/OpenSLO, `openslo/v1`). What is read here is what was written; whether the product can
evaluate it is decided in `analytics.slo.compiled`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

API_VERSION = "openslo/v1"
KINDS = ("DataSource", "SLO", "SLI", "AlertPolicy", "AlertCondition", "AlertNotificationTarget", "Service")
Method = Literal["Occurrences", "Timeslices", "RatioTimeslices"]
Op = Literal["lte", "gte", "lt", "gt"]
# error: not OpenSLO, or makes no sense; not_honoured: it is OpenSLO, and this product does not do it; warning: it does,
# and it is probably not what was meant.
Severity = Literal["error", "not_honoured", "warning"]


@dataclass(frozen=True, slots=True)
class Problem:
    """Something about one line of one file: `where` is the object and field, the message says what to do."""

    line: int
    where: str
    message: str
    severity: Severity = "error"
    file: str = ""

    def __str__(self) -> str:
        kind = "" if self.severity == "error" else f"{self.severity.replace('_', ' ')}: "
        return f"{self.file or '-'}:{self.line}: {kind}{self.where}: {self.message}"


@dataclass(frozen=True, slots=True)
class Meta:
    """What every object has. Labels have one or more values."""

    kind: str
    name: str
    display_name: str
    labels: Mapping[str, tuple[str, ...]]
    annotations: Mapping[str, str]
    line: int
    file: str = ""

    @property
    def where(self) -> str:
        """The object in an error message."""
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Service:
    """A group of SLOs."""

    meta: Meta
    description: str


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where metrics come from; connection details are not read by this product."""

    meta: Meta
    type: str


@dataclass(frozen=True, slots=True)
class MetricSource:
    """A query: `type` says in which language `spec` is."""

    type: str
    ref: str
    spec: Any
    line: int


@dataclass(frozen=True, slots=True)
class Indicator:
    """An SLI: either a threshold metric, or a ratio of good or bad to total, or a raw ratio."""

    meta: Meta
    description: str
    threshold: MetricSource | None = None
    good: MetricSource | None = None
    bad: MetricSource | None = None
    total: MetricSource | None = None
    raw: MetricSource | None = None
    raw_type: Literal["success", "failure", ""] = ""
    counter: bool = False

    @property
    def sources(self) -> tuple[MetricSource, ...]:
        """Every query of it."""
        return tuple(s for s in (self.threshold, self.good, self.bad, self.total, self.raw) if s is not None)


@dataclass(frozen=True, slots=True)
class Condition:
    """When an alert is due: the burn rate over the look-back window compared with a threshold."""

    meta: Meta
    description: str
    severity: str
    kind: str
    op: Op
    threshold: float
    lookback_s: int
    alert_after_s: int


@dataclass(frozen=True, slots=True)
class Target:
    """Where a notification goes."""

    meta: Meta
    description: str
    target: str


@dataclass(frozen=True, slots=True)
class Policy:
    """One condition and where its alerts go, each inline or by name."""

    meta: Meta
    description: str
    condition: Condition | str
    targets: tuple[Target | str, ...]
    when_no_data: bool
    when_resolved: bool
    when_breaching: bool


@dataclass(frozen=True, slots=True)
class TimeWindow:
    """The budget's period: rolling, or calendar from `start` (local time) in `time_zone` on, in steps of `count unit`.

    Units: m, h, d, w, M (month), Q (quarter), Y (year).
    """

    count: int
    unit: str
    rolling: bool
    start: str = ""
    time_zone: str = ""
    line: int = 0

    @property
    def text(self) -> str:
        """As it was written."""
        return f"{self.count}{self.unit}"


@dataclass(frozen=True, slots=True)
class SloTarget:
    """One of the `objectives` of an SLO. `op` and `value` belong to threshold metrics, slices to time slices."""

    display_name: str
    target: float
    op: Op | None
    value: float | None
    slice_target: float | None
    slice_s: int | None
    weight: float | None
    indicator: Indicator | str | None
    line: int


@dataclass(frozen=True, slots=True)
class Slo:
    """A service level objective as written."""

    meta: Meta
    description: str
    service: str
    indicator: Indicator | str | None
    window: TimeWindow
    method: Method
    objectives: tuple[SloTarget, ...]
    policies: tuple[Policy | str, ...]


Object = Service | DataSource | Indicator | Condition | Target | Policy | Slo
