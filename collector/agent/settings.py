"""`[agent]` of tailsight.toml: where the agent sends, what it may use of the host, how its spools behave."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from collector.clocks.settings import ClockSettings
from collector.feeds.settings import FeedsSettings
from collector.host.settings import HostSettings
from collector.lines.settings import LinesSettings
from collector.nic.settings import NicSettings
from collector.otlp.settings import OtlpSettings
from collector.packet.live.settings import PacketSettings
from collector.probes.settings import ProbesSettings, checks_from
from collector.prometheus.settings import PrometheusSettings
from collector.sched.settings import SchedulerSettings
from collector.settings import ConfigError, Section
from collector.spool.settings import SpoolSettings


class AgentSettings(Section, frozen=True, kw_only=True):
    """The agent's section. Every default is right for one host that talks to a server on loopback."""

    server: str = "http://127.0.0.1:8472"  # or "unix:/path/to/socket"
    token_file: str = ""  # a file (0600) with the agent's token; empty: none is sent
    collectors: tuple[str, ...] = ("probe", "schedstat", "clock", "nic", "host")
    ring_dir: str = ""  # of the probe; empty: its own default
    cpus: tuple[int, ...] = ()  # the agent runs on these alone; empty: wherever the kernel puts it
    nice: int = 5  # added niceness: the observed programs come first
    source_interface: str = ""  # SO_BINDTODEVICE: shipping never shares the hot lane
    source_address: str = ""
    dscp: int = 0  # 0..63, the class of the shipping traffic; 8 (CS1) is the usual background class
    rate_bytes_s: int = 0  # cap of the shipping traffic; 0: none
    linger_s: float = 0.5  # how long small batches wait for company while the server answers
    heartbeat_s: float = 2.0
    request_timeout_s: float = 30.0  # after it the outcome of a batch is unknown
    shutdown_s: float = 10.0  # how long a stopping agent goes on sending
    clock_s: float = 5.0  # between two readings of the `clock` collector
    metrics_port: int = 0  # Prometheus text on 127.0.0.1; 0: off
    host_name: str = ""  # this host's name in every row; empty: the system's
    clock: ClockSettings = ClockSettings()  # who is asked for the clock's bound
    host: HostSettings = HostSettings()  # of the collector of that name
    nic: NicSettings = NicSettings()  # of the collector of that name
    scheduler: SchedulerSettings = SchedulerSettings()  # of the collector of that name
    packet: PacketSettings = PacketSettings()  # likewise
    feeds: FeedsSettings = FeedsSettings()  # of the collector of that name
    otlp: OtlpSettings = OtlpSettings()  # of the collector of that name
    probes: ProbesSettings = ProbesSettings()  # bounds of the collector of that name; its checks are [probes.NAME]
    prometheus: PrometheusSettings = PrometheusSettings()
    lines: LinesSettings = LinesSettings()  # of the collector of that name
    # Of each collector's spool, see collector.spool.settings.
    durability: str = "fsync"
    when_full: str = "block"  # block | drop_oldest | drop_newest
    spool_max_bytes: int = 2 << 30
    spool_min_free_bytes: int = 256 << 20
    segment_bytes: int = 64 << 20
    batch_bytes: int = 8 << 20

    def validate(self) -> None:
        """Raise ConfigError for values that make no sense, naming the field."""
        url = urlsplit(self.server)
        if not (url.scheme in ("http", "https") and url.hostname) and not self.server.startswith("unix:/"):
            raise ConfigError("server", f"{self.server!r} must be http://HOST:PORT, https://HOST:PORT or unix:/PATH")
        if not 0 <= self.dscp <= 63:
            raise ConfigError("dscp", f"{self.dscp} must lie in 0..63")
        if self.rate_bytes_s and self.rate_bytes_s < 16_384:
            raise ConfigError("rate_bytes_s", f"{self.rate_bytes_s} is too slow to ever catch up; 0 or at least 16384")
        if self.source_address:
            try:
                ipaddress.ip_address(self.source_address)
            except ValueError:
                raise ConfigError("source_address", f"{self.source_address!r} is not an IP address") from None
        for name in ("linger_s", "heartbeat_s", "request_timeout_s", "clock_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, f"{getattr(self, name)} must be positive")
        if len(set(self.collectors)) != len(self.collectors):
            raise ConfigError("collectors", f"{list(self.collectors)} names one twice")
        self.spool().validate()
        if len(self.host_name) > 255 or any(c.isspace() or c == "@" for c in self.host_name):
            raise ConfigError("host_name", f"{self.host_name!r} must have at most 255 characters, no blanks and no @")
        for name in ("clock", "feeds", "host", "lines", "nic", "otlp", "packet", "probes", "prometheus", "scheduler"):
            try:
                getattr(self, name).validate()
            except ConfigError as error:
                raise ConfigError(f"{name}.{error.field}", error.problem) from error

    def spool(self, when_full: str = "") -> SpoolSettings:
        """The settings of each collector's spool; `when_full` where the collector has a policy of its own."""
        return SpoolSettings(
            durability=self.durability,
            when_full=when_full or self.when_full,
            max_bytes=self.spool_max_bytes,
            min_free_bytes=self.spool_min_free_bytes,
            segment_bytes=self.segment_bytes,
            batch_bytes=self.batch_bytes,
        )


def agent_body(document: Mapping[str, Any], source: str = "") -> dict[str, Any]:
    """`[agent]` of a configuration with the checks of `[probes.NAME]` in it. Raises ConfigError."""
    body = dict(document.get("agent", {}))
    checks = checks_from(document, source)
    bounds = body.get("probes", {})
    if checks and isinstance(bounds, Mapping):
        body["probes"] = {**bounds, "checks": msgspec.to_builtins(checks)}
    return body
