"""Plays a recording again on the virtual clock, and takes the result into the store as a history is."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

from analytics.backfill import backfill
from analytics.due import LEVEL_NS
from analytics.ledger import ledger
from analytics.paths import Path as LatencyPath
from analytics.window_settings import WindowSettings
from api.demo.control import FOLDER
from api.demo.history.calendar import HOUR_NS, NS
from api.demo.history.feed import Feed
from api.demo.history.hours import HOST
from api.demo.history.making import pack
from api.demo.history.plan import Range, refuse_others
from api.demo.history.recording import Inputs
from api.demo.history.shipping import Shipping, collector_of
from api.demo.history.simulation import OrderPath
from api.demo.history.tape import Tape
from api.demo.market_data import Datagram
from api.demo.wire import WireError
from collector.landing import Landing, LandingSettings
from collector.points import Point
from collector.store import Store

_EDGE_NS = 60 * NS


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a recording came to. The same recording has the same digest, of all stamps and links, wherever it plays."""

    from_ns: int
    to_ns: int
    datagrams: int
    quotes: int
    orders: int
    stamps: int
    links: int
    faults: int
    digest: str
    duplicates: int
    messages: int
    quarantined: int
    difference: int
    seconds: float


def play(inputs: Inputs) -> OrderPath:
    """The recording's datagrams through the order path, at their times. Raises WireError for what is no datagram."""
    tape = Tape(HOST)
    path = OrderPath(
        tape, inputs.delays, inputs.faults, inputs.seed, (inputs.from_ns // 1_000_000 & 0xFFFF_FFFF) << 32 | 1
    )
    path.intended_behind_ns = inputs.monotonic_ns
    feed = Feed(path, path.delay("feed.send"))
    for sent_ns, payload in inputs.datagrams:
        datagram = Datagram.decode(payload)
        if datagram.messages:  # heartbeats move nothing here: a gap is seen by what follows it
            path.events.run(sent_ns)
            feed.sent(sent_ns, payload, inputs.monotonic_ns)
    path.events.run()
    return path


def digest(tape: Tape) -> str:
    """SHA-256 of all columns."""
    total = hashlib.sha256()
    for columns in tape.columns():
        for column in columns.table.columns:
            total.update(f"{columns.table.name}.{column.name}:{len(columns)}\n".encode())
            total.update("\0".join(columns.texts.get(column.name, ())).encode())
            total.update(columns.values[column.name].tobytes())
            if column.name in columns.nulls:
                total.update(columns.nulls[column.name].tobytes())
    return total.hexdigest()


def replay(
    store: Store,
    data: Path,
    points: Mapping[str, Point],
    paths: Mapping[str, LatencyPath],
    windows: WindowSettings,
    inputs: Inputs,
    checksum: int,
) -> Replayed:
    """Play it and store what it stamps, once. Raises PlanError where others have stamps, WireError, StoreError."""
    started = time.perf_counter()
    collector = collector_of(f"recording/{checksum:08x}")
    span = Range(inputs.from_ns, inputs.to_ns + 10 * NS)
    refuse_others(store, collector, span)
    path = play(inputs)
    tape = path.tape
    made = pack(path, span.from_ns, span.to_ns)
    now = time.time_ns()
    bounds = LandingSettings(max_past=f"{max(0, now - span.from_ns) // HOUR_NS + 48}h")
    shipping = Shipping(store, Landing(store, points, bounds), data / FOLDER / "replay-spool", collector)
    shipped = shipping.ship(made, 1)
    # What was recorded just now ends in windows that are not over yet.
    over_ns = inputs.to_ns + LEVEL_NS + max((path.reach_ns for path in paths.values()), default=0)
    time.sleep(max(0, over_ns - time.time_ns()) * 1e-9)
    backfill(store, paths, span.from_ns - _EDGE_NS, span.to_ns + _EDGE_NS, windows)
    mine = [row for row in ledger(store) if row.collector == str(collector)]
    seen = store.query(
        """
        SELECT sum(m) AS n FROM (
            SELECT argMax(messages, generation) AS m FROM windows
            WHERE level = 10 AND window >= toDateTime({a:UInt32}, 'UTC') AND window < toDateTime({b:UInt32}, 'UTC')
            GROUP BY path, window
        )
        """,
        {"a": (span.from_ns - _EDGE_NS) // NS, "b": (span.to_ns + _EDGE_NS) // NS},
    )
    return Replayed(
        from_ns=inputs.from_ns, to_ns=inputs.to_ns, datagrams=len(inputs.datagrams), quotes=tape.quotes,
        orders=made.orders, stamps=made.stamps, links=made.links, faults=len(inputs.faults), digest=digest(tape),
        duplicates=shipped.duplicates, messages=int(seen["n"][0] or 0), quarantined=shipped.quarantined,
        difference=sum(abs(row.difference) + row.in_spool + row.in_flight for row in mine),
        seconds=round(time.perf_counter() - started, 3),
    )  # fmt: skip


__all__ = ["Replayed", "WireError", "digest", "play", "replay"]
