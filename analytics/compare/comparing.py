"""The comparison of two arms: tests of the tail, shifts with intervals, budgets, and one verdict.

Every quantile is a test of its own: of all latencies pooled, how many of each side lie above it (`exceedance`). What
the messages came to (errors, rejections, never finished) are tests too, since a side that loses its slow messages looks
fast. Holm's adjustment holds the chance of any false alarm at `alpha`, in both directions together.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from analytics import buckets
from analytics.compare import exceedance, location, shifts
from analytics.compare.arms import LEAST_CLUSTERS, Arm, bucket_at, together
from analytics.percentiles import CONFIDENCE, minimum_count

ALPHA = 0.05
QUANTILES: dict[str, float] = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
SHARES = ("errors", "rejected", "unfinished")
LEAST_MESSAGES = 100  # of each side, for shares of outcomes
Verdict = Literal["regression", "no_regression", "insufficient"]
Finding = Literal["worse", "better", "no difference", "refused"]


class Side(msgspec.Struct, frozen=True, kw_only=True):
    """What one arm was: how many latencies, of which time, in how many clusters."""

    name: str
    source: str
    count: int
    unfinished: int | None
    from_ns: int | None
    to_ns: int | None
    clustering: str
    clusters: int
    instances: int
    completeness: float | None


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One test. `threshold_ns` is null for shares of outcomes; `a_share` and `b_share` exceed it or came to that.

    `p_value` is the larger of `p_fisher` and `p_clustered`, `p_holm` the same after Holm's adjustment. A difference of
    shares of `detectable` would have been found with 80 % power. `refused` says why there is no test.
    """

    name: str
    threshold_ns: int | None = None
    a_hits: int = 0
    a_total: int = 0
    b_hits: int = 0
    b_total: int = 0
    a_share: float | None = None
    b_share: float | None = None
    p_value: float | None = None
    p_fisher: float | None = None
    p_clustered: float | None = None
    p_holm: float | None = None
    design: float | None = None
    detectable: float | None = None
    finding: Finding = "refused"
    refused: str = ""


class Quantile(msgspec.Struct, frozen=True, kw_only=True):
    """A quantile of both sides and how far it moved; 95 % intervals. What cannot be said is null, and `refused` why."""

    name: str
    a_ns: int | None = None
    a_ci: tuple[int, int] | None = None
    b_ns: int | None = None
    b_ci: tuple[int, int] | None = None
    value_error_ns: int | None = None
    difference_ns: int | None = None
    difference_ci: tuple[int, int] | None = None
    ratio: float | None = None
    ratio_ci: tuple[float, float] | None = None
    refused: str = ""


