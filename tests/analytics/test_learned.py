"""Learned paths on stamps as the receiver makes them: what is a stage, what is bounded, what stays where it is."""

from __future__ import annotations

import itertools

import pytest

from analytics import latency, windows
from analytics.learned import LearnedSettings, PathLearner, load, observe
from analytics.messages import slowest
from analytics.stitch import headless
from collector.settings import ConfigError
from collector.store import Store
from tests.analytics.world import HOUR, put, stamp

MS = 1_000_000
_keys = itertools.count(1)


def span(
    at_ns: int, length_ns: int, name: str, *, service: str = "shop", below: tuple[tuple[str, str, int, int], ...] = ()
) -> list[dict[str, object]]:
    """An entry with spans directly below it: (service, name, offset, length)."""
    key = next(_keys)
    rows = [
        stamp(key, f"otel.start:{name}", at_ns, service=service),
        stamp(key, f"otel.end:{name}", at_ns + length_ns, service=service),
    ]
    for other, child, offset, length in below:
        rows.append(stamp(key, f"otel.child_start:{child}", at_ns + offset, service=other))
        rows.append(stamp(key, f"otel.child_end:{child}", at_ns + offset + length, service=other))
    return rows


def arrive(store: Store, *spans: list[dict[str, object]], received_ns: int) -> None:
    """Spans as a batch of the collector `otlp`."""
    put(store, [row for each in spans for row in each], received_ns=received_ns)
    store.execute("ALTER TABLE batches UPDATE name = 'otlp' WHERE 1 SETTINGS mutations_sync = 1")


def test_operations_and_what_lies_below_them(store: Store) -> None:
    arrive(
        store,
        *(span(HOUR + i * 50 * MS, 8 * MS, "GET /a", below=(("shop", "db", 3 * MS, MS), ("pay", "charge", MS, MS)))
          for i in range(3)),
        span(HOUR, 300 * MS, "GET /b"),
        received_ns=HOUR + 1_000 * MS,
    )  # fmt: skip
    seen = observe(store, HOUR, HOUR + 10_000 * MS)
    assert {name: one.n for name, one in seen.items()} == {("shop", "GET /a"): 3, ("shop", "GET /b"): 1}
    assert seen["shop", "GET /a"].below == {("shop", "db"): (3, 9 * MS), ("pay", "charge"): (3, 3 * MS)}
    learned = PathLearner().learn(store, HOUR + 2_000 * MS)
    path = learned["otel:shop:GET /a"].path
    assert [s.name for s in path.stages] == ["pay: charge", "db"], "in the order in which they start"
    assert (path.max_age, learned["otel:shop:GET /b"].path.max_age) == ("1s", "1s")
    assert learned["otel:shop:GET /b"].path.stages == []
    assert load(store) == learned


def test_stages_are_added_at_the_end_and_old_messages_are_still_read(store: Store) -> None:
    learner, name = PathLearner(), "otel:shop:GET /a"
    arrive(store, span(HOUR, 8 * MS, "GET /a", below=(("shop", "db", 3 * MS, MS),)), received_ns=HOUR + 1)
    path = learner.learn(store, HOUR + 20_000 * MS)[name].path
    windows.run_due(store, {name: path}, now_ns=HOUR + 60_000 * MS)
    later = HOUR + 30_000 * MS
    arrive(
        store,
        span(later, 700 * MS, "GET /a", below=(("shop", "auth", MS, MS), ("shop", "db", 3 * MS, 2 * MS))),
        received_ns=later + 1,
    )
    learned = learner.learn(store, later + 2_000 * MS)[name]
    path = learned.path
    assert [s.name for s in path.stages] == ["db", "auth"]
    assert path.max_age == "10s", "twice the longest span"
    windows.run_due(store, {name: path}, now_ns=HOUR + 120_000 * MS)
    whole = {s.stage: s for s in latency.percentiles(store, path)}
    assert (whole["end_to_end"].count, whole["db"].count, whole["auth"].count) == (2, 2, 1)
    found = slowest(store, path, from_ns=HOUR, to_ns=HOUR + 100_000 * MS)
    assert [m.stage_ns for m in found] == [[2 * MS, MS], [MS, None]]
    assert [m.unattributed_ns for m in found] == [697 * MS, 7 * MS]
    from analytics.verify import verify_percentiles

    # Counts were made before the stage was known; from raw stamps it is missing in the first message.
    differ = {row.source: row.differences for row in verify_percentiles(store, {name: path}) if row.differences}
    assert differ == {"raw": ["stage auth: missing is 0 from level 10, 1 from raw"]}


def test_spans_below_other_entries_are_not_headless_messages(store: Store) -> None:
    below = (("shop", "db", MS, MS),)
    arrive(
        store, span(HOUR, 5 * MS, "GET /a", below=below), span(HOUR, 5 * MS, "GET /b", below=below),
        [stamp(next(_keys), "otel.child_start:db", HOUR, service="shop")],
        [stamp(next(_keys), "otel.end:GET /a", HOUR, service="shop")],
        received_ns=HOUR + 1,
    )  # fmt: skip
    path = PathLearner().learn(store, HOUR + 2_000 * MS)["otel:shop:GET /a"].path
    assert headless(store, path, HOUR, HOUR + 10_000 * MS) == {HOUR // 10**9: 1}


def test_their_number_is_bounded_and_the_rest_is_counted(store: Store) -> None:
    learner = PathLearner(LearnedSettings(max_paths=2, max_stages=1, forget="1h"))
    busy = [span(HOUR + i * MS, MS, "busy", below=(("s", "x", 1, 1), ("s", "y", 2, 1))) for i in range(5)]
    arrive(store, *busy, *(span(HOUR, MS, f"rare {i}") for i in range(3)), received_ns=HOUR + 1)
    learned = learner.learn(store, HOUR + 2_000 * MS)
    assert len(learned) == 2 and learner.unlearned == 2
    assert len(learned["otel:shop:busy"].path.stages) == 1
    now = HOUR + 2 * 3_600_000 * MS
    assert load(store, LearnedSettings(forget="1h"), now) == {}
    assert learner.learn(store, HOUR + 3_000 * MS) == learned, "nothing new, nothing changes"


def test_windows_of_a_new_path_do_not_look_at_what_came_before_it(store: Store) -> None:
    learner = PathLearner()
    old = HOUR - 3_600_000 * MS
    put(store, [stamp(1, "app_ingress", old), stamp(1, "app_egress", old + 5)], received_ns=old)
    assert learner.learn(store, HOUR) == {}
    arrive(store, span(HOUR, MS, "new"), received_ns=HOUR + 1)
    learned = learner.learn(store, HOUR + 1)
    done = windows.run_due(store, {n: p.path for n, p in learned.items()}, now_ns=HOUR + 60_000 * MS)
    assert {d.window_ns for d in done if d.level == 10} == {HOUR - 10_000 * MS, HOUR}
    assert sum(d.messages for d in done if d.level == 10) == 1


@pytest.mark.parametrize(("field", "value"), [("max_paths", -1), ("max_stages", 99), ("forget", "soon")])
def test_wrong_settings_name_the_field(field: str, value: object) -> None:
    from collector.settings import section

    with pytest.raises(ConfigError) as caught:
        section({field: value}, LearnedSettings, "learned")
    assert caught.value.field == f"learned.{field}"


@pytest.fixture(autouse=True)
def _no_learned_paths(store: Store) -> None:
    store.execute("TRUNCATE TABLE learned_paths")
