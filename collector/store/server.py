"""`Store` over ClickHouse servers, through clickhouse-driver's native protocol.

Connections and their failures are in `collector.store.connections`. A write whose connection breaks has an unknown
outcome, and is read back.

The wire is tested against a real server of 2018 (18.16), the SQL on the embedded engine; today's SQL and the wire
have not run together on one server (docs/store.md).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from clickhouse_driver import Client, defines

from collector.store import Limits, StoreError, StoreHealth
from collector.store.columns import driver_column, frame_from, needs_lists
from collector.store.connections import Connections, store_errors
from collector.store.native import Block, element_dtype
from collector.store.params import texts
from collector.store.settings import StoreSettings

if TYPE_CHECKING:
    import polars as pl

T = TypeVar("T")


class _Bound:
    """A parameter's text as the driver's field dump: quoted once, escaped once, whatever the driver thinks of types."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text.replace("\\", "\\\\").replace("'", "\\'")


class ClickHouseStore:
    """See `collector.store.Store`. `settings.hosts` are replicas of the same data."""

    def __init__(self, settings: StoreSettings) -> None:
        self._connections = Connections(settings)
        self._numbers = itertools.count(1)
        self._types: dict[str, dict[str, str]] = {}

    def insert(self, table: str, block: Block, *, token: str) -> None:
        """See `Store.insert`. The token is also the query id's beginning, by which `settle` finds the insert."""
        block.check()
        if not block.rows:
            return
        client = self._connections.client(numpy=not needs_lists(block))
        self._check_types(client, table, block)
        names = ", ".join(f"`{column.name}`" for column in block.columns)
        data = [driver_column(column, lists=needs_lists(block)) for column in block.columns]
        settings: dict[str, Any] = {}
        if client.connection.server_info.used_revision >= defines.DBMS_MIN_REVISION_WITH_SETTINGS_SERIALIZED_AS_STRINGS:
            settings = {"async_insert": 0, "insert_deduplicate": 1, "insert_deduplication_token": token}
        with store_errors(client, writing=True):
            client.execute(
                f"INSERT INTO `{_name(table)}` ({names}) VALUES",
                data,
                columnar=True,
                settings=settings,
                query_id=f"{token}~{next(self._numbers)}",
            )

    def query(self, sql: str, params: Mapping[str, Any] | None = None, *, limits: Limits | None = None) -> pl.DataFrame:
        """See `Store.query`. A connection found dead is replaced and the query run once more: it only reads."""
        limit = limits or Limits()
        settings: dict[str, Any] = {
            "max_execution_time": math.ceil(limit.seconds or 0),
            "max_memory_usage": limit.memory_bytes or 0,
            "max_result_rows": limit.result_rows or 0,
            "max_rows_to_read": limit.rows_to_read or 0,
            "readonly": 2,
        }

        def run(client: Client) -> pl.DataFrame:
            bound = self._bound(client, params)
            data, types = client.execute(sql, bound, with_column_types=True, columnar=True, settings=settings)
            return frame_from(data, types)

        try:
            return self._run(run, numpy=True, writing=False)
        except StoreError as error:
            if error.code or not error.retryable:
                raise
            return self._run(run, numpy=True, writing=False)

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """See `Store.execute`."""

        def run(client: Client) -> None:
            client.execute(sql, self._bound(client, params), query_id=f"tailsight~{next(self._numbers)}")

        self._run(run, numpy=True, writing=True)

    def settle(self, token_prefix: str) -> None:
        """See `Store.settle`: kills such inserts on every host. A host that refuses connections runs nothing."""
        if "'" in token_prefix or "\\" in token_prefix:
            raise StoreError(f"token {token_prefix!r} cannot be looked for")
        self._connections.execute_everywhere(f"KILL QUERY WHERE position(query_id, '{token_prefix}') = 1 SYNC")

    def boot_id(self) -> str:
        """The server's host and start, to the second it can say."""
        frame = self.query("SELECT hostName() AS host, toUInt32(now()) - uptime() AS started")
        host, started = frame.row(0)
        return f"{host}-{int(started) // 2 * 2}"

    def health(self) -> StoreHealth:
        """See `Store.health`."""
        try:
            version = str(self.query("SELECT version() AS v").item())
            boot = self.boot_id()
            disk = int(self.query("SELECT sum(bytes_on_disk) AS b FROM system.parts").item() or 0)
        except StoreError as error:
            return StoreHealth(False, "clickhouse", "", "", str(error))
        return StoreHealth(True, "clickhouse", version, boot, disk_bytes=disk)

    def close(self) -> None:
        """Close the connections of every thread."""
        self._connections.close()

    def _run(self, work: Callable[[Client], T], *, numpy: bool, writing: bool) -> T:
        client = self._connections.client(numpy=numpy)
        with store_errors(client, writing=writing):
            return work(client)

    def _bound(self, client: Client, params: Mapping[str, Any] | None) -> dict[str, _Bound] | None:
        if not params:
            return None
        info = client.connection.server_info
        if info.used_revision < defines.DBMS_MIN_PROTOCOL_VERSION_WITH_PARAMETERS:
            raise StoreError(
                f"ClickHouse {info.version_major}.{info.version_minor} cannot bind parameters; 22.8 or later is needed"
            )
        return {name: _Bound(text) for name, text in texts(params).items()}

    def _check_types(self, client: Client, table: str, block: Block) -> None:
        """The driver casts to the server's types without a word: refuse columns whose dtype would change."""
        if table not in self._types:
            with store_errors(client, writing=False):
                rows = client.execute(f"DESCRIBE TABLE `{_name(table)}`", columnar=True)
            self._types[table] = dict(zip(map(str, rows[0]), map(str, rows[1]), strict=True))
        live = self._types[table]
        for column in block.columns:
            if column.name not in live:
                raise TypeError(f"column {column.name}: the server's {table} has {', '.join(live)}")
            there = element_dtype(live[column.name])
            if there != element_dtype(column.type):
                raise TypeError(f"column {column.name} {column.type}: the server has {live[column.name]}")


def _name(table: str) -> str:
    if not table.replace("_", "").isalnum():
        raise StoreError(f"{table!r} is not a table name")
    return table
