"""The messages of a queue stage: when each came, how long it waited, whom it found, who served it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.paths import Path
from analytics.population import NS, Population, population
from collector.record import Mode
from collector.store import Store

ALL = "all"


@dataclass(frozen=True, slots=True)
class Waits:
    """One row per message with a known arrival in the stage, in order of arrival.

    `wait_ns` is float, NaN: it never left; `depth` is float, NaN: not stamped; `served_ns` float, NaN: the service
    after the queue is not known; `name` indexes `names`, the values of the label that tells classes apart; `server` is
    a number per host and thread that took the message out; `untimed` messages are left out, because a stage before
    this one is unknown.
    """

    stage: str
    arrived_ns: NDArray[np.int64]
    wait_ns: NDArray[np.float64]
    depth: NDArray[np.float64]
    served_ns: NDArray[np.float64]
    server: NDArray[np.int64]
    name: NDArray[np.int64]
    names: tuple[str, ...]
    untimed: int = 0

    def only(self, mask: NDArray[np.bool_]) -> Waits:
        """The same of some rows."""
        return Waits(
            self.stage,
            self.arrived_ns[mask],
            self.wait_ns[mask],
            self.depth[mask],
            self.served_ns[mask],
            self.server[mask],
            self.name[mask],
            self.names,
            self.untimed,
        )


MOST_MESSAGES = 2_000_000


class TooManyMessagesError(ValueError):
    """More messages than may be held in memory at a time."""


def read(
    store: Store, path: Path, from_ns: int, to_ns: int, share: float = 1.0, modes: tuple[Mode, ...] | None = None
) -> Population:
    """The messages (users', or of `modes`) that start in [from_ns, to_ns), or a share of them.

    Raises TooManyMessagesError, StoreError.
    """
    n = store.query(
        "SELECT count() AS n FROM messages WHERE path = {path:String}"
        " AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')",
        {"path": path.name, "from_s": max(0, from_ns) // NS // 10 * 10, "to_s": -(-to_ns // (10 * NS)) * 10},
    ).item()
    if n * share > MOST_MESSAGES:
        raise TooManyMessagesError(
            f"about {round(n * share):,} messages are more than the {MOST_MESSAGES:,} that are held at a time: ask"
            f" about less time, or about a share of at most {MOST_MESSAGES / n:.2g} of them"
        )
    return population(store, path, from_ns=from_ns, to_ns=to_ns, share=share, modes=modes)


def queue_stages(path: Path) -> list[int]:
    """The numbers of the path's stages of class `queue`."""
    return [i for i, stage in enumerate(path.stages) if stage.kind == "queue"]


def before(path: Path, stage: int) -> list[int] | None:
    """The stages that lead from the path's first end to this one's start without a gap; None when there is a gap."""
    at, chain = path.first_end, []
    for i in range(stage):
        if path.stages[i].start == at:
            at = path.stages[i].end
            chain.append(i)
    return chain if at == path.stages[stage].start else None


def waits_of(found: Population, stage: int, classes: Mapping[int, str] | None = None) -> Waits:
    """The messages of stage number `stage`; `classes` is the class of each label set (None: all are one class).

    Raises ValueError when the stages before it leave a gap, because then nobody knows when a message came.
    """
    path, frame = found.path, found.frame
    chain = before(path, stage)
    name = path.stages[stage].name
    if chain is None:
        raise ValueError(
            f"when messages came to {name} is not known: the stages before it do not lead from the path's first end to"
            f" {path.stages[stage].start.sentence} without a gap"
        )
    reached = pl.all_horizontal([pl.col(f"ns_{i}").is_not_null() for i in chain]) if chain else pl.lit(True)
    here = pl.col(f"ns_{stage}").is_not_null() | pl.col(f"depth_{stage}").is_not_null()
    rows = frame.filter(reached & here).with_columns(
        (pl.col("start_ns") + pl.sum_horizontal([pl.lit(0), *(pl.col(f"ns_{i}") for i in chain)])).alias("arrived")
    )
    rows = rows.sort("arrived", "key")
    after = next((i for i, s in enumerate(path.stages) if s.start == path.stages[stage].end and i != stage), None)
    served = rows[f"ns_{after}"] if after is not None else pl.Series([None] * rows.height, dtype=pl.Int64)
    server = rows.select(pl.struct(f"host_{stage}", f"thread_{stage}").rank("dense")).to_series()
    if classes is None:
        names: tuple[str, ...] = (ALL,)
        kind = np.zeros(rows.height, dtype=np.int64)
    else:
        names = tuple(sorted({classes.get(s, "") for s in rows["label_set"].unique()})) or (ALL,)
        index = {text: i for i, text in enumerate(names)}
        kind = np.array([index[classes.get(s, "")] for s in rows["label_set"]], dtype=np.int64)
    return Waits(
        stage=name,
        arrived_ns=rows["arrived"].to_numpy().astype(np.int64),
        wait_ns=_floats(rows[f"ns_{stage}"]),
        depth=_floats(rows[f"depth_{stage}"]),
        served_ns=_floats(served),
        server=server.to_numpy().astype(np.int64),
        name=kind,
        names=names,
        untimed=frame.filter(~reached & here).height,
    )


def values_of(labels: pl.DataFrame, label: str) -> dict[int, str]:
    """The value of `label` in each label set of `labels_of`'s frame; sets without it are absent."""
    found: dict[int, str] = {}
    for label_set, text in labels.select("label_set", "labels").iter_rows():
        value: Any = json.loads(text or "{}").get(label)
        if value is not None:
            found[label_set] = str(value)
    return found


def _floats(column: pl.Series) -> NDArray[np.float64]:
    """Whole numbers with gaps as doubles with NaN: exact up to 2^53 ns, which is 104 days."""
    return np.asarray(column.cast(pl.Float64).fill_null(float("nan")).to_numpy(), dtype=np.float64)
