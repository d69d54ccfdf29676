"""Doctor's report: the ledger, the collectors and the store's health beside what the machine says."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from api.doctor.system import Check, checks, clock_fields
from api.hold import LOCK, read_note
from api.up.hold import locked
from collector.clock import HostClock
from collector.clocks.authorities import authorities
from collector.clocks.settings import ClockSettings

if TYPE_CHECKING:
    from collector.store import Store


@dataclass(frozen=True, slots=True)
class Report:
    """What doctor found. `ok` is true when the store answers and every difference is 0."""

    ok: bool
    collectors: list[dict[str, Any]]
    clock: dict[str, object]
    ledger: list[dict[str, Any]]
    store: dict[str, Any]
    system: list[Check]
    server: dict[str, Any] | None
    versions: Mapping[str, object]
    findings: list[str] = field(default_factory=list)


def examine(data: Path, rings: Path, store: Store | None, absent: str, versions: Mapping[str, object]) -> Report:
    """Build the report; without a store, `absent` says why there is none. Probe rings are looked for in `rings`."""
    bounds = authorities(ClockSettings())
    bounds.start()
    clock = HostClock(bounds).read()
    bounds.close()
    ledger_rows: list[dict[str, Any]] = []
    collector_rows: list[dict[str, Any]] = []
    health: dict[str, Any] = {"ok": False, "detail": absent}
    if store is not None:
        health = _plain(store.health())
        if health["ok"]:
            ledger_rows, collector_rows = _accounts(store)
    system = checks(data, rings, clock)
    findings = [
        f"{row['collector']} boot {row['boot']}: {abs(row['difference'])} events "
        + ("are unaccounted for" if row["difference"] > 0 else "are counted twice")
        for row in ledger_rows
        if row["difference"]
    ]
    if not health["ok"]:
        findings.append(f"the store does not answer: {health['detail']}")
    return Report(
        ok=not findings,
        collectors=collector_rows,
        clock=clock_fields(clock),
        ledger=ledger_rows,
        store=health,
        system=system,
        server=running_server(data),
        versions=versions,
        findings=findings,
    )


def running_server(data: Path) -> dict[str, Any] | None:
    """What DIR/server.json says while the server that wrote it runs, else None."""
    note = read_note(data)
    return note if note and locked(data / LOCK) else None


def _accounts(store: Store) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    from analytics.ledger import collectors, ledger

    rows = [_plain(row) for row in ledger(store)]
    known = [_plain(row) for row in collectors(store, time.time_ns())]
    return rows, known


def _plain(value: Any) -> dict[str, Any]:
    result: dict[str, Any] = msgspec.to_builtins(value, enc_hook=str)
    return result
