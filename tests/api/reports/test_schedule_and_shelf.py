from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

import pytest

from analytics.report.period import NS
from api.control import Control
from api.reports.desk import BusyError, Desk
from api.reports.making import Known, Wanted, episodes
from api.reports.schedule import last_due
from api.reports.settings import ReportSettings, reports_from
from api.reports.shelf import Shelf, id_of
from collector.settings import ConfigError
from tests.dashboards.report.sample import DAY, T0, WEEK, sample


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * NS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("now", "due"),
    [
        (at(2026, 11, 16, 6), at(2026, 11, 16, 6)),
        (at(2026, 11, 16, 5, 59), at(2026, 11, 9, 6)),
        (at(2026, 11, 22, 23), at(2026, 11, 16, 6)),
        (at(2027, 1, 1, 0), at(2026, 12, 28, 6)),
    ],
)
def test_a_weekly_report_is_of_the_week_before_its_monday(now: int, due: int) -> None:
    found, time = last_due(ReportSettings(), now)
    assert found == due
    assert time.to_ns == due - 6 * 3600 * NS
    assert time.length_ns == 7 * DAY


def test_a_daily_report_of_hours_ends_with_the_last_full_one() -> None:
    found, time = last_due(ReportSettings(weekday="daily", at="06:30", period="12h"), at(2026, 11, 16, 7))
    assert found == at(2026, 11, 16, 6, 30)
    assert (time.from_ns, time.to_ns) == (at(2026, 11, 15, 18), at(2026, 11, 16, 6))


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"at": "25:00"}, "at"), ({"weekday": "moonday"}, "weekday"), ({"period": "90m"}, "period"),
        ({"formats": []}, "formats"), ({"keep": 0}, "keep"), ({"title": ""}, "title"), ({"perod": "7d"}, "perod"),
        ({"formats": ["docx"]}, "formats"),
    ],
)  # fmt: skip
def test_a_wrong_setting_is_named(fields: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        reports_from({"reports": {"weekly": fields}})


def test_names_and_numbers_of_reports_are_bounded() -> None:
    with pytest.raises(ConfigError, match="a name has"):
        reports_from({"reports": {"../x": {}}})
    with pytest.raises(ConfigError, match="at most 16"):
        reports_from({"reports": {f"r{i}": {} for i in range(17)}})


def test_the_shelf_keeps_the_newest_and_replaces_the_same(tmp_path: Path) -> None:
    shelf, report = Shelf(tmp_path / "reports"), sample()
    for week in range(5):
        moved = dataclasses.replace(
            report, from_ns=report.from_ns + week * 7 * DAY, to_ns=report.to_ns + week * 7 * DAY
        )
        shelf.put("weekly", moved, {"json": b"{}"}, made_by="t", policy="p", keep=3)
        shelf.put("weekly", moved, {"json": b"[]"}, made_by="t", policy="p", keep=3)
    found = shelf.all()
    assert [one.to_ns for one in found] == [T0 + w * 7 * DAY for w in (4, 3, 2)]
    assert shelf.read(found[0].id, "json") == b"[]"
    assert found[0].id == "weekly.20261214T0000Z.168h"
    assert sorted(one.name for one in shelf.folder.iterdir()) == sorted(one.id for one in found)


@pytest.mark.parametrize("report_id", ["../tokens", "weekly.20261214T0000Z.168h/..", "", ".making-x", "a" * 500])
def test_an_id_is_no_way_out_of_the_folder(tmp_path: Path, report_id: str) -> None:
    shelf = Shelf(tmp_path / "reports")
    with pytest.raises(KeyError):
        shelf.read(report_id, "html")


def test_a_damaged_folder_is_no_report_and_hides_none(tmp_path: Path) -> None:
    shelf, report = Shelf(tmp_path), sample()
    about = shelf.put("weekly", report, {"json": b"{}"}, made_by="t", policy="", keep=3)
    (tmp_path / id_of("other", 0, DAY)).mkdir()
    (tmp_path / id_of("other", 0, DAY) / "about.json").write_text("{")
    assert [one.id for one in shelf.all()] == [about.id]


def test_one_report_is_made_at_a_time_and_a_failure_is_kept(tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")

    class Away:
        def query(self, *_: object) -> None:
            raise RuntimeError("the store is away")

    desk = Desk(Away(), control, Shelf(tmp_path / "reports"), lambda: Known(paths={}, kpis={}))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no path is declared"):
        desk.write("asked", Wanted(time=WEEK), made_by="me")
    assert "no path is declared" in next(iter(desk.failures.values())).error
    desk._lock.acquire()
    with pytest.raises(BusyError):
        desk.write("asked", Wanted(time=WEEK), made_by="me")
    control.close()


def test_episodes_are_those_on_record_and_one_that_fires_has_no_end(tmp_path: Path) -> None:
    control = Control(tmp_path / "control.sqlite")
    with control.transaction() as db:
        insert = "INSERT INTO slo_episodes (episode, objective, rule, severity, breach_ns, fired_ns, resolved_ns) "
        db.execute(insert + "VALUES ('a', 'o', 'r', 'page', 10, 20, 90)")
        db.execute(insert + "VALUES ('b', 'o', 'r', 'page', 110, 120, 0)")
    found = {one.episode: one for one in episodes(control)}
    assert (found["a"].breach_ns, found["a"].fired_ns, found["a"].resolved_ns) == (10, 20, 90)
    assert found["b"].resolved_ns is None
    control.close()
