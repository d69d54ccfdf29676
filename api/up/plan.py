"""Which programs `tailsight up` runs, on which port, and with which configuration."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from api.demo.programs import Load, configuration, copies_of, order_path
from api.demo.quotes.plan import Receiver, quote_service
from api.server_settings import ServerSettings
from api.up.programs import Program
from collector.settings import ConfigError, read_toml

SERVER_PHASE, AGENT_PHASE = 0, 5
DEFAULT_PORT = 8472


class PortTakenError(Exception):
    """Somebody else listens on the port that was asked for."""


def choose_port(host: str, asked: int | None, preferred: int = DEFAULT_PORT) -> int:
    """The port to serve on: the one asked for, else the preferred one, else any that is free.

    Raises PortTakenError when the port that was asked for is taken.
    """
    if asked:
        if not _free(host, asked):
            raise PortTakenError(
                f"port {asked} on {host} is taken by another program. "
                f"Leave --port out to take a free one; `ss -ltnp 'sport = :{asked}'` shows who has it."
            )
        return asked
    if asked is None and _free(host, preferred):
        return preferred
    with socket.socket() as any_port:
        any_port.bind((host, 0))
        port: int = any_port.getsockname()[1]
        return port


def demo_declared(document: Mapping[str, Any]) -> bool:
    """Whether a configuration declares every point that the order path stamps."""
    wanted = set(read_toml(configuration())["points"])
    return wanted <= set(document.get("points", {}))


def settle_configuration(data: Path, config: Path | None, demo: bool | None) -> tuple[Path | None, bool, str]:
    """(configuration file, run the order path?, what to tell the user).

    A directory without a `tailsight.toml` gets the order path's, when the order path is to run. A configuration that
    does not declare the order path's points turns it off, because its stamps would be quarantined.
    Raises ConfigError when the order path was asked for and its points are not declared.
    """
    file = config or (data / "tailsight.toml")
    if config is None and not file.exists():
        if demo is False:
            return None, False, ""
        data.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.write_bytes(configuration().read_bytes())
        return file, True, f"{file} was written for the order path; declare your own points and paths there"
    declared = demo_declared(read_toml(file))
    if demo and not declared:
        raise ConfigError(
            "points",
            f"the order path's points are not declared: copy [points] and [paths] from {configuration()}, "
            "or leave --demo out",
            str(file),
        )
    if demo is None and not declared:
        return file, False, f"the order path does not run: {file} does not declare its points"
    return file, declared if demo is None else demo, ""


def local_url(settings: ServerSettings, port: int) -> str:
    """Where this machine reaches a server with these settings on this port."""
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "::") else settings.host  # noqa: S104 - compared, not bound
    return f"{'https' if settings.tls_cert else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def programs(
    data: Path,
    config: Path | None,
    host: str,
    url: str,
    *,
    demo: bool,
    ring_dir: str = "",
    token_file: Path | None = None,
    load: Load = Load(),  # noqa: B008 - frozen
    quotes: Receiver | None = None,
) -> list[Program]:
    """The server (which owns the store), the agent, the order path and the quote service, as they start.

    `url` is where the agent finds the server that listens on `host`, `token_file` what opens it; `ring_dir` is
    `[agent] ring_dir`, where the order path's stamps must go too. The quote service runs where `quotes` is given, and
    exports there.
    """
    port = url.rpartition(":")[2]
    logs = data / "log"
    given = ("--data", str(data), *(("--config", str(config)) if config else ()))
    server = ("--host", host, "--port", port)
    token = ("--token-file", str(token_file)) if token_file else ()
    plan = [
        Program("server", "api.server", (*given, *server), SERVER_PHASE, logs / "server.log", stop_s=40),
        Program(
            "agent",
            "api.cli",
            ("agent", *given, *token, *(quotes.agent if quotes else ()), "--server", url),
            AGENT_PHASE,
            logs / "agent.log",
            stop_s=15,
        ),
    ]
    rings = {"TAILSIGHT_PROBE_DIR": ring_dir} if ring_dir else {}
    if demo:
        file = config or data / "tailsight.toml"
        copies = copies_of(read_toml(file)) if file.exists() else {}
        plan += order_path(data, load, environment=rings, copies=copies)
    return plan + (quote_service(data, quotes, seed=load.seed) if quotes else [])


def _free(host: str, port: int) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return False
    return True
