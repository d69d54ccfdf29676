"""The sweep removes what no reader sees, after ten minutes, and nothing else."""

from __future__ import annotations

from analytics import latency, verify, windows
from analytics.sweep import STALE_NS, sweep
from collector.store import Store
from tests.analytics.world import HOUR, path, put, stamp

S = 1_000_000_000
PATHS = {"order": path()}
TABLES = ("messages", "stage_counts", "stage_windows")


def generations(store: Store) -> dict[str, int]:
    return {
        table: int(store.query(f"SELECT uniqExact(generation) AS n FROM {table}")["n"][0])  # noqa: S608
        for table in TABLES
    }


def test_superseded_and_uncommitted_generations_go_and_answers_stay(store: Store) -> None:
    put(store, [stamp(1, "app_ingress", HOUR), stamp(1, "app_egress", HOUR + 500)])
    windows.run_due(store, PATHS, now_ns=HOUR + 20 * S)
    put(store, [stamp(2, "app_ingress", HOUR), stamp(2, "app_egress", HOUR + 700)], received_ns=HOUR + 40 * S)
    windows.run_due(store, PATHS, now_ns=HOUR + 41 * S)
    for table in TABLES:  # as a killed run would leave them: without a commit
        store.execute(
            f"INSERT INTO {table} SELECT * REPLACE (generation + 1 AS generation) FROM (SELECT * FROM {table}"  # noqa: S608
            " WHERE generation = (SELECT max(generation) FROM windows WHERE level = 10 AND messages > 0))"
        )
    before = latency.percentiles(store, PATHS["order"])
    assert generations(store) == {"messages": 3, "stage_counts": 3, "stage_windows": 3}
    now = HOUR + 42 * S
    assert sweep(store, now) == 0
    later = now + STALE_NS
    assert sweep(store, later) == 2
    assert generations(store) == {"messages": 1, "stage_counts": 1, "stage_windows": 3}
    assert sweep(store, later) == 2
    assert generations(store) == {"messages": 1, "stage_counts": 1, "stage_windows": 1}
    assert sweep(store, later) == 0
    assert latency.percentiles(store, PATHS["order"]) == before
    assert before[-1].count == 2
    assert all(v.differences == [] for v in verify.verify_percentiles(store, PATHS))
