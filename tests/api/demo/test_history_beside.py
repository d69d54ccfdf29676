"""Canaries and shadows on the virtual clock: by the live rules, seen in the stamps; versions and changes agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from api.demo.history.beside import Beside, deployed, routed
from api.demo.history.calendar import DAY_NS, HOUR_NS, NS, Day, day, timelines
from api.demo.history.changes import changes
from api.demo.history.hours import beside_of, play
from api.demo.history.tape import Tape
from api.demo.instances import Instance, checked
from api.demo.market import Market
from collector.record import Mode
from tests.api.demo.test_history_simulation import BEGIN, MS, fault, frame

SECONDS = 30
MIDNIGHT = BEGIN - BEGIN % DAY_NS


def instance(role: Any, at: str, **more: Any) -> Instance:
    given = {"share": 0.3, "version": 7, "start_ns": BEGIN, "end_ns": BEGIN + 3_600 * NS, **more}
    return checked(Instance(id=f"{at}.{role}-1", role=role, at=at, **given))


def run(instances: Sequence[Instance], **names: str) -> tuple[pl.DataFrame, Tape]:
    beside = Beside(routed(instances), {one.id: names.get(one.role, str(one.version)) for one in instances})
    path = play(Market(30.0, 3), BEGIN, BEGIN + SECONDS * NS, (), 3, beside=beside)
    (stamps,) = [c for c in path.tape.columns() if c.table.name == "stamps"]
    (sets,) = [c for c in path.tape.columns() if c.table.name == "label_sets"]
    said = dict(zip(sets.values["label_set"].tolist(), sets.text("labels"), strict=True))
    labels = [json.loads(said[number]) if number else {} for number in stamps.values["label_set"].tolist()]
    found = frame(path.tape)
    for name in ("version", "inference", "gateway", "site"):
        found = found.with_columns(pl.Series(name, [one.get(name) for one in labels], pl.String))
    return found, path.tape


def at(stamps: pl.DataFrame, point: str, service: str) -> pl.DataFrame:
    return stamps.filter((pl.col("point") == point) & (pl.col("service") == service))


@pytest.mark.parametrize(
    ("place", "point", "service", "site"),
    [
        ("inference", "app_ingress", "inference", None),
        ("engine", "app_transform", "engine", None),
        ("gateway-east", "app_ingress", "gateway", "east"),
    ],
)
def test_a_canary_has_the_messages_that_the_live_rule_gives_it(
    place: str, point: str, service: str, site: str | None
) -> None:
    canary = instance("canary", place, extra_ns=3 * MS)
    stamps, tape = run([canary], canary="2026.01.05-1")
    here = at(stamps, point, service)
    here = here if site is None else here.filter(pl.col("site") == site)
    expected = ["2026.01.05-1" if canary.owns(key) else "1" for key in here["key"].to_list()]
    assert here["version"].to_list() == expected
    assert 0.15 < expected.count("2026.01.05-1") / len(expected) < 0.45
    # Each quote is taken in once, by one of the two, and each order reported once.
    for where in (("app_ingress", "engine"), ("app_decision", "engine"), ("reported", "engine")):
        keys = at(stamps, *where)["key"]
        assert len(keys) == keys.n_unique() > 100
    assert len(at(stamps, "app_ingress", "engine")) == tape.quotes
    # It is slower by what was ordered, and whoever reads the end of the message knows by whom it was served.
    begin, end = {
        "inference": (("featured", "inference"), ("modelled", "inference")),
        "engine": (("dequeued", "engine"), ("app_decision", "engine")),
        "gateway-east": (("app_ingress", "gateway"), ("app_egress", "gateway")),
    }[place]
    both = at(stamps, *begin).join(at(stamps, *end), on="key")
    took = both.select("key", (pl.col("ts_ns_right") - pl.col("ts_ns")).alias("ns"))
    own = set(here.filter(pl.col("version") != "1")["key"].to_list())
    mine = took.filter(pl.col("key").is_in(list(own)))["ns"]
    rest = took.filter(~pl.col("key").is_in(list(own)))["ns"]
    assert mine.median() >= 3 * MS > rest.median()  # type: ignore[operator] # numbers
    if place == "inference":
        told = at(stamps, "app_decision", "engine").drop_nulls("inference")
        assert {key for key, by in told.select("key", "inference").rows() if by != "1"} <= own
        assert len(told) > 0.8 * tape.quotes
    if place == "gateway-east":
        told = at(stamps, "reported", "engine").filter(pl.col("site") == "east")
        assert {key for key, by in told.select("key", "gateway").rows() if by != "1"} == own


def test_a_shadow_has_keys_of_its_own_and_answers_nobody() -> None:
    model = instance("shadow", "inference", extra_ns=30 * MS)  # the engine waits for 8
    gateway = instance("shadow", "gateway-west", share=1.0)
    stamps, tape = run([model, gateway])
    shadow, main = stamps.filter(pl.col("mode") == Mode.SHADOW), stamps.filter(pl.col("mode") == Mode.SYNTHETIC)
    assert len(shadow) + len(main) == len(stamps)
    assert not set(shadow["key"].to_list()) & set(main["key"].to_list())
    copies = at(shadow, "app_ingress", "inference")
    assert set(copies["version"].to_list()) == {"7"}
    assert 0.2 < len(copies) / tape.quotes < 0.4
    assert len(at(shadow, "app_transform", "engine")) == len(at(shadow, "signalled", "engine")) == len(copies)
    assert len(at(main, "app_ingress", "inference")) == tape.quotes
    assert at(main, "signalled", "engine")["outcome"].max() == 0, "nobody waited for the shadow"
    west = at(main, "app_ingress", "gateway").filter(pl.col("site") == "west")
    assert len(at(shadow, "app_ingress", "gateway")) == len(at(shadow, "app_egress", "engine")) == len(west) > 50
    assert 0 < len(at(shadow, "app_egress", "gateway")) <= len(west)
    assert set(shadow["service"].to_list()) == {"engine", "inference", "gateway"}, "no venue"
    # The copies of orders are children of the quotes that led to them.
    (links,) = [c for c in tape.columns() if c.table.name == "links"]
    children = set(links.values["child"].tolist())
    assert set(at(shadow, "app_egress", "engine")["key"].to_list()) <= children
    assert children <= set(at(stamps, "app_egress", "engine")["key"].to_list())


def test_what_ends_or_has_not_begun_gets_nothing() -> None:
    half = BEGIN + SECONDS * NS // 2
    stamps, _ = run([instance("canary", "inference", share=1.0, end_ns=half)], canary="2")
    asked = at(stamps, "app_ingress", "inference")
    assert set(asked.filter(pl.col("ts_ns") < half - 5 * MS)["version"].to_list()) == {"2"}
    assert set(asked.filter(pl.col("ts_ns") > half + 50 * MS)["version"].to_list()) == {"1"}


def test_versions_of_a_recording_are_those_of_its_bad_deploys() -> None:
    bad = fault("bad_deploy", "engine", 0.5)
    beside = deployed([bad])
    assert beside.timeline("engine", None)[0] == (bad.end_ns, "1")
    assert [version for _, version in beside.timeline("engine", None)] == ["1", "2", "1"]
    assert beside.timeline("inference", None) == ((0, "1"),)


def days(count: int = 90, seed: int = 1) -> list[Day]:
    return [day(seed, MIDNIGHT + n * DAY_NS) for n in range(count)]


def test_deploys_are_canaries_first_and_some_days_have_a_shadow() -> None:
    some = days()
    deploys = [deploy for one in some for deploy in one.deploys]
    canaries = [deploy for deploy in deploys if deploy.canary is not None]
    assert len(canaries) > 20
    for deploy in canaries:
        assert deploy.canary is not None
        assert deploy.canary.end_ns == deploy.ts_ns
        assert bool(deploy.canary.extra_ns) == (deploy.fault is not None)
        assert deploy.fault is None or deploy.canary.size == deploy.fault.size
    assert {d.place.partition("-")[0] for d in deploys if d.canary is None} >= {"venue"}
    shadows = [one.shadow for one in some if one.shadow]
    assert 10 < len(shadows) < 50
    assert all(one.start_ns <= i.start_ns < (i.end_ns or 0) < one.start_ns + DAY_NS for one in some for i in one.beside)
    names = [one.name_of(i) for one in some for i in one.beside]
    assert len(set(names)) == len(names)


def test_changes_say_what_the_stamps_are_labelled_with() -> None:
    some = days()
    told = changes(some[60:], some[:60])
    versions = timelines(some)
    assert [one.ts_ns for one in told] == sorted(one.ts_ns for one in told)
    rolled = [one for one in told if "rolled back" in one.what]
    assert rolled
    for one in told:
        if "to_version" in one.labels:
            ran = next(v for from_ns, v in versions[one.place] if one.ts_ns >= from_ns)
            assert one.version == one.labels["to_version"] == ran
    begun = [one for one in told if " begins: " in one.what]
    assert {one.labels["role"] for one in begun} == {"canary", "shadow"}
    assert len(begun) == sum(" ended: " in one.what for one in told)
    for one in begun:
        hour = one.ts_ns // HOUR_NS * HOUR_NS
        beside = beside_of(1, hour, hour + HOUR_NS)
        assert beside.names[one.labels["instance"]] == one.version
