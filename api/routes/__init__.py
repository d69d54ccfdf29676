"""The routes, one module per noun; `ROUTERS` is all of them."""

from __future__ import annotations

from api.routes import (
    changepoints,
    changes,
    clock,
    compare,
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
    rollouts,
    scheduler,
    slos,
    sql,
    stream,
    tail,
    tokens,
    whatif,
)

ROUTERS = tuple(
    module.router
    for module in (
        health,
        paths,
        latency,
        compare,
        whatif,
        rollouts,
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
