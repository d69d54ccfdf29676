"""A real agent with the collector `otlp` alone, to be killed: `... URL DATA`; prints where it listens."""

from __future__ import annotations

import signal
import sys
import threading
from pathlib import Path
from typing import Any

from collector.agent.registry import make_source
from collector.agent.run import run_agent
from collector.agent.settings import AgentSettings
from collector.otlp.settings import OtlpSettings


def main(url: str, data: str) -> int:
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    settings = AgentSettings(
        server=url,
        collectors=("otlp",),
        otlp=OtlpSettings(http="127.0.0.1:0", grpc="127.0.0.1:0"),
        nice=0,
        spool_min_free_bytes=0,
        shutdown_s=0.5,
    )

    def make(name: str, *rest: Any) -> Any:
        source: Any = make_source(name, *rest)
        start = source.start

        def started(positions: Any) -> Any:
            state = start(positions)
            sys.stdout.write(f"{source.addresses.get('http')} {source.addresses.get('grpc')}\n")
            sys.stdout.flush()
            return state

        source.start = started
        return source

    return run_agent(settings, Path(data), stop, make)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
