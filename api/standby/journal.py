"""Which rows of the control state have changed, in order: what a standby asks for, and how it takes it over.

Triggers number every change of the followed tables, whoever writes (this process or a command). A row's number is that
of its last change, so that the journal has at most one entry per row.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from api.control import Control

FOLLOWED: Mapping[str, tuple[str, ...]] = {
    "slo_objects": ("kind", "name"),
    "slo_alerts": ("objective", "rule"),
    "slo_outbox": ("id",),
    "notify_deliveries": ("notification", "target"),
    "maintenance": ("name",),
    "maintenance_held": ("episode",),
    "slo_episodes": ("episode",),
    "gates": ("name",),
    "scenarios": ("name",),
}
_TOMBSTONES = 20_000  # changes after which the entries of rows that are gone are forgotten
_PAGE_BYTES = 4 << 20


_TRIGGER = """CREATE TRIGGER follow_{table}_{event} AFTER {event} ON {table} BEGIN
    UPDATE follow_log SET seq = seq + 1;
    DELETE FROM follow_changes WHERE tbl = '{table}' AND key = {key};
    INSERT INTO follow_changes VALUES ('{table}', {key}, (SELECT seq FROM follow_log));
END"""


class FollowError(Exception):
    """What the peer sent cannot be taken over."""


def install(control: Control) -> None:
    """Begin to number changes; what is there already is numbered first."""
    with control.transaction() as db:
        if db.execute("SELECT 1 FROM follow_log").fetchone() is None:
            db.execute("INSERT INTO follow_log VALUES (1, ?, 1, 0)", (secrets.token_hex(8),))
        for table, key in FOLLOWED.items():
            if db.execute("SELECT 1 FROM sqlite_master WHERE name = ?", (f"follow_{table}_insert",)).fetchone():
                continue
            # What changed without triggers is unknown: a follower has to begin anew.
            names = ", ".join(key)
            db.execute(
                "INSERT OR REPLACE INTO follow_changes "  # noqa: S608 - names of ours
                f"SELECT '{table}', json_array({names}), (SELECT seq FROM follow_log) + row_number() OVER () "
                f"FROM {table}"
            )
            db.execute(
                f"UPDATE follow_log SET id = ?, seq = seq + 1 + (SELECT count(*) FROM {table})",  # noqa: S608 - names of ours
                (secrets.token_hex(8),),
            )
            for event, row in (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")):
                columns = ", ".join(f"{row}.{name}" for name in key)
                db.execute(_TRIGGER.format(table=table, event=event, key=f"json_array({columns})"))


def remove(control: Control) -> None:
    """End numbering: this server has no standby any more."""
    with control.transaction() as db:
        for table in FOLLOWED:
            for event in ("insert", "update", "delete"):
                db.execute(f"DROP TRIGGER IF EXISTS follow_{table}_{event}")
        for table in ("follow_changes", "follow_log", "follow_state"):
            db.execute(f"DELETE FROM {table}")  # noqa: S608 - names of ours


def changes(control: Control, log: str, after: int, limit: int = 2_000) -> dict[str, Any]:
    """What changed after number `after` of the journal `log`: rows with their keys, null for those that are gone.

    `reset`: the caller cannot go on from there and gets everything from the beginning; `more`: ask again.
    """
    own, seq, floor = _log(control)
    reset = log != own or not floor <= after <= seq
    first = 0 if reset else after
    found = control.rows(
        "SELECT tbl, key, seq FROM follow_changes WHERE seq > ? ORDER BY seq LIMIT ?", (first, limit + 1)
    )
    rows: list[dict[str, Any]] = []
    size, last, more = 0, first, False
    for one in found:
        if len(rows) >= limit or size > _PAGE_BYTES:
            more = True
            break
        table, key = one["tbl"], json.loads(one["key"])
        row = _row(control, table, key)
        last = one["seq"]
        rows.append({"table": table, "key": key, "row": row})
        size += len(one["key"]) + (sum(len(str(value)) for value in row.values()) if row else 0)
    return {
        "log": own,
        "seq": last if more or not reset else max(last, floor),
        "reset": reset,
        "more": more,
        "rows": rows,
    }


def take_over(db: sqlite3.Connection, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of the peer, inside a transaction. Raises FollowError for what is not one."""
    columns: dict[str, list[str]] = {}
    for one in rows:
        table, key, row = str(one.get("table")), one.get("key"), one.get("row")
        if table not in FOLLOWED or not isinstance(key, list) or len(key) != len(FOLLOWED[table]):
            raise FollowError(f"the peer sent a row of {table[:40]!r}: is it of another version?")
        if row is None:
            marks = " AND ".join(f"{name} = ?" for name in FOLLOWED[table])
            db.execute(f"DELETE FROM {table} WHERE {marks}", key)  # noqa: S608 - names of ours
            continue
        if table not in columns:
            columns[table] = [r["name"] for r in db.execute(f"PRAGMA table_info({table})")]
        names = columns[table]
        if not isinstance(row, Mapping) or set(row) != set(names):
            raise FollowError(f"the peer's {table} has other columns: run the same version on both")
        marks = ", ".join("?" * len(names))
        try:
            db.execute(f"INSERT OR REPLACE INTO {table} ({', '.join(names)}) VALUES ({marks})", [row[n] for n in names])  # noqa: S608 - names of ours
        except (sqlite3.IntegrityError, sqlite3.InterfaceError, sqlite3.ProgrammingError) as error:
            raise FollowError(f"the peer's row of {table} does not fit: {error}") from error


def forget_others(db: sqlite3.Connection, seen: Mapping[str, set[tuple[Any, ...]]]) -> int:
    """After everything was sent: delete the rows that were not among it; how many."""
    gone = 0
    for table, key in FOLLOWED.items():
        names = ", ".join(key)
        for row in db.execute(f"SELECT json_array({names}) AS k FROM {table}").fetchall():  # noqa: S608 - names of ours
            if tuple(json.loads(row["k"])) not in seen.get(table, ()):
                marks = " AND ".join(f"{name} = ?" for name in key)
                db.execute(f"DELETE FROM {table} WHERE {marks}", json.loads(row["k"]))  # noqa: S608 - names of ours
                gone += 1
    return gone


def tidy(control: Control) -> None:
    """Forget the entries of rows that are gone, some time after; a follower from before that begins anew."""
    _, seq, floor = _log(control)
    if seq - floor < 2 * _TOMBSTONES:
        return
    until = seq - _TOMBSTONES
    with control.transaction() as db:
        for table, key in FOLLOWED.items():
            names = ", ".join(key)
            db.execute(
                "DELETE FROM follow_changes WHERE tbl = ? AND seq <= ? "  # noqa: S608 - names of ours
                f"AND key NOT IN (SELECT json_array({names}) FROM {table})",
                (table, until),
            )
        db.execute("UPDATE follow_log SET floor = ?", (until,))


def _log(control: Control) -> tuple[str, int, int]:
    rows = control.rows("SELECT id, seq, floor FROM follow_log")
    return (rows[0]["id"], rows[0]["seq"], rows[0]["floor"]) if rows else ("", 0, 0)


def _row(control: Control, table: str, key: Sequence[Any]) -> dict[str, Any] | None:
    marks = " AND ".join(f"{name} = ?" for name in FOLLOWED[table])
    found = control.rows(f"SELECT * FROM {table} WHERE {marks}", key)  # noqa: S608 - names of ours
    return dict(found[0]) if found else None
