"""`[probes.NAME]` and `[agent.probes]`: what is checked, how often, from where, and within which bounds."""

from __future__ import annotations

import ipaddress
import math
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from collector.settings import ConfigError, Section, duration_ns, section

NS = 1_000_000_000
MAX_CHECKS = 200
Kind = Literal["tcp", "tls", "http", "udp", "fix"]
PHASES: Mapping[str, tuple[str, ...]] = {
    "tcp": ("resolve", "connect"),
    "tls": ("resolve", "connect", "tls"),
    "http": ("resolve", "connect", "first_byte", "body"),
    "https": ("resolve", "connect", "tls", "first_byte", "body"),
    "udp": ("resolve", "reply"),
    "fix": ("resolve", "connect", "logon"),
    "fixs": ("resolve", "connect", "tls", "logon"),
}
# Where each phase ends. The first one begins at `probe_start`, the intended time.
ENDS = {
    "resolve": "probe_resolved", "connect": "probe_connected", "tls": "probe_secured",
    "first_byte": "probe_first_byte", "body": "probe_done", "reply": "probe_done", "logon": "probe_done",
}  # fmt: skip
START, LAST = "probe_start", "probe_done"


class Check(Section, frozen=True, kw_only=True):
    """One check. `target` is HOST:PORT, of `http` a URL. It is begun every `every`, whatever became of the one before.

    `via` is the local address or interface that it leaves by, `at` an address that is used instead of the host's: so a
    second line or a standby is exercised on purpose. `tls` puts FIX over TLS; `ca_file` and `server_name` are for TLS.
    Of `http`: `method` and the `statuses` that are good (2xx and 3xx when empty). Of `udp`: `send`, and `expect`, how
    the answer has to begin, as text. Of `fix`: the header's fields; `password_env` names an environment variable.
    """

    kind: Kind
    target: str
    every: str = "10s"
    timeout: str = "5s"
    via: str = ""
    at: str = ""
    tls: bool = False
    ca_file: str = ""
    server_name: str = ""
    verify: bool = True
    method: Literal["GET", "HEAD"] = "GET"
    statuses: tuple[int, ...] = ()
    send: str = "ping"
    expect: str = ""
    fix_version: str = "FIX.4.4"
    sender: str = ""
    receiver: str = ""
    username: str = ""
    password_env: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        try:
            host, port = self.place
        except ValueError:
            host, port = "", 0
        if not host or not 1 <= port <= 65_535:
            form = "http://HOST[:PORT]/PATH or https://..." if self.kind == "http" else "HOST:PORT"
            raise ConfigError("target", f"{self.target!r} must be {form}")
        if any(ord(c) <= 32 or ord(c) > 126 for c in self.target):
            raise ConfigError("target", "must hold no spaces, control characters or letters beyond ASCII")
        if self.ns("every") < NS // 10:
            raise ConfigError("every", f"must be at least 100ms, got {self.every}")
        if not NS // 100 <= self.ns("timeout") <= 60 * NS:
            raise ConfigError("timeout", f"must be 10ms to 60s, got {self.timeout}")
        if self.at:
            try:
                ipaddress.ip_address(self.at)
            except ValueError:
                raise ConfigError("at", f"{self.at!r} is not an IP address") from None
        if len(self.via) > 64 or any(c.isspace() for c in self.via):
            raise ConfigError("via", f"{self.via!r} must be a local IP address or the name of an interface")
        if self.kind == "fix":
            for name in ("sender", "receiver"):
                if not getattr(self, name):
                    raise ConfigError(name, "must be given: a FIX session has two ends")
            for name in ("fix_version", "sender", "receiver", "username"):
                if any(ord(c) < 32 or ord(c) > 126 for c in getattr(self, name)):
                    raise ConfigError(name, "must be printable ASCII")
        if self.tls and self.kind != "fix":
            raise ConfigError("tls", "is for kind fix; use kind tls, or https:// in an http target")
        if len(self.send) > 1_400 or len(self.expect) > 1_400:
            raise ConfigError("send", "a datagram of at most 1400 characters")

    @property
    def place(self) -> tuple[str, int]:
        """Host and port. Raises ValueError."""
        if self.kind == "http":
            parts = urlsplit(self.target)
            if parts.scheme not in ("http", "https") or parts.username is not None:
                raise ValueError("no URL")
            return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
        parts = urlsplit(f"//{self.target}")
        if parts.path or parts.query or parts.username is not None:
            raise ValueError("no address")
        return parts.hostname or "", parts.port or 0

    @property
    def secured(self) -> bool:
        """Whether there is a TLS handshake."""
        return self.kind == "tls" or self.tls or (self.kind == "http" and self.target.startswith("https:"))

    @property
    def phases(self) -> tuple[str, ...]:
        """Its phases in order."""
        return PHASES[self.kind + "s" if self.secured and self.kind != "tls" else self.kind]

    @property
    def at_once(self) -> int:
        """How many of it may be under way at the same time."""
        return math.ceil(self.ns("timeout") / self.ns("every")) + 1

    def ns(self, name: str) -> int:
        """A duration of it in nanoseconds."""
        return duration_ns(getattr(self, name), name)


