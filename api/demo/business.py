"""DIR/demo/business.sqlite: the order blotter as a customer's own system would hold it, and its KPIs per minute.

Table `orders` (a row per settled order) and view `kpi_minutes` are a contract: docs/demo.md names the columns, and
`PRAGMA user_version` grows when they change. Anybody may read the file at any time (WAL).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

from api.demo.blotter import Settled
from api.demo.control import FOLDER

FILE = "business.sqlite"
VERSION = 1
KEEP_ROWS = 1_000_000
MINUTE_NS = 60_000_000_000

ORDERS = tuple(field.name for field in fields(Settled))
KPIS = ("name", "minute_ns", "cohort", "channel", "region", "offer_type", "numerator", "denominator")
_TABLES = {  # columns, the table or view, its time, its order
    "orders": (ORDERS, "orders", "sent_ns", "sent_ns, order_id"),
    "kpis": (KPIS, "kpi_minutes", "minute_ns", "minute_ns, name, cohort, channel, region, offer_type"),
}

_SCHEMA = """
CREATE TABLE IF NOT EXISTS orders (
    order_id            TEXT PRIMARY KEY NOT NULL,
    message_key         TEXT NOT NULL,
    sent_ns             INTEGER NOT NULL,
    reported_ns         INTEGER,
    trading_second      INTEGER NOT NULL,
    symbol              TEXT NOT NULL,
    site                TEXT NOT NULL,
    offer_type          TEXT NOT NULL,
    side                TEXT NOT NULL,
    quantity            INTEGER NOT NULL,
    price_ticks         INTEGER NOT NULL,
    cohort              TEXT NOT NULL,
    channel             TEXT NOT NULL,
    region              TEXT NOT NULL,
    status              TEXT NOT NULL,
    reason              TEXT NOT NULL,
    success             INTEGER NOT NULL,
    filled_quantity     INTEGER NOT NULL,
    average_price_ticks REAL,
    slippage_ticks      REAL,
    converted           INTEGER NOT NULL,
    revenue_cents       INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS orders_by_time ON orders (sent_ns);
"""
_TICKS = "CAST(ROUND(slippage_ticks * filled_quantity) AS INTEGER)"  # a whole number of ticks before it was divided
# One sum over one numerator and one denominator per KPI, so that any coarser ratio is the ratio of the sums.
_MEASURES = {
    "order_success": ("success", "1", ""),
    "fill": ("filled_quantity", "quantity", ""),
    "slippage": (
        "CAST(ROUND(slippage_ticks * filled_quantity) AS INTEGER)",
        "filled_quantity",
        "WHERE filled_quantity > 0",
    ),
    "conversion": ("converted", "1", ""),
    "revenue": ("revenue_cents", "1", ""),
}
_SELECTS = (
    f"SELECT '{name}' AS name, sent_ns - sent_ns % {MINUTE_NS} AS minute_ns, cohort, channel, region, offer_type, "  # noqa: S608 - constants
    f"SUM({above}) AS numerator, SUM({below}) AS denominator FROM orders {where} GROUP BY 2, 3, 4, 5, 6"
    for name, (above, below, where) in _MEASURES.items()
)
_VIEW = f"DROP VIEW IF EXISTS kpi_minutes; CREATE VIEW kpi_minutes AS {' UNION ALL '.join(_SELECTS)};"
_INSERT = f"INSERT OR IGNORE INTO orders ({', '.join(ORDERS)}) VALUES ({', '.join('?' * len(ORDERS))})"  # noqa: S608


class Business:
    """The file's one writer. Keeps the newest `keep_rows` orders.

    What it frees is used again, so the file is bounded: about 250 MB for a million orders.
    """

    def __init__(self, folder: Path, keep_rows: int = KEEP_ROWS) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep = keep_rows
        self._db = sqlite3.connect(folder / FILE, isolation_level=None, timeout=5.0)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        (found,) = self._db.execute("PRAGMA user_version").fetchone()
        if found not in (0, VERSION):
            self._db.close()
            raise ValueError(f"{folder / FILE} has version {found}, want {VERSION}; move it away to begin a new one")
        self._db.executescript(f"BEGIN; {_SCHEMA} {_VIEW} PRAGMA user_version = {VERSION}; COMMIT;")

    def add(self, rows: Sequence[Settled]) -> None:
        """Write settled orders in one transaction, and let go of what is too old. Raises sqlite3.Error."""
        if not rows:
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._db.executemany(_INSERT, map(astuple, rows))
            self._db.execute("DELETE FROM orders WHERE rowid <= (SELECT MAX(rowid) FROM orders) - ?", (self._keep,))
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def close(self) -> None:
        """Give the file back."""
        self._db.close()


def read(
    file: Path, what: str, from_ns: int | None = None, to_ns: int | None = None, limit: int = -1
) -> Iterator[tuple[Any, ...]]:
    """Rows of `orders` or `kpis` whose time lies in [from, to), oldest first; at most `limit`, all when it is -1.

    Raises sqlite3.Error when the file is no blotter.
    """
    names, source, time, order = _TABLES[what]
    if what == "kpis":  # a minute that is cut would be a wrong minute
        from_ns = None if from_ns is None else from_ns - from_ns % MINUTE_NS
    sql = f"SELECT {', '.join(names)} FROM {source} WHERE {time} >= ? AND {time} < ? ORDER BY {order} LIMIT ?"  # noqa: S608
    db = sqlite3.connect(f"{file.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
    try:
        yield from db.execute(sql, (from_ns or 0, 2**63 - 1 if to_ns is None else to_ns, limit))
    finally:
        db.close()


def file_of(data: Path) -> Path:
    """Where the blotter of a data directory is."""
    return data / FOLDER / FILE


def columns(what: str) -> tuple[str, ...]:
    """The columns of `read`."""
    return _TABLES[what][0]


def kind_of(column: str) -> str:
    """What a column holds: `text`, `whole` numbers or `real` ones."""
    kinds = dict.fromkeys(KPIS, "str") | dict.fromkeys(("minute_ns", "numerator", "denominator"), "int")
    kinds |= {field.name: str(field.type) for field in fields(Settled)}
    return {"str": "text", "int": "whole", "float": "real"}[kinds[column].removesuffix(" | None")]
