"""The schema: numbered `.sql` files, applied once each, resumable after a kill at any statement.

A migration is `schema/NNNN_name.sql`; its statements are idempotent (`IF NOT EXISTS`) and recorded one by one in
`schema_migrations`, so that a run killed between executing and recording repeats one statement and goes on. A store
written by a newer version is refused. The files are also the one description of the tables' types for inserts.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import xxhash

from collector.settings import ConfigError, Section
from collector.store import Store, StoreError

FOLDER = Path(__file__).with_name("schema")

# fsync_*: an acknowledged insert is on disk, not in the page cache. old_parts_lifetime: merged parts are not synced,
# so their synced sources stay for 8 minutes, far longer than the kernel keeps dirty pages (30 s).
# The window lets a retry of the same attempt within one engine life be recognised by its token.
DURABLE = (
    "non_replicated_deduplication_window = 10000, "
    "fsync_after_insert = 1, fsync_part_directory = 1, old_parts_lifetime = 480"
)

# 40 years. The engine's DateTime ends in 2106: a longer time would wrap, and rows would expire on arrival.
MAX_HOURS = 350_400

_MIGRATIONS_TABLE = f"""
CREATE TABLE IF NOT EXISTS schema_migrations (
    migration UInt32, statement UInt32, name String, checksum UInt64, applied DateTime64(9, 'UTC')
) ENGINE = MergeTree ORDER BY (migration, statement) SETTINGS {DURABLE.replace("10000", "0")}
"""
_FILE = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")
_CREATE = re.compile(r"CREATE TABLE IF NOT EXISTS (\w+)\s*\((.*)\n\)\s*ENGINE\s*=", re.DOTALL)
_ENGINE = re.compile(r"ENGINE\s*=\s*(\w*MergeTree)(?:\(([^)]*)\))?")
_AFTER_TYPE = re.compile(r"\s+(?:CODEC|DEFAULT|MATERIALIZED|ALIAS|COMMENT|TTL)\b")
_HOURS = re.compile(r"toIntervalHour\((\d+)\)")
_RETENTION = re.compile(r"\{retention\.(\w+)\}")


class Retention(Section, frozen=True, kw_only=True):
    """`[retention]`: how long each kind of row is kept, in hours. The ledger and the audit log have no limit."""

    stamps: int = 24
    stamps_kept: int = 720
    gauges: int = 168
    intervals: int = 168
    delay_counts: int = 168
    clock: int = 720
    flows: int = 168
    feeds: int = 720
    label_sets: int = 17_520
    events: int = 168
    hosts: int = 2_160
    changes: int = 17_520
    kpis: int = 17_520
    heartbeats: int = 720
    quarantine: int = 720
    messages: int = 168
    counts_10s: int = 72
    counts_1m: int = 720
    counts_1h: int = 17_520
    hlogs: int = 17_520
    learned_paths: int = 17_520

    def validate(self) -> None:
        """Raise ConfigError naming a retention that is not positive, or coarse counts shorter than finer ones."""
        for name in self.__struct_fields__:
            if not 1 <= getattr(self, name) <= MAX_HOURS:
                raise ConfigError(name, f"must be 1 to {MAX_HOURS} hours, got {getattr(self, name)}")
        if not self.counts_10s <= self.counts_1m <= self.counts_1h:
            raise ConfigError("counts_1m", "coarser counts must be kept at least as long as finer ones")
        if self.label_sets < self.messages:
            raise ConfigError("label_sets", f"must be at least messages ({self.messages}), which refer to them")


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name and its statements, not yet filled."""

    number: int
    name: str
    statements: tuple[str, ...]


class SchemaError(StoreError):
    """The store's schema is not one that this version can work with; the message says what to do."""


def migrations(folder: Path = FOLDER) -> list[Migration]:
    """The migrations in order. Raises SchemaError when numbers are missing or repeated."""
    found = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE.fullmatch(path.name)
        if match is None:
            raise SchemaError(f"{path} is not called NNNN_name.sql")
        found.append(Migration(int(match[1]), match[2], tuple(_statements(path.read_text("utf-8")))))
    if [m.number for m in found] != list(range(1, len(found) + 1)):
        raise SchemaError(f"{folder}: migrations must be numbered 1..n, found {[m.number for m in found]}")
    return found


@cache
def table_types() -> Mapping[str, Mapping[str, str]]:
    """Per table, its insertable columns and their ClickHouse types, as the migrations declare them."""
    tables: dict[str, Mapping[str, str]] = {}
    for migration in migrations():
        for statement in migration.statements:
            match = _CREATE.search(statement)
            if match is not None:
                parts = (text for text in _split(match[2]) if not text.startswith(("INDEX ", "PROJECTION ")))
                tables[match[1]] = dict(map(_column, parts))
    return tables


