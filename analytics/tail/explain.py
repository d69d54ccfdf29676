"""Why a path's tail is slower than before: causes, best first, or none and why.

Each part of the messages is tested against the comparison span; the family of parts is held at the stated rate of false
alarms (`exceedance`). What waits behind a slow stage of another message is laid to that stage (`knockon`).
A cause's share is its part of the time per message that all causes add above their thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np
import polars as pl

from analytics.paths import UNATTRIBUTED, End, Path
from analytics.tail import exceedance, knockon
from analytics.tail.stages import kind_of, layer_of
from analytics.tail.tailset import UNFINISHED, parts, took

FALSE_ALARMS = 0.01
LEAST = 100  # messages in each span
_ALONE = 0.5  # more than this of a wait behind others makes it their consequence
_MOST_SLOW = 20_000


class Cause(msgspec.Struct, frozen=True, kw_only=True):
    """One cause. `share` of the time that all causes add, with its interval.

    `stage` is the path's stage; `layer` packet, nic, scheduler or application; `kind` what the time is (the stage's
    class, or what was measured inside it); `label` the value that most sets the slow messages apart, or "". `now_share`
    of the messages took longer in it than `threshold_ns`, `before_share` in the comparison; `added_ns` per message is
    its own and that of `behind`, the stages that waited because of it. `p` is adjusted for all parts.
    """

    stage: str
    layer: str
    kind: str
    label: str
    share: float
    ci: tuple[float, float]
    added_ns: int
    now_share: float
    before_share: float
    threshold_ns: int
    messages: int
    p: float
    behind: list[str]
    evidence: str


@dataclass(frozen=True, slots=True)
class Suspect:
    """A cause before it is named: the part, its own numbers, and the keys of the messages that are slow in it."""

    part: int
    change: exceedance.Change
    p: float
    share: float
    ci: tuple[float, float]
    added_ns: float
    behind: tuple[int, ...]
    slow: pl.DataFrame = field(repr=False)


@dataclass(frozen=True, slots=True)
class Sides:
    """The messages of both spans with what each part took (`tailset.took`)."""

    path: Path
    now: pl.DataFrame
    before: pl.DataFrame
    now_span: tuple[int, int]
    before_span: tuple[int, int]

    @classmethod
    def of(
        cls,
        path: Path,
        now: pl.DataFrame,
        before: pl.DataFrame,
        now_span: tuple[int, int],
        before_span: tuple[int, int],
        known_to_ns: int | None = None,
    ) -> Sides:
        """From population frames."""
        return cls(path, took(now, path, known_to_ns)[0], took(before, path, known_to_ns)[0], now_span, before_span)

    def span(self, part: int, *, now: bool) -> exceedance.Span:
        """One part's values of one side, without messages that have no such stage."""
        frame, (first, last) = (self.now, self.now_span) if now else (self.before, self.before_span)
        if part < len(self.path.stages):
            frame = frame.filter(pl.col(f"ns_{part}").is_not_null())
        elif part == len(self.path.stages):
            frame = frame.filter("finished")
        slot = (frame["start_ns"].to_numpy() - first) * exceedance.SLOTS // max(1, last - first)
        return exceedance.Span(frame[f"part_{part}"].to_numpy(), np.clip(slot, 0, exceedance.SLOTS - 1))


def suspects(
    sides: Sides,
    others: Sequence[tuple[Path, pl.DataFrame]] = (),
    *,
    false_alarms: float = FALSE_ALARMS,
    seed: int = 1,
) -> list[Suspect]:
    """What changed, largest share first. `others` are paths whose messages may be worked on by the same threads."""
    names = parts(sides.path)
    spans = [(sides.span(i, now=True), sides.span(i, now=False)) for i in range(len(names))]
    changes = exceedance.changes(spans, false_alarms, seed)
    found = {i: one.p for i, one in enumerate(changes) if one is not None and one.p <= false_alarms}
    if not found:
        return []
    order = sorted(found)
    replicates = exceedance.added(
        [_by_slot(spans[i][0], changes[i]) for i in order], [_by_slot(spans[i][1], changes[i]) for i in order], seed
    )
    slow = {i: _slow(sides, i, changes[i]) for i in order}
    moved, behind = _moved(sides, slow, spans, order, others)
    replicates = replicates @ moved
    total = replicates.sum(axis=1)
    shares = np.divide(replicates, total[:, None], out=np.zeros_like(replicates), where=total[:, None] > 0)
    out = []
    for at, i in enumerate(order):
        change = changes[i]
        if change is None or moved[at, at] == 0.0:
            continue
        low, high = np.quantile(shares[1:, at], [0.025, 0.975])
        out.append(
            Suspect(
                i, change, found[i], float(shares[0, at]), (float(low), float(high)), float(replicates[0, at]),
                tuple(order[k] for k in behind[at]), slow[i],
            )
        )  # fmt: skip
    return sorted(out, key=lambda one: (-one.share, one.part))


