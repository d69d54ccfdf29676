"""Where reports are made in the server: one at a time, by the clock or because somebody asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path as File

from analytics.report.value import Report
from analytics.slo.settings import SloSettings
from analytics.tally import extent
from api.control import Control
from api.reports.making import Known, Wanted, episodes, make, scenarios_of
from api.reports.schedule import last_due
from api.reports.settings import ReportSettings
from api.reports.shelf import About, Shelf, id_of
from api.slo_book import SloBook
from collector.log import logger
from collector.store import Store
from dashboards.report.files import FORMATS, Format, drawn
from dashboards.report.html import page_policy

_log = logger("reports")
_AGAIN_NS = 900 * 10**9  # after a report that could not be made
ASKED_NAME = "asked"
KEEP_ASKED = 50
_MOST_FAILURES = 20


class BusyError(RuntimeError):
    """Another report is being made."""


@dataclass(slots=True)
class Failure:
    """A report that could not be made, and why."""

    id: str
    at_ns: int
    error: str


@dataclass(slots=True)
class Desk:
    """Makes reports over a store and keeps them on a shelf.

    `declared` gives the paths and measures in force when a report is begun. Paths of files in `settings` are resolved
    against `base`.
    """

    store: Store
    control: Control
    shelf: Shelf
    declared: Callable[[], Known]
    settings: Mapping[str, ReportSettings] = field(default_factory=dict)
    slo: SloSettings = field(default_factory=SloSettings)
    base: File = File()
    making: str = ""
    failures: dict[str, Failure] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _tried: dict[str, int] = field(default_factory=dict)

    def known(self) -> Known:
        """What is declared now, with the objectives in force and the alerts' episodes."""
        here = self.declared()
        objectives = SloBook(self.control).compiled(here.paths, self.slo.calendars).objectives
        return Known(
            paths=here.paths, kpis=here.kpis, money=here.money, objectives=tuple(objectives),
            episodes=episodes(self.control),
        )  # fmt: skip

    def run_due(self, now_ns: int) -> int:
        """Make the scheduled reports that are due and not there; how many.

        A time before anything was counted makes none. One that failed is tried again a quarter of an hour later, and
        does not keep the others from being made; the first error is raised at the end.
        """
        done, errors = 0, []
        for name, one in self.settings.items():
            _, time_of = last_due(one, now_ns)
            report_id = id_of(name, time_of.from_ns, time_of.to_ns)
            if self._there(report_id) or now_ns - self._tried.get(report_id, 0) < _AGAIN_NS:
                continue
            self._tried[report_id] = now_ns
            if not self._any_message(one, time_of.from_ns, time_of.to_ns):
                continue
            try:
                wanted = Wanted(
                    time=time_of, title=one.title, paths=one.paths, kpi=one.kpi, rollup=one.rollup,
                    scenarios=scenarios_of(one.scenarios, self.base, self.control),
                )  # fmt: skip
                self.write(name, wanted, one.formats, made_by="schedule", keep=one.keep, now_ns=now_ns)
            except BusyError:
                self._tried.pop(report_id)
            except Exception as error:  # noqa: BLE001 - the next report has to be made all the same
                errors.append(error)
            else:
                done += 1
        if errors:
            raise errors[0]
        return done

    def write(
        self, name: str, wanted: Wanted, formats: tuple[Format, ...] = FORMATS, *, made_by: str, keep: int = KEEP_ASKED,
        now_ns: int | None = None,
    ) -> About:  # fmt: skip
        """Make a report now and keep it. Raises BusyError, and whatever made it fail, which is kept to be shown."""
        report_id = id_of(name, wanted.time.from_ns, wanted.time.to_ns)
        if not self._lock.acquire(blocking=False):
            raise BusyError(f"the report {self.making} is being made; try again when it is done")
        try:
            self.making = report_id
            began = time.monotonic()
            report = self._made(wanted, now_ns or time.time_ns())
            files = drawn(report, formats)
            about = self.shelf.put(name, report, files, made_by=made_by, policy=page_policy(), keep=keep)
        except Exception as error:
            self._failed(report_id, error)
            raise
        else:
            self.failures.pop(report_id, None)
            _log.info("report_made", report=report_id, seconds=round(time.monotonic() - began, 1))
            return about
        finally:
            self.making = ""
            self._lock.release()

    def begin(self, wanted: Wanted, formats: tuple[Format, ...], who: str) -> str:
        """Make a report beside whoever asked; its id. Raises BusyError."""
        if self._lock.locked():
            raise BusyError(f"the report {self.making} is being made; try again when it is done")
        report_id = id_of(ASKED_NAME, wanted.time.from_ns, wanted.time.to_ns)
        self.failures.pop(report_id, None)

        def work() -> None:
            try:
                self.write(ASKED_NAME, wanted, formats, made_by=who)
            except Exception as error:  # noqa: BLE001 - it is kept for whoever asks for the report
                _log.warning("report_failed", report=report_id, error=f"{type(error).__name__}: {error}"[:500])

        threading.Thread(target=work, name=f"report-{report_id}", daemon=True).start()
        return report_id

    def _made(self, wanted: Wanted, now_ns: int) -> Report:
        return make(self.store, self.known(), wanted, now_ns)

    def _there(self, report_id: str) -> bool:
        try:
            self.shelf.get(report_id)
        except KeyError:
            return False
        return True

    def _any_message(self, one: ReportSettings, from_ns: int, to_ns: int) -> bool:
        for name in one.paths or self.declared().paths:
            reach = extent(self.store, name)
            if reach is not None and reach[0] * 10**9 < to_ns and reach[1] * 10**9 > from_ns:
                return True
        return False

    def _failed(self, report_id: str, error: Exception) -> None:
        self.failures[report_id] = Failure(report_id, time.time_ns(), f"{type(error).__name__}: {error}"[:500])
        while len(self.failures) > _MOST_FAILURES:
            self.failures.pop(next(iter(self.failures)))
