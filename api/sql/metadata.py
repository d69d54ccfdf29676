"""The closed list of questions about the schema that clients ask, answered from the schema: the engine never sees them.

SHOW DATABASES, SHOW TABLES, DESCRIBE, the handshake's functions, and plain looks at a few `system` tables: columns,
conditions with = != IN LIKE joined by AND, ORDER BY, LIMIT.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from collector.store import StoreError
from collector.store.schema import table_types
from collector.store.wall import DATABASE, HIDDEN

DISPLAY_NAME, TIMEZONE = "tailsight", "UTC"
_TOKEN = re.compile(
    r"""\s+|--[^\n]*|/\*.*?\*/|(?P<word>\w+)|`(?P<quoted>[^`\\]*)`|"(?P<double>[^"\\]*)"|'(?P<text>(?:[^'\\]|\\.|'')*)'"""
    r"""|(?P<sign>!=|<>|[(),.=*])""",
    re.DOTALL,
)
Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows with names and ClickHouse types."""

    types: Mapping[str, str]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class _Part:
    kind: str  # word, name (quoted), text, sign, end
    value: str


class _NotOursError(Exception):
    """The statement is not of the closed list."""


def metadata(sql: str, version: str, functions: Callable[[], Sequence[Row]]) -> Table | None:
    """The answer to a question about the schema; None when it is none, so that the wall decides about it.

    `functions` gives the rows of `system.functions` that may be called. Raises StoreError for a table or column that
    is not there.
    """
    try:
        parts = _Reader(list(_parts(sql)))
        first = parts.word()
        if first == "SHOW":
            return _show(parts)
        if first in ("DESC", "DESCRIBE"):
            return _describe(parts)
        if first == "SELECT":
            return _select(parts, version, functions)
    except _NotOursError:
        return None
    return None


class _Reader:
    def __init__(self, parts: list[_Part]) -> None:
        self._parts, self._at = parts, 0

    def peek(self) -> _Part:
        return self._parts[self._at]

    def take(self) -> _Part:
        part = self._parts[self._at]
        self._at += part.kind != "end"
        return part

    def word(self) -> str:
        """The next word in upper case, or "" when the next part is none."""
        return self.take().value.upper() if self.peek().kind == "word" else ""

    def has(self, *words: str) -> bool:
        """Take these words or signs if they are next."""
        here = self._parts[self._at : self._at + len(words)]
        found = [p.value.upper() for p in here if p.kind in ("word", "sign")] == list(words)
        self._at += len(words) if found else 0
        return found

    def need(self, *words: str) -> None:
        if not self.has(*words):
            raise _NotOursError

    def name(self) -> str:
        part = self.take()
        if part.kind not in ("word", "name"):
            raise _NotOursError
        return part.value

    def text(self) -> str:
        part = self.take()
        if part.kind != "text":
            raise _NotOursError
        return part.value

    def end(self) -> None:
        if self.peek().kind != "end":
            raise _NotOursError


def _parts(sql: str) -> Iterator[_Part]:
    at = 0
    while at < len(sql):
        match = _TOKEN.match(sql, at)
        if match is None:
            raise _NotOursError
        at = match.end()
        kind = match.lastgroup
        if kind == "text":
            yield _Part("text", re.sub(r"\\(.)|''", lambda m: m[1] or "'", match["text"], flags=re.DOTALL))
        elif kind is not None:
            yield _Part({"quoted": "name", "double": "name"}.get(kind, kind), match[kind])
    yield _Part("end", "")


def _show(parts: _Reader) -> Table:
    if parts.has("DATABASES"):
        parts.end()
        return Table({"name": "String"}, [(DATABASE,)])
    parts.need("TABLES")
    if parts.has("FROM") or parts.has("IN"):
        _database(parts.name())
    pattern = parts.text() if parts.has("LIKE") else "%"
    parts.end()
    return Table({"name": "String"}, [(name,) for name in _tables() if _like(name, pattern)])


def _describe(parts: _Reader) -> Table:
    parts.has("TABLE")
    table = parts.name()
    if parts.has("."):
        _database(table)
        table = parts.name()
    parts.end()
    columns = _tables().get(table)
    if columns is None:
        raise StoreError(f"there is no table {table[:80]!r}", code=60, name="UNKNOWN_TABLE")
    names = ("name", "type", "default_type", "default_expression", "comment", "codec_expression", "ttl_expression")
    rows = [(name, kind, "", "", "", "", "") for name, kind in columns.items()]
    return Table(dict.fromkeys(names, "String"), rows)


def _select(parts: _Reader, version: str, functions: Callable[[], Sequence[Row]]) -> Table:
    distinct = parts.has("DISTINCT")
    wanted = _list(parts, _wanted)
    if not parts.has("FROM"):
        parts.end()
        known = {
            "displayname()": ("String", DISPLAY_NAME), "version()": ("String", version), "revision()": ("UInt32", 0),
            "timezone()": ("String", TIMEZONE), "currentdatabase()": ("String", DATABASE),
            "database()": ("String", DATABASE),
        }  # fmt: skip
        if any(what.lower() not in known for what, _ in wanted):
            raise _NotOursError
        answers = [(label, *known[what.lower()]) for what, label in wanted]
        return Table({label: kind for label, kind, _ in answers}, [tuple(value for _, _, value in answers)])
    parts.need("SYSTEM", ".")
    name = parts.name()
    source = _system(name, functions)
    at = {column: number for number, column in enumerate(source.types)}
    rows = list(source.rows)
    if parts.has("WHERE"):
        while True:
            where, passes = _condition(parts)
            number = _column(at, where, name)
            rows = [row for row in rows if passes(str(row[number]))]
            if not parts.has("AND"):
                break
    if parts.has("ORDER", "BY"):
        for column, downwards in reversed(_list(parts, _ordered)):
            rows.sort(key=itemgetter(_column(at, column, name)), reverse=downwards)
    limit = None
    if parts.has("LIMIT"):
        count = parts.word()
        if not count.isdecimal():
            raise _NotOursError
        limit = int(count)
    parts.end()
    if wanted == [("*", "*")]:
        wanted = [(column, column) for column in source.types]
    places = [_column(at, what, name) for what, _ in wanted]
    chosen = [tuple(row[number] for number in places) for row in rows]
    if distinct:
        chosen = list(dict.fromkeys(chosen))
    types = list(source.types.values())
    return Table({label: types[n] for (_, label), n in zip(wanted, places, strict=True)}, chosen[:limit])


def _list(parts: _Reader, one: Callable[[_Reader], tuple[str, Any]]) -> list[tuple[str, Any]]:
    found = [one(parts)]
    while parts.has(","):
        found.append(one(parts))
    return found


def _wanted(parts: _Reader) -> tuple[str, str]:
    if parts.has("*"):
        return "*", "*"
    what = parts.name()
    if parts.has("(", ")"):
        what += "()"
    return what, parts.name() if parts.has("AS") else what


def _ordered(parts: _Reader) -> tuple[str, bool]:
    column = parts.name()
    return column, parts.has("DESC") or (parts.has("ASC") and False)


def _condition(parts: _Reader) -> tuple[str, Callable[[str], bool]]:
    column = parts.name()
    if parts.has("="):
        value = parts.text()
        return column, lambda text: text == value
    if parts.has("!=") or parts.has("<>"):
        value = parts.text()
        return column, lambda text: text != value
    if parts.has("LIKE"):
        value = parts.text()
        return column, lambda text: _like(text, value)
    parts.need("IN", "(")
    values = {parts.text()}
    while parts.has(","):
        values.add(parts.text())
    parts.need(")")
    return column, lambda text: text in values


def _system(name: str, functions: Callable[[], Sequence[Row]]) -> Table:
    texts: Callable[..., dict[str, str]] = lambda *names: dict.fromkeys(names, "String")  # noqa: E731
    if name == "databases":
        return Table(texts("name", "engine", "comment"), [(DATABASE, "Atomic", "")])
    if name == "tables":
        rows = [(DATABASE, table, "MergeTree", 0, "") for table in _tables()]
        return Table({**texts("database", "name", "engine"), "is_temporary": "UInt8", "comment": "String"}, rows)
    if name == "columns":
        types = {**texts("database", "table", "name", "type", "default_kind", "comment"), "position": "UInt64"}
        found = [
            (DATABASE, table, column, kind, "", "", number)
            for table, columns in _tables().items()
            for number, (column, kind) in enumerate(columns.items(), 1)
        ]
        return Table(types, found)
    if name == "functions":
        flags = dict.fromkeys(("is_aggregate", "case_insensitive"), "UInt8")
        types = {
            "name": "String", **flags,
            **texts("alias_to", "create_query", "origin", "description", "syntax", "arguments", "returned_value",
                    "categories"),
        }  # fmt: skip
        return Table(types, functions())
    if name == "settings":
        types = {**texts("name", "value", "description", "type"), "changed": "UInt8", "readonly": "UInt8"}
        return Table(types, [("readonly", "1", "", "UInt64", 1, 1), ("max_execution_time", "0", "", "Seconds", 0, 0)])
    raise _NotOursError


def _column(at: Mapping[str, int], column: str, table: str) -> int:
    if column not in at:
        raise StoreError(f"system.{table} has no column {column[:80]!r} here", code=47, name="UNKNOWN_IDENTIFIER")
    return at[column]


def _tables() -> dict[str, Mapping[str, str]]:
    return {name: table_types()[name] for name in sorted(table_types()) if name not in HIDDEN}


def _database(name: str) -> None:
    if name not in ("default", DATABASE):
        raise StoreError(f"there is no database {name[:80]!r}", code=81, name="UNKNOWN_DATABASE")


def _like(text: str, pattern: str) -> bool:
    translated = "".join({"%": "*", "_": "?"}.get(c, f"[{c}]" if c in "*?[" else c) for c in pattern)
    return fnmatch.fnmatchcase(text, translated)
