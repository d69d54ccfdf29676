"""The wall in front of SQL that people write: which statements may run, decided on the engine's own syntax tree.

The text of `EXPLAIN AST` has a line per node. Every line must be of a kind listed here, every function one of
`sql_functions.txt`, every table one of ours. What is not known is refused: a name with a line break in it can only add
lines. Parsers of others do not decide: what they read differently from the engine would be a hole.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from functools import cache
from importlib import resources

from collector.store import StoreError

DATABASE = "tailsight"
# Who did what is for those who may read the audit log; the others are the store's own books.
HIDDEN = frozenset({"audit", "schema_migrations"})

_NODES = frozenset(
    {
        "SelectWithUnionQuery", "SelectIntersectExceptQuery", "SelectQuery", "ExpressionList", "WithElement",
        "Subquery", "Literal", "Identifier", "TableIdentifier", "Function", "Asterisk", "QualifiedAsterisk",
        "ColumnsRegexpMatcher", "ColumnsListMatcher", "ColumnsTransformerList", "ColumnsExceptTransformer",
        "TablesInSelectQuery", "TablesInSelectQueryElement", "TableExpression", "TableJoin", "ArrayJoin",
        "OrderByElement", "SampleRatio", "WindowDefinition", "WindowListElement", "InterpolateElement",
    }
)  # fmt: skip
_INSTEAD = {
    "Set": "a SETTINGS clause is not taken here; max_execution_time alone may stand at the end",
    "ColumnsApplyTransformer": "APPLY is not taken here: write the function around each column",
    "QueryParameter": "give every {parameter:Type} a value",
}
_LINE = re.compile(r" *(\w+)(?: (.*))?")
_SUFFIX = re.compile(r" \((?:alias|children) .*", re.DOTALL)
_DATABASES = frozenset({"system", "information_schema", "default", "_temporary_and_external_tables"})
_COMBINATORS = (
    "If", "Array", "Map", "Distinct", "OrNull", "OrDefault", "ForEach", "Resample", "State", "SimpleState", "Merge",
    "MergeState", "ArgMin", "ArgMax",
)  # fmt: skip


@cache
def functions() -> frozenset[str]:
    """The names of allowed functions, in lower case."""
    text = resources.files("collector.store").joinpath("sql_functions.txt").read_text(encoding="utf-8")
    lines = (line for line in text.splitlines() if not line.startswith("#"))
    return frozenset(name.lower() for line in lines for name in line.split())


def check(tree: str, tables: Collection[str]) -> None:
    """Raise StoreError unless the `EXPLAIN AST` text `tree` is one SELECT over `tables` with allowed functions."""
    lines = tree.rstrip("\n").split("\n")
    if not lines[0].startswith(("SelectWithUnionQuery", "SelectIntersectExceptQuery")):
        raise _refused("only a SELECT is taken here")
    for line in lines:
        match = _LINE.fullmatch(line)
        kind, rest = (match[1], match[2] or "") if match else ("", line)
        if kind not in _NODES:
            raise _refused(_INSTEAD.get(kind, f"this is not taken here: {line.strip()[:80]}"))
        name = _SUFFIX.sub("", rest)
        if kind == "Function":
            _check_function(name)
        elif kind == "TableIdentifier":
            _check_table(name, tables)
        elif kind == "Identifier":
            # `x IN some.table` names a table as if it were a column.
            _check_identifier(name)


def _check_function(name: str) -> None:
    base = name
    while base.lower() not in functions():
        shorter = next((base[: -len(end)] for end in _COMBINATORS if base.endswith(end) and len(base) > len(end)), "")
        if not shorter:
            raise _refused(f"the function {name[:80]} is not allowed here")
        base = shorter


def _check_table(name: str, tables: Collection[str]) -> None:
    database, dot, table = name.rpartition(".")
    if dot and (database != DATABASE or table not in tables):
        raise _refused(f"there is no table {name[:120]} here")
    if table in HIDDEN:
        raise _refused(f"the table {table} cannot be read here")


def _check_identifier(name: str) -> None:
    parts = name.split(".")
    if parts[0].lower() in _DATABASES:
        raise _refused(f"{name[:120]} is not a column of these tables")
    if parts[-1] in HIDDEN and parts[:-1] in ([], [DATABASE]):
        raise _refused(f"the table {parts[-1]} cannot be read here")


def _refused(what: str) -> StoreError:
    return StoreError(what, code=497, name="ACCESS_DENIED")
