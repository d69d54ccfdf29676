"""The records that collectors ship: one `Table` per noun, and `Columns`, many rows of one table.

This module is the single description of what travels from a collector to the store. The frame codec
(`collector.frames`), the checks at the door (`collector.landing`) and the insert read it; the DDL in
`collector/store/schema` has the same column names, and a test compares the two.

Times are integers: nanoseconds since the Unix epoch (UTC) where the name is `ts_ns`, plain nanoseconds for
durations and errors. "Unknown" is null, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Kind(Enum):
    """The fixed-width kinds a column may have on the wire; the value is the little-endian numpy dtype."""

    I64 = "<i8"
    U64 = "<u8"
    I32 = "<i4"
    U32 = "<u4"
    U16 = "<u2"
    U8 = "<u1"
    F64 = "<f8"
    TEXT = "text"  # dictionary text: uint16 codes into the strings that travel with the column

    @property
    def dtype(self) -> np.dtype[Any]:
        """The numpy dtype of the stored array: the code's dtype for TEXT."""
        return np.dtype("<u2" if self is Kind.TEXT else self.value)


class Outcome(IntEnum):
    """How a message ended, as the application says it; `UNSET` where it says nothing."""

    UNSET = 0
    OK = 1
    ERROR = 2
    REJECTED = 3
    SHED = 4
    TIMEOUT = 5


class Mode(IntEnum):
    """How a message was served. `SHADOW` and `SYNTHETIC` never mix with users' numbers."""

    UNSET = 0
    NORMAL = 1
    CACHED = 2
    FALLBACK = 3
    SHADOW = 4
    SYNTHETIC = 5


class Cache(IntEnum):
    """What the cache answered, where there is one."""

    UNSET = 0
    HIT = 1
    STALE = 2
    MISS = 3


class DropReason(Enum):
    """Why an event that was produced is not in the store. A closed list: the ledger sums over it."""

    RING_OVERWRITTEN = "ring_overwritten"  # the program stamped faster than the agent drained
    TORN = "torn"  # the program was killed inside one write
    FULL_OLDEST = "full_oldest"  # spool full, policy drop_oldest
    FULL_NEWEST = "full_newest"  # spool full, policy drop_newest
    OVERSIZE = "oversize"
    CORRUPT = "corrupt"  # a frame on disk failed its checksum; the count comes from the sequence gap
    EXPIRED = "expired"
    REJECTED = "rejected"
    SHUTDOWN_TIMEOUT = "shutdown_timeout"
    NOT_FSYNCED = "not_fsynced"  # only with durability below fsync; an estimate
    SOURCE_LOST = "source_lost"  # the kernel or the network lost it before we saw it, and counted it


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a shipped table."""

    name: str
    kind: Kind
    nullable: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """A shipped table: its wire id and version, and its columns in wire order.

    `version` grows when the columns change; a reader accepts this version and the one before it.
    """

    name: str
    wire_id: int
    version: int
    columns: tuple[Column, ...]

    def column(self, name: str) -> Column:
        """The column called `name`. Raises KeyError with the known names."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"table {self.name} has no column {name!r}; it has {[c.name for c in self.columns]}")


