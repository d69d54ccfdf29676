"""The routes, one module per noun; `ROUTERS` is all of them."""

from __future__ import annotations

from api.routes import changes, completeness, delivery, feeds, health, ingest, latency, messages, paths, stream, tokens

ROUTERS = tuple(
    module.router
    for module in (health, paths, latency, messages, completeness, delivery, feeds, changes, stream, ingest, tokens)
)
