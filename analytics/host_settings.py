"""What hosts are set to now, what drifts from the declared profile, and what one item was before."""

from __future__ import annotations

import msgspec

from collector.store import Store

MAX_ROWS = 20_000
MAX_HISTORY = 1_000


class HostItem(msgspec.Struct, frozen=True, kw_only=True):
    """One item of one host as it was last read. `state` is "", drift or gone; `expected` what the profile says."""

    host: str
    item: str
    state: str
    value: str
    expected: str
    shipped_ns: int


class HostValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that an item had from `ts_ns` on."""

    ts_ns: int
    host: str
    item: str
    state: str
    value: str


_NOW = f"""
SELECT host, item, argMax(tuple(state, value, expected), ts) AS last, toUnixTimestamp64Nano(max(ts)) AS shipped_ns
FROM hosts
WHERE ({{host:String}} = '' OR host = {{host:String}}) AND ({{item:String}} = '' OR item LIKE {{like:String}})
GROUP BY host, item
HAVING (tupleElement(last, 1) != 'gone' OR tupleElement(last, 3) != '')
    AND ({{drift:UInt8}} = 0 OR tupleElement(last, 1) = 'drift'
         OR (tupleElement(last, 1) = 'gone' AND tupleElement(last, 3) != ''))
ORDER BY host, item LIMIT {MAX_ROWS}
"""  # noqa: S608 - constants only
_HISTORY = f"""
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, host, item, state, value FROM (
    SELECT ts, host, item, state, value,
        lagInFrame(tuple(state, value), 1, tuple('\\0', '')) OVER (PARTITION BY host, item ORDER BY ts
            ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before
    FROM hosts WHERE item = {{item:String}} AND ({{host:String}} = '' OR host = {{host:String}})
) WHERE tuple(state, value) != before ORDER BY ts_ns DESC, host LIMIT {MAX_HISTORY}
"""  # noqa: S608 - constants only


def host_items(store: Store, host: str = "", item: str = "", drift: bool = False) -> list[HostItem]:
    """The items as last read, by host and name. `item` may hold `*` and `?`; `drift` leaves only what differs."""
    pattern = item.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_").replace("*", "%").replace("?", "_")
    params = {"host": host, "item": item, "like": pattern, "drift": int(drift)}
    return [
        HostItem(
            host=row["host"], item=row["item"], state=row["state"], value=row["value"], expected=row["expected"],
            shipped_ns=row["shipped_ns"],
        )
        for row in store.query(_FLAT, params).iter_rows(named=True)
    ]  # fmt: skip


def host_history(store: Store, item: str, host: str = "") -> list[HostValue]:
    """The values that one item had, newest first."""
    frame = store.query(_HISTORY, {"item": item, "host": host})
    return [HostValue(**row) for row in frame.iter_rows(named=True)]


# Tuples are opened in SQL: the store's frames hold plain columns.
_FLAT = f"""
SELECT host, item, tupleElement(last, 1) AS state, tupleElement(last, 2) AS value, tupleElement(last, 3) AS expected,
    shipped_ns FROM ({_NOW})
"""  # noqa: S608 - constants only
