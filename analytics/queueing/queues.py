"""The answer about a path's queues: the tail by depth, what messages waited behind, whether the data can be true."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl

from analytics.completeness import completeness
from analytics.paths import Path
from analytics.population import Population, labels_of
from analytics.queueing.blocking import HeadOfLine, head_of_line, order_of
from analytics.queueing.depth import EDGES, DepthLimit, DepthTail, Rising, by_depth, depth_limit, rising
from analytics.queueing.little import Little, Verdict, by_depth_on_arrival, by_events, by_gauge
from analytics.queueing.waits import ALL, Waits, queue_stages, read, values_of, waits_of
from collector.record import Mode
from collector.store import Store

READING = (
    "Each row is what messages waited that found so many others when they came; a deeper queue must not be faster."
    " Intervals are 95 %, by what messages that wait for the same work are worth. Depth goes with the wait, it is not"
    " shown to cause it."
)
_NONE = "no message came to this queue in that time; those of a history are asked for with mode synthetic"
MOST_CLASSES = 20


class QueueClass(msgspec.Struct, frozen=True, kw_only=True):
    """One class of a queue, or all of them (`name` is `all`)."""

    name: str
    count: int
    unfinished: int
    without_depth: int
    depths: list[DepthTail]
    rising: list[Rising]
    limit: DepthLimit | None
    little: list[Little]


class Queue(msgspec.Struct, frozen=True, kw_only=True):
    """One queue stage. `order` are the classes, the most urgent first; those that do not differ stand together.

    `little` is the
    worst verdict on it; `depth_counts` says whether the stamped depth is that of `all` classes or of the message's own
    `class`, where the events tell. `refused` says why nothing is known of it; then the lists are empty.
    """

    path: str
    stage: str
    between: str
    label: str
    count: int
    untimed: int
    completeness: float | None
    order: list[list[str]]
    order_from: str
    classes: list[QueueClass]
    head_of_line: list[HeadOfLine]
    little: Verdict
    depth_counts: str
    refused: str
    sentence: str


def queues(
    store: Store,
    path: Path,
    *,
    from_ns: int,
    to_ns: int,
    stage: str | None = None,
    label: str = "priority",
    order: tuple[str, ...] = (),
    gauge: str = "",
    threshold_ns: int | None = None,
    good: float = 0.99,
    share: float = 1.0,
    edges: tuple[int, ...] = EDGES,
    modes: tuple[Mode, ...] | None = None,
) -> list[Queue]:
    """Every queue stage of `path` (or one) in [from_ns, to_ns).

    Messages are users' unless `modes` names others. Classes are the values of `label`; `order` names them, the most
    urgent first (empty: seen from who overtakes whom). `gauge` is the name of a sampled depth for Little's law. With
    `threshold_ns` the depth limit is told that keeps `good` of the waits below it; without, the stage's budget is
    taken. `share` takes a part of the messages: then neither Little's law nor head of line can be asked. Raises
    KeyError for a stage that is no queue, TooManyMessagesError, StoreError.
    """
    wanted = [i for i in queue_stages(path) if stage in (None, path.stages[i].name)]
    if stage is not None and not wanted:
        known = ", ".join(path.stages[i].name for i in queue_stages(path)) or "none"
        raise KeyError(f"path {path.name} has no queue {stage!r}; its stages of class queue are: {known}")
    if not wanted:
        return []
    # Messages that came before and are still in are the left edge of Little's law.
    found = read(store, path, from_ns - path.max_age_ns, to_ns, share, modes)
    sets = labels_of(store, found.frame["label_set"]) if found.frame.height else None
    classes = values_of(sets, label) if sets is not None else {}
    if len(set(classes.values())) > MOST_CLASSES:
        classes = {}
    known_share = completeness(store, from_ns, to_ns)[0].share
    levels = levels_of(store, gauge, from_ns, to_ns) if gauge else None
    return [
        _queue(found, i, classes, known_share, from_ns, to_ns, label, order, levels, threshold_ns, good, edges)
        for i in wanted
    ]


def _queue(
    found: Population, stage: int, classes: dict[int, str], complete: float | None, from_ns: int, to_ns: int,
    label: str, order: tuple[str, ...], levels: pl.DataFrame | None, threshold_ns: int | None, good: float,
    edges: tuple[int, ...],
) -> Queue:  # fmt: skip
    path, about = found.path, found.path.stages[stage]

    def nothing(why: str, untimed: int = 0) -> Queue:
        return Queue(
            path=path.name, stage=about.name, between=about.sentence, label=label, count=0, untimed=untimed,
            completeness=complete, order=[], order_from="", classes=[], head_of_line=[], little="undecided",
            depth_counts="", refused=why, sentence=READING,
        )  # fmt: skip

    try:
        waits = waits_of(found, stage, classes or None)
    except ValueError as error:
        return nothing(str(error))
    now = (waits.arrived_ns >= from_ns) & (waits.arrived_ns < to_ns)
    if not now.any():
        return nothing(_NONE, waits.untimed)
    groups, said = _order(waits, order)
    whole = found.sampled == 1.0
    limit_ns = about.budget_ns if threshold_ns is None else threshold_ns
    several = len(waits.names) > 1
    told = [(ALL, np.ones(len(now), dtype=bool))] if several else []
    told += [(name, waits.name == i) for i, name in enumerate(waits.names)]
    parts = []
    for name, mask in told:
        parts.append(_class(name, waits.only(mask), from_ns, to_ns, limit_ns, good, edges, whole, path.max_age_ns))
    if levels is not None and whole:
        law = by_gauge(
            waits.arrived_ns, waits.wait_ns, levels["t"].to_numpy(), levels["value"].to_numpy(),
            from_ns=from_ns, to_ns=to_ns, longest_ns=path.max_age_ns,
        )  # fmt: skip
        parts[0] = msgspec.structs.replace(parts[0], little=[*parts[0].little, law])
    verdict, counts = _verdict(parts, several)
    return Queue(
        path=path.name,
        stage=about.name,
        between=about.sentence,
        label=label,
        count=int(now.sum()),
        untimed=waits.untimed,
        completeness=complete,
        order=[[waits.names[c] for c in group] for group in groups],
        order_from=said,
        classes=parts,
        head_of_line=_blocked(waits, now, groups) if whole else [],
        little=verdict,
        depth_counts=counts,
        refused="",
        sentence=READING,
    )


def _verdict(parts: list[QueueClass], several: bool) -> tuple[Verdict, str]:
    """The worst of the laws, and what the depth counts: the whole queue, or those of the message's own class.

    A program may stamp either; the one that agrees with the events is taken.
    """
    depth = {part.name: law.verdict for part in parts for law in part.little if law.source == "depth on arrival"}
    others = [law.verdict for part in parts for law in part.little if law.source != "depth on arrival"]
    counts = ""
    if several and depth:
        total = depth.pop(ALL)
        own = _worst(list(depth.values()))
        counts = ALL if total == "holds" else "class" if own == "holds" else ""
        others.append(total if counts == ALL else own)
    else:
        others += depth.values()
    return _worst(others), counts


def _worst(verdicts: list[Verdict]) -> Verdict:
    return "broken" if "broken" in verdicts else "holds" if "holds" in verdicts else "undecided"


def _class(
    name: str, waits: Waits, from_ns: int, to_ns: int, limit_ns: int | None, good: float, edges: tuple[int, ...],
    whole: bool, longest_ns: int,
) -> QueueClass:  # fmt: skip
    now = (waits.arrived_ns >= from_ns) & (waits.arrived_ns < to_ns)
    deep = now & ~np.isnan(waits.depth)
    depth, wait, at = waits.depth[deep].astype(np.int64), waits.wait_ns[deep], waits.arrived_ns[deep]
    tails = by_depth(np.maximum(depth, 0), wait, at, edges=edges, from_ns=from_ns, to_ns=to_ns)
    reach = {"from_ns": from_ns, "to_ns": to_ns, "longest_ns": longest_ns}
    laws = []
    if whole:
        laws = [
            by_events(waits.arrived_ns, waits.wait_ns, **reach),
            by_depth_on_arrival(waits.arrived_ns, waits.wait_ns, waits.depth, **reach),
        ]
    limit = None
    if limit_ns is not None and len(depth):
        limit = depth_limit(
            np.maximum(depth, 0), wait, at, threshold_ns=limit_ns, good=good, from_ns=from_ns, to_ns=to_ns
        )
    return QueueClass(
        name=name or "(none)",
        count=int(now.sum()),
        unfinished=int(np.isnan(waits.wait_ns[now]).sum()),
        without_depth=int(now.sum() - deep.sum()),
        depths=tails,
        rising=[rising(tails, q) for q in (0.5, 0.99)],
        limit=limit,
        little=laws,
    )


def _order(waits: Waits, order: tuple[str, ...]) -> tuple[list[list[int]], str]:
    index = {name: i for i, name in enumerate(waits.names)}
    if order:
        named = [[index[name]] for name in order if name in index]
        rest = [i for name, i in index.items() if name not in order]
        return named + ([rest] if rest else []), "as asked"
    left = ~np.isnan(waits.wait_ns)
    taken = (waits.arrived_ns[left] + waits.wait_ns[left]).astype(np.int64)
    return order_of(waits.name[left], waits.arrived_ns[left], taken, len(waits.names)), "who overtakes whom"


def _blocked(waits: Waits, now: np.ndarray, groups: list[list[int]]) -> list[HeadOfLine]:
    known = now & ~np.isnan(waits.wait_ns) & ~np.isnan(waits.served_ns) & (waits.served_ns >= 0)
    if not known.any():
        return []
    one = waits.only(known)
    taken = one.arrived_ns + one.wait_ns.astype(np.int64)
    done = taken + one.served_ns.astype(np.int64)
    names = [name or "(none)" for name in one.names]
    return head_of_line(one.name, one.arrived_ns, taken, done, one.server, names, groups)


def levels_of(store: Store, gauge: str, from_ns: int, to_ns: int) -> pl.DataFrame:
    """The readings of a gauge, summed over its series, each of which stands until its next reading."""
    frame = store.query(
        "SELECT toUnixTimestamp64Nano(ts) AS t, cityHash64(host, service, label_set) AS series, value FROM gauges"
        " WHERE name = {name:String} AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')"
        " AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC') ORDER BY t LIMIT 1000000",
        {"name": gauge, "from_ns": from_ns, "to_ns": to_ns},
    )
    if frame["series"].n_unique() <= 1:
        return frame.select("t", "value")
    wide = frame.pivot("series", index="t", values="value", aggregate_function="last").sort("t")
    series = [c for c in wide.columns if c != "t"]
    wide = wide.with_columns(pl.col(series).forward_fill())
    return wide.drop_nulls().select("t", pl.sum_horizontal(series).alias("value"))
