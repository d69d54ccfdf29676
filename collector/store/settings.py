"""`[store]`: which engine holds the data. Embedded by default; with `hosts`, ClickHouse servers."""

from __future__ import annotations

import os
from pathlib import Path

from collector.settings import ConfigError, Section


class StoreSettings(Section, frozen=True, kw_only=True):
    """`[store]`. Without `hosts` the embedded engine on the data directory; with them, servers in this order.

    The hosts must be replicas of the same data: what one has acknowledged is looked for on another. The password comes
    from a file (only its owner may read it) or an environment variable, never from the configuration itself.
    """

    hosts: tuple[str, ...] = ()  # "name:port"; 9000, or 9440 with TLS, when the port is left out
    database: str = "tailsight"
    user: str = "default"
    password_file: str = ""
    password_env: str = ""
    secure: bool = False
    verify: bool = True
    ca: str = ""
    cert: str = ""
    key: str = ""
    compression: bool = True
    connect_timeout_s: float = 5.0
    cluster: str = ""  # tables are made ON CLUSTER with replicated engines

    def validate(self) -> None:
        """Raise ConfigError naming settings that contradict each other."""
        for host in self.hosts:
            _, _, port = host.partition(":")
            if not host or (":" in host and not (port.isdigit() and 0 < int(port) < 65_536)):
                raise ConfigError("hosts", f"{host!r} is not name or name:port")
        if self.password_file and self.password_env:
            raise ConfigError("password_env", "give password_file or password_env, not both")
        if (self.ca or self.cert or self.key) and not self.secure:
            raise ConfigError("secure", "ca, cert and key need secure = true")
        if bool(self.cert) != bool(self.key):
            raise ConfigError("key", "cert and key belong together")

    def addresses(self) -> list[tuple[str, int]]:
        """Hosts with their ports."""
        default = 9440 if self.secure else 9000
        return [(name, int(port or default)) for name, _, port in (host.partition(":") for host in self.hosts)]

    def password(self) -> str:
        """The password. Raises ConfigError when its file is readable by others or its variable is not set."""
        if self.password_env:
            if self.password_env not in os.environ:
                raise ConfigError("store.password_env", f"the variable {self.password_env} is not set")
            return os.environ[self.password_env]
        if not self.password_file:
            return ""
        path = Path(self.password_file)
        try:
            if path.stat().st_mode & 0o077:
                raise ConfigError("store.password_file", f"{path} can be read by others; chmod 600 it")
            return path.read_text("utf-8").strip()
        except OSError as error:
            raise ConfigError("store.password_file", f"{path} cannot be read: {error.strerror}") from error
