"""What-ifs asked of the store: a stage that is faster, no waiting for CPUs, hedged requests."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics import budget, population
from analytics.compare.arms import Arm, of_values
from analytics.compare.reading import block_ns
from analytics.completeness import share
from analytics.paths import Path
from analytics.whatif import hedging
from analytics.whatif.answers import WhatIf, effects
from collector.store import Store

NS = 1_000_000_000
MOST_MESSAGES = 2_000_000
MOST_SECONDS = 2_000
# Messages whose threads are looked at one by one.
SCHEDULED = 4_000
WAITING = ("run_queue", "preempted", "throttled")


class WhatIfError(ValueError):
    """A what-if that cannot be computed; the message says why."""


def faster(store: Store, path: Path, stage: str, factor: float, *, from_ns: int, to_ns: int) -> WhatIf:
    """Percentiles of users' messages if `stage` took 1 / `factor` of its time.

    Raises WhatIfError for a stage that the path does not have, a factor that is not positive, and no messages.
    """
    names = [one.name for one in path.stages]
    if stage not in names:
        raise WhatIfError(f"path {path.name} has no stage {stage!r}; it has {', '.join(names)}")
    if not 0.01 <= factor <= 1e6:
        raise WhatIfError(f"faster must be a factor from 0.01 to 1,000,000, got {factor:g}")
    frame, sampled = _messages(store, path, from_ns, to_ns)
    there = frame.filter(pl.col("e2e_ns").is_not_null())
    whole = there["e2e_ns"].to_numpy()
    part = there[f"ns_{names.index(stage)}"].fill_null(0).to_numpy()
    after = shorter(whole, part, factor)
    without = int(there[f"ns_{names.index(stage)}"].null_count())
    said = [
        "The other stages take as long as they did: no queue gets shorter because of it, and nothing else longer.",
        "The stages of the path follow one another; work beside them is not modelled.",
    ]
    if without:
        said.append(f"{without:,} messages do not have the stage and stay as they were.")
    return _answer(store, path, f"{stage} were {factor:g} times as fast", frame, sampled, whole, after,
                   there["start_ns"].to_numpy(), from_ns, to_ns, said)  # fmt: skip


def shorter(whole: NDArray[np.int64], part: NDArray[np.int64], factor: float) -> NDArray[np.int64]:
    """End to end if `part` of it took 1 / `factor` of its time: int64[n]. A negative part (clocks) stays."""
    return np.asarray(whole - np.round(np.maximum(part, 0) * (1 - 1 / factor)).astype(np.int64))


def without_scheduler(store: Store, path: Path, *, from_ns: int, to_ns: int) -> WhatIf:
    """Percentiles if no thread had waited for a CPU while it worked on the message.

    On a sample of messages by key, since it looks at each one's threads. Raises WhatIfError where nobody measured.
    """
    messages = budget.chosen(store, path, from_ns, to_ns, "sample", SCHEDULED)
    spans, unmatched = budget.spans_of(store, path, messages)
    if not len(spans.start):
        raise WhatIfError("no message of that time has the stamps that say which thread worked on it")
    first, last = int(spans.start.min()), int(spans.end.max())
    measured = {one.host for one in budget.mechanisms(store, first, last)}
    known = np.array([place[0] in measured for place in spans.places])[spans.place]
    if not known.any():
        raise WhatIfError("the scheduler was measured on none of the hosts: turn on [agent.scheduler]")
    found = budget.intervals(store, spans.places, first, last)
    took = budget.parts_of(spans, found)
    waiting = np.array([kind in WAITING for kind, _ in found.names], dtype=bool)
    waited = took[:, waiting].sum(axis=1) * known
    saved = np.bincount(spans.message, weights=waited, minlength=len(messages)).astype(np.int64)
    frame, _ = _messages(store, path, from_ns, to_ns)
    ends = frame.filter(pl.col("key").is_in([key for key, _, _ in messages]) & pl.col("e2e_ns").is_not_null())
    place = {key: at for at, (key, _, _) in enumerate(messages)}
    at = np.array([place[key] for key in ends["key"].to_list()], dtype=np.int64)
    whole = ends["e2e_ns"].to_numpy()
    total = frame.filter(pl.col("e2e_ns").is_not_null()).height
    said = [
        "Only waits that the scheduler collector saw, longer than its threshold, on the threads that ended the stages.",
        "A thread that had not waited would have found the rest as it did.",
        f"{int((~known).sum()):,} of {len(known):,} stages of messages lie on hosts where nobody measured;"
        f" {unmatched:,} could not be matched with a thread. They stay as they were.",
    ]
    return _answer(store, path, "no thread had waited for a CPU", ends, len(ends) / max(1, total), whole,
                   whole - np.minimum(saved[at], np.maximum(whole, 0)), ends["start_ns"].to_numpy(), from_ns, to_ns,
                   said)  # fmt: skip


def hedged(store: Store, path: Path, after_ns: int, *, from_ns: int, to_ns: int) -> WhatIf:
    """Percentiles if a second request were sent after `after_ns`, and what that costs. Raises WhatIfError."""
    if not 0 < after_ns <= path.max_age_ns:
        raise WhatIfError(f"hedge after more than nothing and at most the path's max_age of {path.max_age}")
    frame, sampled = _messages(store, path, from_ns, to_ns)
    blocks = _arm(frame, block_ns(from_ns, to_ns))
    seconds = _arm(frame, max(NS, -(-(to_ns - from_ns) // (MOST_SECONDS * NS)) * NS))
    found, load = hedging.hedged(blocks, seconds, after_ns)
    lost = int(frame["e2e_ns"].null_count())
    return WhatIf(
        what=f"requests were hedged after {after_ns / 1e6:g} ms",
        path=path.name,
        from_ns=from_ns,
        to_ns=to_ns,
        messages=frame.height,
        unfinished=lost,
        sampled=sampled,
        completeness=_complete(store, from_ns, to_ns),
        extra_load=load,
        effects=found,
        assumptions=list(hedging.ASSUMPTIONS),
    )


def _messages(store: Store, path: Path, from_ns: int, to_ns: int) -> tuple[pl.DataFrame, float]:
    """The users' messages, or a share of them by key where there are more than MOST_MESSAGES."""
    counted = store.query(
        "SELECT count() FROM messages WHERE path = {path:String} AND window >= toDateTime({a:UInt32}, 'UTC')"
        " AND window < toDateTime({b:UInt32}, 'UTC')",
        {"path": path.name, "a": from_ns // NS // 10 * 10, "b": -(-to_ns // (10 * NS)) * 10},
    ).item()
    part = min(1.0, MOST_MESSAGES / max(1, int(counted)))
    found = population.population(store, path, from_ns=from_ns, to_ns=to_ns, share=part, details=False)
    if not found.frame.height:
        raise WhatIfError(f"no message of path {path.name} is kept of that time")
    return found.frame, part


def _arm(frame: pl.DataFrame, length_ns: int) -> Arm:
    """Finished messages by block of time, the unfinished ones beside them."""
    block = frame["start_ns"].to_numpy() // length_ns
    done = frame["e2e_ns"].is_not_null().to_numpy()
    values = frame["e2e_ns"].drop_nulls().to_numpy()
    made = of_values("messages", values, block[done])
    names = {name: at for at, name in enumerate(made.cluster)}
    lost = np.zeros(len(made.cluster), dtype=np.int64)
    for name, n in zip(*np.unique(block[~done], return_counts=True), strict=True):
        # A block in which nothing finished has no row of its own; its messages count in the nearest that has.
        lost[names.get(str(name), min(len(lost) - 1, int(np.searchsorted(np.unique(block[done]), name))))] += n
    return replace(made, shares={"unfinished": lost})


def _answer(
    store: Store, path: Path, what: str, frame: pl.DataFrame, sampled: float, before: NDArray[np.int64],
    after: NDArray[np.int64], start_ns: NDArray[np.int64], from_ns: int, to_ns: int, said: list[str],
) -> WhatIf:  # fmt: skip
    block = start_ns // block_ns(from_ns, to_ns)
    lost = int(frame["e2e_ns"].null_count())
    if lost:
        said = [*said, f"{lost:,} messages never finished and are in no percentile here."]
    return WhatIf(
        what=what,
        path=path.name,
        from_ns=from_ns,
        to_ns=to_ns,
        messages=frame.height,
        unfinished=lost,
        sampled=sampled,
        completeness=_complete(store, from_ns, to_ns),
        extra_load=None,
        effects=effects(of_values("before", before, block), of_values("after", after, block)),
        assumptions=said,
    )


def _complete(store: Store, from_ns: int, to_ns: int) -> float | None:
    known = share(store, from_ns, to_ns)
    return known.share if known.share is not None else known.known_share
