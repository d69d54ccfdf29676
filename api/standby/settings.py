"""`[standby]`: which server takes over from which, and after how long."""

from __future__ import annotations

from urllib.parse import urlsplit

from collector.settings import ConfigError, Section, duration_ns

NS = 1_000_000_000


class StandbySettings(Section, frozen=True, kw_only=True):
    """A pair of servers. Without `peer` there is none, and this server judges and tells.

    `name` is this server's, not the peer's. `token_file` (0600) holds a token of the peer with scope `operate`.
    The peer is asked every `every`; after `lease` of silence it is taken to be gone. A notification waits up to
    `confirm` for the peer to have it, so that what somebody was told of is known to both.
    """

    name: str = ""
    peer: str = ""
    token_file: str = ""
    ca_file: str = ""
    every: str = "2s"
    lease: str = "20s"
    confirm: str = "6s"

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        if not self.peer:
            return
        try:
            parts = urlsplit(self.peer)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good or parts.username is not None:
            raise ConfigError(
                "peer", f"{self.peer!r} must be http://HOST:PORT or https://HOST:PORT of the other server"
            )
        if not self.name or len(self.name) > 100 or not self.name.isprintable():
            raise ConfigError("name", "must be this server's name, another one than the peer's")
        if not NS // 5 <= self.ns("every") <= 30 * NS:
            raise ConfigError("every", f"must be 200ms to 30s, got {self.every}")
        if self.ns("lease") < 4 * self.ns("every"):
            raise ConfigError("lease", f"must be at least four times every ({self.every}), got {self.lease}")
        if self.ns("confirm") < self.ns("every"):
            raise ConfigError("confirm", f"must be at least every ({self.every}), got {self.confirm}")

    def ns(self, name: str) -> int:
        """A duration of it in nanoseconds."""
        return duration_ns(getattr(self, name), name)
