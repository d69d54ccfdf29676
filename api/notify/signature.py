"""The signature of a webhook: HMAC-SHA256 over `timestamp.id.body`."""

from __future__ import annotations

import hashlib
import hmac


def signed(secret: bytes, key: str, timestamp_s: int, body: bytes) -> dict[str, str]:
    """The headers of one try: the same id for every try, its own timestamp and signature."""
    digest = hmac.new(secret, f"{timestamp_s}.{key}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        "Tailsight-Id": key,
        "Tailsight-Timestamp": str(timestamp_s),
        "Tailsight-Signature": f"v1={digest}",
    }
