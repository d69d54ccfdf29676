"""A whole report from a real store: stamps, windows, measures and changes of a small world."""

from __future__ import annotations

import pytest

from analytics import kpis
from analytics.kpis import KpiDefinition, KpiValue
from analytics.paths import Path
from analytics.report.estimating import estimate
from analytics.report.gather import Asked, NothingToReportError, gather
from analytics.report.period import HOUR_NS, Period
from analytics.windows import WindowJob, WindowSettings
from collector.store import Store
from tests.analytics.conftest import HOUR
from tests.analytics.world import ORDER, path, put, stamp

TIME = Period(HOUR + 6 * HOUR_NS, HOUR + 12 * HOUR_NS, "6h")
KNOWN = {"fill": KpiDefinition(node="trading"), "other": KpiDefinition(node="elsewhere")}


@pytest.fixture
def order() -> Path:
    return path('revenue_node = "trading"\n' + ORDER)


@pytest.fixture
def filled(store: Store, order: Path) -> Store:
    """Twelve hours; the last six take 4 ms where the first six took 2. One message of each hour never ends."""
    store.execute("TRUNCATE TABLE kpis")
    for hour in range(12):
        start = HOUR + hour * HOUR_NS
        stamps = []
        for i in range(70):
            key, at = hour * 1000 + i + 1, start + i * 20_000_000_000
            took = (4_000_000 if hour >= 6 else 2_000_000) + i * 1_000
            stamps.append(stamp(key, "app_ingress", at))
            if i:
                stamps += [stamp(key, "app_decision", at + took // 2), stamp(key, "app_egress", at + took)]
        put(store, stamps)
    settings = WindowSettings()
    job = WindowJob(settings)
    for _ in range(40):
        if not job.run_due(store, {"order": order}, HOUR + 14 * HOUR_NS):
            break
    values = [
        KpiValue(name="fill", ts_ns=HOUR + h * HOUR_NS, numerator=9.0, denominator=10.0, duration_ns=HOUR_NS)
        for h in range(12)
    ]
    kpis.record(store, values, KNOWN, HOUR + 13 * HOUR_NS)
    return store


def test_a_report_says_what_the_store_holds(filled: Store, order: Path) -> None:
    told: list[tuple[str, int, int]] = []
    asked = Asked(time=TIME, paths=[order], kpis=KNOWN, estimate=estimate)
    report = gather(filled, asked, TIME.to_ns, lambda *what: told.append(what))
    [line] = report.paths
    assert (line.count, line.unfinished) == (6 * 69, 6)
    assert (line.before_count, line.before_unfinished) == (6 * 69, 6)
    middle = line.quantiles[0]
    assert middle.value_ns == pytest.approx(4_035_000, rel=0.01)
    assert middle.before_ns == pytest.approx(2_035_000, rel=0.01)
    assert middle.verdict == "slower"
    assert middle.change_ns == pytest.approx(2_000_000, rel=0.02)
    assert line.quantiles[2].refused  # p99.9 of 414 messages
    assert [stage.name for stage in line.stages] == ["decide", "send"]
    assert sum(stage.share or 0 for stage in line.stages) == pytest.approx(1.0)
    assert "slower" in report.headline[0]
    assert len(line.series) == 6
    [cost] = report.costs  # the measure of the path's node, and no other
    assert (cost.kpi, cost.value) == ("fill", pytest.approx(0.9))
    assert cost.change is None  # 12 intervals show nothing, and say so
    assert "not known" in cost.sentence
    assert report.budgets_unknown
    assert report.funding.unknown
    assert told[-1][1] == told[-1][2]


def test_a_time_without_messages_is_told_as_one(filled: Store, order: Path) -> None:
    time = Period(HOUR + 100 * HOUR_NS, HOUR + 106 * HOUR_NS, "6h")
    report = gather(filled, Asked(time=time, paths=[order], kpis=KNOWN), time.to_ns)
    assert "no message was seen" in report.paths[0].sentence
    assert "Too few messages" in report.headline[0]
    assert report.quality.completeness is None


def test_what_cannot_be_reported_says_what_to_do(store: Store, order: Path) -> None:
    with pytest.raises(NothingToReportError, match=r"\[paths.NAME\]"):
        gather(store, Asked(time=TIME, paths=[]), TIME.to_ns)
    with pytest.raises(NothingToReportError, match="declared under"):
        gather(store, Asked(time=TIME, paths=[order], kpis=KNOWN, kpi="nope"), TIME.to_ns)
    with pytest.raises(NothingToReportError, match="name some with --path"):
        gather(store, Asked(time=TIME, paths=[order] * 13), TIME.to_ns)


def test_a_rollup_by_a_label_has_no_estimate_and_says_so(filled: Store, order: Path) -> None:
    found = estimate(filled, order, KNOWN, "fill", TIME, "symbol=A")
    assert found.found is None
    assert "symbol=A" in found.refused
