"""The page for a browser: static files beside this module, read once and served as they are.

There is no build: the modules are what the browser runs. Nothing is fetched from elsewhere, and the policy that the
browser is given would not let it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

INDEX = "index.html"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
# Scripts and styles from our files only, no text is taken for markup (trusted types), and no page may frame it.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "X-Frame-Options": "DENY",
}


@dataclass(frozen=True, slots=True)
class Asset:
    """A file: its bytes, its media type, and a tag that changes with its bytes."""

    body: bytes
    media: str
    etag: str


@cache
def assets() -> Mapping[str, Asset]:
    """The page's files by name."""
    found = {}
    for path in sorted(Path(__file__).parent.iterdir()):
        if path.suffix in _KINDS:
            body = path.read_bytes()
            found[path.name] = Asset(body, _KINDS[path.suffix], f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found