STAMPS = Table(
    "stamps",
    1,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("key", Kind.U64),
        Column("point", Kind.TEXT),
        Column("host", Kind.TEXT),
        Column("service", Kind.TEXT),
        Column("thread", Kind.U32),
        # The clock that took the time: two stamps with the same host and clock differ only by its drift.
        Column("clock", Kind.TEXT),
        Column("error_ns", Kind.U32, nullable=True),  # bound on the distance to UTC; null = unknown
        Column("depth", Kind.I32, nullable=True),  # queue depth seen at this point
        Column("label_set", Kind.U64),  # 0 = no labels
        Column("outcome", Kind.U8),
        Column("mode", Kind.U8),
        Column("cache", Kind.U8),
        Column("data_age_ns", Kind.I64, nullable=True),
    ),
)
LINKS = Table(
    "links",
    2,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("parent", Kind.U64),
        Column("child", Kind.U64),
        Column("host", Kind.TEXT),
        Column("service", Kind.TEXT),
    ),
)
GAUGES = Table(
    "gauges",
    3,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("name", Kind.TEXT),
        Column("host", Kind.TEXT),
        Column("service", Kind.TEXT),
        Column("label_set", Kind.U64),
        Column("value", Kind.F64),
    ),
)
INTERVALS = Table(
    "intervals",
    4,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("duration_ns", Kind.I64),
        Column("kind", Kind.TEXT),
        Column("host", Kind.TEXT),
        Column("thread", Kind.U32),
        Column("culprit", Kind.TEXT),
        Column("label_set", Kind.U64),
    ),
)
CLOCK = Table(
    "clock",
    5,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("host", Kind.TEXT),
        Column("clock", Kind.TEXT),
        Column("source", Kind.TEXT),  # who states the bound: adjtimex, chrony, ptp, phc
        Column("event", Kind.TEXT),  # sample (the bound in use), stated (another's), step, sync_lost, sync_gained
        Column("offset_ns", Kind.I64, nullable=True),
        Column("error_ns", Kind.I64, nullable=True),
        Column("frequency_ppb", Kind.F64, nullable=True),
        Column("step_ns", Kind.I64, nullable=True),
    ),
)
LABEL_SETS = Table(
    "label_sets",
    6,
    1,
    (
        Column("label_set", Kind.U64),
        Column("labels", Kind.TEXT),  # canonical JSON object, keys sorted
    ),
)
# One interval of one line of a feed's channel, line "" being all lines after arbitration. Sums and largest values, so
# that intervals and lines can be added up: docs/feeds.md.
FEEDS = Table(
    "feeds",
    9,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("duration_ns", Kind.I64),
        Column("channel", Kind.TEXT),
        Column("line", Kind.TEXT),
        Column("protocol", Kind.TEXT),
        Column("host", Kind.TEXT),
        Column("session", Kind.TEXT),
        Column("datagrams", Kind.U64),
        Column("bytes", Kind.U64),
        Column("heartbeats", Kind.U64),
        Column("ends", Kind.U64),
        Column("messages", Kind.U64),
        Column("duplicates", Kind.U64),
        Column("gaps", Kind.U64),
        Column("skipped", Kind.U64),
        Column("out_of_order", Kind.U64),
        Column("late", Kind.U64),
        Column("old", Kind.U64),
        Column("resets", Kind.U64),
        Column("sessions", Kind.U64),
        Column("wraps", Kind.U64),
        Column("won", Kind.U64),
        Column("pairs", Kind.U64),
        Column("divergent", Kind.U64),
        Column("errors", Kind.U64),
        Column("unknown", Kind.U64),
        Column("kernel_drops", Kind.U64),
        Column("recovered_ns", Kind.I64),
        Column("recovered_max_ns", Kind.I64),
        Column("skew_ns", Kind.I64),
        Column("skew_max_ns", Kind.I64),
        Column("delays", Kind.U64),
        Column("delay_ns", Kind.I64),
        Column("delay_min_ns", Kind.I64, nullable=True),
        Column("delay_max_ns", Kind.I64, nullable=True),
        Column("delay_error_ns", Kind.I64, nullable=True),  # bound of the receiver's clock; null = unknown
        Column("silence_ns", Kind.I64, nullable=True),  # at the end, since the last datagram; null = there was none
        Column("instruments", Kind.U32),
        Column("stale", Kind.U32),
        Column("open", Kind.U32),
        Column("schema_version", Kind.I32, nullable=True),
    ),
)
# What one direction of a flow did in a period, as a tap saw it. One row without addresses counts the flows beyond the
# tap's bound. TCP figures are null where the flow is not TCP or was not analysed.
FLOWS = Table(
    "flows",
    8,
    1,
    (
        Column("ts_ns", Kind.I64),  # start of the period
        Column("duration_ns", Kind.I64),
        Column("host", Kind.TEXT),
        Column("tap", Kind.TEXT),
        Column("interface", Kind.TEXT),
        Column("direction", Kind.TEXT),  # in, out; empty: both were seen
        Column("time_source", Kind.TEXT),  # sw, hw
        Column("source", Kind.TEXT),
        Column("target", Kind.TEXT),
        Column("source_port", Kind.U16),
        Column("target_port", Kind.U16),
        Column("protocol", Kind.U8),
        Column("vlan", Kind.U16, nullable=True),
        Column("packets", Kind.U64),
        Column("bytes", Kind.U64),  # on the wire, without preamble and checksum
        Column("hops", Kind.U8, nullable=True),  # guessed from the TTL
        Column("ttl_min", Kind.U8, nullable=True),
        Column("ttl_max", Kind.U8, nullable=True),
        Column("dscp_min", Kind.U8, nullable=True),
        Column("dscp_max", Kind.U8, nullable=True),
        Column("coverage", Kind.F64),  # share of the tap's packets in the period that its ring did not lose
        Column("retransmissions", Kind.U32, nullable=True),
        Column("fast_retransmissions", Kind.U32, nullable=True),
        Column("spurious_retransmissions", Kind.U32, nullable=True),
        Column("out_of_order", Kind.U32, nullable=True),
        Column("duplicate_acks", Kind.U32, nullable=True),
        Column("lost_segments", Kind.U32, nullable=True),
        Column("zero_windows", Kind.U32, nullable=True),
        Column("handshake_ns", Kind.I64, nullable=True),
        Column("rtt_samples", Kind.U32, nullable=True),
        Column("rtt_min_ns", Kind.I64, nullable=True),
        Column("rtt_p50_ns", Kind.I64, nullable=True),
        Column("rtt_p99_ns", Kind.I64, nullable=True),
        Column("rtt_max_ns", Kind.I64, nullable=True),
    ),
)
# What a host is set to: one row per item when it is read first, changes, or goes; all of them now and then.
HOSTS = Table(
    "hosts",
    10,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("host", Kind.TEXT),
        Column("item", Kind.TEXT),
        Column("state", Kind.TEXT),  # "", drift (not as the profile says), gone
        Column("value", Kind.TEXT),
        Column("expected", Kind.TEXT),  # what the declared profile says; "" where it says nothing
    ),
)
# What a collector saw change on its host; what people and pipelines record comes in by REST. The door adds `recorded`.
CHANGES = Table(
    "changes",
    11,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("id", Kind.TEXT),  # a UUID, from `collector.changes.change_id`
        Column("kind", Kind.TEXT),  # one of `collector.changes.KINDS`
        Column("who", Kind.TEXT),
        Column("what", Kind.TEXT),
        Column("host", Kind.TEXT),
        Column("service", Kind.TEXT),
        Column("version", Kind.TEXT),
        Column("url", Kind.TEXT),
        Column("labels", Kind.TEXT),  # JSON object of texts
    ),
)

