"""Measures the running order path: what its links and steps took, from its own stamps.

It reads the probe's rings beside the agent, takes nothing away and deletes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from api.demo.delays import NAMES, STREAMS, quantiles_of
from api.demo.market import SITES
from api.demo.quantiles import Quantiles
from collector.clock import HostClock
from collector.record import Columns
from collector.sources.probe import ProbeSource

_POLL_S = 0.1
_MOST = 20_000_000  # stamps
_PASSES = 100  # polls of what lies in the rings already
_MS = 1_000_000  # an order that rests trades when another comes: that is not the venue's time
LEAST = 20  # samples of a name below which nothing is said of it

# name: from (point, service), to; the earliest stamp of a key at each.
_SPANS: Mapping[str, tuple[tuple[str, str], tuple[str, str]]] = {
    "line-a": (("app_egress", "feed"), ("arrived_a", "engine")),
    "line-b": (("app_egress", "feed"), ("arrived_b", "engine")),
    "feed.send": (("intended", "feed"), ("app_egress", "feed")),
    "engine.arbitrate": (("arrived_a", "engine"), ("app_ingress", "engine")),
    "engine.transform": (("app_ingress", "engine"), ("app_transform", "engine")),
    "question": (("app_transform", "engine"), ("app_ingress", "inference")),
    "inference.ingest": (("app_ingress", "inference"), ("dequeued", "inference")),
    "inference.feature": (("dequeued", "inference"), ("featured", "inference")),
    "inference.model": (("featured", "inference"), ("modelled", "inference")),
    "inference.delivery": (("modelled", "inference"), ("app_egress", "inference")),
    "signal": (("app_egress", "inference"), ("signalled", "engine")),
    "engine.ready": (("signalled", "engine"), ("ready", "engine")),
    "engine.wake": (("ready", "engine"), ("dequeued", "engine")),
    "engine.decide": (("dequeued", "engine"), ("app_decision", "engine")),
    "gateway.check": (("app_ingress", "gateway"), ("app_egress", "gateway")),
    "venue.match": (("app_ingress", "venue"), ("app_egress", "venue")),
    "orders": (("app_egress", "engine"), ("app_ingress", "gateway")),
    "market": (("app_egress", "gateway"), ("app_ingress", "venue")),
    "market.back": (("app_egress", "venue"), ("acknowledged", "gateway")),
    "orders.back": (("acknowledged", "gateway"), ("reported", "engine")),
}


def watch(ring_dir: Path, for_s: float, stopped: Callable[[], bool] = lambda: False) -> list[Columns]:
    """Everything that programs stamp for so long; what lies in the rings already is passed over."""
    source, clock = ProbeSource(ring_dir, "here"), HostClock()
    source.start({})
    found: list[Columns] = []
    rows = 0
    try:
        for _ in range(_PASSES):
            before = source.poll(clock.read()).columns
            found += [one for one in before if one.table.name == "label_sets"]
            if not before:
                break
        end_s = time.monotonic() + for_s
        while time.monotonic() < end_s and not stopped() and rows < _MOST:
            time.sleep(_POLL_S)
            for columns in source.poll(clock.read()).columns:
                found.append(columns)
                rows += len(columns)
    finally:
        source.close()
    return found


def quantiles(found: Sequence[Columns]) -> dict[str, Quantiles]:
    """What each link and step took; names with fewer than `LEAST` messages are left out."""
    stamps = _frame([one for one in found if one.table.name == "stamps"])
    if stamps is None:
        return {}
    links = [one for one in found if one.table.name == "links"]
    sites = _sites([one for one in found if one.table.name == "label_sets"], stamps)
    samples: dict[str, pl.DataFrame] = {name: _between(stamps, *ends) for name, ends in _SPANS.items()}
    samples["engine.send"] = _sent(stamps, links)
    samples["venue.trade"] = _between(stamps, ("app_egress", "venue"), ("traded", "venue")).filter(
        pl.col("ns").is_between(0, _MS)
    )
    for name in ("orders", "market", "orders.back", "market.back"):
        taken = samples.pop(name).join(sites, on="key", how="inner")
        link, _, back = name.partition(".")
        for site in SITES:
            samples[f"{link}-{site}{'.back' if back else ''}"] = taken.filter(pl.col("site") == site)
    assert set(samples) <= {*NAMES, *STREAMS}  # noqa: S101 - names of ours
    return {name: quantiles_of(rows["ns"].to_numpy()) for name, rows in samples.items() if len(rows) >= LEAST}


def _frame(parts: Sequence[Columns]) -> pl.DataFrame | None:
    frames = [
        pl.DataFrame(
            {
                "ts": part.values["ts_ns"],
                "key": part.values["key"],
                "label_set": part.values["label_set"],
                "point": _texts(part, "point"),
                "service": _texts(part, "service"),
            }
        )
        for part in parts
    ]
    return pl.concat(frames) if frames else None


def _texts(part: Columns, name: str) -> pl.Series:
    return pl.Series(part.texts[name], dtype=pl.String).gather(part.values[name].astype(np.uint32))


def _at(stamps: pl.DataFrame, end: tuple[str, str], name: str) -> pl.DataFrame:
    point, service = end
    here = stamps.filter((pl.col("point") == point) & (pl.col("service") == service))
    return here.group_by("key").agg(pl.col("ts").min().alias(name))


def _between(stamps: pl.DataFrame, start: tuple[str, str], end: tuple[str, str]) -> pl.DataFrame:
    both = _at(stamps, start, "a").join(_at(stamps, end, "b"), on="key", how="inner")
    return both.select("key", (pl.col("b") - pl.col("a")).alias("ns"))


def _sent(stamps: pl.DataFrame, links: Sequence[Columns]) -> pl.DataFrame:
    """From the decision on a quote to its first order's egress."""
    if not links:
        return pl.DataFrame({"key": [], "ns": []}, schema={"key": pl.UInt64, "ns": pl.Int64})
    linked = pl.concat([pl.DataFrame({"key": part.values["parent"], "child": part.values["child"]}) for part in links])
    decided, sent = _at(stamps, ("app_decision", "engine"), "a"), _at(stamps, ("app_egress", "engine"), "b")
    both = linked.join(decided, on="key").join(sent, left_on="child", right_on="key")
    return both.group_by("key").agg((pl.col("b") - pl.col("a")).min().alias("ns"))


def _sites(parts: Sequence[Columns], stamps: pl.DataFrame) -> pl.DataFrame:
    """The site of each order, from its labels."""
    named = [
        (number, site)
        for part in parts
        for number, labels in zip(part.values["label_set"].tolist(), part.text("labels"), strict=True)
        for site in SITES
        if f'"site":"{site}"' in labels
    ]
    sites = pl.DataFrame(named, schema={"label_set": pl.UInt64, "site": pl.String}, orient="row")
    return stamps.join(sites, on="label_set", how="inner").select("key", "site").unique("key")


def ring_dir_of(document: Mapping[str, Any]) -> Path:
    """Where the programs' rings are: as `[agent] ring_dir` says, else the environment, else the probe's default."""
    from collector.agent.registry import ring_dir
    from collector.agent.settings import AgentSettings
    from collector.settings import section

    return ring_dir(section(document.get("agent", {}), AgentSettings, "agent"))
