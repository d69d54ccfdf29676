"""chDB in this process: how it is opened, and what one session does. Only the store process imports this.

Facts that shape it: a session serialises its queries, so each thread has its own; `send_insert` reports success for
inserts that failed, so inserts go through `INSERT ... FROM INFILE` on a memfd, which raises; query ids cannot be
chosen, so a query is tagged with a comment and found in `system.processes`; scalar `file()` and INTO OUTFILE pass
every read-only mode, so the engine's grants exclude all sources and only a single read-only statement is run.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from collector.store import StoreError
from collector.store.errors import store_error
from collector.store.messages import QueryLimits
from collector.store.wall import DATABASE, check

# Output formats that hold rows and nothing else.
FORMATS = frozenset(
    {
        "Native", "TabSeparated", "TabSeparatedWithNames", "TabSeparatedWithNamesAndTypes", "TSV", "TSVWithNames",
        "TSVWithNamesAndTypes", "CSV", "CSVWithNames", "CSVWithNamesAndTypes", "JSON", "JSONCompact", "JSONEachRow",
        "JSONStrings", "JSONCompactEachRow", "JSONCompactEachRowWithNamesAndTypes", "RowBinary", "RowBinaryWithNames",
        "RowBinaryWithNamesAndTypes", "Arrow", "ArrowStream", "Parquet", "Pretty", "PrettyCompact", "Vertical",
        "Markdown", "Null",
    }
)  # fmt: skip

_NAME = re.compile(r"\w+")
_TOKEN = re.compile(r"[\w#./:\-]{1,300}")

_CONFIG = """<clickhouse>
  <users_config>store/users.xml</users_config>
  <max_server_memory_usage>{memory}</max_server_memory_usage>
  <mark_cache_size>134217728</mark_cache_size>
  <uncompressed_cache_size>0</uncompressed_cache_size>
  <background_pool_size>{pool}</background_pool_size>
  <background_schedule_pool_size>{pool}</background_schedule_pool_size>
  <background_common_pool_size>2</background_common_pool_size>
  <background_fetches_pool_size>1</background_fetches_pool_size>
  <background_move_pool_size>1</background_move_pool_size>
</clickhouse>
"""
# No SOURCES: file(), url(), remote(), s3() and INTO FUNCTION are refused whatever the statement.
_USERS = """<clickhouse>
  <profiles><default/></profiles>
  <quotas><default/></quotas>
  <users><default>
    <password/><networks><ip>::/0</ip></networks><profile>default</profile><quota>default</quota>
    <grants><query>GRANT SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE, SHOW, KILL QUERY ON *.*
    </query></grants>
  </default></users>
</clickhouse>
"""


def load_engine() -> None:
    """Import chDB (0.2 to 1 s) and switch off its signal handlers.

    They would print a trace and swallow the exit status that a supervisor reads.
    """
    import chdb._chdb as native
    import chdb.session  # noqa: F401 - loaded now, while this user can read it

    native.set_signal_handlers_enabled(0)  # type: ignore[attr-defined] # a C module


class Session:
    """One chDB session for one thread. Errors are `StoreError` with ClickHouse's code."""

    def __init__(self, target: str) -> None:
        from chdb.session import Session as Chdb

        self._chdb: Any = Chdb(target)  # type: ignore[no-untyped-call] # chdb has no types

    def run(
        self, sql: str, params: Mapping[str, Any] | None = None, *, form: str = "TabSeparated", writing: bool = False
    ) -> memoryview:
        """Run one statement and return its result in the format `form`."""
        try:
            result = self._chdb.query(sql, form, params=dict(params or {}))
        except (RuntimeError, ValueError) as error:
            raise store_error(str(error), writing=writing) from None
        return memoryview(result.bytes())

    def single_read(self, sql: str) -> None:
        """Raise StoreError unless `sql` is exactly one statement that only reads."""
        try:
            found = self._chdb._conn._conn.classify_query(sql, "")
        except (RuntimeError, ValueError) as error:
            raise store_error(str(error), writing=False) from None
        kind = str(found["query_class"]).rpartition(".")[2]
        if kind == "UNKNOWN":
            self.run("EXPLAIN AST " + sql)  # parses, does not run: says what is wrong with the text
        if kind != "READ_ONLY" or found["statement_count"] != 1:
            raise StoreError(
                f"query() runs one read-only statement, this is {found['statement_count']} of class {kind}; "
                "use execute() to change something",
                code=164,
                name="READONLY",
            )

    def close(self) -> None:
        """End the session; the engine ends with its last one."""
        self._chdb.close()


