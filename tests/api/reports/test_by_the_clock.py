"""A scheduled report of a real store: made once, when it is due, of what was counted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics.report.period import HOUR_NS
from analytics.windows import WindowJob, WindowSettings
from api.control import Control
from api.reports.desk import Desk
from api.reports.making import Known
from api.reports.settings import ReportSettings
from api.reports.shelf import Shelf
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from dashboards.report.files import read
from tests.analytics.world import HOUR, path, put, stamp

DAY = 24 * HOUR_NS
MIDNIGHT = HOUR // DAY * DAY + DAY  # the one after the messages


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = open_embedded(tmp_path)
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    put(store, [
        row
        for i in range(400)
        for row in (
            stamp(i + 1, "app_ingress", HOUR + i * 1_000_000_000),
            stamp(i + 1, "app_decision", HOUR + i * 1_000_000_000 + 90_000),
            stamp(i + 1, "app_egress", HOUR + i * 1_000_000_000 + 100_000),
        )
    ])  # fmt: skip
    job = WindowJob(WindowSettings())
    for _ in range(20):
        if not job.run_due(store, {"order": path()}, HOUR + 3 * HOUR_NS):
            break
    yield store
    store.close()


def test_it_is_made_once_when_it_is_due(store: Store, tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")
    daily = ReportSettings(weekday="daily", at="01:00", period="24h", formats=("json",), title="Yesterday")
    broken = ReportSettings(weekday="daily", at="01:00", period="24h", formats=("json",), scenarios="gone.toml")
    desk = Desk(
        store, control, Shelf(tmp_path / "reports"), lambda: Known(paths={"order": path()}, kpis={}),
        {"broken": broken, "daily": daily}, base=tmp_path,
    )  # fmt: skip
    # Of the day before nothing was counted: none is made, and none is missed.
    assert desk.run_due(MIDNIGHT - DAY + 2 * HOUR_NS) == 0
    due = MIDNIGHT + HOUR_NS
    with pytest.raises(Exception, match=r"gone\.toml"):  # which keeps the other one from nothing
        desk.run_due(due)
    [about] = desk.shelf.all()
    assert (about.name, about.title, about.to_ns, about.made_by) == ("daily", "Yesterday", MIDNIGHT, "schedule")
    report = read(desk.shelf.read(about.id, "json"))
    assert report.paths[0].count == 400
    assert desk.run_due(due + 60 * 10**9) == 0  # neither again, nor at once after a failure
    with pytest.raises(Exception, match=r"gone\.toml"):
        desk.run_due(due + HOUR_NS)
    assert [one.made_ns for one in desk.shelf.all()] == [about.made_ns]
    control.close()
