"""`[kpi_sources]`: business measures read from a customer's own database, on a schedule, with any SQLAlchemy URL."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from analytics.kpis import MAX_VALUES, KpiDefinition, KpiError, KpiValue, record
from collector.settings import ConfigError, Section, duration_ns, section
from collector.store import Store


class KpiSource(Section, frozen=True, kw_only=True):
    """`[kpi_sources.NAME]`: a statement on another database.

    `url` is a SQLAlchemy URL, or `url_env` the environment variable that holds it: keep passwords out of files. `query`
    may use :from_ns and :to_ns; its columns are those of a value (docs/kpis.md). Every `every` the last `lookback` is
    read again, so that late and corrected values come in.
    """

    query: str = ""
    url: str = ""
    url_env: str = ""
    every: str = "1m"
    lookback: str = "2h"

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if bool(self.url) == bool(self.url_env):
            raise ConfigError("url", "give url or url_env, one of them")
        if not self.query.strip():
            raise ConfigError("query", "is missing: a SELECT whose columns are name, ts_ns, value, ...")
        for name in ("every", "lookback"):
            if duration_ns(getattr(self, name), name) <= 0:
                raise ConfigError(name, "must be longer than nothing")

    @property
    def every_s(self) -> float:
        """Seconds between two readings."""
        return duration_ns(self.every, "every") / 1e9


def sources_from(document: Mapping[str, Any], source: str = "") -> dict[str, KpiSource]:
    """The declared sources by name. Raises ConfigError."""
    declared = document.get("kpi_sources", {})
    if not isinstance(declared, Mapping):
        raise ConfigError("kpi_sources", "must be sections [kpi_sources.NAME]", source)
    return {name: section(fields, KpiSource, f"kpi_sources.{name}", source) for name, fields in declared.items()}


class SourceError(RuntimeError):
    """A source that could not be read, or gave what is no value; the message names it and carries no password."""


def read_source(
    store: Store, name: str, source: KpiSource, known: Mapping[str, KpiDefinition], now_ns: int | None = None
) -> int:
    """Read the last `lookback` of one source and record it; returns the values' number. Raises SourceError, StoreError.

    Rows come in portions; each portion is recorded whole. What is read again under the same content replaces itself.
    """
    try:
        import sqlalchemy
    except ModuleNotFoundError:
        raise SourceError(f"kpi_sources.{name} needs the extra `business`: pip install 'tailsight[business]'") from None
    now = time.time_ns() if now_ns is None else now_ns
    url = source.url or os.environ.get(source.url_env, "")
    if not url:
        raise SourceError(f"kpi_sources.{name}: the environment variable {source.url_env} is not set")
    span = {"from_ns": now - duration_ns(source.lookback, "lookback"), "to_ns": now}
    wanted = {key: value for key, value in span.items() if f":{key}" in source.query}
    taken = 0
    try:
        engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    except (sqlalchemy.exc.SQLAlchemyError, ModuleNotFoundError) as error:
        raise SourceError(f"kpi_sources.{name}: {_bare(error)}") from None
    try:
        with engine.connect().execution_options(stream_results=True, yield_per=MAX_VALUES) as connection:
            rows = connection.execute(sqlalchemy.text(source.query), wanted)
            for part in rows.mappings().partitions(MAX_VALUES):
                record(store, list(_values(part, now)), known, now)
                taken += len(part)
    except KpiError as error:
        raise SourceError(f"kpi_sources.{name}: {error}") from None
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise SourceError(f"kpi_sources.{name}: {_bare(error)}") from None
    finally:
        engine.dispose()
    return taken


def _values(rows: Iterable[Mapping[Any, Any]], now_ns: int) -> Iterable[KpiValue]:
    for number, row in enumerate(rows):
        fields = {str(name): value for name, value in row.items() if value is not None}
        fields.setdefault("version", now_ns)
        try:
            # Databases give decimals and their own integers: strict=False takes them as the numbers they are.
            yield msgspec.convert(fields, KpiValue, strict=False, builtin_types=(int,))
        except msgspec.ValidationError as error:
            raise KpiError(f"row {number}: {error}; columns are {', '.join(KpiValue.__struct_fields__)}") from None


def _bare(error: Exception) -> str:
    """An error's first line: SQLAlchemy adds the statement with its values, and drivers the address."""
    return str(getattr(error, "orig", None) or error).strip().splitlines()[0][:300]