def named(sides: Sides, one: Suspect, label: str, inside: Mapping[str, float], culprit: str) -> Cause:
    """A suspect as a cause. `inside` is the share of its added time by what was measured on its threads."""
    path, names = sides.path, parts(sides.path)
    name = names[one.part]
    stage, kind = name, kind_of(path, name)
    if name == UNFINISHED:
        stage = _stuck(one.slow, path)
    elif name == UNATTRIBUTED:
        stage = UNATTRIBUTED
    most = max(inside, key=lambda key: inside[key], default="")
    measured = most if most and inside[most] >= _ALONE else ""
    layer = layer_of(kind_of(path, stage) if kind == UNFINISHED and stage != UNFINISHED else kind, measured)
    evidence = (
        f"{100 * one.change.now_share:.2g} % of messages above {one.change.threshold_ns / 1e6:.3f} ms,"
        f" {100 * one.change.before_share:.2g} % before"
    )
    if measured:
        evidence += f"; {100 * inside[measured]:.0f} % of it {measured}" + (f" by {culprit}" if culprit else "")
    if one.behind:
        evidence += f"; {', '.join(names[i] for i in one.behind)} waited behind it"
    return Cause(
        stage=stage,
        layer=layer,
        kind=measured or kind,
        label=label,
        share=one.share,
        ci=one.ci,
        added_ns=round(one.added_ns),
        now_share=one.change.now_share,
        before_share=one.change.before_share,
        threshold_ns=one.change.threshold_ns,
        messages=one.slow.height,
        p=one.p,
        behind=[names[i] for i in one.behind],
        evidence=evidence,
    )


def _by_slot(span: exceedance.Span, change: exceedance.Change | None) -> exceedance.Floats:
    return span.beyond(0 if change is None else change.threshold_ns)


def _slow(sides: Sides, part: int, change: exceedance.Change | None) -> pl.DataFrame:
    threshold = 0 if change is None else change.threshold_ns
    return sides.now.filter(pl.col(f"part_{part}") > threshold).head(_MOST_SLOW)


def _moved(
    sides: Sides,
    slow: Mapping[int, pl.DataFrame],
    spans: Sequence[tuple[exceedance.Span, exceedance.Span]],
    order: Sequence[int],
    others: Sequence[tuple[Path, pl.DataFrame]],
) -> tuple[np.ndarray, list[list[int]]]:
    """What part of each suspect's time is laid to which: float64[suspects, suspects], rows add up to 1."""
    path = sides.path
    count = len(order)
    out, behind = np.eye(count), [[] for _ in order]  # type: ignore[var-annotated]
    stages = [i for i in order if i < len(path.stages)]
    if f"thread_{stages[0] if stages else 0}" not in sides.now.columns or len(stages) < 2:
        return out, behind
    at_work = {(path.stages[i].start, path.stages[i].end): order.index(i) for i in stages}
    work = [_work(path, sides.now, spans, at_work)]
    for other, frame in others:
        if other.name != path.name and frame.height:
            work.append(_work(other, frame, None, at_work))
    for at, i in enumerate(order):
        if i >= len(path.stages):
            continue
        sums, total = knockon.behind(slow[i].filter("finished"), path, i, work, count)
        sums[at] = 0
        if total <= 0 or sums.sum() < _ALONE * total:
            continue
        share = sums / sums.sum()  # most of the wait is behind others: all of it is their consequence
        out[at] = share
        for k in np.flatnonzero(share >= 0.1).tolist():
            behind[k].append(at)
    return out, behind


def _work(
    path: Path,
    frame: pl.DataFrame,
    spans: Sequence[tuple[exceedance.Span, exceedance.Span]] | None,
    at_work: Mapping[tuple[End, End], int],
) -> knockon.Work:
    """The slow work on the stages that are suspects, wherever a path has them between the same ends."""
    whole = frame.filter(pl.col("e2e_ns").is_not_null())
    floors, codes = [], []
    for i, stage in enumerate(path.stages):
        code = at_work.get((stage.start, stage.end))
        values = spans[i][1].values if spans is not None else whole[f"ns_{i}"].drop_nulls().to_numpy()
        usual = int(np.quantile(values, 0.95)) if code is not None and len(values) else np.iinfo(np.int64).max
        floors.append(usual if code is not None else np.iinfo(np.int64).max)
        codes.append(-1 if code is None else code)
    return knockon.slow_work(whole, path, floors, codes)


def _stuck(slow: pl.DataFrame, path: Path) -> str:
    """The stage that most unfinished messages did not complete: the first after the last that is known."""
    last = pl.max_horizontal(
        [pl.when(pl.col(f"ns_{i}").is_not_null()).then(i).otherwise(-1) for i in range(len(path.stages))]
    )
    where = slow.select((last + 1).clip(0, len(path.stages) - 1).alias("at"))["at"].mode().sort()
    return path.stages[int(where[0])].name if len(where) else UNFINISHED
