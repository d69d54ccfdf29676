"""For the slowest q of messages: which stages their time went to, and which made them slower than the others.

Euler allocation of the expected shortfall (Tasche, Risk contributions and portfolio performance, 1999): with T the sum
of parts X_s, a part's share of the tail is E[X_s | T >= t] and the shares add up to E[T | T >= t]. At the quantile
itself it is E[X_s | T ~ t], over a narrow band. What made the tail slower than the body (the 40 % to 60 % of messages
in the middle) is D_s = E[X_s | tail] - E[X_s | body], which adds up to the whole excess. All sums are of integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from analytics.paths import Path
from analytics.percentiles import CONFIDENCE
from analytics.tail import clusters
from analytics.tail.stages import kind_of, named
from analytics.tail.tailset import Apart, Cuts, Ints, apportion, cuts, parts, took

Interval = tuple[float, float]


class StageShare(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the tail. `total_ns` is the exact sum over the tail's messages.

    `mean_ns`, `at_quantile_ns` and `body_ns` are rounded so that each adds up to the whole's mean over all parts;
    `excess_ns` is `mean_ns` less `body_ns`. `share` is of the tail's mean, `excess_share` of the whole excess (null
    where there is none). Intervals are null with too few clusters.
    """

    stage: str
    kind: str
    total_ns: int
    mean_ns: int
    share: float
    share_ci: Interval | None
    at_quantile_ns: int
    body_ns: int
    excess_ns: int
    excess_ci_ns: Interval | None
    excess_share: float | None
    excess_share_ci: Interval | None


class Inside(msgspec.Struct, frozen=True, kw_only=True):
    """What kept a stage's threads from working, as shares of the stage's time: of the slowest and of other messages.

    `slowest` and `others` map kinds (run_queue, blocked_lock, gc, ...) to shares; `messages` of each are on hosts where
    somebody measured, `unknown` of the slowest are not.
    """

    stage: str
    messages: tuple[int, int]
    unknown: int
    slowest: dict[str, float]
    others: dict[str, float]


class Attribution(msgspec.Struct, frozen=True, kw_only=True):
    """Where the slowest `q` of messages spend their time; the parts of `stages` add up to the tail exactly.

    `count` messages, `tail_count` of them at or above `threshold_ns`, of which `unfinished` never ended and count with
    the path's `max_age`. `tail_outcomes` says how the tail's messages ended. `failed` ended early, by outcome, and
    `undecided` may still arrive: both are in no other number. `effective_n` is how many independent messages the tail
    is worth. `overlapping` finished messages have stages that add up to more than the message; of those that were
    looked at, `reduced` were reduced to the critical path (then `tail_count` is how many of the tail were looked at).
    `inside` is what collectors saw on the threads.
    """

    path: str
    from_ns: int
    to_ns: int
    q: float
    count: int
    tail_count: int
    threshold_ns: int
    tail_total_ns: int
    tail_mean_ns: int
    body_mean_ns: int
    excess_ns: int
    unfinished: int
    tail_outcomes: dict[str, int]
    failed: dict[str, int]
    undecided: int
    overlapping: int
    clusters: int
    cluster_s: int
    effective_n: float
    confidence: float
    stages: list[StageShare]
    completeness: float | None
    sentence: str
    reduced: int = 0
    inside: list[Inside] = []


@dataclass(frozen=True, slots=True)
class Facts:
    """What is counted beside the sums, over all slices of the messages."""

    unfinished: int
    outcomes: dict[str, int]
    overlapping: int
    apart: Apart

    def __add__(self, other: Facts) -> Facts:
        """Both slices."""
        return Facts(
            self.unfinished + other.unfinished,
            _added(self.outcomes, other.outcomes),
            self.overlapping + other.overlapping,
            Apart(_added(self.apart.failed, other.apart.failed), self.apart.undecided + other.apart.undecided),
        )


def attribution(
    frame: pl.DataFrame,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    q: float = 0.01,
    known_to_ns: int | None = None,
    completeness: float | None = None,
    seed: int = 1,
) -> Attribution:
    """Attribute the tail of a population's frame (`analytics.population`). Raises ValueError where there is no tail."""
    prepared, apart = took(frame, path, known_to_ns)
    cut = cuts(prepared["took_ns"].to_numpy(), q)
    length_ns = clusters.cluster_ns(from_ns, to_ns)
    sums = clusters.sums_of(prepared, len(parts(path)), cut, length_ns)
    return attributed(
        path,
        sums,
        cut,
        facts_of(prepared, path, cut, apart),
        from_ns=from_ns,
        to_ns=to_ns,
        cluster_length_ns=length_ns,
        completeness=completeness,
        seed=seed,
    )


