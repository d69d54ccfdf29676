"""`explain`: the causes of a span's slower tail, asked of the store, with the changes that stand next to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import polars as pl

from analytics import budget
from analytics.paths import Path
from analytics.population import population
from analytics.tail import attribution as attributing
from analytics.tail import cells, cpus, drivers, explain
from analytics.tail.ask import reach_of
from analytics.tail.explain import FALSE_ALARMS, LEAST, Cause, Sides, Suspect
from analytics.tail.read import Modes
from analytics.tail.stages import kind_of, layer_of
from analytics.tail.tailset import ENDED, parts
from collector.store import Store

NS = 1_000_000_000
AT_MOST = 500_000  # messages of each span, the rest by a hash of the key
_INSIDE = 200  # messages per cause whose stamps are read for what happened on their threads
_LOOK_BACK_NS = 600 * NS
# Being slow makes a message's data older and its answer a fallback: these do not say who it is.
_CONSEQUENCES = ("outcome", "mode", "cache", "data_age")
_LEAST_SHARE = 0.1  # of the excess over the body
_NEGATIVE_LEAST, _NEGATIVE_SHARE = 10, 0.001

_COUNT = (
    "SELECT count() AS n FROM messages WHERE path = {path:String} AND start >= fromUnixTimestamp64Nano({a:Int64})"
    " AND start < fromUnixTimestamp64Nano({b:Int64})"
)
_CHANGES = """
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, toString(kind) AS kind, who, what, toString(host) AS host,
    toString(service) AS service, version