def migrate(
    store: Store, retention: Retention | None = None, *, cluster: str | None = None, folder: Path = FOLDER
) -> list[str]:
    """Bring the store to this version's schema and the configured retention; return what was applied.

    With `cluster` the tables are created ON CLUSTER with replicated engines. Raises SchemaError when the store is
    newer than this program or a migration that was applied has since been edited.
    """
    keep = retention or Retention()
    known = migrations(folder)
    store.execute(_for_cluster(_MIGRATIONS_TABLE.strip(), cluster))
    rows = store.query("SELECT migration, statement, any(checksum) AS checksum FROM schema_migrations GROUP BY ALL")
    done = {(m, s): c for m, s, c in rows.select("migration", "statement", "checksum").iter_rows()}
    newest = max((m for m, _ in done), default=0)
    if newest > len(known):
        raise SchemaError(
            f"the store has schema version {newest}, this program knows up to {len(known)}; "
            "use the newer program, or another data directory"
        )
    applied = []
    for migration in known:
        for number, template in enumerate(migration.statements):
            checksum = xxhash.xxh64_intdigest(" ".join(template.split()).encode())
            recorded = done.get((migration.number, number))
            if recorded is None:
                store.execute(_for_cluster(_fill(template, keep), cluster))
                _record(store, migration, number, checksum)
                applied.append(f"{migration.number:04d}_{migration.name}:{number}")
            elif recorded != checksum:
                raise SchemaError(
                    f"statement {number} of migration {migration.number:04d}_{migration.name} was applied with other "
                    "text: the data are of another version. Use the version that made them, or start with an empty "
                    "directory (--data DIR)"
                )
    applied += _apply_retention(store, keep, known, cluster)
    return applied


def replicated(statement: str) -> str:
    """A CREATE TABLE with its engine replaced by the replicated one; other statements unchanged.

    The only place where a cluster's DDL differs. {shard} and {replica} are the servers' macros.
    """

    def engine(match: re.Match[str]) -> str:
        arguments = "".join(f", {a}" for a in [(match[2] or "").strip()] if a)
        path = "'/clickhouse/tables/{shard}/{database}/{table}', '{replica}'"
        return f"ENGINE = Replicated{match[1]}({path}{arguments})"

    changed = _ENGINE.sub(engine, statement)
    return changed.replace("non_replicated_deduplication_window", "replicated_deduplication_window")


def _for_cluster(statement: str, cluster: str | None) -> str:
    if cluster is None:
        return statement
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", cluster):
        raise SchemaError(f"{cluster!r} is not a cluster name")
    return re.sub(
        r"^((?:CREATE|ALTER) TABLE (?:IF NOT EXISTS )?\w+)", rf"\1 ON CLUSTER `{cluster}`", replicated(statement)
    )


def _record(store: Store, migration: Migration, number: int, checksum: int) -> None:
    store.execute(
        "INSERT INTO schema_migrations SELECT {m:UInt32}, {s:UInt32}, {name:String}, {checksum:UInt64}, now64(9)",
        {"m": migration.number, "s": number, "name": migration.name, "checksum": checksum},
    )


def _apply_retention(store: Store, retention: Retention, known: list[Migration], cluster: str | None) -> list[str]:
    """Change the TTL of tables whose hours differ from the configured ones; data follows at the next merges."""
    rows = store.query("SELECT name, create_table_query FROM system.tables WHERE database = currentDatabase()")
    live = dict(rows.select("name", "create_table_query").iter_rows())
    changed = []
    for migration in known:
        for template in migration.statements:
            create, ttl = _CREATE.search(template), re.search(r"\nTTL (.*?)(?:\nSETTINGS|\Z)", template, re.DOTALL)
            if create is None or ttl is None or create[1] not in live:
                continue
            filled = _fill(ttl[1], retention)
            if _HOURS.findall(live[create[1]]) != re.findall(r"INTERVAL (\d+) HOUR", filled):
                sql = f"ALTER TABLE {create[1]} MODIFY TTL {filled} SETTINGS materialize_ttl_after_modify = 0"
                store.execute(_for_cluster(sql, cluster))
                changed.append(f"retention of {create[1]}")
    return changed


def _fill(template: str, retention: Retention) -> str:
    return _RETENTION.sub(lambda match: str(getattr(retention, match[1])), template).replace("{durable}", DURABLE)


def _statements(text: str) -> Iterator[str]:
    lines = [re.sub(r"\s*--.*$", "", line) for line in text.splitlines()]
    for statement in re.split(r";[ \t]*(?:\n|\Z)", "\n".join(lines)):
        if statement.strip():
            yield re.sub(r"\n{2,}", "\n", statement.strip())


def _split(body: str) -> Iterator[str]:
    """The parts of a column list, split at commas outside parentheses and quotes."""
    depth, start, quoted = 0, 0, False
    for at, char in enumerate(body):
        if char == "'":
            quoted = not quoted
        elif not quoted:
            depth += (char == "(") - (char == ")")
            if char == "," and not depth:
                yield body[start:at].strip()
                start = at + 1
    if body[start:].strip():
        yield body[start:].strip()


def _column(text: str) -> tuple[str, str]:
    name, _, rest = text.partition(" ")
    type_name = _AFTER_TYPE.split(" " + rest.strip(), maxsplit=1)[0].strip()
    return name.strip("`"), re.sub(r"\s+", " ", type_name)
