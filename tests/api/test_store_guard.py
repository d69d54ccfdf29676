from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from api.store_guard import GuardedStore, LimitedStore, StoreAwayError
from collector.store import Limits, StoreError
from collector.store.embedded import open_embedded


def test_a_killed_store_comes_back_and_calls_never_hang(tmp_path: Path) -> None:
    guard = GuardedStore(lambda: open_embedded(tmp_path), period_s=0.1)
    guard.open()
    try:
        boot = guard.boot_id()
        assert guard.query("SELECT 1 AS x").item() == 1
        os.kill(int((tmp_path / "store.lock").read_text()), signal.SIGKILL)
        end = time.monotonic() + 60
        outcomes = set()
        while time.monotonic() < end:
            try:
                guard.query("SELECT 1")
            except StoreError as error:
                assert error.retryable
                outcomes.add(type(error))
                time.sleep(0.01)
            else:
                if guard.boot_id() != boot:
                    break
        assert guard.boot_id() != boot
        while guard.opened < 2 and time.monotonic() < end:
            time.sleep(0.05)
        assert guard.opened >= 2
    finally:
        guard.close()
    with pytest.raises(StoreAwayError):
        guard.query("SELECT 1")


def test_the_first_open_fails_loudly() -> None:
    def opener() -> None:
        raise StoreError("no disk")

    with pytest.raises(StoreError, match="no disk"):
        GuardedStore(opener).open()  # type: ignore[arg-type]


def test_a_doors_query_has_limits_and_its_error_says_which(tmp_path: Path) -> None:
    with open_embedded(tmp_path) as store:
        limited = LimitedStore(store, Limits(seconds=0.5))
        assert limited.query("SELECT 2 AS x").item() == 2
        began = time.monotonic()
        with pytest.raises(StoreError) as caught:
            limited.query("SELECT sum(sipHash64(number)) FROM numbers(1000000000000)")
        assert caught.value.code == 159
        assert time.monotonic() - began < 30