class Budget(msgspec.Struct, frozen=True, kw_only=True):
    """A quantile of b against an absolute limit.

    `over`: shown to be above it (its interval is); `within`: shown to be below; `undecided`: the limit lies in the
    interval; `refused`: too few messages.
    """

    name: str
    budget_ns: int
    value_ns: int | None
    ci: tuple[int, int] | None
    status: Literal["over", "within", "undecided", "refused"]
    refused: str = ""


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """Mann and Whitney's test, as a check of location alone: a chance of 0.5 is none moved."""

    b_slower: float
    p_value: float


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two sides, what differs, and the verdict; `sentences` say it in words."""

    verdict: Verdict
    a: Side
    b: Side
    alpha: float
    tolerance: float
    tests: list[Test]
    quantiles: list[Quantile]
    budgets: list[Budget]
    location: Location | None
    sentences: list[str]


def compare(
    a: Arm,
    b: Arm,
    *,
    alpha: float = ALPHA,
    tolerance: float = 0.0,
    needed: str = "p99",
    budgets_ns: Mapping[str, int] | None = None,
    quantiles: Mapping[str, float] = QUANTILES,
) -> Comparison:
    """Compare b with a. `needed` is the quantile without which the verdict is `insufficient`.

    A quantile that got worse by less than `tolerance` (0.05 is 5 %) is told and is no regression. Raises ValueError for
    an unknown `needed` and for values out of range.
    """
    if needed not in quantiles:
        raise ValueError(f"needed must be one of {', '.join(quantiles)}, got {needed!r}")
    if not 0 < alpha < 1 or tolerance < 0:
        raise ValueError(f"alpha must be in (0, 1) and tolerance not negative, got {alpha} and {tolerance}")
    moved = [_quantile(a, b, name, p) for name, p in quantiles.items()]
    tests = judged([*tails(a, b, alpha, quantiles), *outcomes(a, b, alpha)], alpha)
    limits = [budget(b, name, limit) for name, limit in (budgets_ns or {}).items()]
    place = None
    if a.count and b.count:
        slower, p_value = location.mann_whitney(a, b)
        place = Location(b_slower=slower, p_value=p_value)
    worse = [t for t in tests if t.finding == "worse" and not _tolerated(t, moved, tolerance)]
    known = {t.name for t in tests if not t.refused}
    verdict: Verdict = "no_regression"
    if worse or any(one.status == "over" for one in limits):
        verdict = "regression"
    elif needed not in known or any(one.status == "refused" for one in limits):
        verdict = "insufficient"
    return Comparison(
        verdict=verdict,
        a=side(a),
        b=side(b),
        alpha=alpha,
        tolerance=tolerance,
        tests=tests,
        quantiles=moved,
        budgets=limits,
        location=place,
        sentences=_sentences(a, b, verdict, tests, moved, limits, needed, tolerance),
    )


def tails(a: Arm, b: Arm, alpha: float = ALPHA, quantiles: Mapping[str, float] = QUANTILES) -> list[Test]:
    """The exceedance test at each pooled quantile, not adjusted yet."""
    found = []
    bucket, n_a, n_b = together(a, b)
    for name, p in quantiles.items():
        least, fewest = minimum_count(p), min((a, b), key=lambda arm: arm.count)
        if fewest.count < least:
            refused = f"{name} needs at least {least:,} samples of each side; {fewest.name} has {fewest.count:,}"
            found.append(Test(name=name, refused=refused))
            continue
        threshold = bucket_at(bucket, n_a + n_b, p)
        counted = [(arm.above(threshold), arm.n.sum(axis=1)) for arm in (a, b)]
        found.append(_test(name, a, b, counted, alpha, int(buckets.high(threshold))))
    return found


def outcomes(a: Arm, b: Arm, alpha: float = ALPHA) -> list[Test]:
    """The tests of what messages came to, where both sides know it and it happened."""
    found = []
    for name in SHARES:
        if name not in a.shares or name not in b.shares:
            continue
        k_a, k_b = a.shares[name], b.shares[name]
        if not k_a.sum() + k_b.sum():
            continue
        if min(a.total.sum(), b.total.sum()) < LEAST_MESSAGES:
            refused = f"{name} needs at least {LEAST_MESSAGES} messages of each side"
            found.append(Test(name=name, refused=refused))
            continue
        found.append(_test(name, a, b, [(k_a, a.total), (k_b, b.total)], alpha, None))
    return found


def judged(tests: Sequence[Test], alpha: float) -> list[Test]:
    """The tests with Holm's adjustment over those that were made, and what each found."""
    made = [t for t in tests if t.p_value is not None]
    adjusted = dict(zip((t.name for t in made), exceedance.holm([t.p_value or 0.0 for t in made]), strict=True))
    out = []
    for t in tests:
        if t.name not in adjusted:
            out.append(t)
            continue
        finding: Finding = "no difference"
        if adjusted[t.name] <= alpha:
            finding = "worse" if (t.b_share or 0.0) > (t.a_share or 0.0) else "better"
        out.append(msgspec.structs.replace(t, p_holm=adjusted[t.name], finding=finding))
    return out


def budget(arm: Arm, name: str, limit_ns: int) -> Budget:
    """An arm's quantile (`p99`, `p99.9`) against a limit. Raises ValueError for a name that is no quantile."""
    found = shifts.level(arm, quantile_of(name))
    if isinstance(found, str):
        return Budget(name=name, budget_ns=limit_ns, value_ns=None, ci=None, status="refused", refused=found)
    status: Literal["over", "within", "undecided"] = "undecided"
    if found.low_ns > limit_ns:
        status = "over"
    elif found.high_ns <= limit_ns:
        status = "within"
    return Budget(
        name=name,
        budget_ns=limit_ns,
        value_ns=found.value_ns,
        ci=(found.low_ns, found.high_ns),
        status=status,
    )


def quantile_of(name: str) -> float:
    """`p99.9` as 0.999. Raises ValueError."""
    try:
        percent = float(name.removeprefix("p"))
    except ValueError:
        percent = math.nan
    if not name.startswith("p") or not 0 < percent < 100:
        raise ValueError(f"{name!r} is no percentile; write p50, p99 or p99.9")
    return round(percent / 100, 8)


def side(arm: Arm) -> Side:
    """What an answer says of an arm."""
    lost = arm.shares.get("unfinished")
    return Side(
        name=arm.name,
        source=arm.source,
        count=arm.count,
        unfinished=None if lost is None else int(lost.sum()),
        from_ns=arm.from_ns,
        to_ns=arm.to_ns,
        clustering=arm.clustering,
        clusters=len(arm.cluster),
        instances=arm.instances,
        completeness=arm.completeness,
    )


def _test(
    name: str, a: Arm, b: Arm, counted: Sequence[tuple[np.ndarray, np.ndarray]], alpha: float, threshold_ns: int | None
) -> Test:
    (k_a, n_a), (k_b, n_b) = counted
    clustered = "none" not in (a.clustering, b.clustering) and a.clustering == b.clustering
    names = (a.cluster, b.cluster) if clustered else ((), ())
    one = exceedance.compare(k_a, n_a, k_b, n_b, *names)
    pooled = (one.a + one.b) / (one.a_total + one.b_total)
    return Test(
        name=name,
        threshold_ns=threshold_ns,
        a_hits=one.a,
        a_total=one.a_total,
        b_hits=one.b,
        b_total=one.b_total,
        a_share=one.a / one.a_total,
        b_share=one.b / one.b_total,
        p_value=one.p_value,
        p_fisher=one.p_fisher,
        p_clustered=one.p_clustered,
        design=one.design,
        detectable=exceedance.detectable(pooled, one.a_total, one.b_total, alpha, design=one.design),
    )


