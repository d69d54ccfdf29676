"""`tailsight demo --history`: makes the hours that are not there yet, ships them, and has their windows computed."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import msgspec

from analytics.backfill import backfill
from analytics.ledger import ledger
from analytics.paths import Path as LatencyPath
from analytics.runs import WindowDone
from analytics.window_settings import WindowSettings
from api.demo.control import FOLDER, Control
from api.demo.faults import Fault
from api.demo.history.calendar import DAY_NS, HOUR_NS, NS, Day
from api.demo.history.changes import changes
from api.demo.history.counting import Counting
from api.demo.history.customers import Customers
from api.demo.history.hours import REMEMBERED_DAYS, Settings, day_of
from api.demo.history.kept import kept_hours
from api.demo.history.making import Made, made
from api.demo.history.plan import Range, settle
from api.demo.history.shipping import NAME, Shipped, Shipping, collector_of
from api.demo.instances import Role
from collector.landing import Landing, LandingSettings
from collector.points import Point
from collector.store import Store, StoreError
from collector.store.blocks import from_rows
from collector.store.schema import Retention, table_types

_EDGE_NS = 60 * NS
_VERSION = 2  # of what the settings make; grows when the same settings make other hours

Progress = Callable[[str, int, int], None]  # (what is done, hours done, hours in all)


class Summary(msgspec.Struct, kw_only=True):
    """What a history has, and what this run did for it.

    `seconds_of` says where its time went: `making` is waiting for hours to be made, `windows` goes on beside the rest
    but for `waiting for windows`. `kept_hours` says for how long its rows are kept.
    """

    from_ns: int
    to_ns: int
    seed: int
    rate: float
    profile: str
    collector: str
    hours: int
    hours_made: int = 0
    quotes: int = 0
    orders: int = 0
    stamps: int = 0
    links: int = 0
    messages: int = 0
    messages_of: dict[str, int] = {}
    windows: int = 0
    windows_computed: int = 0
    batches: int = 0
    duplicates: int = 0
    quarantined: int = 0
    difference: int = 0
    deploys: int = 0
    canaries: int = 0
    shadows: int = 0
    incidents: int = 0
    campaign_days: int = 0
    kept_hours: dict[str, int] = {}
    seconds: float = 0.0
    seconds_of: dict[str, float] = {}


@dataclass(slots=True)
class History:
    """One run. `paths` and `points` are those of the directory's configuration."""

    store: Store
    data: Path
    points: Mapping[str, Point]
    paths: Mapping[str, LatencyPath]
    windows: WindowSettings
    settings: Settings
    retention: Retention = field(default_factory=Retention)
    outcomes: int | None = None  # seed of the customers' rule; None: secret
    processes: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))

    @property
    def collector(self) -> uuid.UUID:
        """Whose boots the hours are."""
        return collector_of(f"history/{_VERSION}/{msgspec.json.encode(self.settings).decode()}")

    def run(
        self, length_ns: int, until_ns: int | None = None, now_ns: int | None = None, progress: Progress | None = None
    ) -> Summary:
        """Make a history of that length. Raises PlanError where it cannot be, StoreError and OSError as they come.

        It can be killed anywhere and run again: what is there is left alone, what is missing is made.
        """
        started = time.perf_counter()
        now = time.time_ns() if now_ns is None else now_ns
        tell = progress or (lambda _what, _done, _all: None)
        span = settle(self.store, self.collector, length_ns, until_ns, now)
        days = [day_of(self.settings.seed, piece.from_ns) for piece in span.days()]
        self._record(days, span, now)
        todo = self._missing(span)
        summary = Summary(
            from_ns=span.from_ns, to_ns=span.to_ns, seed=self.settings.seed, rate=self.settings.rate,
            profile=self.settings.profile, collector=str(self.collector), hours=len(span.hours),
            deploys=sum(span.from_ns <= deploy.ts_ns < span.to_ns for day in days for deploy in day.deploys),
            incidents=len(struck(days, span)),
            canaries=_begun(days, span, "canary"),
            shadows=_begun(days, span, "shadow"),
            campaign_days=sum(day.campaign for day in days),
            kept_hours=kept_hours(self.retention),
        )  # fmt: skip
        spent = dict.fromkeys(("making", "landing"), 0.0)
        bounds = LandingSettings(max_past=f"{(now - span.from_ns) // HOUR_NS + 48}h")
        shipping = Shipping(
            self.store, Landing(self.store, self.points, bounds), self.data / FOLDER / "history-spool", self.collector
        )
        hours = made(self.settings, todo, self.processes if len(todo) > 1 else 0)
        customers = Customers(self.data / FOLDER, self.collector, self.settings, self.outcomes)
        done = len(span.hours) - len(todo)
        # A window at the begin may have been computed without what the first hour brings of its last messages.
        with closing(customers), Counting(partial(self._windows, now), span.from_ns - _EDGE_NS) as counting:
            for begin_ns in todo:
                tell("hours", done, summary.hours)
                began = time.perf_counter()
                hour = next(hours)
                took = time.perf_counter()
                customers.react(hour, day_of(self.settings.seed, begin_ns))  # before the hour counts as made
                shipped = shipping.ship(hour, begin_ns // HOUR_NS)
                spent["making"] += took - began
                spent["landing"] += time.perf_counter() - took
                _count(summary, hour, shipped)
                counting.landed(begin_ns + HOUR_NS, hour.stamps)
                done += 1
            tell("windows", done, summary.hours)
            began = time.perf_counter()
            summary.windows_computed = counting.finish(span.to_ns + _EDGE_NS)
            spent["windows"] = counting.seconds
            spent["waiting for windows"] = time.perf_counter() - began
        self._account(summary, span)
        tell("hours", summary.hours, summary.hours)
        summary.seconds_of = {name: round(seconds, 3) for name, seconds in spent.items()}
        summary.seconds = round(time.perf_counter() - started, 3)
        return summary

    def _windows(self, now_ns: int, span: Range, given_up: Callable[[], bool]) -> int:
        def look(_done: WindowDone) -> None:
            if given_up():
                raise StoreError("the history was broken off")

        done = backfill(self.store, self.paths, span.from_ns, span.to_ns, self.windows, now_ns, look)
        return sum(one.level == 10 for one in done)

    def _missing(self, span: Range) -> list[int]:
        """The hours whose books are not closed: every event of an hour is in the ledger, or the hour is made again."""
        rows = self.store.query(
            """
            SELECT h.boot AS boot FROM (
                SELECT boot, max(produced) AS most FROM heartbeats
                WHERE collector = {me:UUID} AND status = 'stopped' GROUP BY boot
            ) AS h LEFT JOIN (
                SELECT boot, sum(events) AS events FROM (
                    SELECT DISTINCT boot, seq_first, events FROM batches WHERE collector = {me:UUID}
                ) GROUP BY boot
            ) AS b ON h.boot = b.boot WHERE h.most = b.events
            """,
            {"me": self.collector},
        )
        there = {int(boot) * HOUR_NS for boot in rows["boot"]}
        return [begin_ns for begin_ns in span.hours if begin_ns not in there]

    def _record(self, days: list[Day], span: Range, now_ns: int) -> None:
        """Deploys, canaries and shadows as changes, for everybody; incidents for the checker alone."""
        if not self.settings.faults:
            return
        control = Control(self.data / FOLDER)
        for fault in struck(days, span):
            control.keep(fault)
        first = days[0].start_ns
        before = [day_of(self.settings.seed, first - back * DAY_NS) for back in range(1, REMEMBERED_DAYS)]
        rows = [
            {
                "ts": one.ts_ns, "id": str(collector_of(f"{self.collector}/{one.ts_ns}/{one.what}")),
                "kind": "deploy", "who": NAME, "what": one.what, "host": "", "service": one.place.partition("-")[0],
                "version": one.version, "url": "", "labels": json.dumps(one.labels, sort_keys=True),
                "recorded": now_ns,
            }
            for one in changes(days, before) if span.from_ns <= one.ts_ns < span.to_ns
        ]  # fmt: skip
        known = set(
            self.store.query("SELECT toString(id) AS id FROM changes WHERE who = {who:String}", {"who": NAME})["id"]
        )
        if fresh := [row for row in rows if row["id"] not in known]:
            token = f"changes/history/{fresh[0]['id']}/{len(fresh)}"
            self.store.insert("changes", from_rows(table_types()["changes"], fresh), token=token)

    def _account(self, summary: Summary, span: Range) -> None:
        """What the store has of the whole span, by its own books."""
        mine = [
            row for row in ledger(self.store)
            if row.collector == summary.collector and span.from_ns <= row.boot * HOUR_NS < span.to_ns
        ]  # fmt: skip
        summary.difference = sum(abs(row.difference) + row.in_spool + row.in_flight for row in mine)
        summary.quarantined = sum(row.quarantined for row in mine)
        tables = self.store.query(
            """
            SELECT t, sum(n) AS rows FROM (
                SELECT DISTINCT boot, seq_first, tables, table_rows FROM batches
                WHERE collector = {me:UUID} AND boot >= {a:UInt32} AND boot < {b:UInt32}
            ) ARRAY JOIN tables AS t, table_rows AS n GROUP BY t
            """,
            {"me": self.collector, "a": span.from_ns // HOUR_NS, "b": span.to_ns // HOUR_NS},
        )
        counted = {str(t): int(n) for t, n in tables.iter_rows()}
        summary.stamps, summary.links = counted.get("stamps", 0), counted.get("links", 0)
        rows = self.store.query(
            """
            SELECT path, sum(m) AS messages, count() AS windows FROM (
                SELECT toString(path) AS path, window, argMax(messages, generation) AS m FROM windows
                WHERE level = 10 AND path IN {paths:Array(String)}
                    AND window >= toDateTime({a:UInt32}, 'UTC') AND window < toDateTime({b:UInt32}, 'UTC')
                GROUP BY path, window
            ) GROUP BY path ORDER BY path
            """,
            {"paths": list(self.paths), "a": span.from_ns // NS, "b": span.to_ns // NS},
        )
        summary.messages_of = {path: int(messages) for path, messages, _ in rows.iter_rows()}
        summary.messages = sum(summary.messages_of.values())
        summary.windows = sum(int(windows) for _, _, windows in rows.iter_rows())


def struck(days: list[Day], span: Range) -> list[Fault]:
    """What went wrong in a span. It ends with the span at the latest: a live order path must not meet it."""
    return [
        msgspec.structs.replace(fault, end_ns=min(fault.end_ns or span.to_ns, span.to_ns))
        for day in days
        for fault in day.faults
        if fault.start_ns < span.to_ns and (fault.end_ns or 0) > span.from_ns
    ]


def _begun(days: list[Day], span: Range, role: Role) -> int:
    return sum(one.role == role and span.from_ns <= one.start_ns < span.to_ns for day in days for one in day.beside)


def _count(summary: Summary, hour: Made, shipped: Shipped) -> None:
    summary.hours_made += 1
    summary.quotes += hour.quotes
    summary.orders += hour.orders
    summary.batches += shipped.batches
    summary.duplicates += shipped.duplicates
