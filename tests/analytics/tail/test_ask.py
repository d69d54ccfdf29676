"""The same questions asked of the store: in slices, over unfinished and parallel messages, with what threads saw."""

from __future__ import annotations

import msgspec
import numpy as np
import polars as pl
import pytest

from analytics import windows
from analytics.paths import Path
from analytics.population import labels_of, population
from analytics.tail import ask, cells, drivers, read, why
from analytics.tail.attribution import attribution
from analytics.tail.tailset import took
from collector.store import Store
from tests.analytics.conftest import TABLES
from tests.analytics.world import HOUR, label_set, path, put, put_rows, stamp

S = 1_000_000_000
US = 1_000
PATH = """
max_age = "1s"
[[stages]]
name = "decide"
budget = "150us"
from = {point = "app_ingress"}
to = {point = "app_decision"}
[[stages]]
name = "send"
class = "network"
from = {point = "app_decision"}
to = {point = "app_egress"}
"""
PARALLEL = """
max_age = "1s"
first = {point = "app_ingress"}
last = {point = "app_egress"}
[[stages]]
name = "left"
from = {point = "app_ingress"}
to = {point = "app_transform"}
[[stages]]
name = "right"
from = {point = "app_ingress"}
to = {point = "app_decision"}
"""
N = 3_000
SPAN = {"from_ns": HOUR, "to_ns": HOUR + 300 * S}


def serve(store: Store, one: Path) -> Path:
    windows.run_due(store, {one.name: one}, now_ns=HOUR + 400 * S)
    return one


@pytest.fixture
def served(shared_store: Store) -> tuple[Store, Path]:
    """Filled once, and again where another test has emptied the store meanwhile."""
    store, one = shared_store, path(PATH)
    if store.query("SELECT count() AS n FROM messages WHERE path = 'order'")["n"][0] != N:
        for table in TABLES:
            store.execute(f"TRUNCATE TABLE {table}")
        fill(store)
        serve(store, one)
    return store, one


def fill(store: Store) -> None:
    """Ten messages a second for 300 s; in the second half every tenth of symbol B decides 5 ms longer."""
    rng = np.random.default_rng(1)
    sets = {name: label_set(store, {"symbol": name}) for name in "AB"}
    stamps, waits = [], []
    for i in range(N):
        at, symbol = HOUR + i * S // 10, "AB"[i % 2]
        slow = i >= N // 2 and symbol == "B" and i % 20 == 1
        decide = int(rng.integers(50, 100)) * US + (5_000 * US if slow else 0)
        end = at + decide
        labels = {"label_set": sets[symbol], "thread": 2}
        stamps += [stamp(i + 1, "app_ingress", at, **labels), stamp(i + 1, "app_decision", end, **labels)]
        if i != 77:  # one never ends
            stamps.append(stamp(i + 1, "app_egress", end + int(rng.integers(10, 30)) * US, **labels))
        if slow:
            waits.append(
                {
                    "ts": at + 100, "host": "a", "thread": 2, "label_set": 0, "kind": "run_queue",
                    "culprit": "backup", "duration_ns": 4_900 * US,
                }
            )  # fmt: skip
    put(store, stamps)
    put_rows(store, "intervals", waits)


def test_attribution_counts_every_message_and_says_what_threads_waited_for(served: tuple[Store, Path]) -> None:
    store, one = served
    found = ask.attribution(store, one, **SPAN, q=0.02)
    assert (found.count, found.unfinished) == (N, 1)
    assert 60 <= found.tail_count <= 70  # ties at its begin
    assert sum(part.total_ns for part in found.stages) == found.tail_total_ns
    assert found.stages[-1].total_ns > 0.99 * S
    inside = next(part for part in found.inside if part.stage == "decide")
    assert inside.slowest["run_queue"] > 0.3
    assert inside.others.get("run_queue", 0.0) < inside.slowest["run_queue"]


@pytest.mark.parametrize("q", [0.003, 0.02, 0.3])
def test_the_store_sums_as_a_frame_is_summed(served: tuple[Store, Path], q: float) -> None:
    store, one = served
    frame = population(store, one, **SPAN).frame
    alone = attribution(frame, one, **SPAN, q=q, completeness=None)
    found = ask.attribution(store, one, **SPAN, q=q)
    assert msgspec.structs.replace(found, inside=[], completeness=None) == alone
    prepared, _ = took(frame, one)
    marked = prepared.with_columns(tail=pl.col("took_ns") >= alone.threshold_ns)
    counted = cells.count(marked, 10 * S, [stage.name for stage in one.stages])
    named = drivers.found(counted, labels_of(store, counted.cells["label_set"]))
    who = ask.who(store, one, **SPAN, q=q)
    assert (who.drivers, who.looked_at, who.dimensions) == named


