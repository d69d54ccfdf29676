"""`[agent.otlp]`: where the receiver listens, what it takes, and what becomes of attributes."""

from __future__ import annotations

from collector.settings import ConfigError, Section, duration_ns


class OtlpSettings(Section, frozen=True, kw_only=True):
    """The receiver of OTLP and JSON lines. Bytes and seconds; every limit is per agent unless it says otherwise."""

    http: str = "127.0.0.1:4318"  # host:port; empty: not served
    grpc: str = "127.0.0.1:4317"
    max_body_bytes: int = 4 << 20  # of one request, compressed and decompressed
    memory_bytes: int = 64 << 20  # of requests being read, decoded and waiting for the disk
    connections: int = 256
    concurrent: int = 16  # requests being answered at once
    header_s: float = 5.0  # to receive the headers
    body_s: float = 10.0  # to receive the body
    idle_s: float = 60.0  # an idle connection is closed after it
    answer_s: float = 5.0  # how long a request waits for the disk; below the usual client's 10 s
    retry_s: int = 1  # what a refused client is told to wait
    max_past: str = "10d"  # records older than this are rejected, as the server would
    max_future: str = "60s"
    attributes: int = 128  # of one record
    operations: int = 1_000  # span names with points of their own; others share one name
    label_sets: int = 10_000  # distinct label sets
    labels: tuple[str, ...] = (  # attributes of spans and resources that become labels
        "service.version",
        "deployment.environment.name",
        "http.request.method",
        "http.response.status_code",
        "rpc.method",
        "messaging.destination.name",
        "error.type",
    )
    key: str = "tailsight.key"  # the attribute of logs that names a message, as SPACE:ID

    def validate(self) -> None:
        """Raise ConfigError for addresses, limits and durations that make no sense, naming the field."""
        for name in ("http", "grpc"):
            if getattr(self, name):
                address(getattr(self, name), name)
        for name in ("max_body_bytes", "memory_bytes", "connections", "concurrent", "retry_s", "attributes",
                     "operations", "label_sets"):  # fmt: skip
            if getattr(self, name) < 1:
                raise ConfigError(name, f"{getattr(self, name)} must be at least 1")
        if self.memory_bytes < 8 * self.max_body_bytes:
            raise ConfigError("memory_bytes", f"must be at least 8 times max_body_bytes ({8 * self.max_body_bytes})")
        for name in ("header_s", "body_s", "idle_s", "answer_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(name, f"{getattr(self, name)} must be positive")
        duration_ns(self.max_past, "max_past")
        duration_ns(self.max_future, "max_future")
        if not self.http and not self.grpc:
            raise ConfigError("http", "http and grpc are both empty: nothing would be served")


def address(text: str, field: str) -> tuple[str, int]:
    """`host:port` or `[v6]:port` in its parts. Raises ConfigError naming `field`."""
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port.isdigit() or int(port) > 65_535:
        raise ConfigError(field, f"{text!r} is not host:port")
    return host, int(port)
