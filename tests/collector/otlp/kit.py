"""A real agent with the collector `otlp` in this process: its doors, its spool, and a server that keeps the books."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from collector.agent.registry import make_source
from collector.agent.run import run_agent
from collector.agent.settings import AgentSettings
from collector.frames import decode
from collector.otlp.settings import OtlpSettings
from collector.otlp.source import OtlpSource
from collector.spool import Spool
from collector.spool.settings import SpoolSettings
from tests.collector.test_agent import until


@contextmanager
def agent(data: Path, server: str, otlp: OtlpSettings | None = None, **more: Any) -> Iterator[OtlpSource]:
    """An agent with only this collector; yields its source once it listens."""
    stop = threading.Event()
    made: list[OtlpSource] = []
    settings = AgentSettings(
        server=server,
        collectors=("otlp",),
        otlp=otlp or OtlpSettings(http="127.0.0.1:0", grpc="127.0.0.1:0"),
        linger_s=0.01,
        heartbeat_s=0.2,
        nice=0,
        shutdown_s=2.0,
        spool_min_free_bytes=0,
        **more,
    )

    def make(name: str, *rest: Any) -> Any:
        source = make_source(name, *rest)
        assert isinstance(source, OtlpSource)
        made.append(source)
        return source

    thread = threading.Thread(target=run_agent, args=(settings, data, stop, make), daemon=True)
    thread.start()
    try:
        until(lambda: bool(made and made[0].addresses), "the doors")
        yield made[0]
    finally:
        stop.set()
        thread.join(20)


def client(source: OtlpSource) -> httpx.Client:
    return httpx.Client(base_url=f"http://{source.addresses['http']}", timeout=10, trust_env=False)


def spooled(folder: Path) -> list[Any]:
    """The columns of every durable frame in a collector's spool; opens it as the next agent would."""
    spool = Spool(folder, SpoolSettings(min_free_bytes=0))
    try:
        found = []
        for batch in spool.pending():
            found += [frame.columns for frame in decode(spool.read(batch)) if frame.columns is not None]
        return found
    finally:
        spool.close()


def said(columns: list[Any], table: str, name: str) -> list[Any]:
    """One column of all rows of a table."""
    out: list[Any] = []
    for each in columns:
        if each.table.name == table:
            out += each.text(name) if name in each.texts else each.values[name].tolist()
    return out


def nowhere() -> str:
    """An address where no server is: what is taken stays in the spool."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"