def test_slices_of_time_give_the_same_answer(served: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    store, one = served
    whole = ask.attribution(store, one, **SPAN)
    budgets = ask.budgets(store, one, **SPAN)
    cut = read.slices(store, one, read.Reach(HOUR, HOUR + 300 * S), at_once=700)
    assert len(cut.spans) == 5
    monkeypatch.setattr(ask, "slices", lambda *_: cut)
    monkeypatch.setattr(ask, "sequential", lambda _: False)
    monkeypatch.setattr(ask, "members", lambda *_: (None, 0))
    assert ask.attribution(store, one, **SPAN) == whole
    assert ask.budgets(store, one, **SPAN).classes == budgets.classes


def test_labels_that_are_as_good_as_keys_are_not_looked_at(
    served: tuple[Store, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drivers, "MOST_LABEL_SETS", 1)
    found = ask.who(*served, **SPAN, q=0.02)
    assert "symbol" not in found.dimensions
    assert found.sentence.startswith("Labels were not looked at")


def test_drivers_are_the_planted_ones(served: tuple[Store, Path]) -> None:
    store, one = served
    found = ask.who(store, one, **SPAN, q=0.02)
    assert {"symbol": "B"} in [driver.what for driver in found.drivers]
    assert found.dimensions  # messages differ in more than that
    early = ask.who(store, one, from_ns=HOUR, to_ns=HOUR + 140 * S, q=0.02)
    assert early.drivers == []
    assert "Nothing stands out" in early.sentence


def test_explain_names_stage_layer_label_and_the_change_beside_it(served: tuple[Store, Path]) -> None:
    store, one = served
    at = HOUR + 145 * S
    store.execute("TRUNCATE TABLE changes")
    put_rows(
        store,
        "changes",
        [
            {
                "ts": at, "id": "1", "kind": "deploy", "who": "me", "what": "engine 2", "host": "", "service": "engine",
                "version": "2", "url": "", "labels": "{}", "recorded": at,
            }
        ],
    )  # fmt: skip
    found = why.explanation(store, one, from_ns=HOUR + 150 * S, to_ns=HOUR + 300 * S)
    (cause,) = found.causes
    assert (cause.stage, cause.layer, cause.kind, cause.label) == ("decide", "scheduler", "run_queue", "symbol=B")
    assert "run_queue by backup" in cause.evidence
    assert [(change.what, change.before_ns) for change in found.changes] == [("engine 2", 5 * S)]
    store.execute("TRUNCATE TABLE changes")


def test_explain_without_a_comparison_speaks_of_the_body(served: tuple[Store, Path]) -> None:
    store, one = served
    found = why.explanation(store, one, from_ns=HOUR, to_ns=HOUR + 300 * S)
    assert found.compared_with == "body"
    assert found.against_count == 0
    assert "unfinished" in [cause.stage for cause in found.causes] or found.causes
    few = why.explanation(store, one, from_ns=HOUR, to_ns=HOUR + 2 * S)
    assert few.causes == []
    assert "at least 100" in few.reason
    with pytest.raises(ValueError, match="must not overlap"):
        why.explanation(store, one, from_ns=HOUR, to_ns=HOUR + S, against=(HOUR, HOUR + 2 * S))


def test_budgets_come_from_counts(served: tuple[Store, Path]) -> None:
    store, one = served
    found = ask.budgets(store, one, **SPAN, step_s=60)
    decide = found.stages[0]
    assert decide.over_at_least == decide.over_at_most == N // 40
    assert decide.windows == 5
    assert decide.tail_share is not None
    with pytest.raises(ValueError, match="multiple of 10"):
        ask.budgets(store, one, **SPAN, step_s=15)


def test_parallel_stages_are_reduced_to_what_was_waited_for(store: Store) -> None:
    rng = np.random.default_rng(2)
    stamps = []
    for i in range(400):
        at = HOUR + i * S // 10
        left, right = (int(rng.integers(50, 100)) * US for _ in range(2))
        right += 2_000 * US if i % 40 == 0 else 0
        stamps += [stamp(i + 1, "app_ingress", at), stamp(i + 1, "app_transform", at + left)]
        stamps += [
            stamp(i + 1, "app_decision", at + right),
            stamp(i + 1, "app_egress", at + max(left, right) + 10 * US),
        ]
    put(store, stamps)
    one = serve(store, path(PARALLEL))
    found = ask.attribution(store, one, from_ns=HOUR, to_ns=HOUR + 60 * S, q=0.025)
    left, right, rest = found.stages[:3]
    assert found.overlapping == 400
    assert found.reduced > 50
    assert left.total_ns == 0  # the slow ones waited for the other
    assert right.total_ns > 10 * 2_000 * US
    assert rest.total_ns == 10 * 10 * US
    assert left.total_ns + right.total_ns + rest.total_ns == found.tail_total_ns
