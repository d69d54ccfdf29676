"""Changes that a collector saw: rows of CHANGES, and which of them the door believes.

A change's id is made from all that it says, its time included: the same change made again has the same id.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from collector.record import CHANGES, Columns

# What sort of change; `network` is a path or a route that moved.
KINDS = ("deploy", "config", "flag", "slo", "rule", "network")
MAX_WHAT = 1_000
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NAMESPACE = uuid.UUID("6f0f7d8e-5a0c-5f52-9b0e-2f6c7a1f5b11")


@dataclass(frozen=True, slots=True)
class Change:
    """One change: what became different, in words, and who says so."""

    ts_ns: int
    kind: str
    what: str
    who: str
    host: str = ""
    service: str = ""
    version: str = ""
    url: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)


def change_id(change: Change) -> str:
    """A UUID (version 5, RFC 9562) of everything that the change says."""
    parts = [change.ts_ns, change.kind, change.what, change.who, change.host, change.service, change.version]
    text = msgspec.json.encode([*parts, change.url, dict(change.labels)], order="sorted").decode()
    return str(uuid.uuid5(_NAMESPACE, text))


def change_columns(changes: Iterable[Change]) -> Columns:
    """CHANGES rows. A longer `what` than the door takes is cut, which its end then says."""
    return Columns.from_rows(
        CHANGES,
        (
            {
                "ts_ns": c.ts_ns,
                "id": change_id(c),
                "kind": c.kind,
                "who": c.who,
                "what": c.what if len(c.what) <= MAX_WHAT else c.what[: MAX_WHAT - 3] + "...",
                "host": c.host,
                "service": c.service,
                "version": c.version,
                "url": c.url,
                "labels": msgspec.json.encode(dict(c.labels), order="sorted").decode(),
            }
            for c in changes
        ),
    )


def is_change(change_id: str, kind: str, url: str, labels: str) -> bool:
    """Whether a shipped row can be shown: its id a UUID, its kind known, its link a web address, its labels texts."""
    if kind not in KINDS or not _UUID.fullmatch(change_id):
        return False
    # It is shown as a link: javascript: and the like must not get that far.
    if url and not url.startswith(("https://", "http://")):
        return False
    try:
        msgspec.json.decode(labels, type=dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
    return True
