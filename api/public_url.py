"""`[server] public_url`: the address at which people's browsers reach the server, for links that leave it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api.notify.settings import check_url
from collector.settings import ConfigError

FIELD = "server.public_url"


def check_public_url(text: str) -> None:
    """Raise ConfigError when a link cannot be made by appending a path to `text`; "" is none and fine."""
    if not text:
        return
    if len(text) > 500:
        raise ConfigError(FIELD, f"must have at most 500 characters, got {len(text)}")
    if "@" in text:
        raise ConfigError(FIELD, "must not hold a user or password: it stands in every alert")
    if "?" in text or "#" in text:
        raise ConfigError(FIELD, f"must end with the host, port or path, without ? and #, got {text!r}")
    check_url(text, FIELD)


def public_url_of(document: Mapping[str, Any], source: str = "") -> str:
    """The setting from a configuration, for commands that need nothing else of the server. Raises ConfigError."""
    server = document.get("server", {})
    text = server.get("public_url", "") if isinstance(server, Mapping) else ""
    if not isinstance(text, str):
        raise ConfigError(FIELD, f"must be a text, got {text!r}", source)
    try:
        check_public_url(text)
    except ConfigError as error:
        raise error.at(source) from None
    return text
