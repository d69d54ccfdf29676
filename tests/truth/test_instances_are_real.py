"""Canaries and shadows are real processes with real traffic: found in the raw stamps by queries written by hand.

All of them run at once, so that the figures also show that they do not get in each other's way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from api.demo.control import FOLDER
from api.demo.instances import SHADOW_SPACE, Instance, Instances
from collector.keys import hash64_ints

if TYPE_CHECKING:
    from tests.truth.conftest import World

pytestmark = pytest.mark.timeout(180)
MS = 1_000_000
EDGE_NS = 300 * MS
ORDERED = {
    "gateway canary": ("canary", "--at", "gateway-east", "--share", "30%", "--version", "7", "--extra", "3ms"),
    "engine canary": ("canary", "--at", "engine", "--share", "40%", "--version", "5"),
    "inference canary": ("canary", "--at", "inference", "--share", "30%", "--version", "3"),
    # It is 30 ms late with each answer; the engine waits for 8.
    "inference shadow": ("shadow", "--at", "inference", "--share", "5%", "--version", "9", "--extra", "30ms"),
    "gateway shadow": ("shadow", "--at", "gateway-west", "--version", "8"),
}


@dataclass(frozen=True)
class Beside:
    """What ran beside the main programs, and when: `span` is well inside, `whole` begins before and ends after."""

    instances: dict[str, Instance]
    pids: dict[str, int]
    span: tuple[int, int]
    whole: tuple[int, int]


def serving(world: World) -> set[str]:
    rows: list[dict[str, Any]] = []
    for role in ("canary", "shadow"):
        rows += world.tailsight("demo", role, "list")["instances"]
    return {row["id"] for row in rows if row["state"] == "serves"}


@pytest.fixture(scope="module")
def beside(world: World) -> Iterator[Beside]:
    begin_ns, _ = world.watch(0.5)
    names = {name: world.tailsight("demo", role, "start", *words)["id"] for name, (role, *words) in ORDERED.items()}
    world.until(lambda: set(names.values()) <= serving(world))
    pids = {name: world.pid_of(number) for name, number in names.items()}
    from_ns, to_ns = world.watch(3.5)
    for role in ("canary", "shadow"):
        assert world.tailsight("demo", role, "stop")["ended"]
    world.until(lambda: not any(world.pid_of(number) for number in names.values()))
    _, end_ns = world.watch(1.5)
    store = Instances(world.data / FOLDER)
    instances = {name: store.one(number) for name, number in names.items()}
    yield Beside(instances, pids, (from_ns + EDGE_NS, to_ns - EDGE_NS), (begin_ns, end_ns - 500 * MS))


def test_each_is_a_process_of_its_own_while_it_is_ordered(world: World, beside: Beside) -> None:
    mains = {world.pid_of(name) for name in ("engine", "inference", "gateway-east", "gateway-west")}
    assert len(set(beside.pids.values()) - {0} - mains) == len(ORDERED)
    after = (beside.whole[1] - 1_000 * MS, beside.whole[1])
    for point, service in (("app_ingress", "gateway"), ("app_ingress", "inference"), ("app_transform", "engine")):
        assert set(world.versions_at(point, service, "", after).values()) == {"1"}


def test_a_canary_takes_its_share_under_its_own_version_and_is_slower_by_what_was_ordered(
    world: World, beside: Beside
) -> None:
    canary, span = beside.instances["gateway canary"], beside.span
    versions = world.versions_at("app_ingress", "gateway", "east", span, mode="unset")
    assert {key: "7" if canary.owns(key) else "1" for key in versions} == versions
    assert 0.1 < sum(version == "7" for version in versions.values()) / len(versions) < 0.5
    took = {t.key: t.ns for t in world.took("app_ingress@gateway", "app_egress@gateway", span, site="east")}
    assert min(took[key] for key in took if versions.get(key) == "7") >= 3 * MS
    assert median(took[key] for key in took if versions.get(key) == "1") < 3 * MS
    # Whoever reads only the end of the message knows too; the order got there, and back.
    told = world.versions_at("reported", "engine", "east", span, label="gateway")
    assert len(told) > 0.8 * len(versions)
    assert all(versions[key] == version for key, version in told.items() if key in versions)


def test_two_engines_and_two_models_share_the_quotes_and_nothing_is_served_twice(world: World, beside: Beside) -> None:
    engine, model, span = beside.instances["engine canary"], beside.instances["inference canary"], beside.span
    engines = world.versions_at("app_transform", "engine", "", span, mode="unset")
    assert {key: "5" if engine.owns(key) else "1" for key in engines} == engines
    asked = world.versions_at("app_ingress", "inference", "", span, mode="unset")
    assert {key: "3" if model.owns(key) else "1" for key in asked} == asked
    answered = world.versions_at("app_decision", "engine", "", span, label="inference")
    assert len(answered) > 0.8 * len(engines)
    assert all(version in ("", asked.get(key, version)) for key, version in answered.items())
    assert Counter(answered.values())["3"] > 50
    # From before the canaries to after them, every quote was taken in once, by one of the two.
    sql = """
    SELECT key, countIf(point = 'app_ingress' AND service = 'engine') AS taken FROM stamps
    WHERE point IN ('app_ingress', 'app_egress') AND service IN ('engine', 'feed') AND key IN (
        SELECT key FROM stamps WHERE point = 'app_egress' AND service = 'feed'
            AND toUnixTimestamp64Nano(ts) >= {a:Int64} AND toUnixTimestamp64Nano(ts) < {b:Int64})
    GROUP BY key
    """
    taken = Counter(row["taken"] for row in world.query(sql, {"a": beside.whole[0], "b": beside.whole[1]}))
    assert taken[1] > 1_000
    assert taken[1] > 0.99 * taken.total()  # a program that is kept from running for half a second hears too late of it


def test_a_shadow_gets_copies_under_keys_of_their_own_and_nobody_waits_for_it(world: World, beside: Beside) -> None:
    shadow, span = beside.instances["inference shadow"], beside.span
    copies = world.versions_at("app_ingress", "inference", "", span, mode="shadow")
    originals = world.versions_at("app_ingress", "inference", "", span, mode="unset")
    assert set(copies.values()) == {"9"}
    assert "9" not in originals.values()
    assert not set(copies) & set(originals)
    assert 0.005 < len(copies) / len(originals) < 0.15
    sql = """
    SELECT key, toString(any(mode)) AS mode FROM stamps
    WHERE point = 'ready' AND toUnixTimestamp64Nano(ts) >= {a:Int64} AND toUnixTimestamp64Nano(ts) < {b:Int64}
    GROUP BY key
    """
    modes = [row["mode"] for row in world.query(sql, {"a": span[0], "b": span[1]}) if shadow.owns(row["key"])]
    assert modes.count("normal") > 0.6 * len(modes) > 0
    stages = world.took("app_ingress@inference", "modelled@inference", span)
    assert min(t.ns for t in stages if t.key in copies) >= 30 * MS


def test_the_orders_of_a_shadow_end_there(world: World, beside: Beside) -> None:
    span = beside.span
    wide = (span[0], span[1] + 500 * MS)
    copies = world.versions_at("app_ingress", "gateway", "west", span, mode="shadow")
    assert set(copies.values()) == {"8"}
    passed = set(copies) & world.keys_at("app_egress", "gateway", wide)
    assert len(passed) > 0.7 * len(copies)  # the risk check refuses some
    assert not set(copies) & world.keys_at("app_ingress", "venue", wide)
    real = world.versions_at("app_ingress", "gateway", "west", span, mode="unset")
    assert set(real.values()) == {"1"}
    assert abs(len(copies) - len(real)) < 0.1 * len(real)
    sql = "SELECT DISTINCT toString(mode) AS mode FROM stamps WHERE key IN {keys:Array(UInt64)}"
    assert [row["mode"] for row in world.query(sql, {"keys": list(copies)[:1_000]})] == ["shadow"]


def test_a_shadows_keys_are_not_those_of_the_messages_that_were_copied() -> None:
    numbers = np.arange(100, dtype=np.uint64)
    for space, shadow in SHADOW_SPACE.items():
        assert not set(hash64_ints(space, numbers).tolist()) & set(hash64_ints(shadow, numbers).tolist())
