"""Sides of a comparison out of a real store: by label, host, hour and mode, from messages and from counts."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from analytics import windows
from analytics.compare import pairs
from analytics.compare.arms import of_values
from analytics.compare.comparing import compare
from analytics.compare.files import ArmFileError, load, save
from analytics.compare.reading import Choice, NothingToCompareError, arms, counted, labels_from
from analytics.population import population
from collector.record import Mode
from collector.store import Store
from tests.analytics.conftest import shared_store, store  # noqa: F401 - fixtures
from tests.analytics.world import HOUR, ORDER, label_set, link, path, put, stamp

S = 1_000_000_000
N = 500
END = HOUR + 60 * S


@pytest.fixture(scope="module")
def filled(shared_store: Store) -> Store:  # noqa: F811 - a fixture
    for table in ("stamps", "links", "label_sets", "batches", "messages", "stage_counts", "stage_windows", "windows"):
        shared_store.execute(f"TRUNCATE TABLE {table}")
    random = np.random.default_rng(1)
    stamps = []
    for version, symbol in ((1, "A"), (2, "B")):
        labels = label_set(shared_store, {"version": str(version), "symbol": symbol})
        for i in range(N):
            key = version * 10_000 + i
            at = HOUR + i * (S // 10)
            took = int(random.lognormal(11.5, 0.3)) * (4 if version == 2 and i % 20 == 0 else 1)
            outcome = 2 if version == 2 and i % 10 == 0 else 1
            stamps.append(stamp(key, "app_ingress", at, label_set=labels, host=f"h{version}"))
            if i % 50 != 7 or version == 1:
                stamps += [stamp(key, "app_decision", at + took // 2, label_set=labels, host=f"h{version}")]
                stamps += [stamp(key, "app_egress", at + took, label_set=labels, host=f"h{version}", outcome=outcome)]
    # Shadows: half of them under the key that a link leads to, none of them a user's message.
    for i in range(200):
        at = HOUR + i * (S // 10) + 1_000
        shadow = 50_000 + i
        stamps += [stamp(shadow, "app_ingress", at, mode=4), stamp(shadow, "app_egress", at + 400_000, mode=4)]
    put(shared_store, stamps, [link(10_000 + i, 50_000 + i, HOUR + i * (S // 10) + 500) for i in range(150)])
    windows.run_due(shared_store, {"order": path(ORDER)}, now_ns=HOUR + 120 * S)
    return shared_store


def choice(text: str) -> Choice:
    return Choice(labels_from(text), HOUR, END)


def test_sides_are_the_messages_that_have_the_labels(filled: Store) -> None:
    a, b = arms(filled, path(ORDER), [choice("version=1"), choice("version=2,host=h2")])
    frame = population(filled, path(ORDER), from_ns=HOUR, to_ns=END).frame
    for arm, low in ((a, 10_000), (b, 20_000)):
        mine = frame.filter(frame["key"].is_between(low, low + N))
        values = mine["e2e_ns"].drop_nulls().to_numpy()
        expected = of_values("x", values)
        assert arm.count == len(values)
        assert arm.bucket.tolist() == expected.bucket.tolist()
        assert arm.by_bucket.tolist() == expected.by_bucket.tolist()
        assert int(arm.total.sum()) == mine.height == N
    assert (a.source, a.clustering, a.instances, len(a.cluster)) == ("messages", "time", 1, 25)
    assert {name: int(v.sum()) for name, v in b.shares.items()} == {"errors": 50, "rejected": 0, "unfinished": 10}
    found = compare(a, b)
    assert found.verdict == "regression"
    assert {t.name for t in found.tests if t.finding == "worse"} >= {"errors"}


def test_counts_say_the_same_of_a_rollup(filled: Store) -> None:
    sides = [choice("symbol=A"), choice("symbol=B")]
    live = arms(filled, path(ORDER), sides)
    kept = arms(filled, path(ORDER), sides, source="counts")
    for one, other in zip(live, kept, strict=True):
        assert one.bucket.tolist() == other.bucket.tolist()
        assert one.by_bucket.tolist() == other.by_bucket.tolist()
        assert other.source == "counts"
        assert int(other.shares["unfinished"].sum()) == int(one.shares["unfinished"].sum())
    stage = arms(filled, path(ORDER), sides, stage="decide", source="counts")
    assert stage[0].count == N
    with pytest.raises(NothingToCompareError, match="counts know one of host, symbol"):
        arms(filled, path(ORDER), [choice("version=1"), choice("symbol=B")], source="counts")
    with pytest.raises(ValueError, match="has no stage 'nowhere'"):
        arms(filled, path(ORDER), sides, stage="nowhere")


def test_a_time_before_the_messages_is_read_from_counts(filled: Store) -> None:
    early = Choice(labels_from("symbol=A"), HOUR - 600 * S, END)
    assert arms(filled, path(ORDER), [early, early])[0].source == "messages"  # nothing is counted before them
    filled.execute("ALTER TABLE messages DELETE WHERE window < toDateTime({s:UInt32}, 'UTC') SETTINGS mutations_sync=1",
                   {"s": HOUR // S + 20})  # fmt: skip
    try:
        assert [one.source for one in arms(filled, path(ORDER), [choice("symbol=A"), choice("symbol=B")])] == [
            "counts", "counts",
        ]  # fmt: skip
    finally:
        filled.execute("ALTER TABLE windows DELETE WHERE 1 SETTINGS mutations_sync=1")
        for table in ("messages", "stage_counts", "stage_windows"):
            filled.execute(f"TRUNCATE TABLE {table}")
        windows.run_due(filled, {"order": path(ORDER)}, now_ns=HOUR + 120 * S)


def test_shadows_are_in_no_user_number_and_are_paired_by_link(filled: Store) -> None:
    everyone = counted(filled, path(ORDER), choice("all"))
    assert int(everyone["n"].sum()) == 2 * N
    shadow = counted(filled, path(ORDER), choice("mode=shadow"))
    assert int(shadow["n"].sum()) == 200
    frame, shadows = pairs.read(filled, path(ORDER), choice("all"))
    assert (frame.height, shadows) == (150, 200)
    users = population(filled, path(ORDER), from_ns=HOUR, to_ns=END).frame
    first = users.filter(users["key"] == 10_000)["e2e_ns"].item()
    assert frame.row(0) == (400_000, first, HOUR + 1_000)
    found = pairs.paired(frame, shadows)
    assert found.unpaired == 50
    assert (found.verdict, found.pairs) == ("regression", 150)
    assert next(t for t in found.tests if t.name == "p50").finding == "worse"
    assert population(filled, path(ORDER), from_ns=HOUR, to_ns=END, modes=(Mode.SHADOW,)).frame.height == 200


def test_pairs_without_a_difference_say_so_and_few_are_no_verdict() -> None:
    import polars as pl

    random = np.random.default_rng(2)
    base = random.lognormal(11.5, 0.5, 2_000)
    frame = pl.DataFrame(
        {
            "shadow_ns": (base * random.lognormal(0, 0.05, 2_000)).astype(np.int64),
            "user_ns": (base * random.lognormal(0, 0.05, 2_000)).astype(np.int64),
            "start_ns": HOUR + np.arange(2_000) * S // 10,
        }
    )
    same = pairs.paired(frame, 2_000)
    assert (same.verdict, [t.finding for t in same.tests]) == ("no_regression", ["no difference"] * 3)
    low, high = same.difference["p50"][1:]
    assert low <= 0 <= high
    slower = frame.with_columns((pl.col("shadow_ns") * 1.05).cast(pl.Int64))
    assert pairs.paired(slower, 2_000).verdict == "regression"
    assert pairs.paired(frame.head(3), 10).verdict == "insufficient"


def test_a_baseline_is_the_arm_that_was_saved(filled: Store, tmp_path) -> None:  # type: ignore[no-untyped-def]
    (a,) = arms(filled, path(ORDER), [choice("version=1")])
    file = tmp_path / "base.json"
    file.write_bytes(save(a, "order", "end_to_end"))
    again, of, stage = load(file)
    assert (of, stage) == ("order", "end_to_end")
    assert again.by_bucket.tolist() == a.by_bucket.tolist()
    assert (again.n == a.n).all()
    (b,) = arms(filled, path(ORDER), [choice("version=2")])
    assert compare(again, b).tests == compare(a, b).tests
    good = msgspec.json.decode(file.read_bytes())
    for field, value, said in (
        ("format", "2", "format"),
        ("rows", [[0, 5, -1]], "cannot be"),
        ("rows", [[99_999, 5, 1]], "cannot be"),
        ("rows", [[0, 5, 10**9]], "more latencies"),
        ("total", [1], "do not fit"),
        ("clusters", ["x"] * len(good["clusters"]), "repeated"),
        ("rows", "x", "not a baseline"),
    ):
        file.write_bytes(msgspec.json.encode({**good, field: value}))
        with pytest.raises(ArmFileError, match=said):
            load(file)
    file.write_bytes(b"\x00\xff nothing")
    with pytest.raises(ArmFileError):
        load(file)


@pytest.mark.parametrize(
    "text", ["version", "=2", "version=", "a=1,a=2", "x y=1", ",".join(f"l{i}=1" for i in range(9))]
)
def test_labels_that_cannot_be_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"label|twice|at most"):
        labels_from(text)
