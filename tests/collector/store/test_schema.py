from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from collector.record import TABLES, Kind
from collector.settings import ConfigError, section
from collector.store.blocks import store_name
from collector.store.embedded import EmbeddedStore, open_embedded
from collector.store.schema import (
    Retention,
    SchemaError,
    migrate,
    migrations,
    replicated,
    table_types,
)

SMALL = "CREATE TABLE IF NOT EXISTS one (\n    a UInt8\n) ENGINE = MergeTree\nORDER BY a;\n"
FREE_TEXT = {
    "labels",
    "id",
    "who",
    "what",
    "version",
    "url",
    "value",
    "expected",
    "body",
    "attributes",
    "layout",
    "counts",
    "cells",
}
SECOND = "CREATE TABLE IF NOT EXISTS two (\n    a UInt8\n) ENGINE = MergeTree\nORDER BY a;\n"


def test_parsed_types_are_the_engines(store: EmbeddedStore) -> None:
    rows = store.query(
        "SELECT table, name, type FROM system.columns WHERE database = currentDatabase() "
        "AND table != 'schema_migrations'"
    )
    live: dict[str, dict[str, str]] = {}
    for table, name, type_name in rows.iter_rows():
        live.setdefault(table, {})[name] = type_name
    assert {t: dict(c) for t, c in table_types().items()} == live


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_records_and_tables_agree(table) -> None:  # type: ignore[no-untyped-def]
    types = table_types()[table.name]
    names = [store_name(column.name) for column in table.columns]
    added = ["recorded"] if table.name == "changes" else []
    written = ["written"] if table.name in ("stamps", "links") else []
    assert list(types) == [*names, *added, "batch", "seq", "cut_day", *written]
    wanted = {
        Kind.I64: "Int64", Kind.U64: "UInt64", Kind.I32: "Int32", Kind.U32: "UInt32", Kind.U16: "UInt16",
        Kind.U8: "UInt8", Kind.F64: "Float64", Kind.TEXT: "LowCardinality(String)",
    }  # fmt: skip
    for column, name in zip(table.columns, names, strict=True):
        if column.name == "ts_ns":
            assert types[name] == "DateTime64(9, 'UTC')"
        elif column.kind is Kind.U8 and table.name == "stamps":
            assert types[name].startswith("Enum8(")
        elif (column.kind is Kind.TEXT and column.name in FREE_TEXT) or (table.name, column.name) in (
            ("flows", "source"),
            ("flows", "target"),
        ):
            assert types[name] == "String"
        else:
            plain = wanted[column.kind]
            assert types[name] == (f"Nullable({plain})" if column.nullable else plain), name


def test_enums_are_the_records_enums() -> None:
    from collector.record import Cache, Mode, Outcome

    for name, enum in (("outcome", Outcome), ("mode", Mode), ("cache", Cache)):
        words = ", ".join(f"'{member.name.lower()}' = {member.value}" for member in enum)
        assert table_types()["stamps"][name] == table_types()["messages"][name] == f"Enum8({words})"


def test_a_second_run_changes_nothing(store: EmbeddedStore, kept: Retention) -> None:
    assert migrate(store, kept) == []


def test_retention_changes_the_ttl_and_back(store: EmbeddedStore, kept: Retention) -> None:
    assert migrate(store, msgspec.structs.replace(kept, gauges=5)) == ["retention of gauges"]
    create = store.query("SELECT create_table_query FROM system.tables WHERE name = 'gauges'").item()
    assert "toIntervalHour(5)" in create
    assert migrate(store, kept) == ["retention of gauges"]


def test_retention_says_what_is_wrong() -> None:
    with pytest.raises(ConfigError, match="gauges: must be 1 to 350400 hours, got 0"):
        section({"gauges": 0}, Retention, "retention")
    with pytest.raises(ConfigError, match="counts_1m"):
        section({"counts_10s": 900}, Retention, "retention")


def test_a_run_that_died_between_statements_goes_on(tmp_path: Path) -> None:
    """Every prefix of the work, with and without the last record, as a kill leaves it."""
    folder = tmp_path / "schema"
    folder.mkdir()
    (folder / "0001_a.sql").write_text(SMALL + SECOND)
    (folder / "0002_b.sql").write_text("ALTER TABLE one ADD COLUMN IF NOT EXISTS b UInt8;\n")
    with open_embedded(tmp_path / "data") as store:
        lost = 3
        for keep in range(3):
            for executed in (False, True):
                assert len(migrate(store, folder=folder)) == lost
                store.execute(
                    "ALTER TABLE schema_migrations DELETE WHERE (migration - 1) * 2 + statement >= {k:UInt8} "
                    "SETTINGS mutations_sync = 2",
                    {"k": keep},
                )
                if not executed and keep < 2:
                    store.execute("DROP TABLE two SYNC")
                lost = 3 - keep
        migrate(store, folder=folder)
        assert store.query("SELECT count() AS n, uniqExact(migration, statement) AS u FROM schema_migrations").row(
            0
        ) == (3, 3)
        assert (
            store.query(
                "SELECT count() AS n FROM system.columns WHERE database = currentDatabase() AND table IN ('one', 'two')"
            ).item()
            == 3
        )

        (folder / "0002_b.sql").unlink()
        with pytest.raises(SchemaError, match="schema version 2, this program knows up to 1"):
            migrate(store, folder=folder)
        (folder / "0002_b.sql").write_text("ALTER TABLE one ADD COLUMN IF NOT EXISTS c UInt8;\n")
        with pytest.raises(SchemaError, match="0002_b was applied with other text"):
            migrate(store, folder=folder)


def test_replicated_engines() -> None:
    by_table = {s.split("(")[0].split()[-1]: replicated(s) for m in migrations() for s in m.statements}
    assert (
        "ENGINE = ReplicatedMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}')"
        in by_table["stamps"]
    )
    assert (
        "ReplicatedReplacingMergeTree('/clickhouse/tables/{shard}/{database}/{table}', '{replica}', version)"
        in by_table["kpis"]
    )


def test_clusters_ddl_is_valid_sql(store: EmbeddedStore) -> None:
    from collector.store.schema import _fill, _for_cluster

    for migration in migrations():
        for statement in migration.statements:
            sql = _for_cluster(_fill(statement, Retention()), "prod")
            assert "ON CLUSTER `prod`" in sql
            assert "non_replicated" not in sql
            store.query("EXPLAIN AST " + sql)


def test_gaps_in_the_numbers_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0002_b.sql").write_text(SMALL)
    with pytest.raises(SchemaError, match=r"numbered 1..n, found \[2\]"):
        migrations(tmp_path)