# What a program says about one message at one moment: a decision and its reasons, a log line, a span with its W3C ids.
EVENTS = Table(
    "events",
    7,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("key", Kind.U64),  # 0 = of no message
        Column("host", Kind.TEXT),
        Column("service", Kind.TEXT),
        Column("kind", Kind.TEXT),  # decision, log, span, ...
        Column("body", Kind.TEXT),
        Column("attributes", Kind.TEXT),  # JSON object, keys sorted
    ),
)

# One histogram of latencies as a program exported it: of an interval, or cumulative since `start_ns`.
HISTOGRAMS = Table(
    "histograms",
    20,
    1,
    (
        Column("ts_ns", Kind.I64),  # the interval's end
        Column("start_ns", Kind.I64),  # its start; 0 = not stated
        Column("host", Kind.TEXT),
        Column("service", Kind.TEXT),
        Column("name", Kind.TEXT),
        Column("stream", Kind.U64),  # the series: resource, name and attributes
        Column("cumulative", Kind.U16),  # 1 = everything since start_ns, 0 = this interval alone
        Column("n", Kind.U64),
        Column("sum_ns", Kind.F64, nullable=True),
        Column("min_ns", Kind.I64, nullable=True),
        Column("max_ns", Kind.I64, nullable=True),
        Column("label_set", Kind.U64),
        Column("layout", Kind.TEXT),  # JSON: {"bounds": [ns, ...]} or {"scale": s, "unit_ns": u, "zero": ns}
        Column("counts", Kind.TEXT),  # JSON: [n, ...], or {"zero": n, "positive": [offset, [n, ...]], "negative": ...}
    ),
)
MAX_CELLS = 1_000
# Counts of scheduler delays per bucket (delay_buckets = analytics.buckets) in the period that ends at `ts_ns`. A row
# is of a whole host (service empty, no thread, no CPU), of a service, of one CPU or of one thread; its period's longest
# delay stands in each of its rows. Thousands of buckets change in a period, so that many of them share a row.
DELAY_COUNTS = Table(
    "delay_counts",
    16,
    1,
    (
        Column("ts_ns", Kind.I64),
        Column("duration_ns", Kind.I64),
        Column("scope", Kind.TEXT),  # host, service, cpu, thread
        Column("host", Kind.TEXT),
        Column("service", Kind.TEXT),
        Column("thread", Kind.U32),
        Column("cpu", Kind.I32, nullable=True),
        Column("kind", Kind.TEXT),
        Column("cells", Kind.TEXT),  # "bucket:n,bucket:n,...", at most MAX_CELLS characters
        Column("max_ns", Kind.I64, nullable=True),
    ),
)
_ALL = (
    STAMPS,
    LINKS,
    GAUGES,
    INTERVALS,
    CLOCK,
    LABEL_SETS,
    FLOWS,
    FEEDS,
    CHANGES,
    DELAY_COUNTS,
    EVENTS,
    HOSTS,
    HISTOGRAMS,
)
TABLES: Mapping[str, Table] = {t.name: t for t in _ALL}
TABLES_BY_WIRE_ID: Mapping[int, Table] = {t.wire_id: t for t in TABLES.values()}

