"""The routes, one module per noun; `ROUTERS` is all of them."""

from __future__ import annotations

from api.routes import (
    changepoints,
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
    kpis,
    latency,
    messages,
    paths,
    queues,
    scheduler,
    sql,
    stream,
    tail,
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
        flows,
        feeds,
        clock,
        hosts,
        completeness,
        delivery,
        changes,
        kpis,
        changepoints,
        queues,
        stream,
        sql,
        tail,
        ingest,
        tokens,
    )
)
