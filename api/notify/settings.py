"""`[notify.NAME]`: who is told of alerts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from collector.settings import ConfigError, Section, duration_ns, section

MAX_TARGETS = 16


class NotifyTarget(Section, frozen=True, kw_only=True):
    """One receiver of alerts: an Alertmanager (v2 API) or a webhook.

    A webhook is https on a port of `ports`, at an address that everybody on the Internet could reach, unless
    `allow_private` or `allow_loopback` (there also http, and any port) says otherwise. `secret_env` names the
    environment variable of the webhook's signing key, or of an Alertmanager's bearer token.
    """

    kind: Literal["alertmanager", "webhook"] = "alertmanager"
    url: str = ""
    secret_env: str = ""
    dashboards: str = ""
    timeout: str = "5s"
    retry_first: str = "1s"
    retry_max: str = "15s"
    resend: str = "1m"
    settle: str = "1m"
    resolved_for: str = "15m"
    keep: str = "24h"
    ports: tuple[int, ...] = (443,)
    allow_loopback: bool = False
    allow_private: bool = False

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        for name in ("url", "dashboards"):
            text = getattr(self, name)
            if text or name == "url":
                check_url(text, name)
        if self.kind == "webhook" and not self.secret_env:
            raise ConfigError("secret_env", "names the environment variable with the signing key; a webhook needs one")
        for name in ("timeout", "retry_first", "retry_max", "resend", "keep"):
            if self.ns(name) < 10_000_000:
                raise ConfigError(name, f"must be at least 10ms, got {getattr(self, name)}")
        for name in ("settle", "resolved_for"):
            self.ns(name)
        if self.ns("timeout") > 30_000_000_000:
            raise ConfigError("timeout", f"must be at most 30s, got {self.timeout}")
        if self.ns("retry_max") < self.ns("retry_first"):
            raise ConfigError("retry_max", f"must not be below retry_first ({self.retry_first}), got {self.retry_max}")
        if not self.ports or not all(1 <= port <= 65535 for port in self.ports):
            raise ConfigError("ports", f"must be ports, 1 to 65535, got {list(self.ports)}")

    def ns(self, name: str) -> int:
        """A duration of it in nanoseconds."""
        return duration_ns(getattr(self, name), name)


def check_url(text: str, name: str) -> None:
    """Raise ConfigError naming the field whose text is no plain http or https URL."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise ConfigError(name, f"is no URL: {error}") from None
    del port
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ConfigError(name, f"must be an http or https URL with a host, got {text!r}")
    if parts.username is not None or parts.password is not None:
        raise ConfigError(name, "must not hold a user or password; name the variable of a secret in secret_env")
    if any(ord(c) <= 32 or ord(c) > 126 for c in text):
        raise ConfigError(name, "must hold no spaces, control characters or letters beyond ASCII")


def targets_from(document: Mapping[str, Any], source: str = "") -> dict[str, NotifyTarget]:
    """The declared targets by name. Raises ConfigError."""
    declared = document.get("notify", {})
    if not isinstance(declared, Mapping) or not all(isinstance(fields, Mapping) for fields in declared.values()):
        raise ConfigError("notify", "must be sections [notify.NAME]", source)
    if len(declared) > MAX_TARGETS:
        raise ConfigError("notify", f"holds {len(declared)} targets, at most {MAX_TARGETS} are served", source)
    return {name: section(fields, NotifyTarget, f"notify.{name}", source) for name, fields in declared.items()}