MAX_DICTIONARY = 65_536  # uint16 codes


@dataclass(slots=True)
class Columns:
    """Rows of one table, held as columns.

    `values[name]` is a 1-D array of the column's dtype; for a TEXT column it holds uint16 codes into
    `texts[name]`. `nulls[name]`, where present, is a boolean array: True = null (the value under it is
    meaningless and written as zero). `seq` numbers the rows within their collector and boot.
    """

    table: Table
    values: dict[str, NDArray[Any]]
    texts: dict[str, list[str]] = field(default_factory=dict)
    nulls: dict[str, NDArray[np.bool_]] = field(default_factory=dict)
    seq: NDArray[np.uint64] | None = None

    def __len__(self) -> int:
        return len(self.values[self.table.columns[0].name])

    def check(self) -> None:
        """Raise ValueError naming the column whose dtype, length, codes or nulls do not fit the table."""
        n = len(self)
        for column in self.table.columns:
            where = f"{self.table.name}.{column.name}"
            if column.name not in self.values:
                raise ValueError(f"{where} is missing")
            array = self.values[column.name]
            if array.dtype != column.kind.dtype:
                raise ValueError(f"{where} has dtype {array.dtype}, want {column.kind.dtype}")
            if array.shape != (n,):
                raise ValueError(f"{where} has shape {array.shape}, want ({n},)")
            if column.kind is Kind.TEXT:
                size = len(self.texts.get(column.name, ()))
                if size > MAX_DICTIONARY:
                    raise ValueError(f"{where} has {size} distinct texts, at most {MAX_DICTIONARY} fit a frame")
                if n and int(array.max()) >= size:
                    raise ValueError(f"{where} has code {int(array.max())} but only {size} texts")
            nulls = self.nulls.get(column.name)
            if nulls is not None:
                if not column.nullable:
                    raise ValueError(f"{where} is not nullable but has nulls")
                if nulls.dtype != np.bool_ or nulls.shape != (n,):
                    raise ValueError(f"{where} nulls have dtype {nulls.dtype} and shape {nulls.shape}")
        extra = set(self.values) - {c.name for c in self.table.columns}
        if extra:
            raise ValueError(f"{self.table.name} has no columns {sorted(extra)}")

    def take(self, index: NDArray[Any]) -> Columns:
        """The rows at `index` (integers or a boolean mask), sharing the dictionaries."""
        return Columns(
            self.table,
            {name: array[index] for name, array in self.values.items()},
            dict(self.texts),
            {name: mask[index] for name, mask in self.nulls.items()},
            None if self.seq is None else self.seq[index],
        )

    def text(self, name: str) -> list[str]:
        """A TEXT column decoded to strings; for small tables and tests."""
        words = self.texts[name]
        return [words[code] for code in self.values[name].tolist()]

    @classmethod
    def from_rows(cls, table: Table, rows: Iterable[Mapping[str, Any]]) -> Columns:
        """Build columns from dictionaries; a missing or None value is null, or zero / "" if not nullable.

        Meant for low-rate records and tests; the hot paths build arrays. Raises ValueError on an unknown name.
        """
        records = list(rows)
        known = {c.name for c in table.columns}
        for record in records:
            if not known.issuperset(record):
                raise ValueError(f"{table.name} has no columns {sorted(set(record) - known)}")
        values: dict[str, NDArray[Any]] = {}
        texts: dict[str, list[str]] = {}
        nulls: dict[str, NDArray[np.bool_]] = {}
        for column in table.columns:
            raw = [record.get(column.name) for record in records]
            if column.kind is Kind.TEXT:
                codes: dict[str, int] = {}
                values[column.name] = np.array(
                    [codes.setdefault("" if v is None else str(v), len(codes)) for v in raw], dtype="<u2"
                )
                texts[column.name] = list(codes)
                continue
            values[column.name] = np.array([0 if v is None else v for v in raw], dtype=column.kind.dtype)
            if column.nullable:
                nulls[column.name] = np.array([v is None for v in raw], dtype=np.bool_)
        return cls(table, values, texts, nulls)
