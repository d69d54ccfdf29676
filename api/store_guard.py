"""The server's view of its store: present or away, opened again when it dies, the doors' queries within limits.

Callers see a `Store`. While the store is away each call raises `StoreAwayError` at once, which the doors answer with
503 and Retry-After, so that nobody waits for a timeout of a dead socket.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from collector.log import logger
from collector.store import Limits, Store, StoreError, StoreHealth
from collector.store.embedded import EmbeddedStore

if TYPE_CHECKING:
    import polars as pl

    from collector.store.native import Block

_log = logger("store")
T = TypeVar("T")


class StoreAwayError(StoreError):
    """The store does not run at this moment; it is being opened again."""

    def __init__(self) -> None:
        super().__init__("the store is away and is being opened again", retryable=True)


class GuardedStore:
    """A `Store` over one that may die. `opener` connects and migrates; it is called again until it succeeds."""

    def __init__(self, opener: Callable[[], Store], period_s: float = 1.0) -> None:
        self._opener = opener
        self._period_s = period_s
        self._inner: Store | None = None
        self._health = StoreHealth(False, "", "", "", "not opened yet")
        self._stop = threading.Event()
        self._check = threading.Event()
        self._doubt = False  # a call has just found it dead; the watcher has not looked yet
        self._thread = threading.Thread(target=self._watch, name="store-guard", daemon=True)
        self.opened = 0
        self.failures = 0

    def open(self) -> None:
        """Open the store, once and loudly, then keep it open. Raises what the opener raises."""
        self._inner = self._opener()
        self.opened += 1
        self._health = self._inner.health()
        self._thread.start()

    @property
    def away(self) -> bool:
        """Whether calls would fail at once."""
        return self._inner is None or self._doubt

    def insert(self, table: str, block: Block, *, token: str) -> None:
        """As `Store.insert`."""
        self._call(lambda store: store.insert(table, block, token=token))

    def query(self, sql: str, params: Mapping[str, Any] | None = None, *, limits: Limits | None = None) -> pl.DataFrame:
        """As `Store.query`."""
        return self._call(lambda store: store.query(sql, params, limits=limits))

    def execute(self, sql: str, params: Mapping[str, Any] | None = None) -> None:
        """As `Store.execute`."""
        self._call(lambda store: store.execute(sql, params))

    def select(self, sql: str, params: Mapping[str, Any], form: str, limits: Limits, result_bytes: int) -> bytearray:
        """As `EmbeddedStore.select`. Raises StoreError where the store is a ClickHouse server: ask it itself."""

        def run(store: Store) -> bytearray:
            if not isinstance(store, EmbeddedStore):
                raise StoreError(
                    "this server's store is a ClickHouse server: ask its own port, with a read-only user of its own",
                    code=48,
                    name="NOT_IMPLEMENTED",
                )
            return store.select(sql, params, form, limits, result_bytes)

        return self._call(run)

    def settle(self, token_prefix: str) -> None:
        """As `Store.settle`."""
        self._call(lambda store: store.settle(token_prefix))

    def boot_id(self) -> str:
        """As `Store.boot_id`."""
        return self._call(lambda store: store.boot_id())

    def health(self) -> StoreHealth:
        """The health last seen, at most a second or so old; asks nothing."""
        return self._health

    def close(self) -> None:
        """Stop watching and close the store."""
        self._stop.set()
        self._check.set()
        if self._thread.is_alive():
            self._thread.join(5)
        if self._inner is not None:
            self._inner.close()
            self._inner = None

    def _call(self, action: Callable[[Store], T]) -> T:
        inner = self._inner
        if inner is None or self._doubt:
            raise StoreAwayError
        try:
            return action(inner)
        except StoreError as error:
            # No code: the process itself is gone, not the statement refused. Look now, not at the next period.
            if error.retryable and not error.code:
                self._doubt = True
                self._check.set()
            raise

    def _watch(self) -> None:
        while not self._stop.is_set():
            self._check.wait(self._period_s)
            self._check.clear()
            if self._stop.is_set():
                return
            if self._inner is not None:
                boot = self._health.boot_id
                self._health = self._inner.health()
                if not self._health.ok:
                    self._lose(self._inner)
                elif boot != self._health.boot_id:
                    self.opened += 1
                    _log.warning("store_restarted", boot=self._health.boot_id)
                self._doubt = False
            if self._inner is None:
                self._reopen()

    def _lose(self, inner: Store) -> None:
        self.failures += 1
        self._inner = None
        _log.error("store_lost", detail=self._health.detail)
        try:
            inner.close()
        except (StoreError, OSError) as error:
            _log.warning("store_close_failed", error=str(error))

    def _reopen(self) -> None:
        try:
            inner = self._opener()
        except Exception as error:  # noqa: BLE001 - whatever keeps it away, the next try may do
            _log.warning("store_open_failed", error=f"{type(error).__name__}: {error}")
            self._stop.wait(self._period_s)
            return
        self.opened += 1
        self._inner = inner
        self._health = inner.health()
        _log.info("store_opened", boot=self._health.boot_id)


class LimitedStore:
    """A `Store` for the doors over the guarded one: a query without limits of its own gets the server's."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits
        self.insert, self.execute, self.settle = store.insert, store.execute, store.settle
        self.boot_id, self.health, self.close = store.boot_id, store.health, store.close

    def query(self, sql: str, params: Mapping[str, Any] | None = None, *, limits: Limits | None = None) -> pl.DataFrame:
        """As `Store.query`."""
        return self._store.query(sql, params, limits=limits or self._limits)
