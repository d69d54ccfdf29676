"""Canaries and shadows are real processes with real traffic: found in the raw stamps by queries written by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import TYPE_CHECKING, Any

import pytest

from api.demo.control import FOLDER
from api.demo.instances import SHADOW_SPACE, Instance, Instances
from collector.keys import hash64_ints

if TYPE_CHECKING:
    from tests.truth.conftest import World

pytestmark = pytest.mark.timeout(180)
MS = 1_000_000
EDGE_NS = 300 * MS


@contextmanager
def beside(world: World, role: str, *words: str) -> Iterator[Instance]:
    """Run an instance as long as the block lasts."""
    name = world.tailsight("demo", role, "start", *words)["id"]
    world.until(lambda: serves(world, role, name))
    try:
        yield Instances(world.data / FOLDER).one(name)
    finally:
        world.tailsight("demo", role, "stop", name)
        world.until(lambda: world.pid_of(name) == 0)


def serves(world: World, role: str, name: str) -> bool:
    rows: list[dict[str, Any]] = world.tailsight("demo", role, "list")["instances"]
    return {row["id"]: row["state"] for row in rows}[name] == "serves"


def watched(world: World, seconds: float) -> tuple[int, int]:
    """A span of so many seconds whose messages have all arrived; its edges are left out."""
    from_ns, to_ns = world.watch(seconds)
    world.watch(0.5)
    return from_ns + EDGE_NS, to_ns - EDGE_NS


def test_a_canary_takes_its_share_under_its_own_version_and_is_slower_by_what_was_ordered(world: World) -> None:
    slower = ("--at", "gateway-east", "--share", "30%", "--version", "7", "--extra", "3ms")
    with beside(world, "canary", *slower) as canary:
        assert world.pid_of(canary.id) not in (0, world.pid_of("gateway-east"))
        span = watched(world, 4.0)
    versions = world.versions_at("app_ingress", "gateway", "east", span)
    assert {key: "7" if canary.owns(key) else "1" for key in versions} == versions
    assert 0.1 < sum(version == "7" for version in versions.values()) / len(versions) < 0.5
    took = {t.key: t.ns for t in world.took("app_ingress@gateway", "app_egress@gateway", span, site="east")}
    assert min(took[key] for key in took if versions[key] == "7") >= 3 * MS
    assert median(took[key] for key in took if versions[key] == "1") < 3 * MS
    # Whoever reads only the end of the message knows too; the order got there, and back.
    told = world.versions_at("reported", "engine", "east", span, label="gateway")
    assert len(told) > 0.9 * len(versions)
    assert all(versions[key] == version for key, version in told.items() if key in versions)
    after = watched(world, 1.5)
    assert set(world.versions_at("app_ingress", "gateway", "east", after).values()) == {"1"}
    assert len(world.keys_at("reported", "engine", after)) > 20


def test_an_engine_and_an_inference_canary_share_the_quotes_and_nothing_is_served_twice(world: World) -> None:
    engine = ("--at", "engine", "--share", "40%", "--version", "5")
    inference = ("--at", "inference", "--share", "30%", "--version", "3")
    begin_ns, _ = world.watch(0.5)
    with beside(world, "canary", *engine) as one, beside(world, "canary", *inference) as other:
        span = watched(world, 4.0)
    _, end_ns = world.watch(1.0)
    engines = world.versions_at("app_transform", "engine", "", span)
    assert {key: "5" if one.owns(key) else "1" for key in engines} == engines
    asked = world.versions_at("app_ingress", "inference", "", span)
    assert {key: "3" if other.owns(key) else "1" for key in asked} == asked
    answered = world.versions_at("app_decision", "engine", "", span, label="inference")
    assert len(answered) > 0.9 * len(engines)
    assert all(version in ("", asked.get(key, version)) for key, version in answered.items())
    assert Counter(answered.values())["3"] > 50
    # From before the canary to after it, every quote was taken in once, by one of the two.
    sql = """
    SELECT key, countIf(point = 'app_ingress' AND service = 'engine') AS taken FROM stamps
    WHERE point IN ('app_ingress', 'app_egress') AND service IN ('engine', 'feed') AND key IN (
        SELECT key FROM stamps WHERE point = 'app_egress' AND service = 'feed'
            AND toUnixTimestamp64Nano(ts) >= {a:Int64} AND toUnixTimestamp64Nano(ts) < {b:Int64})
    GROUP BY key
    """
    taken = Counter(row["taken"] for row in world.query(sql, {"a": begin_ns, "b": end_ns - 500 * MS}))
    assert taken[1] > 1_000
    assert taken[1] > 0.99 * taken.total()  # a program that is kept from running for half a second hears too late of it


def test_a_shadow_gets_copies_under_keys_of_their_own_and_its_answers_reach_nobody(world: World) -> None:
    with (
        beside(world, "shadow", "--at", "inference", "--share", "5%", "--version", "9", "--extra", "30ms") as model,
        beside(world, "shadow", "--at", "gateway-west", "--version", "8") as gateway,
    ):
        span = watched(world, 4.0)
    world.watch(0.5)
    copies = world.versions_at("app_ingress", "inference", "", span, mode="shadow")
    originals = world.versions_at("app_ingress", "inference", "", span, mode="unset")
    assert set(copies.values()) == {"9"}
    assert set(originals.values()) == {"1"}
    assert not set(copies) & set(originals)
    assert 0.005 < len(copies) / len(originals) < 0.15
    # It is 30 ms late with each answer, and the engine waits for 8: had it been waited for, all of these were degraded.
    sql = """
    SELECT key, toString(any(mode)) AS mode FROM stamps
    WHERE point = 'ready' AND toUnixTimestamp64Nano(ts) >= {a:Int64} AND toUnixTimestamp64Nano(ts) < {b:Int64}
    GROUP BY key
    """
    modes = [row["mode"] for row in world.query(sql, {"a": span[0], "b": span[1]}) if model.owns(row["key"])]
    assert modes.count("normal") > 0.8 * len(modes) > 0
    stages = world.took("app_ingress@inference", "modelled@inference", span)
    assert min(t.ns for t in stages if t.key in copies) >= 30 * MS
    # Orders: the copies end at the shadow; the venue has seen each order once, under its own key.
    orders = world.versions_at("app_ingress", "gateway", "west", span, mode="shadow")
    assert set(orders.values()) == {"8"}
    assert gateway.share == 1
    passed = set(orders) & world.keys_at("app_egress", "gateway", (span[0], span[1] + 500 * MS))
    assert len(passed) > 0.7 * len(orders)  # the risk check refuses some
    assert not set(orders) & world.keys_at("app_ingress", "venue", (span[0], span[1] + 500 * MS))
    real = world.versions_at("app_ingress", "gateway", "west", span, mode="unset")
    assert set(real.values()) == {"1"}
    assert abs(len(orders) - len(real)) < 0.1 * len(real)
    sql = "SELECT toString(mode) AS mode, count() AS n FROM stamps WHERE key IN {keys:Array(UInt64)} GROUP BY mode"
    keys = list(copies)[:500] + list(orders)[:500]
    found = {row["mode"] for row in world.query(sql, {"keys": keys})}
    assert found == {"shadow"}


def test_a_shadows_keys_can_be_told_from_the_orders_number() -> None:
    import numpy as np

    spaces = [
        hash64_ints(space, np.arange(100, dtype=np.uint64)).tolist() for space in ("order", SHADOW_SPACE["order"])
    ]
    assert not set(spaces[0]) & set(spaces[1])
