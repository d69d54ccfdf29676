"""Questions about the schema, answered without the engine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.sql.hello import COLUMNS, hello
from api.sql.metadata import Table, metadata
from api.sql.statement import statement
from collector.store import StoreError


def ask(sql: str) -> Table | None:
    return metadata(sql, "26.9", lambda: [("plus", 0, 0, "", "", "System", "", "", "", "", "")])


def rows(sql: str) -> list[tuple[object, ...]]:
    found = ask(sql)
    assert found is not None
    return list(found.rows)


def test_what_grafana_asks() -> None:
    assert rows("SHOW DATABASES") == [("tailsight",)]
    assert ("stamps",) in rows('SHOW TABLES FROM "tailsight"')
    assert ("audit",) not in rows("SHOW TABLES")
    described = ask('DESC TABLE "tailsight"."stamps"')
    assert described is not None
    assert len(described.types) == 7
    assert ("key", "UInt64", "", "", "", "", "") in described.rows
    columns = rows("SELECT name, type, table FROM system.columns WHERE database IN ('tailsight') AND table = 'links'")
    assert ("parent", "UInt64", "links") in columns
    assert {row[2] for row in columns} == {"links"}
    assert rows("SELECT name FROM system.databases") == [("tailsight",)]
    assert rows("SELECT DISTINCT database FROM system.tables ORDER BY database DESC LIMIT 5") == [("tailsight",)]
    assert rows("SELECT name AS n, is_aggregate FROM system.functions LIMIT 10000") == [("plus", 0)]


def test_the_handshake() -> None:
    found = ask("SELECT displayName(), version(), revision(), timezone()")
    assert found is not None
    assert tuple(found.types) == COLUMNS
    assert found.rows == [("tailsight", "26.9", 0, "UTC")]
    assert rows("select version(), timezone()") == [("26.9", "UTC")]
    old = hello(0, "t", "26.9", "UTC")
    assert old == bytes([4, 1]) + b"\x0ddisplayName()\x06String\x01t\x09version()\x06String\x0426.9" + (
        b"\x0arevision()\x06UInt32\x00\x00\x00\x00\x0atimezone()\x06String\x03UTC"
    )
    assert hello(54_460, "t", "26.9", "UTC").startswith(bytes.fromhex("010002ffffffff000401"))


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT 1",
        "SELECT key FROM stamps",
        "SELECT name FROM system.processes",
        "SELECT name FROM system.tables WHERE 1 = 1",
        "SELECT name FROM system.tables, system.one",
        "SELECT name FROM system.tables UNION ALL SELECT 1",
        "SELECT file('/etc/passwd') FROM system.tables",
        "SELECT version(), file('/etc/passwd')",
        "SHOW TABLES; DROP TABLE stamps",
        "SHOW CREATE TABLE stamps",
        "DESC url('http://127.0.0.1')",
        "SHOW PROCESSLIST",
        "DROP TABLE stamps",
        "SELECT name FROM system.tables LIMIT x",
        "",
        "\x00",
        "'",
    ],
)
def test_everything_else_is_for_the_wall(sql: str) -> None:
    assert ask(sql) is None


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("DESC stamps2", 60),
        ("DESC TABLE audit", 60),
        ("SHOW TABLES FROM system", 81),
        ("SELECT nope FROM system.tables", 47),
    ],
)
def test_what_is_not_there_is_named(sql: str, code: int) -> None:
    with pytest.raises(StoreError) as caught:
        ask(sql)
    assert caught.value.code == code


@given(st.text(alphabet="SELECT FROMsystem.tablewhr='`\"(),*\\-/;\n1", max_size=120))
def test_no_text_crashes_it(sql: str) -> None:
    try:
        ask(sql)
    except StoreError as error:
        assert error.code in (47, 60, 81)


def test_format_and_time_limit_are_taken_out_of_the_text() -> None:
    one = statement({"default_format": "Native"}, "SELECT 1 SETTINGS max_execution_time=10 FORMAT JSONEachRow;\n")
    assert (one.sql, one.form, one.seconds) == ("SELECT 1", "JSONEachRow", 10.0)
    one = statement({"query": "SELECT {a:UInt8}", "param_a": "7", "max_execution_time": "15"}, "")
    assert (one.sql, one.form, dict(one.params), one.seconds) == ("SELECT {a:UInt8}", "TabSeparated", {"a": "7"}, 15.0)
    one = statement({}, "SELECT 'x FORMAT JSON' SETTINGS max_threads = 1")
    assert (one.sql, one.form) == ("SELECT 'x FORMAT JSON' SETTINGS max_threads = 1", "TabSeparated")
    for query in ({"compress": "1"}, {"database": "system"}, {"max_execution_time": "soon"}):
        with pytest.raises(StoreError):
            statement(query, "SELECT 1")
