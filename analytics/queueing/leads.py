"""Whether a sampled level, such as a queue's depth, goes before the latency of a path, and by how long."""

from __future__ import annotations

import msgspec
import numpy as np

from analytics.completeness import completeness
from analytics.paths import END_TO_END, Path
from analytics.queueing.lag import Lag, lag
from analytics.queueing.queues import levels_of
from analytics.queueing.waits import before, read
from collector.record import Mode
from collector.store import Store

READING = (
    "A positive lag says that the gauge goes first. What both share with the time of day is removed; the correlation is"
    " held against series shifted in a circle. Going first is not causing."
)


class GaugeLead(msgspec.Struct, frozen=True, kw_only=True):
    """How a gauge and the latency of one stage go together in time; of the latency the rank is taken."""

    path: str
    stage: str
    gauge: str
    count: int
    completeness: float | None
    lag: Lag
    sentence: str


def gauge_lead(
    store: Store, path: Path, gauge: str, *, from_ns: int, to_ns: int, stage: str = END_TO_END, longest_ns: int,
    bin_ns: int, share: float = 1.0, modes: tuple[Mode, ...] | None = None, seed: int = 0,
) -> GaugeLead:  # fmt: skip
    """The lag of the latency of `stage` behind `gauge`, up to `longest_ns` in bins of `bin_ns`.

    Latencies count by rank, so that one very slow message does not decide. Raises KeyError for an unknown stage,
    ValueError for bins that make no sense, a stage whose start is not known, or too many messages; StoreError.
    """
    if stage not in path.stage_names[:-1]:
        raise KeyError(f"path {path.name} has no stage {stage!r}; it has {', '.join(path.stage_names[:-1])}")
    frame = read(store, path, from_ns, to_ns, share, modes).frame
    column, chain = "e2e_ns", []
    if stage != END_TO_END:
        i = path.stage_names.index(stage)
        known = before(path, i)
        if known is None:
            raise ValueError(f"when messages came to {stage} is not known: the stages before it leave a gap")
        column, chain = f"ns_{i}", [f"ns_{k}" for k in known]
    rows = frame.drop_nulls([column, *chain])
    at = rows["start_ns"].to_numpy().astype(np.int64)
    for name in chain:
        at = at + rows[name].to_numpy()
    took = rows[column].rank().to_numpy()
    levels = levels_of(store, gauge, from_ns, to_ns)
    found = lag(
        levels["t"].to_numpy(), levels["value"].to_numpy(), at, took, longest_ns=longest_ns, bin_ns=bin_ns, seed=seed
    )
    return GaugeLead(
        path=path.name, stage=stage, gauge=gauge, count=rows.height,
        completeness=completeness(store, from_ns, to_ns)[0].share, lag=found, sentence=READING,
    )  # fmt: skip
