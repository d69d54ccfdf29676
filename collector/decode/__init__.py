"""Messages of protocols, decoded from whole blocks of datagrams.

A protocol is declared as scapy `Packet` classes (`collector.decode.protocol`). Where its fields lie is derived from
the classes once, and read with numpy from then on; what has no fixed place is dissected by scapy on a sampled share.
This module holds what callers see, and imports no scapy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["Datagrams", "DecodedColumns", "Decoder", "Fault", "Halts", "ScapyMissingError"]

Ints = NDArray[np.int64]


class ScapyMissingError(RuntimeError):
    """scapy is not installed, and protocols are declared with it."""

    def __init__(self) -> None:
        super().__init__("decoding messages needs scapy; install it with: pip install 'tailsight[packets]'")


class Fault(IntEnum):
    """Why a datagram was not decoded, or not to its end."""

    NONE = 0
    SHORT = 1  # shorter than the header
    CUT = 2  # a message runs past the end of the datagram
    COUNT = 3  # fewer messages than the header says
    TRAILING = 4  # bytes behind the last message
    HEADER = 5  # a field of the header has a value the protocol does not allow
    CHECKSUM = 6
    SEQUENCE = 7  # a number beyond 2^62: no feed gets there, and sums with it would overflow


@dataclass(slots=True)
class Datagrams:
    """One row per datagram that has a whole header, in the order given.

    Attributes:
        row: int64, position among those given.
        session: uint64, names the session (`DecodedColumns.sessions` has its text); 0 = the protocol has none.
        sequence: int64, number of the first message, or of the datagram where the protocol numbers those.
        count: int64, how many numbers it takes; 0 = a heartbeat that says which number comes next.
        time_ns: int64 or None, when the sender says it sent it, epoch ns.
        end: bool, it ends the session.
        fault: uint8, `Fault`.
    """

    row: Ints
    session: NDArray[np.uint64]
    sequence: Ints
    count: Ints
    time_ns: Ints | None
    end: NDArray[np.bool_]
    fault: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.row)


@dataclass(slots=True)
class Halts:
    """What messages say of an instrument's trading, in their order.

    Attributes:
        row: int64[h], position in the unit columns.
        instrument: uint64[h], as in `DecodedColumns`.
        reason: uint8[h], which of the protocol's rules: an instrument may be halted for several reasons.
        halted: bool[h], halted from here on, or not any more, for this reason.
    """

    row: Ints
    instrument: NDArray[np.uint64]
    reason: NDArray[np.uint8]
    halted: NDArray[np.bool_]


@dataclass(slots=True)
class DecodedColumns:
    """What a block of datagrams holds: a row per numbered unit, in the order of the datagrams.

    The unit is what the protocol numbers and loses: a message (MoldUDP64, IEX-TP), a datagram (CME MDP 3.0), a FIX
    message. Heartbeats are in `datagrams` only.

    Attributes:
        row: int64[m], position of the unit's datagram among those given; ascends.
        key: uint64[m], `hash64` of its identity: the key its stamps carry.
        sequence: int64[m], its number.
        count: int64[m], messages in it: 1 where messages are numbered.
        time_ns: int64[m] or None, the sender's time of the unit, epoch ns.
        datagrams: the headers.
        message_row: int64[k], position in the unit columns of each message.
        message_at, message_len: int64[k], where its body lies in the data, and how long it is.
        kind: uint16[k], code of its type in `kinds`.
        instrument_row: int64[j], position in the unit columns of each update of an instrument; a message may have
            several.
        instrument: uint64[j], the instrument as the wire names it: its number, or the first 8 bytes of its symbol read
            as one little-endian number.
        digest: uint64[m], of the unit's content: equal numbers with unequal digests have diverged; empty where the
            decoder was told to leave it out, as is `key`.
        kinds: type names by code.
        sessions: session texts by number.
        faults: datagrams by why they were not decoded to their end.
        unknown: messages of a type that the protocol does not declare.
        malformed: messages of a declared type that are shorter than its fields.
        version: the largest schema version seen, where the protocol has one.
        sampled, sampled_of: messages that scapy dissected, and of how many with a variable layout.
        sample_errors: of the sampled ones, how many scapy could not dissect.
        halts: what was said of halts; None where nothing was.
    """

    row: Ints
    key: NDArray[np.uint64]
    sequence: Ints
    count: Ints
    time_ns: Ints | None
    datagrams: Datagrams
    message_row: Ints
    message_at: Ints
    message_len: Ints
    kind: NDArray[np.uint16]
    instrument_row: Ints
    instrument: NDArray[np.uint64]
    digest: NDArray[np.uint64]
    kinds: list[str]
    sessions: Mapping[int, str]
    faults: dict[Fault, int] = field(default_factory=dict)
    unknown: int = 0
    malformed: int = 0
    version: int | None = None
    sampled: int = 0
    sampled_of: int = 0
    sample_errors: int = 0
    halts: Halts | None = None

    def __len__(self) -> int:
        return len(self.row)

    def by_kind(self) -> dict[str, int]:
        """Messages by type, those that occur."""
        counts = np.bincount(self.kind, minlength=len(self.kinds)).tolist()
        return {name: n for name, n in zip(self.kinds, counts, strict=False) if n}


class Decoder(Protocol):
    """Decodes datagrams of one protocol. Not thread-safe: it remembers what it has named."""

    name: str
    # The zone of its times where they count from midnight (`collector.decode.Decoder.time_ns` is then the ns of the
    # day); "" = epoch. `bits` of a sequence number, and whether a session is on the wire.
    time_zone: str
    sequence_bits: int
    sessions: bool

    def decode(self, data: NDArray[np.uint8], starts: Ints, lengths: Ints) -> DecodedColumns:
        """The messages of the datagrams `data[starts[i] : starts[i] + lengths[i]]`.

        Never raises for what the datagrams contain; what does not follow the protocol is counted in `faults`.
        `data` need not have anything behind the last datagram.
        """

    def describe(self, instrument: int) -> str:
        """The text of an instrument, as the wire has it."""
