"""The ledger: per collector and boot, where every produced event is.

    produced = stored_unique + dropped{reason} + quarantined + in_spool + in_flight + difference

The ledger's rows say which sequence numbers arrived, and as what. The last heartbeat says how many were produced and
below which number all is acknowledged (`acked`). Numbers at or above `acked` that the ledger has not are still with the
collector; numbers below it that the ledger has not are the difference, which must be 0. What the ledger got after the
heartbeat is counted as arrived and not as in the spool, so both may be read at different moments.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

import msgspec

from collector.record import DropReason
from collector.store import Store

Range = tuple[int, int]  # [first, end) of sequence numbers


class LedgerRow(msgspec.Struct, frozen=True, kw_only=True):
    """The account of one collector and boot."""

    collector: str
    boot: int
    name: str
    host: str
    produced: int
    stored_unique: int
    dropped: dict[str, int]
    quarantined: int
    in_spool: int
    in_flight: int
    difference: int


class CollectorState(msgspec.Struct, frozen=True, kw_only=True):
    """What a collector last said of itself; `live` while its last heartbeat is recent and it has not stopped."""

    collector: str
    boot: int
    name: str
    host: str
    status: str
    reason: str
    live: bool
    last_ns: int
    watermark_ns: int
    produced: int
    acked: int
    in_flight: int
    spool_bytes: int


def union(ranges: Iterable[Range]) -> list[Range]:
    """Ranges merged: ascending, apart, empty ones gone."""
    merged: list[Range] = []
    for first, end in sorted(r for r in ranges if r[0] < r[1]):
        if merged and first <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((first, end))
    return merged


def covered(ranges: Iterable[Range], low: int, high: int) -> int:
    """How many numbers of [low, high) the ranges hold, each once."""
    return sum(max(0, min(end, high) - max(first, low)) for first, end in union(ranges))


def outstanding(arrived: Iterable[Range], produced: int, acked: int, in_flight: int) -> tuple[int, int, int]:
    """(in_spool, in_flight, difference) of a boot whose events are numbered from 0.

    `arrived` are the ledger's ranges; the heartbeat's `produced` may be older than they are.
    """
    ranges = union(arrived)
    top = max(produced, ranges[-1][1] if ranges else 0)
    below = min(acked, top)
    difference = below - covered(ranges, 0, below)
    waiting = (top - below) - covered(ranges, below, top)
    flying = min(in_flight, waiting)
    return waiting - flying, flying, difference


# A boot's account, and each of its hours', from the table's projection: rows by the hour, however many batches. Batches
# are edges from their first number to their end, and all lead upwards: the ends are the firsts, but for the lowest and
# the highest, exactly when one chain without gap, overlap or repetition leads from the lowest to the highest. The sums
# of hashes compare the two, whatever order batches came in.
_ACCOUNT = """
SELECT toString(collector) AS id, boot, {hours}min(low) AS first, max(high) AS end, any(called) AS name,
    any(at) AS at_host, sum(s) AS stored, sum(q) AS bad, sumMap(r.1, r.2) AS reasons,
    sum(ends) - sum(firsts) = sipHash64(end) - sipHash64(first) AS tiled
FROM (
    SELECT toStartOfHour(cut) AS hour, collector, boot, min(seq_first) AS low, max(seq_first + events) AS high,
        sum(sipHash64(seq_first)) AS firsts, sum(sipHash64(seq_first + events)) AS ends, any(name) AS called,
        any(host) AS at, sum(stored) AS s, sum(quarantined) AS q,
        sumMap(CAST(reasons, 'Array(String)'), reason_counts) AS r
    FROM batches{where} GROUP BY hour, collector, boot
)
GROUP BY collector, boot{by_hour}
ORDER BY id, boot, first
"""
_BOOT = " WHERE collector = {collector:UUID} AND boot = {boot:UInt32}"
_BOOTS = _ACCOUNT.format(hours="", where="", by_hour="")
_HOURS = _ACCOUNT.format(hours="toUInt32(hour) AS hour_s, ", where=_BOOT, by_hour=", hour")

# One by one, the batches of hours that are not one chain: consecutive ones are merged into ranges where they lie.
# Ranges and sums come from one statement, so that a batch which lands meanwhile is in both or in neither.
_BATCHES = f"""
SELECT min(seq_first) AS first, max(ends) AS end, any(called) AS name, any(at) AS at_host, sum(s) AS stored,
    sum(q) AS bad, sumMap(r, c) AS reasons
