"""The report as one value, which is also its JSON: plain numbers, and the sentences that say what they mean.

What is not known is None, with a sentence in the `unknown` of its part. Times are epoch nanoseconds, shares of one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["slower", "faster", "no clear change", "not known"]
FORMAT = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantile:
    """One percentile of this period and of the one before, and the change with its 95 % interval."""

    name: str
    value_ns: int | None
    low_ns: int | None
    high_ns: int | None
    before_ns: int | None
    change_ns: int | None
    change_low_ns: int | None
    change_high_ns: int | None
    verdict: Verdict
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """p50 and p99 of one step of time."""

    start_ns: int
    count: int
    p50_ns: int | None
    p99_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StageLine:
    """One stage: its share of the mean total latency, and its 99th percentile in both periods."""

    name: str
    kind: str
    mean_ns: float | None
    mean_before_ns: float | None
    share: float | None
    p99_ns: int | None
    p99_before_ns: int | None
    budget_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PathLine:
    """What happened to the latency of one path."""

    name: str
    description: str
    count: int
    before_count: int
    unfinished: int
    before_unfinished: int
    headless: int
    negative: int
    completeness: float | None
    mean_ns: float | None
    mean_before_ns: float | None
    max_error_ns: int
    quantiles: tuple[Quantile, ...]
    series: tuple[Point, ...]
    stages: tuple[StageLine, ...]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EffectLine:
    """What one unit more of latency does to a business measure, and by which design that was found."""

    design: str
    verdict: str
    sentence: str
    estimate: float | None
    low: float | None
    high: float | None
    detectable: float | None
    n: int
    clusters: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CohortLine:
    """The effect among one group of customers."""

    dimension: str
    value: str
    effect: EffectLine


@dataclass(frozen=True, slots=True, kw_only=True)
class CurvePoint:
    """The measure at one latency, with its band."""

    at_ms: float
    level: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveLine:
    """The response curve over the latencies that were seen."""

    points: tuple[CurvePoint, ...]
    saturated_from_ms: float | None
    days: int
    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What the change of latency since the last period did to one measure, as far as the data can say."""

    path: str
    kpi: str
    kpi_unit: str
    value: float | None
    before: float | None
    effect: EffectLine | None
    may_claim: bool
    naive: str
    checks: tuple[str, ...]
    latency_change_ms: float | None
    change: float | None
    change_low: float | None
    change_high: float | None
    curve: CurveLine | None
    cohorts: tuple[CohortLine, ...]
    notes: tuple[str, ...]
    sentence: str
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BudgetLine:
    """An objective: how much of its whole error budget this period took, and what that cost where it is known."""

    objective: str
    name: str
    indicator: str
    target: float
    window: str
    total: int
    bad: int
    uncertain: int
    burned: float | None
    burned_before: float | None
    left: float | None
    cost: float | None = None
    cost_low: float | None = None
    cost_high: float | None = None
    cost_sentence: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class EpisodeLine:
    """One alert from its first breach to its end; `resolved_ns` None: it goes on."""

    episode: str
    objective: str
    rule: str
    breach_ns: int
    fired_ns: int
    resolved_ns: int | None
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementLine:
    """A provider's agreement: the contract, what was measured with its ends, and the credit due."""

    name: str
    provider: str
    path: str
    stage: str
    percentile: float
    limit_ns: int
    value_ns: int | None
    near_ns: int | None
    far_ns: int | None
    verdict: str
    over: bool
    credit: float
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DebtLine:
    """A technical debt and what it costs a month, None where that is not known."""

    name: str
    what: str
    owner: str
    stage: str
    per_month: float | None
    low: float | None
    high: float | None
    fix_cost: float | None
    payback_months: float | None
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GapLine:
    """What one feed lost and how long it took to have it again."""

    channel: str
    host: str
    gaps: int
    missing: int
    recovery_mean_ns: float | None
    recovery_max_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """Alerts, how soon they were known and over, and the windows in which feeds were behind."""

    episodes: tuple[EpisodeLine, ...]
    open: int
    detection_median_ns: float | None
    detection_max_ns: int | None
    recovery_median_ns: float | None
    recovery_max_ns: int | None
    in_breach_ns: int
    share_of_time: float
    exposed: float | None
    exposed_unit: str
    gaps: tuple[GapLine, ...]
    sentences: tuple[str, ...]
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class SwingLine:
    """The value of an investment at both ends of one of its inputs."""

    name: str
    at_low: float
    at_high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenarioLine:
    """One investment in money of today."""

    name: str
    description: str
    npv: float
    p5: float
    p95: float
    p_positive: float
    multiple: float | None
    passes_gate: bool
    irr: float | None
    break_even_effect: float | None
    clamped_ms: float
    tornado: tuple[SwingLine, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Funding:
    """The investments, best first, and on what they rest."""

    scenarios: tuple[ScenarioLine, ...]
    currency: str
    months: int
    gate: float
    effect_design: str
    effect_source: str
    beats_next: float | None
    sentence: str
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeLine:
    """A recorded change."""

    ts_ns: int
    kind: str
    service: str
    what: str
    who: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnLine:
    """A moment from which a path's figures were others, and the recorded changes next to it in time."""

    path: str
    name: str
    stage: str
    at_ns: int
    before_ns: int | None
    after_ns: int | None
    beside: tuple[str, ...]
    sentence: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Changes:
    """What was changed, and what changed."""

    count: int
    before_count: int
    by_kind: dict[str, int]
    shown: tuple[ChangeLine, ...]
    turns: tuple[TurnLine, ...]
    tested: int
    sentence: str
    unknown: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """How complete and how exact the data behind all this are."""

    completeness: float | None
    produced: int
    missing: int
    waiting_for: tuple[str, ...]
    sentences: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """An executive report."""

    format: int
    title: str
    made_ns: int
    from_ns: int
    to_ns: int
    before_from_ns: int
    asked: str
    population: str
    headline: tuple[str, ...]
    paths: tuple[PathLine, ...]
    costs: tuple[Cost, ...]
    budgets: tuple[BudgetLine, ...]
    budgets_unknown: str
    reliability: Reliability
    funding: Funding
    agreements: tuple[AgreementLine, ...]
    debts: tuple[DebtLine, ...]
    currency: str
    changes: Changes
    quality: Quality
    method: tuple[str, ...]
    glossary: tuple[tuple[str, str], ...]
