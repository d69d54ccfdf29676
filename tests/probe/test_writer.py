"""What a call leaves in the ring, for both writers."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tailsight_probe import Cache, Mode, Outcome, Probe, hash64

from collector.keys import hash64 as agent_hash64

Make = Callable[..., Probe]


def test_23_messages_in_23_out(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    ingress, egress = probe.point("app_ingress"), probe.point("app_egress")
    for order in range(23):
        probe.stamp(ingress, order)
        probe.stamp(egress, order)
    reading = read_all()
    assert reading.drops == {}
    for point in ("app_ingress", "app_egress"):
        keys = [row["key"] for row in reading.stamps if row["point"] == point]
        assert keys == [agent_hash64("order", order) for order in range(23)]
    assert {(row["service"], row["host"], row["clock"]) for row in reading.stamps} == {("engine", "h1", "monotonic")}
    assert probe.stats()["recorded"] == 46


def test_every_field_arrives(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    labels = probe.labels(symbol="ABC", venue=7)
    probe.stamp(
        probe.point("app_egress", space="trace"),
        2**64 - 1,
        depth=-3,
        outcome=Outcome.TIMEOUT,
        mode=Mode.SHADOW,
        cache=Cache.STALE,
        data_age_ns=12_345,
        labels=labels,
    )
    reading = read_all()
    (row,) = reading.stamps
    assert row["key"] == agent_hash64("trace", 2**64 - 1)
    assert (row["depth"], row["outcome"], row["mode"], row["cache"], row["data_age_ns"]) == (-3, 5, 4, 2, 12_345)
    assert reading.label_sets == {row["label_set"]: '{"symbol":"ABC","venue":"7"}'}
    assert row["label_set"] == agent_hash64("labels", '{"symbol":"ABC","venue":"7"}')


def test_what_is_not_given_is_null(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    probe.stamp(probe.point("app_ingress"), 1)
    probe.stamp(probe.point("app_ingress"), 1, depth=None, data_age_ns=None, outcome=None, labels=None)
    for row in read_all().stamps:
        assert (row["depth"], row["data_age_ns"], row["error_ns"]) == (None, None, None)
        assert (row["label_set"], row["outcome"], row["mode"], row["cache"]) == (0, 0, 0, 0)


@pytest.mark.parametrize("key", ["ORD-1", "", "Grüße", b"\x00\xff", b"x" * 100, "y" * 600, bytearray(b"z"), True])
def test_any_identifier_gets_the_key_the_store_computes(make_probe: Make, read_all: Any, key: Any) -> None:
    probe = make_probe()
    probe.stamp(probe.point("app_ingress"), key)
    probe.stamp("app_ingress", key)
    expected = agent_hash64("order", bytes(key) if isinstance(key, bytearray) else int(key) if key is True else key)
    assert [row["key"] for row in read_all().stamps] == [expected] * 2


def test_numpy_integers_are_integers(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    probe.stamp(probe.point("app_ingress"), np.uint64(2**63), depth=np.int32(4))
    (row,) = read_all().stamps
    assert (row["key"], row["depth"]) == (agent_hash64("order", 2**63), 4)


def test_links_carry_both_key_spaces(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    for parent in (5, 2**64 - 1):
        probe.link(parent, 7, parent_space="feed")
        probe.link(parent, 7, parent_space="feed", child_space="order")
    probe.link("tick", b"\x07", "feed", "order")
    rows = [(row["parent"], row["child"]) for row in read_all().links]
    order, feed = agent_hash64("order", 7), [agent_hash64("feed", n) for n in (5, 2**64 - 1)]
    assert rows == [
        (feed[0], order),
        (feed[0], order),
        (feed[1], order),
        (feed[1], order),
        (agent_hash64("feed", "tick"), agent_hash64("order", b"\x07")),
    ]


def test_times_taken_elsewhere(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    point = probe.point("nic_rx")
    now = 1_700_000_000_000_000_000
    probe.stamp_at(now, "phc0", point, 1, error_ns=250)
    probe.stamp_at(now + 1, "realtime", point, 1)
    probe.stamp_at(now + 2, "nic", point, 1, error_ns=2**40, outcome="rejected")
    rows = read_all().stamps
    assert [(r["ts_ns"] - now, r["clock"], r["error_ns"]) for r in rows] == [
        (0, "phc0", 250),
        (1, "realtime", None),
        (2, "nic", None),
    ]
    assert rows[2]["outcome"] == Outcome.REJECTED


def test_stage_marks_errors_and_lets_them_pass(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    start, end = probe.point("app_ingress"), probe.point("app_egress")
    with probe.stage(start, end, 1):
        pass
    with pytest.raises(ZeroDivisionError), probe.stage(start, end, 2):
        1 / 0  # noqa: B018
    rows = [(row["point"], row["outcome"]) for row in read_all().stamps]
    assert rows == [("app_ingress", 0), ("app_egress", 0), ("app_ingress", 0), ("app_egress", Outcome.ERROR)]


BAD_CALLS: list[tuple[str, Callable[[Probe, Any], None]]] = [
    ("negative key", lambda p, i: p.stamp(i, -1)),
    ("large key", lambda p, i: p.stamp(i, 2**64)),
    ("float key", lambda p, i: p.stamp(i, 1.5)),
    ("no key", lambda p, i: p.stamp(i, None)),
    ("key with a lone surrogate", lambda p, i: p.stamp(i, "\ud800")),
    ("no point", lambda p, _i: p.stamp(None, 1)),
    ("number as point", lambda p, _i: p.stamp(1, 1)),
    ("float depth", lambda p, i: p.stamp(i, 1, depth=0.5)),
    ("large depth", lambda p, i: p.stamp(i, 1, depth=2**31)),
    ("unknown outcome", lambda p, i: p.stamp(i, 1, outcome="fine")),
    ("large outcome", lambda p, i: p.stamp(i, 1, outcome=256)),
    ("negative mode", lambda p, i: p.stamp(i, 1, mode=-1)),
    ("large age", lambda p, i: p.stamp(i, 1, data_age_ns=2**63)),
    ("labels as text", lambda p, i: p.stamp(i, 1, labels="a=b")),
    ("key space with NUL", lambda p, _i: p.stamp(p.point("x", "a\0b"), 1)),
    ("float time", lambda p, i: p.stamp_at(1.5, "nic", i, 1)),
    ("no clock", lambda p, i: p.stamp_at(1, None, i, 1)),
    ("negative error", lambda p, i: p.stamp_at(1, "nic", i, 1, error_ns=-1)),
    ("negative parent", lambda p, _i: p.link(-1, 1)),
    ("large child", lambda p, _i: p.link(1, 2**64)),
    ("no key space", lambda p, _i: p.link(1, 2, None)),
]


def test_bad_calls_never_raise_and_are_counted(make_probe: Make, read_all: Any) -> None:
    probe = make_probe()
    ingress = probe.point("app_ingress")
    for _, call in BAD_CALLS:
        call(probe, ingress)
        probe.stamp(ingress, 1)
    reading = read_all()
    assert len(reading.stamps) == len(BAD_CALLS)
    assert reading.drops == {"rejected": len(BAD_CALLS)}
    stats = probe.stats()
    assert stats["recorded"] == len(BAD_CALLS)
    # The point with the bad key space is counted twice: when it was made and when it was used.
    assert sum(stats["refused"].values()) == len(BAD_CALLS) + 1


@pytest.mark.parametrize(("name", "call"), BAD_CALLS, ids=[name for name, _ in BAD_CALLS])
def test_each_bad_call_leaves_one_void_record(
    make_probe: Make, slots: Any, name: str, call: Callable[[Probe, Any], None]
) -> None:
    probe = make_probe()
    call(probe, probe.point("app_ingress"))
    (row,) = slots()[slots()["begin"] > 0]
    assert (row["begin"], row["end"], row["flags"]) == (1, 1, 1), name


def test_both_writers_leave_the_same_bytes(core: Any, tmp_path: Path) -> None:
    def run(compiled: bool) -> bytes:
        probe = Probe("engine", tmp_path / str(compiled), 256, compiled=compiled)
        ingress = probe.point("app_ingress")
        trace = probe.point("app_egress", "trace")
        for n in range(70):
            probe.stamp(ingress, n)
            probe.stamp(trace, 2**64 - 1 - n, depth=n - 3)
            probe.stamp(ingress, f"order {n}", 5)
        probe.stamp(ingress, b"raw", outcome=Outcome.OK, mode="cached", cache=Cache.HIT, labels={"b": 1, "a": "é"})
        probe.stamp(ingress, 3, 1, Outcome.ERROR, 2, 3, -7, probe.labels(x="y"))
        probe.stamp(ingress, 3, data_age_ns=9)
        probe.stamp("by_name", key=3, depth=True)
        probe.stamp(point=ingress, key=2**70)
        probe.link(1, 2)
        probe.link(2**63, 2, "feed", "order")
        probe.link("a", b"b", child_space="trace", parent_space="order")
        probe.stamp_at(-5, "tsc", ingress, 8, error_ns=3, depth=2)
        for _, call in BAD_CALLS:
            call(probe, ingress)
        (ring,) = (tmp_path / str(compiled)).glob("*.ring")
        found = bytearray(ring.read_bytes()[4096:])
        for at in range(0, len(found), 64):
            clock = int.from_bytes(found[at + 44 : at + 46], "little")
            point = int.from_bytes(found[at + 40 : at + 42], "little")
            if point == 0 or clock == 0:
                found[at + 8 : at + 16] = bytes(8)  # taken by the clock at that moment
        (dictionary,) = (tmp_path / str(compiled)).glob("*.dict")
        return bytes(found) + dictionary.read_bytes()

    assert core.Writer.implementation == "c"
    assert run(compiled=True) == run(compiled=False)


def test_off_records_nothing_and_opens_nothing(make_probe: Make, rings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAILSIGHT_PROBE", "off")
    probe = make_probe()
    monkeypatch.delenv("TAILSIGHT_PROBE")
    off = probe if not probe.enabled else make_probe()
    off.switch(False)
    point = off.point("app_ingress")
    off.stamp(point, 1)
    off.link(1, 2)
    off.stamp_at(1, "nic", point, 1)
    with off.stage(point, point, 1):
        pass
    assert not rings.exists()
    off.switch(True)
    off.stamp(point, 1)
    assert off.stats()["recorded"] == 1


def test_the_environment_switches_it_off(run_program: Any, rings: Path) -> None:
    script = "import tailsight_probe as p; p.stamp('app_ingress', 1); print(p.enabled(), p.stats()['recorded'])"
    assert run_program(script, TAILSIGHT_PROBE="off").communicate()[0] == "False 0\n"
    assert not rings.exists()
    assert run_program(script).communicate()[0] == "True 1\n"
    assert len(list(rings.glob("*.ring"))) == 1


def test_files_are_private(make_probe: Make, rings: Path) -> None:
    make_probe().stamp("app_ingress", 1)
    assert rings.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in rings.iterdir()} == {0o600}
    assert all(path.name.startswith(f"{os.getpid()}.") for path in rings.iterdir())


def test_init_again_renames_the_service_and_moves_the_rings(make_probe: Make, read_all: Any, rings: Path) -> None:
    probe = make_probe()
    probe.stamp("app_ingress", 1)
    probe.init("gateway", rings, 1024)
    probe.stamp("app_ingress", 2)
    assert {row["service"] for row in read_all().stamps} == {"gateway"}
    probe.init("gateway", rings / "elsewhere", 64)
    probe.stamp("app_ingress", 3)
    (moved,) = (rings / "elsewhere").glob("*.ring")
    assert moved.stat().st_size == 4096 + 64 * 64
    assert probe.stats()["recorded"] == 1


def test_hash64_equals_the_agents() -> None:
    for identifier in (0, 2**64 - 1, "text", b"bytes", "é" * 50):
        assert hash64("order", identifier) == agent_hash64("order", identifier)
    for bad in (-1, 2**64):
        with pytest.raises(ValueError, match="unsigned 64-bit"):
            hash64("order", bad)