FROM changes
WHERE ts >= fromUnixTimestamp64Nano({a:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({b:Int64}, 'UTC')
ORDER BY ts DESC LIMIT 50
"""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A recorded change near the span; `before_ns` is how long before its start (negative: within it)."""

    ts_ns: int
    before_ns: int
    kind: str
    who: str
    what: str
    host: str
    service: str
    version: str


@dataclass(slots=True)
class Where:
    """On which CPUs the threads of a span's messages were, read once and only when a cause is to be labelled."""

    store: Store
    path: Path
    from_ns: int
    to_ns: int
    reason: str = ""
    _seen: cpus.Seen | None = None

    @property
    def stages(self) -> list[str]:
        """The names of the path's stages."""
        return [stage.name for stage in self.path.stages]

    def cpus(self, marked: pl.DataFrame) -> dict[str, cpus.Known]:
        """The span's messages and those marked in `tail` by CPU; nothing with a `reason`."""
        if self._seen is None:
            self._seen = cpus.seen(self.store, marked, len(self.path.stages), self.from_ns, self.to_ns)
        found = cpus.counts(marked, self._seen.records, self.stages, 10 * NS)
        self.reason = "" if found else self._seen.reason or cpus.NOTHING
        return found


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """Why the tail is slow in [from_ns, to_ns), compared with [against_from_ns, against_to_ns) or with the body.

    `causes` best first; empty with `reason`. `compared_with` is `span` or `body`. `false_alarms` is the chance of any
    cause where nothing changed. `failed` messages ended early, by outcome, in each span. `negative` is, per stage, the
    share of messages in which it ended before it began: a clock is wrong, and what is named may be no more than that.
    `no_cpus` is why no cause can have a CPU for its label, or empty (also where there is no cause).
    """

    path: str
    from_ns: int
    to_ns: int
    against_from_ns: int
    against_to_ns: int
    compared_with: str
    count: int
    against_count: int
    causes: list[Cause]
    reason: str
    false_alarms: float
    changes: list[Change]
    failed: dict[str, int]
    failed_before: dict[str, int]
    negative: dict[str, float]
    completeness: float | None
    sentence: str
    no_cpus: str = ""


def explanation(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    against: tuple[int, int] | None = None,
    paths: Sequence[Path] = (),
    modes: Modes = None,
    false_alarms: float = FALSE_ALARMS,
    seed: int = 1,
) -> Explanation:
    """Explain the tail of the messages that start in [from_ns, to_ns).

    `against` is the span to compare with: by default the equally long one before, and the body of the messages
    themselves where that has too few. `paths` are the others of the configuration: their messages may be what this
    path's wait behind. Raises ValueError for empty or overlapping spans, and StoreError.
    """
    if from_ns >= to_ns:
        raise ValueError(f"the span is empty: from {from_ns} is not before to {to_ns}")
    other = against or (2 * from_ns - to_ns, from_ns)
    if other[0] >= other[1] or (other[0] < to_ns and other[1] > from_ns):
        raise ValueError("the span to compare with must not be empty and must not overlap the one that is explained")
    reach, complete = reach_of(store, from_ns, to_ns, modes)
    now, before = (_read(store, path, span, modes) for span in ((from_ns, to_ns), other))
    sides = Sides.of(path, now, before, (from_ns, to_ns), other, reach.known_to_ns)
    causes, reason, compared = [], "", "span"
    negative = negative_share(sides)
    where = Where(store, path, from_ns, to_ns)
    if sides.now.height < LEAST:
        reason = f"{sides.now.height} messages in the span; at least {LEAST} are needed"
    elif sides.before.height < LEAST:
        compared = "body"
        causes = _over_the_body(where, sides, seed)
        if not causes:
            reason = "the span to compare with has too few messages, and no stage makes the tail slower than the body"
    else:
        near = {stage.end.service for stage in path.stages} | {stage.start.service for stage in path.stages}
        others = [
            (one, _read(store, one, (from_ns, to_ns), modes))
            for one in paths
            if one.name != path.name and any({stage.start.service, stage.end.service} & near for stage in one.stages)
        ]
        found = explain.suspects(sides, others, false_alarms=false_alarms, seed=seed)
        inside = _inside(store, path, sides, found)
        causes = [
            explain.named(sides, one, _label(where, sides, one), *inside.get(one.part, ({}, ""))) for one in found
        ]
        if not causes:
            reason = (
                f"no stage is slow more often than before: {sides.now.height:,} messages against"
                f" {sides.before.height:,}, at a false alarm rate of {100 * false_alarms:g} %"
            )
    return Explanation(
        path=path.name,
        from_ns=from_ns,
        to_ns=to_ns,
        against_from_ns=other[0],
        against_to_ns=other[1],
        compared_with=compared,
        count=sides.now.height,
        against_count=sides.before.height,
        causes=causes,
        reason=reason,
        false_alarms=false_alarms,
        changes=_changes(store, from_ns, to_ns),
        failed=_failed(now),
        failed_before=_failed(before),
        negative=negative,
        completeness=complete,
        sentence=_clock(negative) + _sentence(path, causes, reason, compared) + _unplaced(where.reason),
        no_cpus=where.reason,
    )


def _read(store: Store, path: Path, span: tuple[int, int], modes: Modes) -> pl.DataFrame:
    n = int(store.query(_COUNT, {"path": path.name, "a": span[0], "b": span[1]})["n"][0])
    share = min(1.0, AT_MOST / max(n, 1))
    return population(store, path, from_ns=span[0], to_ns=span[1], modes=modes, share=share).frame


def _over_the_body(where: Where, sides: Sides, seed: int) -> list[Cause]:
    """What makes the slowest slower than the middle of the same messages."""
    path = where.path
    frame = sides.now.select(pl.exclude("took_ns", "finished", *(f"part_{i}" for i in range(len(parts(path))))))
    q = max(0.01, min(0.1, 30 / frame.height))
    found = attributing.attribution(frame, path, from_ns=sides.now_span[0], to_ns=sides.now_span[1], q=q, seed=seed)
    out = []
    for i, one in enumerate(found.stages):
        ci = one.excess_share_ci
        if one.excess_share is None or ci is None or ci[0] <= 0 or one.excess_share < _LEAST_SHARE:
            continue
        kind = kind_of(path, one.stage)
        tail = sides.now.filter(pl.col("took_ns") >= found.threshold_ns)
        out.append(
            Cause(
                stage=one.stage, layer=layer_of(kind), kind=kind,
                label=_driver(where, sides.now.with_columns(tail=pl.col("took_ns") >= found.threshold_ns)),
                share=one.excess_share, ci=ci, added_ns=one.excess_ns, now_share=found.tail_count / found.count,
                before_share=0.0, threshold_ns=found.threshold_ns,
                messages=int((tail[f"part_{i}"] > one.body_ns).sum()), p=0.0, behind=[],
                evidence=f"{one.excess_ns / 1e6:.3f} ms more in the slowest {100 * q:.2g} % than in the body",
            )
        )  # fmt: skip
    return sorted(out, key=lambda one: -one.share)


def _label(where: Where, sides: Sides, one: Suspect) -> str:
    return _driver(where, sides.now.with_columns(tail=pl.col(f"part_{one.part}") > one.change.threshold_ns))


def _driver(where: Where, marked: pl.DataFrame) -> str:
    """The single value that most sets the messages apart that are marked in `tail`, as `dimension=value`."""
    counted = cells.count(marked, 10 * NS, where.stages)
    labels, _ = drivers.labels_in(where.store, counted)
    found, _, dims = drivers.found(counted, labels, partly=where.cpus(marked))
    if "cpu" in dims:  # a label of the stamps says it
        where.reason = ""
    single = [one for one in found if len(one.what) == 1 and next(iter(one.what)) not in _CONSEQUENCES]
    if not single:
        return ""
    first = min(single, key=lambda one: (-one.difference, next(iter(one.what)).startswith("thread")))
    return "=".join(next(iter(first.what.items())))


def _inside(
    store: Store, path: Path, sides: Sides, found: Sequence[Suspect]
) -> dict[int, tuple[Mapping[str, float], str]]:
    """For each suspect stage: what share of its added time was measured on the threads, by kind, and by whom."""
    stages = [one for one in found if one.part < len(path.stages)]
    if not stages:
        return {}
    columns = [f"ns_{i}" for i in range(len(path.stages))]
    picked = [one.slow.filter("finished").sample(fraction=1.0, shuffle=True, seed=1).head(_INSIDE) for one in stages]
    usual = sides.now.filter("finished").sample(fraction=1.0, shuffle=True, seed=2).head(_INSIDE)
    chosen = [
        (int(row[0]), int(row[1]), list(row[2:]))
        for frame in (*picked, usual)
        for row in frame.select("key", "start_ns", *columns).iter_rows()
    ]
    spans, _ = budget.spans_of(store, path, chosen)
    if not len(spans.start):
        return {}
    seen = budget.intervals(store, spans.places, int(spans.start.min()), int(spans.end.max()) + 1)
    if not seen.names:
        return {}
    took = budget.parts_of(spans, seen)
    edges = np.cumsum([0, *(frame.height for frame in picked), usual.height])
    out: dict[int, tuple[Mapping[str, float], str]] = {}
    for at, one in enumerate(stages):
        mine = (spans.stage == one.part) & (spans.message >= edges[at]) & (spans.message < edges[at + 1])
        rest = (spans.stage == one.part) & (spans.message >= edges[-2])
        length = spans.end - spans.start
        if not mine.any():
            continue
        more = float(length[mine].mean()) - (float(length[rest].mean()) if rest.any() else 0.0)
        extra = took[mine].mean(axis=0) - (took[rest].mean(axis=0) if rest.any() else 0.0)
        kinds: dict[str, float] = {}
        for (kind, _), value in zip(seen.names, extra.tolist(), strict=True):
            kinds[kind] = kinds.get(kind, 0.0) + max(0.0, value) / max(more, 1.0)
        most = max(kinds, key=lambda kind: kinds[kind])
        culprit = max((i for i, (kind, _) in enumerate(seen.names) if kind == most), key=lambda i: float(extra[i]))
        out[one.part] = ({kind: min(1.0, value) for kind, value in kinds.items()}, seen.names[culprit][1])
    return out


def _changes(store: Store, from_ns: int, to_ns: int) -> list[Change]:
    rows = store.query(_CHANGES, {"a": from_ns - _LOOK_BACK_NS, "b": to_ns}).iter_rows(named=True)
    return [Change(before_ns=from_ns - row["ts_ns"], **row) for row in rows]


def _failed(frame: pl.DataFrame) -> dict[str, int]:
    ended = frame.filter(pl.col("e2e_ns").is_null() & pl.col("outcome").cast(pl.String).is_in(ENDED))
    return dict(ended["outcome"].cast(pl.String).value_counts().sort("outcome").rows())


def negative_share(sides: Sides) -> dict[str, float]:
    """Per stage of the explained span the share of messages in which it is negative, where that is not one in a
    thousand or a handful: two stamps of it are of clocks that disagree."""
    out = {}
    for i, stage in enumerate(sides.path.stages):
        taken = sides.now[f"ns_{i}"].drop_nulls()
        below = int((taken < 0).sum())
        if below >= _NEGATIVE_LEAST and below >= _NEGATIVE_SHARE * len(taken):
            out[stage.name] = below / len(taken)
    return out


def _clock(negative: Mapping[str, float]) -> str:
    if not negative:
        return ""
    said = ", ".join(f"{name} in {100 * share:.2g} %" for name, share in negative.items())
    return f"A clock is wrong: {said} of the messages ended before it began; stages next to it are off by as much. "


def _unplaced(reason: str) -> str:
    return f" CPUs were not looked at: {reason}." if reason else ""


def _sentence(path: Path, causes: Sequence[Cause], reason: str, compared: str) -> str:
    if not causes:
        return f"No cause is named: {reason}."
    first = causes[0]
    than = "than in the span before it" if compared == "span" else "than the middle of the same messages"
    where = f" ({first.label})" if first.label else ""
    said = (
        f"The tail of {path.name} is slower {than}: {100 * first.share:.0f} %"
        f" (95 % interval {100 * first.ci[0]:.0f} to {100 * first.ci[1]:.0f} %) of the added time is {first.stage}"
        f"{where}, layer {first.layer}."
    )
    if len(causes) == 1:
        return said
    return said + (" 1 further cause follows." if len(causes) == 2 else f" {len(causes) - 1} further causes follow.")
