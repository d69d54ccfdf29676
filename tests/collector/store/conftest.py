from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.store.embedded import EmbeddedStore, open_embedded
from collector.store.schema import Retention, migrate

# Rows of the tests are years old: a merge in the background must not expire them.
KEPT = Retention(stamps=300_000)


@pytest.fixture(scope="session")
def kept() -> Retention:
    return KEPT


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    """One real engine per module: starting one costs half a second."""
    opened = open_embedded(tmp_path_factory.mktemp("data"))
    migrate(opened, KEPT)
    yield opened
    opened.close()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"
