"""One statement of the SQL door, answered: the handshake by hand, metadata from the schema, all else by the store."""

from __future__ import annotations

from collections.abc import Sequence

from api.sql.hello import COLUMNS, hello
from api.sql.metadata import DISPLAY_NAME, TIMEZONE, Table, metadata
from api.sql.statement import Statement
from api.state import State
from collector.store import Limits
from collector.store.params import texts
from collector.store.wall import functions

_FUNCTIONS = """SELECT name, is_aggregate, case_insensitive, alias_to
FROM system.functions WHERE has({known:Array(String)}, lower(name)) ORDER BY name"""


def ask(state: State, one: Statement) -> bytes | bytearray:
    """The answer in the statement's format. Raises StoreError with ClickHouse's code."""
    settings = state.settings
    version = state.store.health().version
    found = metadata(one.sql, version, lambda: _functions(state))
    seconds = min(one.seconds or settings.query_seconds, settings.query_seconds)
    limits = Limits(seconds, settings.query_memory_bytes, settings.sql_rows, settings.sql_rows_to_read)
    if found is None:
        return state.store.select(one.sql, one.params, one.form, limits, settings.sql_bytes)
    if tuple(found.types) == COLUMNS and one.form == "Native" and one.protocol:
        return hello(one.protocol, DISPLAY_NAME, version, TIMEZONE)
    sql, params = _rendered(found)
    return state.store.select(sql, params, one.form, limits, settings.sql_bytes)


def _rendered(table: Table) -> tuple[str, dict[str, str]]:
    """Rows of ours as a statement that returns them: the engine writes every format."""
    names = list(table.types)
    arrays = ", ".join(f"{{a{n}:Array({table.types[name]})}}" for n, name in enumerate(names))
    columns = ", ".join(f"x.{n} AS `{name}`" for n, name in enumerate(names, 1))
    values = {f"a{n}": [row[n] for row in table.rows] for n in range(len(names))}
    return f"SELECT {columns} FROM (SELECT arrayJoin(arrayZip({arrays})) AS x)", texts(values)  # noqa: S608 - names of ours


def _functions(state: State) -> Sequence[tuple[object, ...]]:
    # The rest of the columns are descriptions, which the data source shows if there are any.
    known = state.reader.query(_FUNCTIONS, {"known": sorted(functions())})
    return [(*row, "", "System", "", "", "", "", "") for row in known.iter_rows()]