def _quantile(a: Arm, b: Arm, name: str, p: float) -> Quantile:
    levels = [shifts.level(arm, p) for arm in (a, b)]
    refused = "; ".join(one for one in levels if isinstance(one, str))
    known = {
        label: (one.value_ns, (one.low_ns, one.high_ns))
        for label, one in zip("ab", levels, strict=True)
        if not isinstance(one, str)
    }
    a_ns, a_ci = known.get("a", (None, None))
    b_ns, b_ci = known.get("b", (None, None))
    if refused:
        return Quantile(name=name, a_ns=a_ns, a_ci=a_ci, b_ns=b_ns, b_ci=b_ci, refused=refused)
    moved = shifts.shift(a, b, p)
    ratio_ci = None
    if moved.ratio_low is not None and moved.ratio_high is not None:
        ratio_ci = (moved.ratio_low, moved.ratio_high)
    return Quantile(
        name=name,
        a_ns=a_ns,
        a_ci=a_ci,
        b_ns=b_ns,
        b_ci=b_ci,
        value_error_ns=max(one.error_ns for one in levels if not isinstance(one, str)),
        difference_ns=moved.difference_ns,
        difference_ci=(moved.difference_low_ns, moved.difference_high_ns),
        ratio=moved.ratio,
        ratio_ci=ratio_ci,
    )


def _tolerated(test: Test, moved: Sequence[Quantile], tolerance: float) -> bool:
    """Whether a quantile's own shift is within the tolerance; shares of outcomes have none."""
    if not tolerance:
        return False
    own = next((q for q in moved if q.name == test.name), None)
    return own is not None and own.ratio is not None and own.ratio <= 1 + tolerance


def _sentences(
    a: Arm,
    b: Arm,
    verdict: Verdict,
    tests: Sequence[Test],
    moved: Sequence[Quantile],
    limits: Sequence[Budget],
    needed: str,
    tolerance: float,
) -> list[str]:
    by_name = {q.name: q for q in moved}
    said = []
    for t in tests:
        if t.finding not in ("worse", "better"):
            continue
        what = f"came to {t.name}" if t.threshold_ns is None else f"took longer than the pooled {t.name}"
        line = f"{t.b_share:.3%} of {b.name} {what}, {t.a_share:.3%} of {a.name} (p {t.p_holm:.2g} after Holm)"
        own = by_name.get(t.name)
        if own is not None and own.ratio is not None and own.ratio_ci is not None:
            line += f"; {t.name} is {own.ratio:.3g} times as long ({own.ratio_ci[0]:.3g} to {own.ratio_ci[1]:.3g})"
        if t.finding == "worse" and _tolerated(t, moved, tolerance):
            line += f", within the tolerance of {tolerance:.3g}"
        said.append(line + ".")
    for one in limits:
        if one.status == "over":
            said.append(f"{one.name} of {b.name} is above its budget: its whole {CONFIDENCE:.0%} interval is.")
        elif one.status == "undecided":
            said.append(f"{one.name} of {b.name} may be above its budget: the budget lies inside the interval.")
        elif one.status == "refused":
            said.append(f"The budget of {one.name} is not judged: {one.refused}.")
    if verdict == "no_regression" and not any(t.finding == "worse" for t in tests):
        test = next(t for t in tests if t.name == needed)
        said.append(
            f"Nothing got worse. {test.detectable or 0.0:.3%} points more messages above the pooled {needed} would have"
            " been found in four of five such comparisons; less may be there."
        )
    if verdict == "insufficient":
        reasons = {t.refused for t in tests if t.refused and t.name == needed}
        said.append(f"Not enough data for a verdict{': ' if reasons else ''}{'; '.join(sorted(reasons))}.")
    said.append(_how(a, b))
    return said


def _how(a: Arm, b: Arm) -> str:
    if min(len(a.cluster), len(b.cluster)) < LEAST_CLUSTERS or "none" in (a.clustering, b.clustering):
        return f"Messages are taken as independent: fewer than {LEAST_CLUSTERS} clusters are known on a side."
    if a.clustering != b.clustering:
        return "Messages are taken as independent: the sides are not clustered in the same way."
    if a.clustering == "instance":
        return "Each instance counts as one cluster, so one bad host is not taken for a bad release."
    if 1 in (a.instances, b.instances):
        return "Blocks of time are the clusters. A side has one instance: a bad host cannot be told from a bad release."
    return "Blocks of time are the clusters: a bad minute counts once, however many messages it has."
