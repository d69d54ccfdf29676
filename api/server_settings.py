"""`[server]` of `tailsight.toml`: where the doors listen and what one client may cost."""

from __future__ import annotations

import ipaddress
from typing import Literal

from limits import parse as parse_rate

from api.public_url import check_public_url
from collector.settings import ConfigError, Section

OFF_LOOPBACK: Literal["off_loopback"] = "off_loopback"


def is_loopback(host: str) -> bool:
    """Whether a bind or client address is this machine's own; a name other than `localhost` is not."""
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class ServerSettings(Section, frozen=True, kw_only=True):
    """The server's address, its authentication policy and its limits."""

    host: str = "127.0.0.1"
    port: int = 8472  # 0 lets the kernel choose; server.json says which
    public_url: str = ""  # the address for links in alerts, where people's browsers reach it
    tls_cert: str = ""
    tls_key: str = ""
    allow_plain_text: bool = False  # listen off loopback without TLS
    require_token: Literal["off_loopback", "always"] = OFF_LOOPBACK

    # One request. Bodies of /v1/ingest are whole batches; every other body is a small JSON document.
    max_ingest_bytes: int = 16 << 20
    max_body_bytes: int = 1 << 20
    max_header_bytes: int = 16 << 10
    max_headers: int = 64
    max_target_bytes: int = 8 << 10  # path and query string
    header_seconds: float = 5.0
    body_seconds: float = 15.0
    write_seconds: float = 10.0  # how long one chunk of an answer may wait for the reader
    response_seconds: float = 120.0  # how long a whole answer may take to be read; the event stream is exempt
    max_rows: int = 100_000

    # One query at the store.
    query_seconds: float = 10.0
    query_memory_bytes: int = 1 << 30
    queries_at_once: int = 8
    queries_per_client: int = 4
    queries_waiting: int = 16

    # One statement at the SQL door (/clickhouse); its time and memory are those of a query.
    sql_rows: int = 1_000_000
    sql_rows_to_read: int = 1_000_000_000
    sql_bytes: int = 64 << 20

    # Rates, as the `limits` library writes them.
    query_rate: str = "1200/minute"
    ingest_rate: str = "12000/minute"
    refused_rate: str = "30/minute"  # refused tokens per address, after which the answer is 429

    # Ingest: what may be in memory between the socket and the store.
    ingest_threads: int = 3
    ingest_queue_bytes: int = 64 << 20

    # /v1/stream
    stream_readers: int = 64
    stream_buffer: int = 512  # events one reader may be behind
    stream_history: int = 4096  # events kept for readers that come back

    session_hours: float = 12.0  # how long a browser stays signed in
    heartbeat_seconds: float = 15.0  # a collector that says nothing for so long is silent
    stop_seconds: float = 10.0

    @property
    def open_on_loopback(self) -> bool:
        """Whether requests from this machine need no token."""
        return self.require_token == OFF_LOOPBACK and is_loopback(self.host)

    def validate(self) -> None:
        """Raise ConfigError naming the setting that cannot work."""
        if not 0 <= self.port <= 65_535:
            raise ConfigError("server.port", f"{self.port} is not a port; use 0..65535")
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ConfigError("server.tls_cert", "needs server.tls_key, and the other way round")
        check_public_url(self.public_url)
        for name in (
            "max_ingest_bytes",
            "max_body_bytes",
            "max_header_bytes",
            "max_headers",
            "max_target_bytes",
            "header_seconds",
            "body_seconds",
            "write_seconds",
            "response_seconds",
            "max_rows",
            "query_seconds",
            "query_memory_bytes",
            "queries_at_once",
            "queries_per_client",
            "queries_waiting",
            "sql_rows",
            "sql_rows_to_read",
            "sql_bytes",
            "ingest_threads",
            "ingest_queue_bytes",
            "stream_readers",
            "stream_buffer",
            "stream_history",
            "session_hours",
            "heartbeat_seconds",
            "stop_seconds",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"server.{name}", f"must be above 0, got {getattr(self, name)}")
        if self.ingest_queue_bytes < self.max_ingest_bytes:
            raise ConfigError(
                "server.ingest_queue_bytes",
                f"{self.ingest_queue_bytes} is below max_ingest_bytes {self.max_ingest_bytes}: "
                "the largest batch could never enter",
            )
        for name in ("query_rate", "ingest_rate", "refused_rate"):
            try:
                parse_rate(getattr(self, name))
            except ValueError:
                raise ConfigError(
                    f"server.{name}", f'{getattr(self, name)!r} is not a rate; write for example "600/minute"'
                ) from None
        if not is_loopback(self.host) and not self.tls_cert and not self.allow_plain_text:
            raise ConfigError(
                "server.host",
                f"{self.host} is off loopback and there is no TLS: set server.tls_cert and server.tls_key, "
                "or say server.allow_plain_text = true if something in front of it does TLS",
            )
