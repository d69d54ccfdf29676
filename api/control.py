"""Control state: a small SQLite database that survives everything the store may not.

WAL with `synchronous=FULL`: what a method has returned is on disk. One writer connection behind a lock, one reader
connection behind another, so that looking up a token never waits for an fsync. Other processes (the command line) may
open the same file at the same time.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE IF NOT EXISTS tokens (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, scopes TEXT NOT NULL, hash BLOB NOT NULL, created_ns INTEGER NOT NULL,
    expires_ns INTEGER, revoked_ns INTEGER, last_used_ns INTEGER
) STRICT;
CREATE TABLE IF NOT EXISTS sessions (
    hash BLOB PRIMARY KEY, token_id TEXT NOT NULL, created_ns INTEGER NOT NULL, expires_ns INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS jobs (
    name TEXT PRIMARY KEY, paused INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS slo_objects (
    kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL, applied_ns INTEGER NOT NULL, applied_by TEXT NOT NULL,
    PRIMARY KEY (kind, name)
) STRICT;
CREATE TABLE IF NOT EXISTS slo_alerts (
    objective TEXT NOT NULL, rule TEXT NOT NULL, state TEXT NOT NULL, since_ns INTEGER NOT NULL,
    breach_ns INTEGER NOT NULL, fired_ns INTEGER NOT NULL, resolved_ns INTEGER NOT NULL, held_ns INTEGER NOT NULL,
    episode TEXT NOT NULL, acknowledged_by TEXT NOT NULL, why TEXT NOT NULL, PRIMARY KEY (objective, rule)
) STRICT;
CREATE TABLE IF NOT EXISTS slo_outbox (
    id INTEGER PRIMARY KEY, episode TEXT NOT NULL, kind TEXT NOT NULL, objective TEXT NOT NULL, rule TEXT NOT NULL,
    at_ns INTEGER NOT NULL, body TEXT NOT NULL, sent_ns INTEGER, UNIQUE (episode, kind)
) STRICT;
CREATE INDEX IF NOT EXISTS slo_outbox_unsent ON slo_outbox (id) WHERE sent_ns IS NULL;
CREATE TABLE IF NOT EXISTS notify_deliveries (
    notification INTEGER NOT NULL, target TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0, due_ns INTEGER NOT NULL,
    told_ns INTEGER, done INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (target, notification)
) STRICT;
CREATE INDEX IF NOT EXISTS notify_deliveries_open ON notify_deliveries (target, due_ns) WHERE done = 0;
CREATE TABLE IF NOT EXISTS slo_episodes (
    episode TEXT PRIMARY KEY, objective TEXT NOT NULL, rule TEXT NOT NULL, severity TEXT NOT NULL,
    breach_ns INTEGER NOT NULL, fired_ns INTEGER NOT NULL, resolved_ns INTEGER NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS slo_episodes_by_time ON slo_episodes (fired_ns);
CREATE TABLE IF NOT EXISTS scenarios (
    name TEXT PRIMARY KEY, body TEXT NOT NULL, saved_ns INTEGER NOT NULL, saved_by TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS maintenance (
    name TEXT PRIMARY KEY, start_ns INTEGER NOT NULL, end_ns INTEGER NOT NULL, who TEXT NOT NULL, why TEXT NOT NULL,
    objectives TEXT NOT NULL, services TEXT NOT NULL, send TEXT NOT NULL, budget_burns INTEGER NOT NULL,
    declared_ns INTEGER NOT NULL, declared_by TEXT NOT NULL, ended_ns INTEGER, ended_by TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE IF NOT EXISTS maintenance_held (
    episode TEXT PRIMARY KEY, name TEXT NOT NULL, objective TEXT NOT NULL, rule TEXT NOT NULL, service TEXT NOT NULL,
    held_ns INTEGER NOT NULL, let_go_ns INTEGER, outcome TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE TABLE IF NOT EXISTS gates (
    name TEXT PRIMARY KEY, verdict TEXT NOT NULL, since_ns INTEGER NOT NULL, closing_ns INTEGER NOT NULL,
    trigger_id TEXT NOT NULL, triggered_ns INTEGER NOT NULL, done INTEGER NOT NULL, held_back INTEGER NOT NULL,
    judged_ns INTEGER NOT NULL, body TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS gate_answers (
    gate TEXT NOT NULL, who TEXT NOT NULL, verdict TEXT NOT NULL, at_ns INTEGER NOT NULL, PRIMARY KEY (gate, who)
) STRICT;
CREATE TABLE IF NOT EXISTS follow_log (
    one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT NOT NULL, seq INTEGER NOT NULL, floor INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS follow_changes (
    tbl TEXT NOT NULL, key TEXT NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (tbl, key)
) STRICT;
CREATE INDEX IF NOT EXISTS follow_changes_seq ON follow_changes (seq);
CREATE TABLE IF NOT EXISTS follow_state (
    one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL, peer TEXT NOT NULL, role TEXT NOT NULL,
    epoch INTEGER NOT NULL, peer_log TEXT NOT NULL, peer_seq INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit_staging (
    leaf INTEGER PRIMARY KEY, ts_ns INTEGER NOT NULL, actor TEXT NOT NULL, action TEXT NOT NULL, target TEXT NOT NULL,
    outcome TEXT NOT NULL, detail TEXT NOT NULL, hash BLOB NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit_chain (
    one INTEGER PRIMARY KEY CHECK (one = 1), name TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1), leaves INTEGER NOT NULL, hash BLOB NOT NULL
) STRICT;
"""


class ControlError(Exception):
    """The control state cannot be used: damaged, or written by a newer version."""


class StandbyError(Exception):
    """This server is the standby: what would change is the other one's."""


class Control:
    """The control database of one data directory. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        path.touch(mode=0o600)
        self._write_lock = threading.Lock()
        self._read_lock = threading.Lock()
        try:
            self._writer = self._open()
            with self.transaction() as db:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version > SCHEMA_VERSION:
                    raise ControlError(
                        f"{path} has version {version}, this program knows up to {SCHEMA_VERSION}: "
                        "use the newer Tailsight, or restore the file from before its upgrade"
                    )
                for statement in filter(str.strip, _SCHEMA.split(";")):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            self._reader = self._open()
        except sqlite3.DatabaseError as error:
            raise ControlError(f"{path} cannot be read ({error}); restore it from a backup") from error

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.path, timeout=10, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """The writer inside one immediate transaction: commits at the end, rolls back on an exception."""
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise
            self._writer.execute("COMMIT")

    @contextmanager
    def deciding(self) -> Iterator[sqlite3.Connection]:
        """A transaction that changes objectives, alerts or windows. Raises StandbyError on one that only follows."""
        with self.transaction() as db:
            row = db.execute("SELECT role, peer FROM follow_state").fetchone()
            if row is not None and row["role"] != "active":
                raise StandbyError(
                    f"this server is the {row['role']} of {row['peer']}: do it there, or wait until this one is active"
                )
            yield db

    def rows(self, sql: str, params: Sequence[Any] | Mapping[str, Any] = ()) -> list[sqlite3.Row]:
        """The rows of one SELECT, as of the last commit."""
        with self._read_lock:
            return self._reader.execute(sql, params).fetchall()

    def close(self) -> None:
        """Close both connections."""
        with self._write_lock, self._read_lock:
            self._writer.close()
            self._reader.close()
