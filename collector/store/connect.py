"""Open the store that the settings name."""

from __future__ import annotations

from pathlib import Path

from collector.store import Store
from collector.store.settings import StoreSettings


def connect(settings: StoreSettings, data: Path) -> Store:
    """The store that the settings name. Raises StoreError when it cannot be reached or started."""
    if settings.hosts:
        from collector.store.server import ClickHouseStore

        return ClickHouseStore(settings)
    from collector.store.embedded import open_embedded

    return open_embedded(data)
