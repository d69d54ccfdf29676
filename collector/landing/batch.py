"""A batch as it arrives: its frames checked against its id, their rows merged per table.

Nothing here looks at the values of rows (`collector.landing.checks`) or at the store (`collector.landing`).
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from collector.frames import Frame, FrameError, Stream, UnknownVersionError, decode
from collector.keys import hash64
from collector.record import Columns, Kind, Table

MAX_EVENTS = 500_000
MAX_BYTES = 16 << 20
_DAY_NS = 86_400_000_000_000
_SECOND_NS = 1_000_000_000


class RejectedError(Exception):
    """The batch can never be landed as it is: `status` (HTTP), a short `reason` for counters, and what was wrong."""

    def __init__(self, status: int, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.status = status
        self.reason = reason
        self.detail = detail


@dataclass(slots=True)
class Batch:
    """A checked batch. `tables` holds its rows merged per table with `seq` filled in; `dropped` what it reports lost.

    `frame_starts` and `frame_seconds` say, per frame, its first sequence number and the second in which it was cut.
    """

    id: str
    name: int  # hash64("batch", id): the batch's 64-bit name in the tables
    stream: Stream
    seq_first: int
    events: int
    cut_ns: int
    checksum: int
    size: int
    tables: dict[str, Columns]
    dropped: dict[str, int] = field(default_factory=dict)
    frame_starts: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    frame_seconds: NDArray[np.uint32] = field(default_factory=lambda: np.zeros(0, np.uint32))
    frame_events: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))
    frame_dropped: NDArray[np.uint64] = field(default_factory=lambda: np.zeros(0, np.uint64))

    @property
    def cut_day(self) -> int:
        """Days since 1970 (UTC): the partition of all rows of the batch."""
        return self.cut_ns // _DAY_NS

    def by_second(self, lost: NDArray[np.uint64]) -> tuple[list[int], list[int], list[int]]:
        """Completeness: per second of cutting, what was produced and what of it is missing.

        `lost` are sequence numbers of quarantined rows. Returns (seconds, produced, missing), equally long.
        """
        seconds, place = np.unique(self.frame_seconds, return_inverse=True)
        produced = np.zeros(len(seconds), np.uint64)
        missing = np.zeros(len(seconds), np.uint64)
        np.add.at(produced, place, self.frame_events)
        np.add.at(missing, place, self.frame_dropped)
        if len(lost):
            frames = np.searchsorted(self.frame_starts, lost, side="right") - 1
            np.add.at(missing, place[frames], np.uint64(1))
        return seconds.tolist(), produced.tolist(), missing.tolist()


def batch_stream(batch_id: str) -> tuple[Stream, int]:
    """The stream and first sequence number that an id `uuid/boot/seq_first` names. Raises RejectedError."""
    try:
        collector, boot, seq = batch_id.split("/")
        stream, seq_first = Stream(uuid.UUID(collector), int(boot)), int(seq)
        if f"{stream.collector}/{stream.boot}/{seq_first}" != batch_id or not 0 <= stream.boot < 1 << 32:
            raise ValueError(batch_id)  # noqa: TRY301 - one message for every way to be wrong
    except ValueError:
        raise RejectedError(400, "bad_batch_id", f"{batch_id!r} is not <uuid>/<boot>/<seq_first>") from None
    return stream, seq_first


def read_batch(batch_id: str, body: bytes | memoryview) -> Batch:
    """Decode and check a batch: whole frames of one collector, boot and day, without a gap, as its id says.

    Raises RejectedError: 400 not frames or not this id, 413 too large, 415 unknown version, 422 inconsistent.
    """
    stream, seq_first = batch_stream(batch_id)
    if len(body) > MAX_BYTES:
        raise RejectedError(413, "batch_too_large", f"{len(body)} bytes, at most {MAX_BYTES} fit a batch")
    frames = _frames(batch_id, body, stream, seq_first)
    rows = sum(len(f.columns) for f in frames if f.columns is not None)
    if rows > MAX_EVENTS:
        raise RejectedError(413, "batch_too_large", f"{rows} rows, at most {MAX_EVENTS} fit a batch")
    cut_ns = frames[0].header.created_ns
    days = {f.header.created_ns // _DAY_NS for f in frames}
    if len(days) > 1:
        raise RejectedError(422, "several_days", f"frames were cut on {len(days)} days; a batch lies within one")
    if not 0 <= min(days) < 1 << 16:
        raise RejectedError(422, "bad_cut_time", f"cut at {cut_ns} ns, which is not between 1970 and 2149")
    dropped: dict[str, int] = {}
    parts: dict[str, list[Columns]] = {}
    for frame in frames:
        if frame.reason is not None:
            dropped[frame.reason.value] = dropped.get(frame.reason.value, 0) + frame.header.events
        elif frame.columns is not None:
            parts.setdefault(frame.columns.table.name, []).append(frame.columns)
    return Batch(
        id=batch_id,
        name=hash64("batch", batch_id),
        stream=stream,
        seq_first=seq_first,
        events=frames[-1].header.seq_end - seq_first,
        cut_ns=cut_ns,
        checksum=google_crc32c.value(bytes(body)),
        size=len(body),
        tables={name: merge(columns) for name, columns in parts.items()},
        dropped=dropped,
        frame_starts=np.array([f.header.seq_first for f in frames], np.uint64),
        frame_seconds=np.array([f.header.created_ns // _SECOND_NS for f in frames], np.uint32),
        frame_events=np.array([f.header.events for f in frames], np.uint64),
        frame_dropped=np.array([f.header.events if f.reason is not None else 0 for f in frames], np.uint64),
    )


def merge(parts: Sequence[Columns]) -> Columns:
    """Rows of several frames as one, their dictionaries joined; codes become uint32 where texts are many."""
    if len(parts) == 1:
        return parts[0]
    table: Table = parts[0].table
    values: dict[str, NDArray[Any]] = {}
    texts: dict[str, list[str]] = {}
    nulls: dict[str, NDArray[np.bool_]] = {}
    for column in table.columns:
        arrays = [part.values[column.name] for part in parts]
        if column.kind is Kind.TEXT:
            codes: dict[str, int] = {}
            maps = [np.array([codes.setdefault(t, len(codes)) for t in p.texts[column.name]], np.uint32) for p in parts]
            arrays = [lookup[a] if len(a) else a for lookup, a in zip(maps, arrays, strict=True)]
            texts[column.name] = list(codes)
        values[column.name] = np.concatenate(arrays)
        if any(column.name in part.nulls for part in parts):
            nulls[column.name] = np.concatenate(
                [part.nulls.get(column.name, np.zeros(len(part), np.bool_)) for part in parts]
            )
    seqs = [part.seq if part.seq is not None else np.zeros(len(part), np.uint64) for part in parts]
    return Columns(table, values, texts, nulls, np.concatenate(seqs))


def _frames(batch_id: str, body: bytes | memoryview, stream: Stream, seq_first: int) -> list[Frame]:
    frames: list[Frame] = []
    expected = seq_first
    try:
        for frame in decode(body):
            header = frame.header
            if header.stream != stream:
                raise RejectedError(422, "wrong_stream", f"a frame of {header.stream} lies in batch {batch_id}")
            if header.seq_first != expected:
                raise RejectedError(
                    422, "sequence_gap", f"a frame starts at {header.seq_first}, {expected} comes next in {batch_id}"
                )
            expected = header.seq_end
            frames.append(frame)
    except UnknownVersionError as error:
        raise RejectedError(415, "unknown_version", str(error)) from error
    except FrameError as error:
        raise RejectedError(400, "bad_frame", str(error)) from error
    if not frames:
        raise RejectedError(400, "empty_batch", "the body holds no frame")
    return frames
