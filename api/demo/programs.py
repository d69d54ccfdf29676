"""How the order path is started: which programs, on which ports, and in which order they stop."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from api.demo.control import FOLDER
from api.demo.market import SITES
from api.up.programs import Program
from collector.feeds.settings import FeedsSettings, endpoint
from collector.settings import section

DEFAULT_RATE = 200.0
_FIRST_PHASE = 10  # above the agent's and the server's, so that the sources of stamps end first
_UDP = ("line-a", "line-b", "line-a:engine", "line-b:engine", "questions", "signals", "copies")
_TCP = tuple(f"{name}-{site}" for name in ("orders", "gateway", "market", "venue") for site in SITES)


def configuration() -> Path:
    """The `tailsight.toml` that declares the order path's points and paths."""
    return Path(str(resources.files("api.demo") / "tailsight.toml"))


def copies_of(document: Mapping[str, Any]) -> dict[str, int]:
    """The ports of 127.0.0.1 at which a configuration's collector `feeds` follows the demo's two lines, A and B.

    Of the channels with protocol "demo" the first counts. Raises ConfigError for a section that cannot be read.
    """
    agent = document.get("agent", {})
    feeds = section(agent.get("feeds", {}) if isinstance(agent, Mapping) else {}, FeedsSettings, "agent.feeds")
    for channel in feeds.channels.values():
        if channel.protocol == "demo":
            ends = {name: endpoint(text, name) for name, text in channel.lines.items()}
            return {f"line-{n.lower()}": ends[n][1] for n in ("A", "B") if n in ends and ends[n][0] == "127.0.0.1"}
    return {}


@dataclass(frozen=True, slots=True)
class Load:
    """What the feed sends: quotes per second, from which seed, over which day, and how fast the day goes by.

    `outcomes` is the seed of the customers' rule, None: one that nobody knows.
    """

    rate: float = DEFAULT_RATE
    seed: int = 1
    profile: str = "flat"
    compression: float = 1.0
    outcomes: int | None = None


def order_path(
    data: Path,
    load: Load = Load(),
    *,
    environment: Mapping[str, str] = MappingProxyType({}),
    copies: Mapping[str, int] = MappingProxyType({}),
) -> list[Program]:
    """The programs on ports of 127.0.0.1 that are free now; they keep them over restarts. Logs go to `data`/log.

    `copies` are ports that get a copy of what leaves a feed line, by the line's name.
    """
    port = _free_ports()
    links = [
        f"{line}:{port[line]}:{port[line + ':engine']}" + (f":{copies[line]}" if line in copies else "")
        for line in ("line-a", "line-b")
    ]
    for site in SITES:
        links.append(f"orders-{site}:{port[f'orders-{site}']}:{port[f'gateway-{site}']}")
        links.append(f"market-{site}:{port[f'market-{site}']}:{port[f'venue-{site}']}")
    epoch = time.time_ns()
    office: dict[str, object] = {"listen": port["copies"], "rate": load.rate, "compression": load.compression}
    office |= {"epoch": epoch} | ({} if load.outcomes is None else {"outcomes": load.outcomes})
    plan: list[tuple[str, str, dict[str, object]]] = [("links", "links", {"link": links, "seed": load.seed})]
    plan += [(f"venue-{site}", "venue", {"site": site, "listen": port[f"venue-{site}"]}) for site in SITES]
    for site in SITES:
        ports = {"listen": port[f"gateway-{site}"], "venue": port[f"market-{site}"]}
        plan.append((f"gateway-{site}", "gateway", {"site": site, **ports}))
    plan += [
        ("back-office", "back_office", office),
        ("inference", "inference", {"listen": port["questions"]}),
        (
            "engine",
            "engine",
            {
                "line": [port["line-a:engine"], port["line-b:engine"]],
                "signals": port["signals"],
                "inference": port["questions"],
                "gateway": [port[f"orders-{site}"] for site in SITES],
                "copies": port["copies"],
            },
        ),
    ]
    day = {"profile": load.profile, "seed": load.seed, "compression": load.compression, "epoch": epoch}
    if load.profile != "flat":
        plan.append(("backup", "backup", day))
    plan.append(("feed", "feed", {"line": [port["line-a"], port["line-b"]], "rate": load.rate, **day}))
    # The feed stops first and the network last, so that what is under way arrives.
    return [
        Program(
            name,
            f"api.demo.{module}",
            ("--control", str(data / FOLDER), *_arguments(options)),
            _FIRST_PHASE + number,
            data / "log" / f"{name}.log",
            environment,
        )
        for number, (name, module, options) in enumerate(plan)
    ]


def instance_ports(at: str) -> dict[str, int]:
    """The free ports that an instance beside this program needs, by what they are for."""
    if at == "inference":
        names = {"questions": socket.SOCK_DGRAM}
    elif at == "engine":
        names = dict.fromkeys(("line-a", "line-b", "signals"), socket.SOCK_DGRAM)
    else:
        names = dict.fromkeys(("orders", "gateway"), socket.SOCK_STREAM)
    return free_by_name(names)


def beside(main: Program, instance: str, version: int, ports: Mapping[str, int]) -> Program:
    """The program of an instance: the main one's with its own name, ports and log."""
    listens = {"questions": "listen", "gateway": "listen", "signals": "signals"}
    own = {option: str(ports[name]) for name, option in listens.items() if name in ports}
    lines = [str(ports[name]) for name in ("line-a", "line-b") if name in ports]
    words, given = [], iter(main.arguments)
    for name, value in zip(given, given, strict=True):
        option = name.removeprefix("--")
        if option in own or (option == "line" and lines) or option in ("version", "instance"):
            continue
        words += [name, value]
    own |= {"version": str(version), "instance": instance}
    words += _arguments({**own, "line": lines})
    return replace(main, name=instance, arguments=tuple(words), log=main.log.with_name(f"{instance}.log"))


def _arguments(options: Mapping[str, object]) -> list[str]:
    """Options as words; a list repeats its option."""
    words = []
    for name, value in options.items():
        for one in value if isinstance(value, list) else [value]:
            words += [f"--{name}", str(one)]
    return words


def _free_ports() -> dict[str, int]:
    """A port for every name of the order path."""
    return free_by_name(dict.fromkeys(_UDP, socket.SOCK_DGRAM) | dict.fromkeys(_TCP, socket.SOCK_STREAM))


def free_by_name(names: Mapping[str, socket.SocketKind]) -> dict[str, int]:
    """A port for every name; all are held until all are found, so that no two are the same."""
    found = {}
    with contextlib.ExitStack() as held:
        for name, kind in names.items():
            trial = held.enter_context(socket.socket(socket.AF_INET, kind))
            trial.bind(("127.0.0.1", 0))
            found[name] = trial.getsockname()[1]
    return found
