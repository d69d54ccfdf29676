from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from api.collectors import CollectorBook
from api.stream import Broker, Reader
from collector.heartbeat import Heartbeat
from collector.store import Store, StoreError
from collector.store.embedded import open_embedded
from collector.store.schema import migrate

WHO = uuid.uuid4()
SECOND = 10**9


def beat(**more: Any) -> Heartbeat:
    plain = {
        "collector": WHO,
        "boot": 2,
        "name": "probe",
        "host": "host-1",
        "status": "running",
        "reason": "",
        "ts_ns": 1_795_168_800_000_000_000,
        "watermark_ns": 1_795_168_800_000_000_000,
        "produced": 10,
        "acked": 10,
        "in_flight": 0,
        "spool_bytes": 0,
    }
    return Heartbeat(**{**plain, **more})


@pytest.fixture
def followed() -> Iterator[tuple[CollectorBook, list[str]]]:
    """A book and the statuses that its events have said."""
    broker = Broker(buffer=100, history=100, readers=1)
    loop = asyncio.new_event_loop()
    reader = Reader(frozenset(["collector"]), None, loop)
    broker.subscribe(reader, None)

    class Said(list[str]):
        def now(self) -> list[str]:
            self += [event.data["status"] for event in broker.take(reader)]
            return self

    yield CollectorBook(broker, 15 * SECOND), Said()
    loop.close()


def test_only_changes_of_status_are_events(followed: tuple[CollectorBook, Any]) -> None:
    book, said = followed
    book.add([beat()], 0)
    book.add([beat()], SECOND)
    book.add([beat(status="degraded")], 2 * SECOND)
    assert said.now() == ["running", "degraded"]
    assert book.mark_silent(16 * SECOND) == 0
    assert book.mark_silent(18 * SECOND) == 1
    assert book.mark_silent(19 * SECOND) == 0
    book.add([beat(status="degraded")], 20 * SECOND)
    assert said.now() == ["running", "degraded", "silent", "degraded"]


def test_an_earlier_boot_that_still_has_events_is_no_change(followed: tuple[CollectorBook, Any]) -> None:
    book, said = followed
    for now in range(3):
        book.add([beat(boot=2), beat(boot=1, status="stopped")], now * SECOND)
    assert said.now() == ["running"]
    book.add([beat(boot=2, status="stopped")], 4 * SECOND)
    assert said.now() == ["running", "stopped"]
    assert book.mark_silent(100 * SECOND) == 0  # it said goodbye


@pytest.mark.parametrize("bad", [{"produced": -1}, {"boot": 1 << 32}, {"ts_ns": 1 << 63}, {"acked": 1 << 64}])
def test_a_number_that_does_not_fit_is_refused_whole(followed: tuple[CollectorBook, Any], bad: dict[str, int]) -> None:
    book, said = followed
    with pytest.raises(ValueError, match=next(iter(bad))):
        book.add([beat(), beat(**bad)], 0)
    assert said.now() == []


def test_heartbeats_wait_while_the_store_is_away(tmp_path: Any, followed: tuple[CollectorBook, Any]) -> None:
    book, _ = followed
    store: Store = open_embedded(tmp_path)
    migrate(store)
    store.close()
    book.add([beat(), beat(produced=11, acked=11)], 0)
    with pytest.raises(StoreError):
        book.flush(store)
    with open_embedded(tmp_path) as again:
        assert book.flush(again) == 2
        assert book.flush(again) == 0
        found = again.query("SELECT produced FROM heartbeats ORDER BY produced")
    assert found["produced"].to_list() == [10, 11]
