from __future__ import annotations

from collections.abc import Iterator

import pytest

from collector.store.embedded import EmbeddedStore, open_embedded
from collector.store.schema import MAX_HOURS, Retention, migrate

# The tests' clock stands still: the engine's, which expires rows, does not.
FOREVER = Retention(**dict.fromkeys(Retention.__struct_fields__, MAX_HOURS))


@pytest.fixture(scope="session")
def forever() -> Retention:
    return FOREVER


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedStore]:
    opened = open_embedded(tmp_path_factory.mktemp("data"))
    migrate(opened, FOREVER)
    yield opened
    opened.close()
