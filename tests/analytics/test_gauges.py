"""Gauges by name, host, labels, time and step, against the same thing counted by hand."""

from __future__ import annotations

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analytics import gauges
from collector.store import Store
from tests.analytics.world import HOUR, label_set, put_rows

S = 1_000_000_000
READINGS = st.lists(
    st.tuples(
        st.integers(0, 59 * S), st.sampled_from(["a", "b"]), st.sampled_from(["", "engine"]),
        st.floats(-1e6, 1e6, allow_nan=False),
    ),
    min_size=1, max_size=30, unique_by=lambda r: r[0],
)  # fmt: skip


@given(READINGS, st.sampled_from([None, S, 7 * S, 60 * S]))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_step_has_its_own_readings(
    store: Store, readings: list[tuple[int, str, str, float]], step: int | None
) -> None:
    store.execute("TRUNCATE TABLE gauges")
    put_rows(
        store,
        "gauges",
        [
            {"ts": HOUR + t, "name": "depth", "host": host, "service": service, "label_set": 0, "value": value}
            for t, host, service, value in readings
        ],
    )
    found = gauges.series(store, "depth", from_ns=HOUR, to_ns=HOUR + 60 * S, step_ns=step)
    expected: dict[tuple[int, str, str], list[tuple[int, float]]] = {}
    for t, host, service, value in readings:
        at = HOUR if step is None else max(HOUR, (HOUR + t) // step * step)
        expected.setdefault((at, host, service), []).append((HOUR + t, value))
    assert [(g.start_ns, g.host, g.service) for g in found] == sorted(expected)
    for g in found:
        here = sorted(expected[g.start_ns, g.host, g.service])
        values = [v for _, v in here]
        assert (g.count, g.min, g.max, g.last, g.last_ns) == (
            len(here),
            min(values),
            max(values),
            values[-1],
            here[-1][0],
        )
        assert abs(g.mean - sum(values) / len(values)) < 1e-6
        assert g.start_ns <= here[0][0] < g.end_ns <= HOUR + 60 * S


def test_series_are_chosen_by_prefix_host_service_and_labels(store: Store) -> None:
    run, pre = (label_set(store, {"kind": kind, "cpu": "0"}) for kind in ("run_queue", "preempted"))
    blank = {"ts": HOUR, "host": "a", "service": ""}
    put_rows(
        store,
        "gauges",
        [
            {**blank, "name": "scheduler_delays", "label_set": run, "value": 1.0},
            {**blank, "name": "scheduler_delays", "label_set": pre, "value": 2.0},
            {**blank, "name": "scheduler_steal_ns", "label_set": 0, "value": 3.0},
            {**blank, "name": "other", "host": "b", "service": "engine", "label_set": 0, "value": 4.0},
        ],
    )
    reach = {"from_ns": HOUR, "to_ns": HOUR + S}

    def values(name: str, **more: object) -> list[float]:
        return sorted(g.last for g in gauges.series(store, name, **reach, **more))  # type: ignore[arg-type]

    assert values("scheduler_*") == [1.0, 2.0, 3.0]
    assert values("scheduler_*", labels={"kind": "preempted"}) == [2.0]
    assert values("scheduler_*", labels={"kind": "preempted", "cpu": "1"}) == []
    assert values("*", host="b") == [4.0]
    assert values("*", service="") == [1.0, 2.0, 3.0]
    assert values("*", limit=2) == [2.0, 4.0]  # by name
    assert values("scheduler' OR 1 = 1 --") == []
    (labelled,) = gauges.series(store, "scheduler_delays", **reach, labels={"kind": "run_queue"})
    assert labelled.labels == {"kind": "run_queue", "cpu": "0"}
    names = gauges.names(store, **reach)
    assert [(n.name, n.hosts, n.services, n.series, n.count) for n in names] == [
        ("other", ["b"], ["engine"], 1, 1),
        ("scheduler_delays", ["a"], [""], 2, 2),
        ("scheduler_steal_ns", ["a"], [""], 1, 1),
    ]
    assert [n.name for n in gauges.names(store, **reach, prefix="scheduler_s")] == ["scheduler_steal_ns"]
    assert gauges.names(store, from_ns=HOUR + S, to_ns=HOUR + 2 * S) == []