class ProbesSettings(Section, frozen=True, kw_only=True):
    """`[agent.probes]`: bounds of all checks together. `checks` are those of `[probes.NAME]`.

    `allow` are the networks that checks may lead to; empty: every one but link-local and multicast addresses.
    """

    max_running: int = 64
    max_rate: float = 100.0  # checks per second, all together
    allow: tuple[str, ...] = ()
    checks: dict[str, Check] = {}  # noqa: RUF012 - msgspec copies it

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense, or costs more than is allowed."""
        for index, text in enumerate(self.allow):
            try:
                ipaddress.ip_network(text)
            except ValueError:
                raise ConfigError(f"allow[{index}]", f"{text!r} is no network; write 10.0.0.0/8") from None
        if not 1 <= self.max_running <= 512:
            raise ConfigError("max_running", f"{self.max_running} must lie in 1..512")
        if not 0 < self.max_rate <= 1_000:
            raise ConfigError("max_rate", f"{self.max_rate:g} must be above 0 and at most 1000 per second")
        checked(self.checks)
        needed = sum(one.at_once for one in self.checks.values())
        if needed > self.max_running:
            raise ConfigError(
                "max_running",
                f"{self.max_running} is too few: when nothing answers, {needed} checks are under way at once "
                "(timeout / every of each, and one); raise it, shorten timeout or lengthen every",
            )
        rate = sum(NS / one.ns("every") for one in self.checks.values())
        if rate > self.max_rate:
            raise ConfigError("max_rate", f"the checks make {rate:g} per second, at most {self.max_rate:g} are allowed")


def checked(checks: Mapping[str, Check]) -> None:
    """Raise ConfigError naming the check and what is wrong with it."""
    if len(checks) > MAX_CHECKS:
        raise ConfigError("checks", f"there are {len(checks)}, at most {MAX_CHECKS} are run")
    for name, one in checks.items():
        if not 1 <= len(name) <= 57 or not all(c.islower() or c.isdigit() or c in "_.-" for c in name):
            raise ConfigError(f"checks.{name}", "a name is of lower case letters, digits, '_', '-' and '.', at most 57")
        try:
            one.validate()
        except ConfigError as error:
            raise ConfigError(f"checks.{name}.{error.field}", error.problem) from error


def checks_from(document: Mapping[str, Any], source: str = "") -> dict[str, Check]:
    """The checks of `[probes.NAME]`. Raises ConfigError."""
    declared = document.get("probes", {})
    if not isinstance(declared, Mapping) or not all(isinstance(fields, Mapping) for fields in declared.values()):
        raise ConfigError("probes", "must be sections [probes.NAME]", source)
    found = {name: section(fields, Check, f"probes.{name}", source) for name, fields in declared.items()}
    try:
        checked(found)
    except ConfigError as error:
        raise ConfigError(error.field.replace("checks.", "probes."), error.problem, source) from error
    return found
