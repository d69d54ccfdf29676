"""Whether a canary may go on: latency, outcomes, business measures and burn joined into one decision.

Every look may be the last: the p-values hold at all looks at once (`sequential`), and Holm's adjustment over the
metrics keeps the chance that a canary that is as good as the baseline is ever rolled back at `alpha`.

- `rollback`: a metric is shown to be worse.
- `advance`: nothing is, and the gates are shown to be good enough: the interval of the canary's rate above the
  reference's p95 and p99, which holds at all looks at once, ends below `margin` times the baseline's.
- `hold`: neither yet.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics import buckets
from analytics.compare import sequential
from analytics.compare.arms import bucket_at
from analytics.compare.comparing import ALPHA, SHARES
from analytics.compare.exceedance import design_effect, holm

MARGIN = 2.0
GATES = ("p95", "p99")
LEVELS = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
_MOST_RANKS = 1_000_000  # more messages make the interval narrower still; it need not be
LEAST_CANARY = 368  # messages, as many as a p99 needs
Verdict = Literal["advance", "hold", "rollback"]


class Metric(msgspec.Struct, frozen=True, kw_only=True):
    """What one metric says. Shares are of messages above `threshold_ns` or of that outcome; of a KPI they are means.

    Of a burn, `ratio` is the canary's burn rate and `limit` the one that it must not exceed.
    `ratio_low` and `ratio_high` hold at all looks at once (high null: not bounded yet). `state`: `worse`, `good` (a
    gate that has passed), `no difference`, or `absent` with the reason in `said`.
    """

    name: str
    kind: Literal["latency", "outcome", "kpi", "burn"]
    threshold_ns: int | None = None
    baseline_hits: int | None = None
    baseline_total: int | None = None
    canary_hits: int | None = None
    canary_total: int | None = None
    baseline_share: float | None = None
    canary_share: float | None = None
    limit: float | None = None
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    p_value: float | None = None
    p_holm: float | None = None
    state: Literal["worse", "good", "no difference", "absent"] = "absent"
    said: str = ""


class Level(msgspec.Struct, frozen=True, kw_only=True):
    """A percentile of both sides, in ns, with intervals that hold at all looks at once; null: not bounded yet."""

    name: str
    baseline_ns: int | None
    baseline_ci: tuple[int, int] | None
    canary_ns: int | None
    canary_ci: tuple[int, int] | None


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """The decision, the metrics behind it and the reasons in words.

    `thresholds_from` says of which messages the latency thresholds are: they were fixed before what is tested.
    """

    decision: Verdict
    blocks: int
    baseline_count: int
    canary_count: int
    thresholds_from: str
    alpha: float
    margin: float
    metrics: list[Metric]
    levels: list[Level]
    reasons: list[str]


@dataclass(frozen=True, slots=True)
class Kpi:
    """A business measure: canary minus baseline per period, float64[n], and which direction is bad."""

    name: str
    baseline: NDArray[np.float64]
    canary: NDArray[np.float64]
    worse: Literal["lower", "higher"] = "lower"


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast an error budget burns: `bad` of `total` per block, int64[blocks], against an objective (0.999).

    `factor` is the burn rate that must not be exceeded (14.4 is the Workbook's page for one hour). `baseline` is bad
    and total of the other side, to be told beside it. `absent` says why it cannot be counted.
    """

    name: str
    bad: NDArray[np.int64]
    total: NDArray[np.int64]
    objective: float
    factor: float = 14.4
    baseline: tuple[int, int] | None = None
    absent: str = ""


def decide(
    baseline: pl.DataFrame,
    canary: pl.DataFrame,
    thresholds_ns: Mapping[str, int],
    thresholds_from: str,
    *,
    kpis: Sequence[Kpi] = (),
    burns: Sequence[Burn] = (),
    firing: Sequence[str] = (),
    alpha: float = ALPHA,
    margin: float = MARGIN,
) -> Decision:
    """Decide on rows of `reading.counted` of both sides: block, bucket, n, errors, rejected, unfinished.

    `firing` names alerts of the objectives that fire now, of whatever side: nothing advances meanwhile.
    """
    blocks, sides = aligned(baseline, canary)
    found = [_latency(sides, name, at, alpha) for name, at in thresholds_ns.items()]
    found += [_outcome(sides, name, alpha) for name in SHARES]
    found += [_kpi(one) for one in kpis] or [Metric(name="kpi", kind="kpi", said="no business measure was given")]
    found += [_burn(one) for one in burns] or [Metric(name="burn", kind="burn", said="no objective was given")]
    made = [m for m in found if m.p_value is not None]
    adjusted = dict(zip((id(m) for m in made), holm([m.p_value or 0.0 for m in made]), strict=True))
    metrics = [m if m.p_value is None else _told(m, adjusted[id(m)], alpha, margin) for m in found]
    counts = [int(side.n.sum()) for side in sides]
    verdict, reasons = _verdict(metrics, counts[1], len(blocks), bool(thresholds_ns), firing, margin)
    return Decision(
        decision=verdict,
        blocks=len(blocks),
        baseline_count=counts[0],
        canary_count=counts[1],
        thresholds_from=thresholds_from,
        alpha=alpha,
        margin=margin,
        metrics=metrics,
        levels=[_level(sides, name, p, alpha) for name, p in LEVELS.items()],
        reasons=reasons,
    )


