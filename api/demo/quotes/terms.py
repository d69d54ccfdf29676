"""The instruments' terms: a SQLite file, and a cache before it that reads an entry again when it is old."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from api.demo.market import SYMBOLS
from api.demo.quotes.pricing import Terms

FRESH_NS = 5_000_000_000
_TABLE = """CREATE TABLE IF NOT EXISTS terms (
    symbol TEXT PRIMARY KEY, spot REAL NOT NULL, volatility REAL NOT NULL, interest REAL NOT NULL) STRICT"""


class TermsFile:
    """The file; made with terms for every instrument of the market when it is not there. For one thread at a time."""

    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._store = sqlite3.connect(file, timeout=1.0, check_same_thread=False)
        self._store.execute(_TABLE)
        rows = [(name, 80.0 + 10.0 * n, 0.15 + 0.03 * n, 0.02) for n, name in enumerate(SYMBOLS)]
        self._store.executemany("INSERT OR IGNORE INTO terms VALUES (?, ?, ?, ?)", rows)
        self._store.commit()

    def load(self, symbol: str) -> Terms | None:
        """The terms of an instrument; None when it is not known. Raises sqlite3.Error."""
        row = self._store.execute("SELECT spot, volatility, interest FROM terms WHERE symbol = ?", (symbol,)).fetchone()
        return Terms(*row) if row else None

    def close(self) -> None:
        """Let go of the file."""
        self._store.close()


class TermsCache:
    """What was loaded, for `FRESH_NS`. Holds only instruments that are known, so it is as large as the file at most."""

    def __init__(self) -> None:
        self._entries: dict[str, tuple[Terms, int]] = {}

    def get(self, symbol: str, now_ns: int) -> Terms | None:
        """The terms; None when they are absent or too old."""
        terms, put_ns = self._entries.get(symbol, (None, 0))
        return terms if now_ns - put_ns <= FRESH_NS else None

    def put(self, symbol: str, terms: Terms, now_ns: int) -> None:
        """Replace an instrument's terms."""
        self._entries[symbol] = (terms, now_ns)
