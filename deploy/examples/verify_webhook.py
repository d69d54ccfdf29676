"""Verify a Tailsight webhook. Copy it: it needs nothing but Python.

    body = the request's body, as bytes, before any parsing
    verify(secret, headers, body)        # raises ValueError; returns the notification's id

The id is the same for every try. Deliveries are at least once: remember the ids you have handled (those of the last
days are enough) and answer 200 for one that comes again. `dedup_key` in the body is the same for all notifications of
one incident: firing, acknowledged and resolved.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Mapping

MAX_AGE_S = 300  # a recorded request that is replayed later is refused


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now_s: float | None = None) -> str:
    """The notification's id. Raises ValueError when the request is not from the holder of `secret`, or is a replay."""
    given = {name.lower(): value for name, value in headers.items()}
    try:
        key, stamp, signature = (given[f"tailsight-{name}"] for name in ("id", "timestamp", "signature"))
    except KeyError as error:
        raise ValueError(f"the header {error} is missing") from None
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) <= 12):
        raise ValueError("the timestamp is no number of seconds")
    wanted = hmac.new(secret, f"{stamp}.{key}.".encode() + body, hashlib.sha256).hexdigest()
    # There may be several signatures while a secret is changed; compare without telling how much of one is right.
    if not any(hmac.compare_digest(f"v1={wanted}".encode(), one.strip().encode()) for one in signature.split(",")):
        raise ValueError("the signature is wrong")
    if abs((time.time() if now_s is None else now_s) - int(stamp)) > MAX_AGE_S:
        raise ValueError(f"the request is more than {MAX_AGE_S} s old")
    return key