@dataclass(frozen=True, slots=True)
class Side:
    """One side by block: messages int64[blocks], outcomes by name, and rows (block number, bucket, n) with a value."""

    n: NDArray[np.int64]
    outcomes: Mapping[str, NDArray[np.int64]]
    block: NDArray[np.int64]
    bucket: NDArray[np.int64]
    count: NDArray[np.int64]

    def above(self, threshold_ns: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Per block: latencies in buckets above that of the threshold, and latencies."""
        over = self.bucket > int(buckets.index(threshold_ns))
        size = len(self.n)
        return (
            np.bincount(self.block[over], weights=self.count[over], minlength=size).astype(np.int64),
            np.bincount(self.block, weights=self.count, minlength=size).astype(np.int64),
        )


def aligned(baseline: pl.DataFrame, canary: pl.DataFrame) -> tuple[list[int], tuple[Side, Side]]:
    """Both sides over the blocks that both have, in time order."""
    blocks = sorted(set(baseline["block"].to_list()) & set(canary["block"].to_list()))
    place = pl.DataFrame({"block": blocks, "at": range(len(blocks))}, schema={"block": pl.Int64, "at": pl.Int64})
    sides = []
    for rows in (baseline, canary):
        here = rows.with_columns(pl.col("block").cast(pl.Int64)).join(place, on="block", how="inner")
        at = here["at"].to_numpy()

        def sums(name: str, here: pl.DataFrame = here, at: NDArray[np.int64] = at) -> NDArray[np.int64]:
            return np.bincount(at, weights=here[name].to_numpy(), minlength=len(blocks)).astype(np.int64)

        valued = here.filter(pl.col("bucket").is_not_null())
        sides.append(
            Side(
                sums("n"),
                {name: sums(name) for name in SHARES},
                valued["at"].to_numpy(),
                valued["bucket"].cast(pl.Int64).to_numpy(),
                valued["n"].cast(pl.Int64).to_numpy(),
            )
        )
    return blocks, (sides[0], sides[1])


def _level(sides: tuple[Side, Side], name: str, p: float, alpha: float) -> Level:
    (a, a_ci), (b, b_ci) = (_quantile(side, p, alpha) for side in sides)
    return Level(name=name, baseline_ns=a, baseline_ci=a_ci, canary_ns=b, canary_ci=b_ci)


def _quantile(side: Side, p: float, alpha: float) -> tuple[int | None, tuple[int, int] | None]:
    """The quantile and its interval at all times at once, of as many messages as the blocks are worth."""
    bucket, at = np.unique(side.bucket, return_inverse=True)
    n = np.bincount(at, weights=side.count, minlength=len(bucket)).astype(np.int64)
    if not n.sum():
        return None, None
    place = bucket_at(bucket, n, p)
    value = int(buckets.midpoint(place))
    hits, total = side.above(int(buckets.low(place)))
    there = total > 0
    size = min(_MOST_RANKS, int(n.sum() / max(1.0, design_effect(hits[there], total[there]))))
    ranks = sequential.quantile_ranks(p, size, alpha)
    if ranks is None:
        return value, None
    low, high = (bucket_at(bucket, n, r / size) for r in ranks)
    return value, (int(buckets.low(low)), int(buckets.high(high)))


def _latency(sides: tuple[Side, Side], name: str, threshold_ns: int, alpha: float) -> Metric:
    (k_a, n_a), (k_b, n_b) = (side.above(threshold_ns) for side in sides)
    return _counted(name, "latency", threshold_ns, k_a, n_a, k_b, n_b, alpha)


def _outcome(sides: tuple[Side, Side], name: str, alpha: float) -> Metric:
    a, b = sides
    return _counted(name, "outcome", None, a.outcomes[name], a.n, b.outcomes[name], b.n, alpha)


def _counted(
    name: str, kind: Literal["latency", "outcome"], threshold_ns: int | None, k_a: NDArray[np.int64],
    n_a: NDArray[np.int64], k_b: NDArray[np.int64], n_b: NDArray[np.int64], alpha: float,
) -> Metric:  # fmt: skip
    said = sequential.evidence(k_a, n_a, k_b, n_b, alpha)
    totals = [int(x.sum()) for x in (k_a, n_a, k_b, n_b)]
    return Metric(
        name=name,
        kind=kind,
        threshold_ns=threshold_ns,
        baseline_hits=totals[0],
        baseline_total=totals[1],
        canary_hits=totals[2],
        canary_total=totals[3],
        baseline_share=totals[0] / totals[1] if totals[1] else None,
        canary_share=totals[2] / totals[3] if totals[3] else None,
        ratio=said.ratio,
        ratio_low=said.low,
        ratio_high=said.high if math.isfinite(said.high) else None,
        p_value=said.p_worse,
    )


def _kpi(kpi: Kpi) -> Metric:
    if len(kpi.canary) < sequential.LEAST_DIFFERENCES:
        least = sequential.LEAST_DIFFERENCES
        said = f"{len(kpi.canary)} periods on both sides, at least {least} are needed"
        return Metric(name=kpi.name, kind="kpi", said=said)
    difference = (kpi.canary - kpi.baseline) * (1 if kpi.worse == "higher" else -1)
    # Two-sided evidence counts only while the mean points the bad way: an alarm is then at most as likely.
    p_value = float(sequential.msprt(difference)[-1]) if difference.mean() > 0 else 1.0
    before, now = float(kpi.baseline.mean()), float(kpi.canary.mean())
    return Metric(
        name=kpi.name,
        kind="kpi",
        baseline_total=len(kpi.baseline),
        canary_total=len(kpi.canary),
        baseline_share=before,
        canary_share=now,
        ratio=now / before if before else None,
        p_value=p_value,
    )


def _burn(burn: Burn) -> Metric:
    if burn.absent:
        return Metric(name=burn.name, kind="burn", said=burn.absent)
    allowed = burn.factor * (1 - burn.objective)
    if allowed >= 1:
        most = 1 / (1 - burn.objective)
        said = f"an objective of {burn.objective:.4g} burns at most {most:.3g} times: {burn.factor:g} is never reached"
        return Metric(name=burn.name, kind="burn", said=said)
    bad, total = int(burn.bad.sum()), int(burn.total.sum())
    if not total:
        return Metric(name=burn.name, kind="burn", said="no message of the canary counts for it yet")
    share = bad / total
    hits, of = burn.baseline or (None, None)
    return Metric(
        name=burn.name,
        kind="burn",
        baseline_hits=hits,
        baseline_total=of,
        baseline_share=hits / of if hits is not None and of else None,
        canary_hits=bad,
        canary_total=total,
        canary_share=share,
        limit=burn.factor,
        ratio=share / (1 - burn.objective),
        p_value=sequential.against(burn.bad, burn.total, allowed),
    )


def _told(metric: Metric, p_holm: float, alpha: float, margin: float) -> Metric:
    state: Literal["worse", "good", "no difference"] = "no difference"
    if p_holm <= alpha:
        state = "worse"
    elif metric.kind == "latency" and metric.ratio_high is not None and metric.ratio_high <= margin:
        state = "good"
    return msgspec.structs.replace(metric, p_holm=p_holm, state=state)


def _verdict(
    metrics: Sequence[Metric], canary: int, blocks: int, thresholds: bool, firing: Sequence[str], margin: float
) -> tuple[Verdict, list[str]]:
    worse = [m for m in metrics if m.state == "worse"]
    absent = [f"{m.name}: {m.said}." for m in metrics if m.state == "absent"]
    if worse:
        return "rollback", [*(_worse(m) for m in worse), *absent]
    reasons = [f"An alert fires: {one}. Nothing advances meanwhile." for one in firing]
    if not thresholds:
        reasons.append("There are no thresholds yet: too few messages before what is tested.")
    if canary < LEAST_CANARY:
        reasons.append(f"The canary has {canary:,} messages, at least {LEAST_CANARY} are needed.")
    if blocks < sequential.LEAST_BLOCKS:
        reasons.append(f"{blocks} blocks of time have both sides, at least {sequential.LEAST_BLOCKS} are needed.")
    for m in metrics:
        if m.name in GATES and m.kind == "latency" and m.state != "good":
            most = "any number of" if m.ratio_high is None else f"{m.ratio_high:.2f}"
            reasons.append(
                f"{m.name}: up to {most} times as many slow messages as the baseline are still possible;"
                f" at most {margin:g} are wanted."
            )
    if reasons:
        return "hold", [*reasons, *absent]
    gates = ", ".join(f"{m.name} at most {m.ratio_high:.2f} times" for m in metrics if m.name in GATES)
    return "advance", [f"Nothing is worse, and slow messages are bounded: {gates}.", *absent]


def _worse(m: Metric) -> str:
    if m.kind == "kpi":
        return f"{m.name} is {m.canary_share:.4g} with the canary, {m.baseline_share:.4g} without (p {m.p_holm:.2g})."
    if m.kind == "burn":
        beside = "" if m.baseline_share is None else f"; bad are {m.baseline_share:.3%} of the baseline's messages"
        return (
            f"The canary burns the budget of {m.name} {m.ratio:.3g} times as fast as it lasts, at most {m.limit:g} is"
            f" allowed: {m.canary_share:.3%} of its messages are bad (p {m.p_holm:.2g}){beside}."
        )
    what = f"came to {m.name}" if m.threshold_ns is None else f"exceed the reference's {m.name}"
    shares = f"{m.canary_share:.3%} of the canary's messages {what}, {m.baseline_share:.3%} of the baseline's"
    return f"{shares} (p {m.p_holm:.2g})."