class Engine:
    """The engine on `store/` below the current directory: opens sessions, kills queries by tag."""

    def __init__(self, *, memory_bytes: int, pool: int) -> None:
        folder = Path("store")
        folder.mkdir(mode=0o700, exist_ok=True)
        (folder / "config.xml").write_text(_CONFIG.format(memory=memory_bytes, pool=pool))
        (folder / "users.xml").write_text(_USERS)
        self._control = Session("store?config-file=store/config.xml")
        # The engine's own `default` database resolves unknown table names as files; ours does not.
        self._control.run(f"CREATE DATABASE IF NOT EXISTS {DATABASE} ENGINE = Atomic")
        self._control_lock = threading.Lock()
        self.version = bytes(self._control.run("SELECT version()")).decode().strip()

    def session(self, *, reading: bool) -> Session:
        """A new session (0.5 ms); a reading one cannot change data but may set limits."""
        session = Session("store")
        session.run(f"USE {DATABASE}")
        if reading:
            session.run("SET readonly = 2")
        return session

    def stranger(self, limits: QueryLimits) -> Session:
        """A new session for one statement that somebody wrote: no change of data or settings, and these limits."""
        session = Session("store")
        session.run(f"USE {DATABASE}")
        session.run(set_limits_sql(limits))
        session.run("SET readonly = 1")
        return session

    def kill(self, tag: str, done: Callable[[], bool], patience: float = 30.0) -> None:
        """Kill the tagged query, trying until `done()`: it may be between our sending it and the engine's start."""
        until = time.monotonic() + patience
        while not done() and time.monotonic() < until:
            with self._control_lock:
                found = self._control.run(
                    "SELECT query_id FROM system.processes WHERE startsWith(query, {tag:String})", {"tag": tag}
                )
                for query_id in bytes(found).decode().split():
                    self._control.run("KILL QUERY WHERE query_id = {id:String} ASYNC", {"id": query_id})
            time.sleep(0.02)

    def disk_bytes(self) -> int:
        """Bytes of all parts on disk, the inactive ones that wait for deletion included."""
        with self._control_lock:
            return int(bytes(self._control.run("SELECT sum(bytes_on_disk) FROM system.parts")) or b"0")

    def close(self) -> None:
        """End the engine's own session."""
        self._control.close()


def insert_sql(table: str, columns: Sequence[str], token: str, descriptor: int) -> str:
    """The INSERT that reads a Native block from an open descriptor. Raises StoreError for names it cannot quote."""
    for name in (table, *columns):
        if not _NAME.fullmatch(name):
            raise StoreError(f"{name!r} is not a table or column name")
    if not _TOKEN.fullmatch(token):
        raise StoreError(f"token {token!r} must be 1 to 300 of letters, digits and _#./:-")
    names = ", ".join(f"`{name}`" for name in columns)
    return (
        f"INSERT INTO `{table}` ({names}) FROM INFILE '/proc/self/fd/{descriptor}' "
        f"SETTINGS async_insert = 0, insert_deduplicate = 1, insert_deduplication_token = '{token}' FORMAT Native"
    )


def set_limits_sql(limits: QueryLimits) -> str:
    """The SET that gives a reading session exactly these limits; what is None is unlimited."""
    values = {
        "max_execution_time": limits.seconds or 0,
        "max_memory_usage": limits.memory_bytes or 0,
        "max_result_rows": limits.result_rows or 0,
        "max_rows_to_read": limits.rows_to_read or 0,
    }
    return "SET " + ", ".join(f"{name} = {value}" for name, value in values.items())


def read(session: Session, tag: str, sql: str, params: Mapping[str, Any], limits: QueryLimits) -> memoryview:
    """One read-only statement as an Arrow stream. Raises StoreError."""
    session.single_read(sql)
    session.run(set_limits_sql(limits))
    return session.run(tag + sql, params, form="ArrowStream")


def select_rows(
    engine: Engine, session: Session, tag: str, sql: str, params: Mapping[str, Any], form: str, limits: QueryLimits,
    tables: Collection[str],
) -> memoryview:  # fmt: skip
    """One statement that somebody wrote, behind the wall, in an output format. Raises StoreError."""
    if form not in FORMATS:
        raise StoreError(f"the format {form[:40]!r} is not offered", code=73, name="UNKNOWN_FORMAT")
    session.single_read(sql)
    check(bytes(session.run("EXPLAIN AST " + sql, params, form="TSVRaw")).decode(errors="replace"), tables)
    stranger = engine.stranger(limits)
    try:
        result = stranger.run(tag + sql, params, form=form)
    finally:
        stranger.close()
    # The engine does not hold max_result_bytes to what it hands over here; rows and memory were limited before.
    if limits.result_bytes is not None and len(result) > limits.result_bytes:
        raise StoreError(
            f"the result has {len(result)} bytes, at most {limits.result_bytes} are given",
            code=396,
            name="TOO_MANY_ROWS_OR_BYTES",
        )
    return result
