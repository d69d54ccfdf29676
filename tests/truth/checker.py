"""Draws faults, lets the order path's own logic meet them on the virtual clock, and asks `explain` what went wrong.

The analytics are given stamps and the declared paths, as ever; what was ordered is known here alone.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path as File

from analytics.backfill import backfill
from analytics.paths import Path
from analytics.tail.why import Explanation, explanation
from analytics.window_settings import WindowSettings
from api.demo.faults import Fault, checked
from api.demo.history.hours import play
from api.demo.history.making import pack
from api.demo.history.shipping import Shipping, collector_of
from api.demo.market import SYMBOLS, Market
from api.demo.profile import profile
from collector.landing import Landing, LandingSettings
from collector.points import Point
from collector.record import Mode
from collector.store import Store

NS = 1_000_000_000
MS = 1_000_000
LENGTH_NS = 150 * NS  # of the span with the fault, and of the one before it
RATE = 60.0


@dataclass(frozen=True)
class Draw:
    """A fault as drawn, which path to ask about, and which stages are a right answer."""

    fault: Fault
    path: str
    stages: frozenset[str]
    layers: frozenset[str]

    def __str__(self) -> str:
        return f"{self.fault.kind} at {self.fault.at} {100 * self.fault.size:g} % {self.fault.amount_ns / MS:g} ms"


# Where a program's work on a message lies, by path: (path, stage). Waits for its threads are hops into it.
WORK = {
    "inference": ("inference", {"model"}), "engine": ("tick", {"decide"}),
    "gateway-east": ("order", {"gateway"}), "gateway-west": ("order", {"gateway"}),
    "venue-east": ("order", {"venue"}), "venue-west": ("order", {"venue"}),
}  # fmt: skip
HOPS = {
    "feed": ("tick", {"feed_send"}),
    "inference": ("inference", {"ask", "ingest"}), "engine": ("tick", {"feed_transit", "signal", "queue_wait"}),
    "gateway-east": ("order", {"gateway_transit", "return"}), "gateway-west": ("order", {"gateway_transit", "return"}),
    "venue-east": ("order", {"venue_transit"}), "venue-west": ("order", {"venue_transit"}),
}  # fmt: skip
LINK = {
    "orders": {"gateway_transit", "report"}, "market": {"venue_transit", "return"},
}  # fmt: skip
QUEUE = {"engine": ("tick", {"queue_wait"}), "inference": ("inference", {"ingest"})}
LOCK = {"transform", "signal", "queue_wait", "decide"}


def draw(rng: random.Random, start_ns: int, end_ns: int) -> Draw:
    """One fault that is slow for somebody, of 2 % to 10 % of the messages, packets or time."""
    kind = rng.choice(
        ["slow_dependency", "bad_deploy", "link", "queue_backlog", "lock_contention", "gc_pauses", "cpu_hog"]
    )
    size = rng.choice([0.02, 0.03, 0.05, 0.10])
    any_layer = frozenset({"application", "packet", "scheduler", "nic"})
    common = {"id": "f1", "kind": kind, "size": size, "start_ns": start_ns, "end_ns": end_ns}
    if kind in ("slow_dependency", "bad_deploy"):
        at = rng.choice(sorted(WORK))
        path, stages = WORK[at]
        amount = (20 if kind == "slow_dependency" else 3) * MS
        return Draw(
            checked(Fault(at=at, amount_ns=amount, **common)), path, frozenset(stages), frozenset({"application"})
        )
    if kind == "link":
        at = rng.choice(["orders-east", "orders-west", "market-east", "market-west"])
        common["size"] = 1.0
        if rng.random() < 0.5:
            fault = Fault(at=at, amount_ns=0, delay_ns=rng.choice([1, 5]) * MS, **{**common, "size": 1.0})
        else:
            fault = Fault(at=at, amount_ns=0, loss=size, **common)
        return Draw(checked(fault), "order", frozenset(LINK[at.partition("-")[0]]), frozenset({"packet", "nic"}))
    if kind == "queue_backlog":
        at = rng.choice(sorted(QUEUE))
        path, stages = QUEUE[at]
        fault = checked(Fault(at=at, amount_ns=100 * MS, **common))
        return Draw(fault, path, frozenset(stages), frozenset({"application"}))
    if kind == "lock_contention":
        fault = checked(Fault(at="engine", amount_ns=20 * MS, **common))
        return Draw(fault, "tick", frozenset(LOCK), frozenset({"application"}))
    at = rng.choice(sorted(HOPS))
    path, stages = HOPS[at]
    fault = checked(Fault(at=at, amount_ns=(20 if kind == "gc_pauses" else 50) * MS, **common))
    # Which layer held the thread only the collectors of a live host can see: the virtual clock has none.
    return Draw(fault, path, frozenset(stages), any_layer)


def history(
    store: Store, folder: File, points: dict[str, Point], paths: dict[str, Path], seed: int, faults: list[Fault],
    begin_ns: int, rate: float = RATE,
) -> tuple[int, int]:  # fmt: skip
    """Two spans of the order path from `begin_ns` on, the faults as ordered; lands them and computes their windows."""
    end_ns = begin_ns + 2 * LENGTH_NS
    market = Market(rate, seed, profile("flat", seed, len(SYMBOLS)), at_s=40_000.0)
    made = pack(play(market, begin_ns, end_ns, faults, seed), begin_ns, end_ns)
    bounds = LandingSettings(max_past=f"{max(0, time.time_ns() - begin_ns) // (3600 * NS) + 48}h")
    Shipping(store, Landing(store, points, bounds), folder, collector_of(f"checker/{seed}/{begin_ns}")).ship(made, 1)
    backfill(store, paths, begin_ns, end_ns + 10 * NS, WindowSettings())
    return begin_ns + LENGTH_NS, end_ns


def ask(store: Store, paths: dict[str, Path], path: str, span: tuple[int, int]) -> Explanation:
    """The explanation of the second span, against the first."""
    return explanation(
        store, paths[path], from_ns=span[0], to_ns=span[1], paths=list(paths.values()), modes=(Mode.SYNTHETIC,)
    )
