"""Questions about the tail, asked of the store: budgets, attribution and drivers of a span."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import msgspec

from analytics import budget, completeness, tally
from analytics.cover import widen
from analytics.paths import Path
from analytics.tail import attribution as attributing
from analytics.tail import budgets as budgeting
from analytics.tail import clusters, cpus, drivers, summed
from analytics.tail.attribution import Attribution, Facts, Inside, facts_of
from analytics.tail.budgets import Budgets, Counted
from analytics.tail.critical import sequential
from analytics.tail.drivers import Drivers
from analytics.tail.read import Modes, Reach, frames, slices
from analytics.tail.reduced import members
from analytics.tail.tailset import Cuts, parts
from collector.store import Store

NS = 1_000_000_000
_LOOKED_INTO = 200  # messages whose stamps are read for what happened on their threads
_PICKS: tuple[budget.Pick, budget.Pick] = ("slowest", "sample")
Progress = Callable[[int, int], None]  # slices done, of how many


def reach_of(store: Store, from_ns: int, to_ns: int, modes: Modes = None) -> tuple[Reach, float | None]:
    """The reach of a span and its completeness: an unfinished message is decided once all has landed past its age."""
    share = completeness.share(store, from_ns, to_ns)
    known = share.known_to_ns if share.waiting_for else None
    return Reach(from_ns, to_ns, modes, known), share.share if share.share is not None else share.known_share


def attribution(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    q: float = 0.01,
    modes: Modes = None,
    seed: int = 1,
    progress: Progress | None = None,
) -> Attribution:
    """Attribute the slowest `q` of the messages that start in [from_ns, to_ns).

    Raises ValueError for too few messages or a bad q, and StoreError.
    """
    reach, complete = reach_of(store, from_ns, to_ns, modes)
    length_ns = clusters.cluster_ns(from_ns, to_ns)
    begin, apart = summed.tail_cuts(store, path, reach, q)
    sums, facts, reduced = (
        (*summed.sums(store, path, reach, begin, apart, length_ns), 0)
        if sequential(path)
        else _one_by_one(store, path, reach, begin, length_ns, progress)
    )
    found = attributing.attributed(
        path,
        sums,
        begin,
        facts,
        from_ns=from_ns,
        to_ns=to_ns,
        cluster_length_ns=length_ns,
        completeness=complete,
        seed=seed,
    )
    said = found.sentence
    if reduced:
        said += f" {reduced:,} messages were reduced to their critical path."
    within = _inside(store, path, from_ns, to_ns) if modes is None else []
    return msgspec.structs.replace(found, reduced=reduced, inside=within, sentence=said)


def _one_by_one(
    store: Store, path: Path, reach: Reach, begin: Cuts, length_ns: int, progress: Progress | None
) -> tuple[clusters.Sums, Facts, int]:
    """The sums of a path whose stages can overlap: tail and body are reduced to the critical path first."""
    cut = slices(store, path, reach)
    sums, facts, reduced = [], [], 0
    for done, (frame, apart) in enumerate(frames(store, path, reach, cut, details=False)):
        if progress is not None:
            progress(done, len(cut.spans))
        chosen, changed = members(store, path, frame, begin)
        reduced += changed
        sums.append(clusters.sums_of(frame, len(parts(path)), begin, length_ns, chosen))
        facts.append(facts_of(frame, path, begin, apart))
    return reduce(add, sums), reduce(add, facts), reduced


def _inside(store: Store, path: Path, from_ns: int, to_ns: int) -> list[Inside]:
    """What kept threads from working, of the slowest messages and of a sample; nothing where nobody measured."""
    slow, usual = (
        budget.stage_budgets(store, path, from_ns=from_ns, to_ns=to_ns, pick=pick, limit=_LOOKED_INTO)
        for pick in _PICKS
    )
    others = {one.stage: one for one in usual.stages}
    return [
        Inside(
            stage=one.stage,
            messages=(one.messages, others[one.stage].messages if one.stage in others else 0),
            unknown=one.unknown,
            slowest=_shares(one),
            others=_shares(others[one.stage]) if one.stage in others else {},
        )
        for one in slow.stages
        if one.messages
    ]


def _shares(one: budget.StageBudget) -> dict[str, float]:
    return {kind: ns / one.total_ns for kind, ns in one.kinds.items()} if one.total_ns else {}


def budgets(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    step_s: int = 60,
    q: float = 0.01,
    rollup: str = "",
    modes: Modes = None,
    progress: Progress | None = None,
) -> Budgets:
    """Budgets and predictability of [from_ns, to_ns), widened to whole 10 s windows, per step of `step_s` seconds.

    Raises ValueError for a step that is no multiple of 10 s, and StoreError.
    """
    if step_s <= 0 or step_s % 10:
        raise ValueError(f"step_s must be a positive multiple of 10, the finest window, got {step_s}")
    first, last = widen(from_ns, to_ns)
    whole = tally.stored(store, path.name, first, last, rollup=rollup)
    stepped = tally.stored(store, path.name, first, last, rollup=rollup, step_s=step_s)
    counted = {
        stage: Counted(
            one.counts, one.sums["missing"], {at: part.counts for (at, name), part in stepped.items() if name == stage}
        )
        for (_, stage), one in whole.items()
    }
    reach, complete = reach_of(store, first * NS, last * NS, modes)
    cut = slices(store, path, reach)
    moved = []
    for done, (frame, _) in enumerate(frames(store, path, reach, cut, details=False)):
        if progress is not None:
            progress(done, len(cut.spans))
        moved.append(budgeting.moments(frame, path))
    try:
        tail = attribution(store, path, from_ns=first * NS, to_ns=last * NS, q=q, modes=modes)
    except ValueError:  # too few messages for a tail: the budgets stand without it
        tail = None
    return budgeting.budgets(
        path,
        counted,
        reduce(add, moved),
        tail,
        from_ns=first * NS,
        to_ns=last * NS,
        step_s=step_s,
        completeness=complete,
    )


def who(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    q: float = 0.01,
    modes: Modes = None,
    support: int = drivers.SUPPORT,
) -> Drivers:
    """What sets the slowest `q` of the messages that start in [from_ns, to_ns) apart from the others.

    Raises ValueError for too few messages or a bad q, and StoreError.
    """
    reach, complete = reach_of(store, from_ns, to_ns, modes)
    begin, _ = summed.tail_cuts(store, path, reach, q)
    length_ns = clusters.cluster_ns(from_ns, to_ns)
    whole = summed.counted(store, path, reach, begin, length_ns)
    labels, many = drivers.labels_in(store, whole)
    partly: dict[str, cpus.Known] = {}
    no_cpus = cpus.NOTHING
    if cpus.any_seen(store, from_ns, to_ns):  # else the messages need not be read
        some = summed.threads(store, path, reach, begin, cpus.MOST_MESSAGES)
        partly, no_cpus = cpus.known(store, some, [stage.name for stage in path.stages], from_ns, to_ns, length_ns)
    found, looked_at, dims = drivers.found(whole, labels, support=support, partly=partly)
    no_cpus = "" if "cpu" in dims else no_cpus  # a label of the stamps says it
    rate = drivers.FALSE_DISCOVERIES
    return Drivers(
        path=path.name,
        from_ns=from_ns,
        to_ns=to_ns,
        q=q,
        count=int(whole.cells["n"].sum()),
        tail_count=int(whole.cells["tail"].sum()),
        threshold_ns=begin.tail_ns,
        looked_at=looked_at,
        dimensions=dims,
        false_discoveries=rate,
        drivers=found,
        completeness=complete,
        sentence=drivers.said(found, looked_at, rate, without_labels=many, no_cpus=no_cpus),
        no_cpus=no_cpus,
    )
