"""How the quote service is started, and where its SDK is told to export to."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from api.demo.control import FOLDER
from api.demo.programs import free_by_name
from api.up.programs import Program
from collector.agent.settings import AgentSettings
from collector.otlp.settings import OtlpSettings, address
from collector.settings import ConfigError

RATE = 8.0
_PHASE = 10  # above the agent's: what they export last is still taken
_SDK = ("opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http")
_RECEIVER = ("h11", "google.rpc", "opentelemetry.proto.trace")
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound


class ExtraMissingError(Exception):
    """What these extras of ours bring is not installed; `hint` is the command that installs it."""

    def __init__(self, extras: Sequence[str]) -> None:
        named = " and ".join(f"`{name}`" for name in extras)
        super().__init__(f"--otel needs the extra{'s' if len(extras) > 1 else ''} {named}, not installed here")
        self.hint = f"{sys.executable} -m pip install 'tailsight[{','.join(extras)}]'"


@dataclass(frozen=True, slots=True)
class Receiver:
    """Where the programs export to, and what the agent must be told to listen there: nothing when it does already."""

    http: str
    agent: tuple[str, ...] = ()


def need_sdk(*, receiver: bool) -> None:
    """Raises ExtraMissingError without the SDK; with `receiver` also without what the agent's receiver needs."""
    missing = [extra for extra, names in (("otel-demo", _SDK), ("otlp", _RECEIVER if receiver else ()))
               if not all(map(_there, names))]  # fmt: skip
    if missing:
        raise ExtraMissingError(missing)


def receiver_of(settings: AgentSettings, *, own: bool, source: str = "") -> Receiver:
    """The configuration's receiver where the collector `otlp` is on, else a free port for an agent of our `own`.

    An agent that is not ours listens where its configuration says. Raises ConfigError when that is no place to send to.
    """
    if own and "otlp" not in settings.collectors:
        where = f"127.0.0.1:{free_by_name({'otlp': socket.SOCK_STREAM})['otlp']}"
        return Receiver(where, ("--otlp", where))
    return Receiver(_reached_at(settings.otlp, source))


def quote_service(data: Path, receiver: Receiver, *, rate: float = RATE, seed: int = 1) -> list[Program]:
    """The service and who asks it, on a port of 127.0.0.1 that is free now. Logs go to `data`/log."""
    port = str(free_by_name({"quotes": socket.SOCK_STREAM})["quotes"])
    terms = str(data / FOLDER / "quotes.sqlite")
    environment = variables(receiver.http, os.environ)
    plan: list[tuple[str, str, tuple[str, ...]]] = [
        ("quotes-api", "service", ("--listen", port, "--terms", terms)),
        ("quotes-client", "asker", ("--port", port, "--rate", str(rate), "--seed", str(seed))),
    ]
    return [
        Program(name, f"api.demo.quotes.{module}", words, _PHASE + number, data / "log" / f"{name}.log", environment)
        for number, (name, module, words) in enumerate(plan)
    ]


def variables(http: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The SDK's environment variables that make it export to `http` (host:port), on top of `environment`.

    https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and .../configuration/sdk-environment-variables/.
    A proxy does not stand between a program and its own host.
    """
    host = address(http, "otlp")[0]
    told = {f"OTEL_EXPORTER_OTLP_{name.upper()}_ENDPOINT": f"http://{http}/v1/{name}"
            for name in ("traces", "metrics", "logs")}  # fmt: skip
    for name in ("NO_PROXY", "no_proxy"):
        told[name] = ",".join(filter(None, (environment.get(name), host)))
    return told | {
        "OTEL_BSP_SCHEDULE_DELAY": "2000",
        "OTEL_BLRP_SCHEDULE_DELAY": "2000",
        "OTEL_METRIC_EXPORT_INTERVAL": "5000",  # every window of 10 s gets some
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": "delta",
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
        "OTEL_TRACES_SAMPLER": "always_on",
        "OTEL_SDK_DISABLED": "false",
    }


def _reached_at(settings: OtlpSettings, source: str) -> str:
    host, port = address(settings.http, "agent.otlp.http") if settings.http else ("", 0)
    if not port:
        raise ConfigError("agent.otlp.http", "names no port, and --otel exports there; set host:port", source)
    host = _ANY.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a package above it
        return False
