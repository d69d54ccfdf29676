"""A real embedded store for the analytics, emptied before each test, and rows put into it as the landing would."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate

T0 = 1_750_000_000_000_000_000  # a whole hour, minute and 10 s window would be T0 - 1_600 s; see HOUR
HOUR = T0 - T0 % 3_600_000_000_000
TABLES = (
    "stamps", "links", "label_sets", "clock", "hosts", "batches", "heartbeats",
    "messages", "stage_counts", "stage_windows", "windows", "hlogs",
    "gauges", "intervals", "delay_counts", "flows",
)  # fmt: skip


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_embedded(tmp_path_factory.mktemp("analytics"))
    migrate(store, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield store
    store.close()


@pytest.fixture
def store(shared_store: Store) -> Store:
    for table in TABLES:
        shared_store.execute(f"TRUNCATE TABLE {table}")
    return shared_store