FROM (
    SELECT *, sum(gap) OVER (ORDER BY seq_first, ends) AS island
    FROM (
        SELECT *,
            seq_first > max(ends) OVER (
                ORDER BY seq_first, ends ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS gap
        FROM (
            SELECT seq_first, seq_first + any(events) AS ends, any(name) AS called, any(host) AS at,
                any(stored) AS s, any(quarantined) AS q, any(CAST(reasons, 'Array(String)')) AS r,
                any(reason_counts) AS c
            FROM batches{_BOOT} AND toUInt32(toStartOfHour(cut)) IN {{hours:Array(UInt32)}}
            GROUP BY seq_first
        )
    )
)
GROUP BY island
ORDER BY first
"""  # noqa: S608 - fixed text

# From the table's projection, as above.
_LAST = """
SELECT toString(collector) AS id, boot, argMax(h.called, h.at) AS called, argMax(h.at_host, h.at) AS at_host,
    argMax(toString(h.state), h.at) AS state, argMax(h.why, h.at) AS why, toUnixTimestamp64Nano(max(h.at)) AS last_ns,
    toUnixTimestamp64Nano(max(h.mark)) AS watermark_ns, max(h.most) AS most_produced, max(h.told) AS most_acked,
    argMax(h.flying, h.at) AS flying, argMax(h.bytes, h.at) AS bytes
FROM (
    SELECT toStartOfHour(ts) AS hour, collector, boot, argMax(name, ts) AS called, argMax(host, ts) AS at_host,
        argMax(status, ts) AS state, argMax(reason, ts) AS why, max(ts) AS at, max(watermark) AS mark,
        max(produced) AS most, max(acked) AS told, argMax(in_flight, ts) AS flying, argMax(spool_bytes, ts) AS bytes
    FROM heartbeats GROUP BY hour, collector, boot
) AS h
GROUP BY collector, boot ORDER BY called, id, boot
"""


def ledger(store: Store) -> list[LedgerRow]:
    """The account of every collector and boot that the store knows, by name and boot.

    The heartbeats are read first: what arrives between the two reads is then in the ledger and leaves the spool.
    """
    beats = {(b["id"], b["boot"]): b for b in store.query(_LAST).iter_rows(named=True)}
    islands = {
        (whole["id"], whole["boot"]): [whole] if whole["tiled"] else _islands(store, whole["id"], whole["boot"])
        for whole in store.query(_BOOTS).iter_rows(named=True)
    }
    rows = []
    for key in sorted(set(beats) | set(islands)):
        beat, booked = beats.get(key), islands.get(key, [])
        arrived = [(island["first"], island["end"]) for island in booked]
        produced = max(beat["most_produced"] if beat else 0, *(end for _, end in arrived), 0)
        spool, flying, difference = outstanding(
            arrived, produced, beat["most_acked"] if beat else 0, beat["flying"] if beat else 0
        )
        dropped: Counter[str] = Counter()
        for island in booked:
            dropped.update(_dropped(island["reasons"]))
        rows.append(
            LedgerRow(
                collector=key[0],
                boot=key[1],
                name=beat["called"] if beat else booked[0]["name"],
                host=beat["at_host"] if beat else booked[0]["at_host"],
                produced=produced,
                stored_unique=sum(island["stored"] for island in booked),
                dropped=dict(dropped),
                quarantined=sum(island["bad"] for island in booked),
                in_spool=spool,
                in_flight=flying,
                difference=difference,
            )
        )
    return sorted(rows, key=lambda r: (r.name, r.collector, r.boot))


def _islands(store: Store, collector: str, boot: int) -> list[dict[str, Any]]:
    """The ranges of a boot that is not one chain: its hours as they are, and of those that are none their batches."""
    params = {"collector": collector, "boot": boot}
    hours = list(store.query(_HOURS, params).iter_rows(named=True))
    overlapping: set[int] = set()
    highest = None  # of the hours so far, the one that reaches highest
    for hour in hours:  # ascending by first
        if highest is not None and hour["first"] < highest["end"]:
            overlapping |= {hour["hour_s"], highest["hour_s"]}
        if highest is None or hour["end"] > highest["end"]:
            highest = hour
    doubtful = {hour["hour_s"] for hour in hours if not hour["tiled"]} | overlapping
    if not doubtful:
        return hours
    batches = store.query(_BATCHES, {**params, "hours": sorted(doubtful)})
    return [hour for hour in hours if hour["hour_s"] not in doubtful] + list(batches.iter_rows(named=True))


def collectors(store: Store, now_ns: int, live_ns: int = 15_000_000_000) -> list[CollectorState]:
    """What every collector's newest boot last said of itself, by name."""
    newest = {b["id"]: b for b in sorted(store.query(_LAST).iter_rows(named=True), key=lambda b: b["boot"])}
    return [
        CollectorState(
            collector=b["id"], boot=b["boot"], name=b["called"], host=b["at_host"], status=b["state"], reason=b["why"],
            live=b["state"] != "stopped" and b["last_ns"] >= now_ns - live_ns,
            last_ns=b["last_ns"], watermark_ns=b["watermark_ns"], produced=b["most_produced"], acked=b["most_acked"],
            in_flight=b["flying"], spool_bytes=b["bytes"],
        )
        for b in sorted(newest.values(), key=lambda b: (b["called"], b["id"]))
    ]  # fmt: skip


_DROPS = {reason.value for reason in DropReason}


def _dropped(reasons: Any) -> dict[str, int]:
    """The drop reasons out of `sumMap`'s pair of arrays (the others are reasons of quarantine)."""
    names, numbers = reasons.values() if isinstance(reasons, dict) else reasons
    return {name: int(n) for name, n in zip(names, numbers, strict=True) if name in _DROPS}
