"""Change points of stored counts, label mixes and gauges, with the recorded changes beside them."""

from __future__ import annotations

import numpy as np
import pytest

from analytics import buckets
from analytics.changepoints.effects import adjusted
from analytics.changepoints.findings import changepoints, step_for
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types
from tests.analytics.world import HOUR, path, put_rows

S = 1_000_000_000
MS = 1_000_000
STEPS = 120
AT = 80  # the step of the change


def fill(store: Store, *, change: bool, seed: int = 0) -> None:
    """Twenty minutes of 10 s windows; from step 80 on the tail, the mix of symbols and a score are others."""
    rng = np.random.default_rng(seed)
    store.execute("TRUNCATE TABLE changes")
    fast, slow = buckets.index(np.array([2 * MS, 9 * MS])).tolist()
    spread = {b: i for i, b in enumerate(range(fast, fast + 40))}
    rows: dict[str, list[dict[str, object]]] = {"stage_windows": [], "stage_counts": [], "windows": [], "gauges": []}
    for step in range(STEPS):
        at = HOUR // S + step * 10
        moved = change and step >= AT
        n = int(rng.poisson(2_000))
        late = int(rng.binomial(n, 0.03 if moved else 0.008))
        blank = {"path": "order", "level": 10, "window": at, "generation": 1, "rollup": "", "stage": "end_to_end"}
        body = rng.multinomial(n - late, np.full(len(spread), 1 / len(spread)))
        counts = {**dict(zip(spread, body, strict=True)), slow: late}
        rows["stage_counts"] += [{**blank, "bucket": b, "n": int(k)} for b, k in counts.items() if k]
        zero = dict.fromkeys(("unfinished", "missing", "negative", "below_resolution", "error_unknown", "repeated"), 0)
        figures = {**zero, "sum_ns": n * 2 * MS, "min_ns": MS, "max_ns": 9 * MS, "max_error_ns": 0}
        rows["stage_windows"].append({**blank, **figures, "n": n})
        mix = rng.multinomial(n, [0.5, 0.35, 0.15] if moved else [0.5, 0.3, 0.2])
        rows["stage_windows"] += [
            {**blank, **figures, "rollup": f"symbol={name}", "n": int(k)} for name, k in zip("ABC", mix, strict=True)
        ]
        commit = dict.fromkeys(table_types()["windows"], 0)
        rows["windows"].append({**commit, "path": "order", "level": 10, "window": at, "generation": 1})
        value = rng.normal(0.4 if moved else 0.5, 0.03)
        rows["gauges"].append({"ts": at * S + 5, "name": "model_score", "host": "a", "service": "inference",
                               "label_set": 0, "value": float(value)})  # fmt: skip
    for table in ("stage_counts", "stage_windows", "windows"):
        known = table_types()[table]
        some = [{k: v for k, v in row.items() if k in known} for row in rows[table]]
        store.insert(table, from_rows(known, some), token=f"{table}{seed}{change}")
    put_rows(store, "gauges", rows["gauges"])
    done = {"ts": HOUR + AT * 10 * S - 4 * S, "id": "c-1", "kind": "deploy", "who": "ann", "what": "engine 2",
            "host": "", "service": "engine", "version": "2", "url": "", "labels": "{}", "recorded": HOUR}  # fmt: skip
    put_rows(store, "changes", [done, {**done, "ts": HOUR + 10 * S, "id": "c-2", "what": "long before"}])


def asked(store: Store, **more: object):  # type: ignore[no-untyped-def]
    return changepoints(store, path(), from_ns=HOUR, to_ns=HOUR + STEPS * 10 * S, **more)  # type: ignore[arg-type]


def test_what_changed_is_found_with_the_change_beside_it(store: Store) -> None:
    fill(store, change=True)
    seen: list[tuple[int, int]] = []
    found = asked(store, objective=(5 * MS, 0.98), progress=lambda done, of: seen.append((done, of)))
    assert (found.step_s, found.count > 200_000, found.tested) == (10, True, 5)
    assert seen == [(i, 5) for i in range(5)]
    by = {(f.subject, f.name): f for f in found.found}
    assert set(by) >= {("percentile", "p99"), ("mix", "symbol"), ("score", "model_score")}
    assert ("count", "messages") not in by
    truth = HOUR + AT * 10 * S
    for one in by.values():
        assert abs(one.at_ns - truth) <= 20 * S and one.low_ns <= truth <= one.high_ns
        assert one.q <= 0.05
        assert [(c.id, c.after_ns) for c in one.changes] == [("c-1", one.at_ns - truth + 4 * S)]
        assert one.moved[0].low is not None and one.moved[0].high is not None
        assert one.moved[0].low * one.moved[0].high > 0
    tail = by[("percentile", "p99")]
    assert tail.before_ns is not None and tail.after_ns is not None and tail.after_ns > 3 * tail.before_ns
    assert {m.name for m in by[("mix", "symbol")].moved} == {"A", "B", "C"}
    assert by[("mix", "symbol")].effect == pytest.approx(0.065, abs=0.02)
    assert by[("score", "model_score")].moved[0].after == pytest.approx(0.4, abs=0.02)
    warned = found.warnings[0]
    assert warned.refused == "" and len(warned.at_ns) == 1
    assert warned.at_ns[0] == pytest.approx(truth + 10 * S, abs=50 * S)
    assert warned.lead is not None and warned.lead.breaches >= 1


def test_nothing_stands_out_where_nothing_changed(store: Store) -> None:
    fill(store, change=False, seed=1)
    found = asked(store)
    assert (found.tested, found.found) == (5, [])
    assert [w.at_ns for w in found.warnings] == [[]]
    assert found.anomalies == []
    part = asked(store, stages=["end_to_end"], scores=[])
    assert part.tested == 4
    with pytest.raises(KeyError, match="no stage 'sned'"):
        asked(store, stages=["sned"])
    empty = changepoints(store, path(), from_ns=HOUR + 7_200 * S, to_ns=HOUR + 7_800 * S)
    assert (empty.tested, empty.count, empty.found) == (0, 0, [])


def test_too_few_steps_say_so() -> None:
    from analytics.changepoints.findings import _too_few

    assert _too_few(18, 27) == "18 steps are too few for one of 27 series to stand out by itself: ask about more time. "
    assert _too_few(120, 27) == ""
    assert "too few" in _too_few(0, 0)


def test_steps_are_whole_and_not_too_many() -> None:
    for seconds in (10, 600, 1_200, 1_210, 3_600, 86_400, 30 * 86_400, 400 * 86_400):
        step = step_for(seconds)
        assert seconds / step <= 120 and step % 10 == 0
    assert [step_for(s) for s in (1_200, 3_600, 86_400)] == [10, 30, 1_200]


def test_adjusted_p_values() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.16 / 3, 0.16 / 3, 0.5])
    assert adjusted([]) == []
