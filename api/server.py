"""The server process: store, control state, jobs and doors, started in order and stopped in the other.

python -m api.server --data DIR [--config FILE] [--host H] [--port P]
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
from granian._granian import SocketHolder
from granian.constants import HTTPModes, Interfaces
from granian.http import HTTP1Settings
from granian.server.embed import Server

from analytics.kpis import kpis_from
from analytics.learned import LearnedSettings
from analytics.money.declared import money_from
from analytics.probe_paths import declared_paths
from analytics.slo.gates import gates_from
from analytics.slo.maintenance import windows_from
from analytics.slo.settings import SloSettings
from analytics.windows import WindowSettings
from api import state
from api.app import create_app
from api.control import Control, ControlError
from api.hold import Hold, ServerRunsError
from api.kpi_sources import sources_from
from api.notify.heartbeat import watchers_from
from api.notify.settings import targets_from
from api.reports.settings import reports_from
from api.routes.health import readiness
from api.server_settings import ServerSettings
from api.standby.settings import StandbySettings
from api.store_guard import GuardedStore
from api.work import jobs_of
from collector import log
from collector.landing import Landing, LandingSettings
from collector.points import points_from
from collector.settings import ConfigError, read_toml, section
from collector.store import Store, StoreError
from collector.store.connect import connect
from collector.store.schema import Retention, migrate
from collector.store.settings import StoreSettings

_log = log.logger("server")


class _Granian(Server):
    """Granian in this process, on a socket that we have bound.

    Granian itself binds with SO_REUSEPORT, with which a second server on the same port is not noticed, and does not
    say which port it got for port 0.
    """

    def __init__(self, app: Any, listener: socket.socket, **options: Any) -> None:
        super().__init__(app, **options)
        self._listener = listener

    def _init_shared_socket(self) -> None:
        self._shd = SocketHolder(self._listener.fileno(), False, 1024)  # type: ignore[call-arg, assignment] # its stub is older
        self._ssp = None


def run_server(
    data: Path, config: Path | None = None, host: str | None = None, port: int | None = None, level: str = "info"
) -> int:
    """Serve DATA until SIGTERM or SIGINT; returns the exit status.

    Raises ConfigError, ServerRunsError, ControlError, StoreError or OSError when it cannot start.
    """
    log.configure(level)
    document, source = _document(data, config)
    settings = section(document.get("server", {}), ServerSettings, "server", source)
    changed = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    if changed:
        settings = msgspec.structs.replace(settings, **changed)
        settings.validate()
    points = points_from(document, source)
    paths = declared_paths(document, points, source)
    kpis, sources = kpis_from(document, source), sources_from(document, source)
    money = money_from(document, paths, kpis, source)
    windows = section(document.get("windows", {}), WindowSettings, "windows", source)
    learned = section(document.get("learned", {}), LearnedSettings, "learned", source)
    slo = section(document.get("slo", {}), SloSettings, "slo", source)
    notify = targets_from(document, source)
    reports = reports_from(document, source)
    maintenance = windows_from(document, source)
    watchers = watchers_from(document, source)
    webhooks = [name for name, target in notify.items() if target.kind == "webhook"]
    gates = gates_from(document, source, kpis=kpis, calendars=slo.calendars, webhooks=webhooks)
    standby = section(document.get("standby", {}), StandbySettings, "standby", source)
    landing = section(document.get("landing", {}), LandingSettings, "landing", source)
    retention = section(document.get("retention", {}), Retention, "retention", source)
    store_settings = section(document.get("store", {}), StoreSettings, "store", source)

    os.umask(0o077)
    hold = Hold(data)
    try:
        listener = _listen(settings.host, settings.port)
        control = Control(data / "control.sqlite")

        def opener() -> Store:
            opened = connect(store_settings, data)
            try:
                for applied in migrate(opened, retention):
                    _log.info("migrated", statement=applied)
            except BaseException:
                opened.close()
                raise
            return opened

        store = GuardedStore(opener)
        store.open()
        here = state.build(settings, store, control, paths, Landing(store, points, landing))
        here.migrated = True
        here.kpis, here.money = kpis, money
        here.jobs = jobs_of(
            here, windows, learned, sources, slo, notify, gates, maintenance, watchers, standby, reports,
            Path(source).parent if source else data,
        )  # fmt: skip
        here.metrics.attach(here)
        here.audit.record(
            "server", "server.start", str(os.getpid()), "ok", {"config": bool(source), "host": settings.host}
        )
        here.audit.record(
            "server", "config.load", "tailsight.toml", "ok", {"paths": sorted(paths), "sections": sorted(document)}
        )
        here.jobs.start()
        url = _url(settings, listener)
        asyncio.run(_serve(here, listener, hold, url))
        here.audit.record("server", "server.stop", str(os.getpid()))
        _close(here)
    finally:
        hold.release()
    return 0


async def _serve(here: state.State, listener: socket.socket, hold: Hold, url: str) -> None:
    settings = here.settings
    server = _Granian(
        create_app(here),
        listener,
        address=settings.host,
        port=listener.getsockname()[1],
        interface=Interfaces.ASGINL,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(
            header_read_timeout=round(settings.header_seconds * 1000),
            max_buffer_size=max(8192, settings.max_header_bytes + settings.max_target_bytes),
        ),
        websockets=False,
        log_enabled=False,
        ssl_cert=Path(settings.tls_cert) if settings.tls_cert else None,
        ssl_key=Path(settings.tls_key) if settings.tls_key else None,
    )
    server.workers_kill_timeout = math.ceil(settings.stop_seconds)
    loop = asyncio.get_running_loop()

    def stop() -> None:
        if not here.stopping:
            here.stopping = True
            _log.info("server_stops")
            # Streams never end by themselves, and the others wait for them.
            here.broker.close()
            server.stop()  # type: ignore[no-untyped-call]

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)

    async def announce() -> None:
        while not here.stopping:
            report = readiness(here)
            if report.ready:
                hold.announce(url)
                _log.info("server_ready", url=url)
                return
            await asyncio.sleep(0.05)

    task = loop.create_task(announce())
    try:
        await server.serve()
    except TimeoutError:
        _log.warning("server_stop_cut", seconds=settings.stop_seconds)
    finally:
        task.cancel()


def _close(here: state.State) -> None:
    """Finish what was taken in, then let go of everything, the store last."""
    here.pool.shutdown(wait=True)
    if here.jobs is not None:
        here.jobs.stop(here.settings.stop_seconds)
    for name, finish in (
        ("heartbeats", lambda: here.book.flush(here.store)),
        ("audit", lambda: here.audit.flush(here.store)),
        ("tokens", here.tokens.write_last_used),
    ):
        try:
            finish()
        except StoreError as error:
            _log.warning("not_flushed", what=name, error=str(error))
    if here.standby is not None:
        here.standby.close()
    here.store.close()
    here.control.close()


def _document(data: Path, config: Path | None) -> tuple[Mapping[str, Any], str]:
    path = config if config is not None else data / "tailsight.toml"
    if config is None and not path.exists():
        return {}, ""
    return read_toml(path), str(path)


def _listen(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError as error:
        listener.close()
        raise OSError(
            error.errno, f"cannot listen on {host} port {port} ({error.strerror}); choose another with --port"
        ) from error
    listener.setblocking(False)
    return listener


def _url(settings: ServerSettings, listener: socket.socket) -> str:
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if settings.host in ("0.0.0.0", "::"):  # noqa: S104 - compared, not bound: the note names an address that answers
        host = "127.0.0.1"
    return f"{'https' if settings.tls_cert else 'http'}://{host}:{listener.getsockname()[1]}"


def main(argv: list[str] | None = None) -> int:
    """Parse arguments, serve, and say in one line why not when it cannot."""
    parser = argparse.ArgumentParser(prog="python -m api.server", description="The Tailsight server.")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("TAILSIGHT_DATA", "data")), help="data directory"
    )
    parser.add_argument("--config", type=Path, help="configuration; DIR/tailsight.toml when left out")
    parser.add_argument("--host", help="address to listen on; [server] host when left out")
    parser.add_argument("--port", type=int, help="port to listen on, 0 for any; [server] port when left out")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))
    options = parser.parse_args(argv)
    try:
        return run_server(options.data, options.config, options.host, options.port, options.log_level)
    except (ConfigError, ServerRunsError, ControlError, StoreError, OSError) as error:
        print(f"tailsight server: {error}", file=sys.stderr)  # noqa: T201 - the one line that a starter shows
        return 3


if __name__ == "__main__":
    sys.exit(main())
