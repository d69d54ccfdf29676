"""Events: what programs said about messages, by key, kind, service and time."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import msgspec

from collector.store import Store

_EVENTS = """
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, key, toString(host) AS host, toString(service) AS service,
    toString(kind) AS kind, body, attributes, batch, seq
FROM events
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
"""
_FIRST_NS, _LAST_NS = 0, 9_000_000_000_000_000_000


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """What a program said at one moment; `key` is 0 when it was about no message. `batch` and `seq` name the row."""

    ts_ns: int
    key: int
    host: str
    service: str
    kind: str
    body: str
    attributes: dict[str, Any]
    batch: int
    seq: int


def events(
    store: Store,
    *,
    keys: Collection[int] | None = None,
    kind: str | None = None,
    service: str | None = None,
    from_ns: int | None = None,
    to_ns: int | None = None,
    before: tuple[int, int, int] | None = None,
    limit: int = 100,
) -> list[Event]:
    """At most `limit` events, newest first; `before` is (ts_ns, batch, seq) of the last one of the page before."""
    params: dict[str, Any] = {
        "from_ns": _FIRST_NS if from_ns is None else from_ns,
        "to_ns": _LAST_NS if to_ns is None else to_ns,
        "limit": limit,
    }
    sql = _EVENTS
    if keys is not None:
        sql += " AND key IN {keys:Array(UInt64)}"
        params["keys"] = sorted(keys)
    if kind is not None:
        sql += " AND kind = {kind:String}"
        params["kind"] = kind
    if service is not None:
        sql += " AND service = {service:String}"
        params["service"] = service
    if before is not None:
        sql += " AND (toUnixTimestamp64Nano(ts), batch, seq) < ({at:Int64}, {batch:UInt64}, {seq:UInt64})"
        params["at"], params["batch"], params["seq"] = before
    rows = store.query(f"{sql} ORDER BY ts DESC, batch DESC, seq DESC LIMIT {{limit:UInt32}}", params)
    return [
        Event(**{**row, "attributes": msgspec.json.decode(row["attributes"] or "{}")})
        for row in rows.iter_rows(named=True)
    ]
