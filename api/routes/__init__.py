"""The routes, one module per noun; `ROUTERS` is all of them."""

from __future__ import annotations

from api.routes import (
    changes,
    clock,
    completeness,
    delivery,
    events,
    feeds,
    flows,
    gauges,
    health,
    hosts,
    ingest,
    latency,
    messages,
    paths,
    scheduler,
    slos,
    stream,
    tokens,
)

ROUTERS = tuple(
    module.router
    for module in (
        health,
        paths,
        latency,
        messages,
        events,
        gauges,
        scheduler,
        slos,
        flows,
        feeds,
        clock,
        hosts,
        completeness,
        delivery,
        changes,
        stream,
        ingest,
        tokens,
    )
)