def facts_of(prepared: pl.DataFrame, path: Path, cut: Cuts, apart: Apart) -> Facts:
    """What is counted beside the sums in one slice."""
    tail = prepared.filter(pl.col("took_ns") >= cut.tail_ns)
    outcomes = tail["outcome"].cast(pl.String).value_counts().sort("outcome").rows()
    rest = pl.col(f"part_{len(path.stages)}")
    over = prepared.select((pl.col("finished") & (rest < 0)).sum()).item()
    return Facts(int((~tail["finished"]).sum()), dict(outcomes), int(over), apart)


def attributed(
    path: Path,
    sums: clusters.Sums,
    cut: Cuts,
    facts: Facts,
    *,
    from_ns: int,
    to_ns: int,
    cluster_length_ns: int,
    completeness: float | None = None,
    seed: int = 1,
    confidence: float = CONFIDENCE,
) -> Attribution:
    """The attribution of cluster sums, however many slices they were summed over."""
    draws = clusters.replicates(sums, seed)
    tail_n, body_n = int(sums.tail_n.sum()), int(sums.body_n.sum())
    tail, body = sums.tail.sum(axis=0), sums.body.sum(axis=0)
    tail_mean, body_mean = apportion(tail, tail_n), apportion(body, body_n)
    band = apportion(sums.band, sums.band_n)
    excess = [a - b for a, b in zip(tail_mean, body_mean, strict=True)]
    whole, beyond = sum(tail_mean), sum(excess)
    stages = []
    more = draws.tail - draws.body
    for i, name in enumerate(parts(path)):
        ci = draws.interval(_ratio(draws.tail[:, i], draws.tail.sum(axis=1)), confidence)
        share_of = draws.interval(_ratio(more[:, i], more.sum(axis=1)), confidence)
        stages.append(
            StageShare(
                stage=name,
                kind=kind_of(path, name),
                total_ns=int(tail[i]),
                mean_ns=tail_mean[i],
                share=int(tail[i]) / int(tail.sum()) if tail.sum() else 0.0,
                share_ci=ci,
                at_quantile_ns=band[i],
                body_ns=body_mean[i],
                excess_ns=excess[i],
                excess_ci_ns=draws.interval(more[:, i], confidence),
                excess_share=excess[i] / beyond if beyond > 0 else None,
                excess_share_ci=share_of if beyond > 0 else None,
            )
        )
    return Attribution(
        path=path.name,
        from_ns=from_ns,
        to_ns=to_ns,
        q=cut.q,
        count=int(sums.n.sum()),
        tail_count=tail_n,
        threshold_ns=cut.tail_ns,
        tail_total_ns=int(tail.sum()),
        tail_mean_ns=whole,
        body_mean_ns=sum(body_mean),
        excess_ns=beyond,
        unfinished=facts.unfinished,
        tail_outcomes=facts.outcomes,
        failed=facts.apart.failed,
        undecided=facts.apart.undecided,
        overlapping=facts.overlapping,
        clusters=draws.clusters,
        cluster_s=cluster_length_ns // clusters.NS,
        effective_n=clusters.effective(sums.tail_n, sums.n),
        confidence=confidence,
        stages=stages,
        completeness=completeness,
        sentence=_sentence(path, cut, tail_n, whole, beyond, facts, stages),
    )


def _ratio(part: clusters.Floats, whole: clusters.Floats) -> clusters.Floats:
    out: clusters.Floats = np.divide(part, whole, out=np.zeros_like(part), where=whole != 0)
    return out


def _added(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one.get(name, 0) + other.get(name, 0) for name in sorted({*one, *other})}


def _sentence(
    path: Path, cut: Cuts, tail_n: int, whole: int, beyond: int, facts: Facts, stages: list[StageShare]
) -> str:
    said = (
        f"The slowest {100 * cut.q:g} % ({tail_n:,} of {cut.count:,} messages) took {_ms(cut.tail_ns)} or more,"
        f" {_ms(whole)} on average."
    )
    first = max(stages, key=lambda one: one.excess_ns)
    if beyond > 0 and first.excess_share is not None:
        ci = first.excess_share_ci
        sure = "" if ci is None else f" (95 % interval {100 * ci[0]:.0f} to {100 * ci[1]:.0f} %)"
        said += (
            f" They took {_ms(beyond)} more than the middle of all messages; {100 * first.excess_share:.0f} %{sure}"
            f" of that was {named(path, first.stage)}."
        )
    if facts.unfinished:
        said += f" {facts.unfinished:,} of them never ended and count with {path.max_age}, the path's max_age."
    if facts.overlapping:
        said += f" In {facts.overlapping:,} messages stages overlap: their unattributed time is negative by it."
    return said


def _ms(ns: float) -> str:
    return f"{ns / 1e6:,.3f} ms"


__all__ = ["Attribution", "Ints", "StageShare", "attributed", "attribution", "facts_of"]
