"""What people may ask at the SQL door, and every way around that is known."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.store import Limits, StoreError
from collector.store.embedded import EmbeddedStore, open_embedded
from collector.store.schema import migrate
from collector.store.wall import check, functions

LIMITS = Limits(seconds=5, memory_bytes=1 << 30, result_rows=10_000, rows_to_read=10_000_000)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    with open_embedded(tmp_path_factory.mktemp("wall")) as opened:
        migrate(opened)
        yield opened


def ask(store: EmbeddedStore, sql: str, form: str = "TSV", **params: str) -> str:
    return bytes(store.select(sql, params, form, LIMITS, 1 << 20)).decode()


GOOD = [
    ("SELECT 1", "1\n"),
    ("SELECT count() FROM stamps", "0\n"),
    (
        "select COUNT(*), countIf(depth > 1), quantilesExactWeightedIf(0.5)(depth, 1, depth > 0) from tailsight.stamps",
        "",
    ),
    ("WITH x AS (SELECT 1 AS a) SELECT a FROM x UNION ALL SELECT 2 ORDER BY 1", "1\n2\n"),
    (
        "SELECT toStartOfInterval(toDateTime(ts), INTERVAL 10 second) AS t, max(key) FROM stamps GROUP BY t ORDER BY t",
        "",
    ),
    ("SELECT arrayMap(x -> x + 1, [1, 2]), CASE WHEN 1 THEN 'a' ELSE 'b' END, 1 BETWEEN 0 AND 2", ""),
    ("SELECT number, row_number() OVER (ORDER BY number) FROM numbers(2)", "0\t1\n1\t2\n"),
    (
        "SELECT a.key FROM stamps AS a JOIN messages AS b ON a.key = b.key WHERE key IN (SELECT child FROM links)",
        "",
    ),
    ("SELECT path FROM messages WHERE generation IN (SELECT max(generation) FROM windows GROUP BY window) LIMIT 5", ""),
    ("SELECT * EXCEPT (key), COLUMNS('ke') FROM links ARRAY JOIN [1, 2] AS n FINAL_", None),
    ("SELECT 'lit\nFunction file', `key` FROM stamps -- a comment with file('/etc/passwd')", ""),
]


@pytest.mark.parametrize(("sql", "expected"), GOOD, ids=range(len(GOOD)))
def test_honest_questions_are_answered(store: EmbeddedStore, sql: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(StoreError) as caught:
            ask(store, sql)
        assert caught.value.code == 62  # the engine's own word about the text
    elif expected:
        assert ask(store, sql) == expected
    else:
        ask(store, sql)


BAD = [
    "SELECT file('/etc/passwd')",
    "SELECT * FROM file('/etc/passwd', 'LineAsString')",
    "SELECT * FROM url('http://127.0.0.1/', 'LineAsString')",
    "SELECT * FROM remote('127.0.0.1', system.one)",
    "SELECT * FROM s3('http://127.0.0.1/x')",
    "SELECT * FROM executable('id', 'TSV', 'a String')",
    "SELECT * FROM mysql('127.0.0.1', 'a', 'b', 'c', 'd')",
    "SELECT * FROM merge('tailsight', '.*')",
    "SELECT * FROM view(SELECT 1)",
    "SELECT * FROM viewIfPermitted(SELECT 1 ELSE null('a Int8'))",
    "SELECT * FROM generateRandom('a Int8')",
    "SELECT * FROM Python(x)",
    "SELECT * FROM system.processes",
    "SELECT * FROM information_schema.tables",
    "SELECT * FROM INFORMATION_SCHEMA.TABLES",
    "SELECT * FROM `system`.`parts`",
    "SELECT 1 IN system.one",
    "SELECT 1 WHERE 'x' IN (SELECT name FROM system.tables)",
    "SELECT key FROM stamps WHERE key IN system.numbers",
    "WITH y AS (SELECT * FROM system.settings) SELECT * FROM y",
    "SELECT * FROM (SELECT * FROM (SELECT * FROM system.users))",
    "SELECT * FROM {t:Identifier}.processes",
    "SELECT * FROM system.{t:Identifier}",
    "SELECT * FROM audit",
    "SELECT * FROM tailsight.audit",
    "SELECT 1 IN audit",
    "SELECT 1 IN tailsight.audit",
    "SELECT * FROM schema_migrations",
    "SELECT hostName()",
    "SELECT HOSTNAME()",
    "SELECT fqdn()",
    "SELECT sleep(3)",
    "SELECT sleepEachRow(1) FROM numbers(3)",
    "SELECT getSetting('max_threads')",
    "SELECT getMacro('x')",
    "SELECT currentUser()",
    "SELECT dictGet('d', 'a', 1)",
    "SELECT joinGet('stamps', 'a', 1)",
    "SELECT hasColumnInTable('system', 'tables', 'name')",
    "SELECT filesystemAvailable()",
    "SELECT showCertificate()",
    "SELECT * APPLY(file) FROM stamps",
    "SELECT * APPLY(x -> file('/etc/passwd')) FROM stamps",
    "SELECT arrayMap(x -> file('/etc/passwd'), [1])",
    "SELECT 1 ORDER BY file('/etc/passwd')",
    "SELECT 1 LIMIT (SELECT length(file('/etc/passwd')))",
    "SELECT 1 SETTINGS readonly = 0",
    "SELECT 1 SETTINGS max_execution_time = 1000",
    "SELECT (SELECT 1 SETTINGS max_threads = 100)",
    "SELECT 1 INTO OUTFILE '/tmp/tailsight_wall_out'",
    "SELECT 1 INTO OUTFILE '/tmp/tailsight_wall_out' FORMAT TSV",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE stamps",
    "SELECT 1 SETTINGS readonly = 1; DROP TABLE stamps",
    "DROP TABLE stamps",
    "TRUNCATE TABLE stamps",
    "ALTER TABLE stamps DELETE WHERE 1",
    "OPTIMIZE TABLE stamps FINAL",
    "INSERT INTO links (parent, child) VALUES (1, 2)",
    "INSERT INTO FUNCTION file('/tmp/tailsight_wall_out') SELECT 1",
    "CREATE TABLE t (a Int8) ENGINE = Memory",
    "CREATE TEMPORARY TABLE t (a Int8)",
    "CREATE FUNCTION f AS x -> x",
    "SET readonly = 0",
    "SET max_memory_usage = 0",
    "USE system",
    "KILL QUERY WHERE 1",
    "SYSTEM STOP MERGES",
    "SYSTEM SHUTDOWN",
    "GRANT ALL ON *.* TO default",
    "BACKUP TABLE stamps TO File('/tmp/tailsight_wall_out')",
    "ATTACH TABLE stamps",
    "DETACH TABLE stamps",
    "RENAME TABLE stamps TO s2",
    "EXCHANGE TABLES stamps AND links",
    "DESC url('http://127.0.0.1:1/')",
    "DESCRIBE s3('http://127.0.0.1:1/x')",
    "DESCRIBE TABLE stamps",
    "SHOW TABLES",
    "SHOW CREATE TABLE stamps",
    "EXPLAIN SELECT 1",
    "EXPLAIN QUERY TREE SELECT file('/etc/passwd')",
    "EXPLAIN AST SELECT file('/etc/passwd')",
    "EXISTS TABLE stamps",
    "CHECK TABLE stamps",
    "WATCH stamps",
    "CALL x()",
    "selec 1",
    "",
    "-- nothing",
    "SELECT 1 AS `a\n Function file (children 1)`",
    "SELECT `file`('/etc/passwd')",
    "SELECT \"file\"('/etc/passwd')",
    "SELECT/**/file/**/('/etc/passwd')",
    "SELECT fi\\le('/etc/passwd')",
    "SELECT fileIf('/etc/passwd', 1)",
    "FROM system.one SELECT *",
    "(SELECT * FROM system.one)",
    "SELECT 1 UNION ALL SELECT * FROM system.one",
    "SELECT 1 INTERSECT SELECT * FROM system.one",
    "SELECT 1 WHERE EXISTS (SELECT * FROM system.one)",
    "PARALLEL WITH SELECT 1",
    "SELECT * FROM stamps AS s, system.one",
    "SELECT * FROM stamps LEFT JOIN system.one USING (key)",
]


@pytest.mark.parametrize("sql", BAD, ids=range(len(BAD)))
def test_known_ways_around_are_refused(store: EmbeddedStore, sql: str) -> None:
    before = store.query("SELECT count() AS n FROM system.tables WHERE database = 'tailsight'")["n"][0]
    with pytest.raises(StoreError) as caught:
        ask(store, sql, t="system")
    assert caught.value.code, caught.value
    assert not Path("/tmp/tailsight_wall_out").exists()  # noqa: S108 - the name that the statements try
    assert store.query("SELECT count() AS n FROM system.tables WHERE database = 'tailsight'")["n"][0] == before


def test_limits_stop_what_costs_too_much(store: EmbeddedStore) -> None:
    for sql, code in (
        ("SELECT number FROM numbers(100000)", 396),
        ("SELECT repeat('x', 500) FROM numbers(9000)", 396),
    ):
        with pytest.raises(StoreError) as caught:
            ask(store, sql)
        assert caught.value.code == code, caught.value
    with pytest.raises(StoreError) as caught:
        store.select("SELECT count() FROM numbers(10000000000) WHERE number % 7 = 3", {}, "TSV", Limits(seconds=0.3), 9)
    assert caught.value.code == 159


def test_formats_are_from_a_list(store: EmbeddedStore) -> None:
    assert ask(store, "SELECT 1 AS a", "JSONEachRow") == '{"a":1}\n'
    assert store.select("SELECT 1 AS a", {}, "Native", LIMITS, 1 << 20)[:2] == b"\x01\x01"
    for form in ("Template", "CustomSeparated", "nope", ""):
        with pytest.raises(StoreError, match="is not offered"):
            ask(store, "SELECT 1", form)


def test_the_process_sees_only_its_directory(store: EmbeddedStore) -> None:
    confinement = store.health().extra["confinement"]
    if "applied" not in confinement["paths"]:
        pytest.skip(f"this kernel does not confine paths: {confinement['paths']}")
    # Past the wall, on a session of the product's own: the engine itself cannot open it.
    with pytest.raises(StoreError, match=r"(?i)denied|not allowed|cannot|privileges"):
        store.query("SELECT file('/etc/passwd')")


def test_every_allowed_function_is_known_or_belongs_to_syntax(store: EmbeddedStore) -> None:
    known = {name.lower() for (name,) in store.query("SELECT name FROM system.functions").iter_rows()}
    assert functions() - known == {"lambda", "numbers"}
    never = {"file", "hostname", "sleep", "sleepeachrow", "getsetting", "joinget", "dictget", "currentuser", "query_id"}
    assert not functions() & never


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=200))
def test_no_tree_crashes_the_wall(text: str) -> None:
    try:
        check(text, {"stamps"})
    except StoreError as error:
        assert error.code == 497
