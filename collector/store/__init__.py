"""The store: one small interface over chDB in its own process and over ClickHouse servers.

The SQL is the same on both. Values never enter SQL as text: parameters are bound (`{name:Type}`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # polars belongs to the server; the agent imports this module without it
    import polars as pl

    from collector.store.native import Block


class StoreError(Exception):
    """The store refused or failed a statement, and says so for certain: it had no effect.

    `code` and `name` are ClickHouse's error code and its name (0 and "" where there is none); `retryable` says whether
    the same call may succeed later.
    """

    def __init__(self, message: str, *, code: int = 0, name: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.name = name
        self.retryable = retryable


class OutcomeUnknownError(StoreError):
    """The connection or the engine died while the statement ran: it may or may not have had its effect.

    Read back before doing it again.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message, retryable=True)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one query may cost; None leaves the engine's default."""

    seconds: float | None = 30.0
    memory_bytes: int | None = 2 << 30
    result_rows: int | None = None
    rows_to_read: int | None = None


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """Whether the store answers, who it is, and what it holds.

    `boot_id` changes whenever the engine restarts: what was in flight before is then neither running nor known.
    """

    ok: bool
    engine: str
    version: str
    boot_id: str
    detail: str = ""
    disk_bytes: int | None = None
    disk_free_bytes: int | None = None
    resident_bytes: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


class Store(Protocol):
    """Insert columns, query to a frame, run statements, report health. Safe to use from several threads."""

    def insert(self, table: str, block: Block, *, token: str) -> None:
        """Insert one block durably: it returns after fsync, and all rows are visible to queries, or raises.

        `token` is the deduplication token; reuse it only for a retry of the very same attempt.
        Raises StoreError (no row is in) or OutcomeUnknownError (read back by batch id).
        """

    def query(self, sql: str, params: Mapping[str, Any] | None = None, *, limits: Limits | None = None) -> pl.DataFrame:
        """Run one read-only statement and return its result. Raises StoreError."""

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """Run one statement that changes something (DDL, INSERT SELECT, ALTER), in a session of its own.

        An INSERT SELECT above a million rows is several blocks: not atomic, whatever the error says.
        """

    def settle(self, token_prefix: str) -> None:
        """Return when no insert whose token starts with `token_prefix`, from whichever client, is under way any more.

        Call it before reading back an insert of unknown outcome. Raises StoreError when that cannot be said.
        """

    def boot_id(self) -> str:
        """The identity of the engine's present life: it changes whenever the engine restarts. Raises StoreError."""

    def health(self) -> StoreHealth:
        """The store's state; never raises."""

    def close(self) -> None:
        """Release connections; an embedded store's process ends with the last owner."""
