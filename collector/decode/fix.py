"""FIX, tag=value, in the bytes of a TCP direction: messages found, checked and read with numpy.

A message is `8=FIX...`, `9=` body length, the body, `10=` checksum, each field ended by SOH (FIX 4.4, volume 2). Both
the length and the checksum are verified. Behind a message that fails, the next `8=` at the start of a field is taken.
Only whole messages are decoded; `FixDecoder.taken` says how far, so that a stream can be given piece by piece.

Data fields (95/96) may hold anything: fields are looked for from a message's front, and those that matter (34, 35, 49,
52, 56) stand in its header.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collector.decode import Datagrams, DecodedColumns, Fault
from collector.decode.digest import digests
from collector.keys import xxh64_rows
from collector.packet.block import rows_at

Ints = NDArray[np.int64]

LONGEST = 1 << 16  # bytes of a message; a longer one is not believed
_PAD = 64
_TEXT = 32  # bytes of a text that are read
_SOH = 1
_KINDS = {
    b"0": "Heartbeat", b"1": "TestRequest", b"2": "ResendRequest", b"3": "Reject", b"4": "SequenceReset",
    b"5": "Logout", b"6": "IOI", b"8": "ExecutionReport", b"9": "OrderCancelReject", b"A": "Logon",
    b"D": "NewOrderSingle", b"F": "OrderCancelRequest", b"G": "OrderCancelReplaceRequest", b"H": "OrderStatusRequest",
    b"R": "QuoteRequest", b"S": "Quote", b"V": "MarketDataRequest", b"W": "MarketDataSnapshotFullRefresh",
    b"X": "MarketDataIncrementalRefresh", b"Y": "MarketDataRequestReject", b"j": "BusinessMessageReject",
}  # fmt: skip


class FixDecoder:
    """Decodes FIX streams.

    Args:
        keys, digests: whether to compute them.
        key_tag: the tag whose text is the key's identifier, such as 11 (ClOrdID), in key space `space`; None = a
            message is named by its session (49, SOH, 56, SOH) and number (8 bytes, little-endian) in key space "fix".
            A message without the tag has key 0.
        space: the key space with `key_tag`.
    """

    name = "fix"
    time_zone = ""
    sequence_bits = 64
    sessions = True

    def __init__(
        self, *, keys: bool = True, digests: bool = True, key_tag: int | None = None, space: str = "order"
    ) -> None:
        self._keys, self._digests, self._key_tag, self._space = keys, digests, key_tag, space
        self._names: dict[int, str] = {}
        self.kinds = ["unknown", *(f"{k.decode()} {v}" for k, v in _KINDS.items())]
        self.taken: Ints = np.empty(0, dtype=np.int64)

    def describe(self, instrument: int) -> str:
        """The symbol (55), its first 8 bytes."""
        return instrument.to_bytes(8, "little").decode("ascii", "backslashreplace").strip("\0 ")

    def decode(self, data: NDArray[np.uint8], starts: Ints, lengths: Ints) -> DecodedColumns:
        """The messages in the pieces `data[starts[i] : starts[i] + lengths[i]]`; `row` is the piece.

        A message lies in one piece. `taken[i]` is how many bytes of piece i need not be given again: all but a message
        that is not yet whole.
        """
        parts = [_find(data[s : s + n]) for s, n in zip(starts.tolist(), lengths.tolist(), strict=True)]
        self.taken = np.array([p[3] for p in parts], dtype=np.int64)
        piece = np.repeat(np.arange(len(parts)), [len(p[0]) for p in parts])
        at = np.concatenate([p[0] + s for p, s in zip(parts, starts.tolist(), strict=True)] or [np.empty(0, np.int64)])
        size = np.concatenate([p[1] for p in parts] or [np.empty(0, np.int64)])
        padded = np.concatenate([data, np.zeros(_PAD, np.uint8)]) if len(at) else np.zeros(_PAD, np.uint8)
        faults: dict[Fault, int] = {}
        for p in parts:
            for fault, n in p[2].items():
                faults[fault] = faults.get(fault, 0) + n
        fields = _Fields(padded, at, size)
        sequence = fields.number(34)
        usable = sequence >= 0
        if not usable.all():
            faults[Fault.HEADER] = faults.get(Fault.HEADER, 0) + int((~usable).sum())
            piece, at, size = piece[usable], at[usable], size[usable]
            fields = _Fields(padded, at, size)
            sequence = sequence[usable]
        kind, unknown = self._kind(fields)
        session, names = self._session(fields)
        upto = fields.number(36)
        fill = (fields.text(123, 1)[:, 0] == ord("Y")) & (kind == self._code(b"4")) & (upto > sequence)
        count = np.where(fill, upto - sequence, 1)
        time_ns = _times(fields.text(52, 27))
        nothing = np.zeros(len(at), dtype=np.bool_)
        headers = Datagrams(piece, session, sequence, count, time_ns, nothing, np.zeros(len(at), np.uint8))
        every = np.arange(len(at), dtype=np.int64)
        symbol = fields.text(55, 8)
        has = np.flatnonzero(symbol.any(axis=1))
        return DecodedColumns(
            row=piece,
            key=self._key(fields, names, sequence) if self._keys else np.empty(0, np.uint64),
            sequence=sequence,
            count=np.ones(len(at), dtype=np.int64),
            time_ns=time_ns,
            datagrams=headers,
            message_row=every,
            message_at=at,
            message_len=size,
            kind=kind,
            instrument_row=has,
            instrument=np.ascontiguousarray(symbol[has]).view("<u8")[:, 0].astype(np.uint64),
            digest=digests(data, at, size) if self._digests else np.empty(0, np.uint64),
            kinds=self.kinds,
            sessions=self._names,
            faults=faults,
            unknown=unknown,
        )

    def _code(self, kind: bytes) -> int:
        return list(_KINDS).index(kind) + 1

    def _kind(self, fields: _Fields) -> tuple[NDArray[np.uint16], int]:
        text = fields.text(35, 2)
        out = np.zeros(len(text), dtype=np.uint16)
        for code, name in enumerate(_KINDS, 1):
            out[(text[:, 0] == name[0]) & (text[:, 1] == 0)] = code
        return out, int((out == 0).sum())

    def _session(self, fields: _Fields) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        names = np.concatenate([fields.text(49, _TEXT), fields.text(56, _TEXT)], axis=1)
        if not len(names):
            return np.empty(0, np.uint64), names
        number = xxh64_rows(names)
        for value in np.unique(number).tolist():
            if value not in self._names:
                if len(self._names) >= 4096:
                    self._names.clear()
                row = names[int((number == value).argmax())]
                ends = (row[:_TEXT].tobytes(), row[_TEXT:].tobytes())
                self._names[value] = ">".join(e.rstrip(b"\0").decode("ascii", "backslashreplace") for e in ends)
        return number, names

    def _key(self, fields: _Fields, names: NDArray[np.uint8], sequence: Ints) -> NDArray[np.uint64]:
        if self._key_tag is not None:
            text = fields.text(self._key_tag, 64)
            key = _hash_texts(self._space.encode() + b"\0", [text])
            key[~text.any(axis=1)] = 0
            return key
        soh = np.full((len(names), 1), _SOH, np.uint8)
        number = sequence.astype("<u8").view(np.uint8).reshape(-1, 8)
        return _hash_texts(b"fix\0", [names[:, :_TEXT], soh, names[:, _TEXT:], soh], number)


def _hash_texts(
    prefix: bytes, texts: list[NDArray[np.uint8]], tail: NDArray[np.uint8] | None = None
) -> NDArray[np.uint64]:
    """XXH64 of prefix, the texts without their zeros, and the tail; rows of one length at once."""
    joined = np.concatenate(texts, axis=1)
    used = joined != 0
    sizes = used.sum(axis=1)
    out = np.zeros(len(joined), dtype=np.uint64)
    for size in np.unique(sizes).tolist():
        index = np.flatnonzero(sizes == size)
        body = joined[index][used[index]].reshape(len(index), size)
        front = np.broadcast_to(np.frombuffer(prefix, np.uint8), (len(index), len(prefix)))
        parts = [front, body] + ([tail[index]] if tail is not None else [])
        out[index] = xxh64_rows(np.ascontiguousarray(np.concatenate(parts, axis=1)))
    return out


def _find(data: NDArray[np.uint8]) -> tuple[Ints, Ints, dict[Fault, int], int]:
    """(starts, lengths, faults, bytes taken) of the whole, sound messages in a piece."""
    none = np.empty(0, dtype=np.int64)
    count = len(data)
    padded = np.concatenate([data, np.zeros(_PAD, np.uint8)])
    ends = np.flatnonzero(data == _SOH)
    first = np.concatenate([[0], ends + 1])
    first = first[first < count]
    begins = first[(padded[first] == ord("8")) & (padded[first + 1] == ord("="))]
    if not len(begins):
        # What is left may be the start of a message; more than one message's length of it is not.
        return none, none, ({Fault.HEADER: 1} if count > LONGEST else {}), count if count > LONGEST else 0
    after = np.append(ends, count)[np.searchsorted(ends, begins)] + 1  # where the field behind 8= starts
    known = after < count
    length_at = np.minimum(after, count)
    named = (padded[length_at] == ord("9")) & (padded[length_at + 1] == ord("="))
    length_end = np.append(ends, count)[np.searchsorted(ends, length_at)]
    length, digits = _decimal(padded, length_at + 2, length_end)
    waiting = ~known | (length_end >= count)  # the front is not there yet
    end = length_end + 1 + length
    possible = named & digits & (length <= LONGEST) & (length_end - begins < 64)
    waiting |= possible & (end + 7 > count)
    waiting &= begins > count - LONGEST - 128
    tail_at = np.where(possible & ~waiting, end, 0)
    tail = rows_at(padded, tail_at, 7)
    framed = possible & ~waiting & (tail[:, 0] == ord("1")) & (tail[:, 1] == ord("0")) & (tail[:, 2] == ord("="))
    framed &= (tail[:, 6] == _SOH) & (padded[np.maximum(tail_at - 1, 0)] == _SOH)
    sums = np.zeros(count + 1, dtype=np.uint8)  # modulo 256, as the checksum is
    np.cumsum(data, dtype=np.uint8, out=sums[1:])
    total = (sums[np.minimum(tail_at, count)] - sums[begins]).astype(np.int64)
    stated, three = _decimal(padded, tail_at + 3, tail_at + 6)
    sound = framed & three & (total == stated)
    faults: dict[Fault, int] = {}
    # Sound messages one behind the other, by far the most, need no walk.
    chained = sound & (begins == np.append(begins[0], end[:-1] + 7))
    plain = len(chained) if chained.all() else int(chained.argmin())
    taken_from, lengths = begins[:plain].tolist(), (end + 7 - begins)[:plain].tolist()
    at = int(end[plain - 1]) + 7 if plain else 0
    held = None
    rest_of = (x[plain:].tolist() for x in (begins, end, sound, framed, waiting))
    walked = zip(*rest_of, strict=True)
    for begin, stop, good, whole, wait in walked:
        if begin < at:
            continue  # inside the message before: a data field
        if wait:
            held = begin if held is None else held
            continue
        if held is not None:
            # A later message is whole, so the one before was not cut by the piece's end, but damaged.
            faults[Fault.CUT] = faults.get(Fault.CUT, 0) + 1
            held = None
        if good:
            taken_from.append(begin)
            lengths.append(stop + 7 - begin)
            at = stop + 7
        else:
            reason = Fault.CHECKSUM if whole else Fault.CUT
            faults[reason] = faults.get(reason, 0) + 1
    # The bytes behind the last message may be the start of the next.
    rest = at if count - at < LONGEST else count
    taken = rest if held is None else held
    return np.array(taken_from, np.int64), np.array(lengths, np.int64), faults, taken


def _decimal(data: NDArray[np.uint8], at: Ints, end: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """The number in `data[at:end]` of each, at most 18 digits, and whether it is one."""
    size = end - at
    value = np.zeros(len(at), dtype=np.int64)
    good = (size > 0) & (size <= 18)
    last = len(data) - 1
    for i in range(int(size[good].max()) if good.any() else 0):
        on = good & (i < size)
        digit = data[np.minimum(at + i, last)].astype(np.int64) - ord("0")
        good &= ~on | ((digit >= 0) & (digit <= 9))
        value = np.where(on, value * 10 + digit, value)
    return np.where(good, value, 0), good


class _Fields:
    """The fields of messages: where each starts, and which message it is in."""

    def __init__(self, data: NDArray[np.uint8], at: Ints, size: Ints) -> None:
        self._data, self._at, self._end = data, at, at + size
        if len(at):
            low, high = int(at.min()), int(self._end.max())
            self._ends = np.flatnonzero(data[low:high] == _SOH) + low
        else:
            self._ends = np.empty(0, dtype=np.int64)
        starts = self._ends + 1
        self._words = rows_at(data, starts, 4).view("<u4")[:, 0] if len(starts) else np.empty(0, np.uint32)
        self._starts = starts

    def _first(self, tag: int) -> tuple[Ints, Ints, NDArray[np.bool_]]:
        """Where the first value of a tag starts and ends in each message, and whether it is there."""
        wanted = f"{tag}=".encode()
        mask = np.uint32((1 << (8 * len(wanted))) - 1)
        hits = self._starts[(self._words & mask) == np.uint32(int.from_bytes(wanted, "little"))]
        if not len(hits):
            zero = np.zeros(len(self._at), dtype=np.int64)
            return zero, zero, np.zeros(len(self._at), dtype=np.bool_)
        place = np.minimum(np.searchsorted(hits, self._at), len(hits) - 1)
        found = hits[place]
        has = (found >= self._at) & (found < self._end)
        start = np.where(has, found + len(wanted), 0)
        stop = self._ends[np.minimum(np.searchsorted(self._ends, start), len(self._ends) - 1)]
        return start, np.where(has, stop, 0), has

    def number(self, tag: int) -> Ints:
        """A tag's number in each message; -1 where it is absent or none."""
        start, stop, has = self._first(tag)
        value, good = _decimal(self._data, start, stop)
        return np.where(has & good & (value < 1 << 62), value, -1)

    def text(self, tag: int, width: int) -> NDArray[np.uint8]:
        """A tag's text in each message, cut to `width` and filled with zeros: uint8[n, width]."""
        start, stop, has = self._first(tag)
        out = np.zeros((len(start), width), dtype=np.uint8)
        size = np.minimum(stop - start, width)
        last = len(self._data) - 1
        for i in range(width):
            on = has & (i < size)
            if not on.any():
                break
            out[on, i] = self._data[np.minimum(start[on] + i, last)]
        return out


def _times(text: NDArray[np.uint8]) -> Ints:
    """UTCTimestamp (YYYYMMDD-HH:MM:SS with up to 9 decimals) as epoch ns; -1 where it is none."""
    digit = text.astype(np.int64) - ord("0")
    good = ((digit[:, :8] >= 0) & (digit[:, :8] <= 9)).all(axis=1) & (text[:, 8] == ord("-"))

    def number(low: int, high: int) -> Ints:
        value = np.zeros(len(text), dtype=np.int64)
        for i in range(low, high):
            value = value * 10 + np.clip(digit[:, i], 0, 9)
        return value

    month, day = number(4, 6), number(6, 8)
    good &= (month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)
    months = (np.where(good, number(0, 4), 1970) - 1970) * 12 + np.where(good, month, 1) - 1
    days = months.astype("M8[M]").astype("M8[D]").astype(np.int64) + np.where(good, day, 1) - 1
    seconds = number(9, 11) * 3600 + number(12, 14) * 60 + number(15, 17)
    places = (text[:, 18:27] != 0) & (text[:, 17:18] == ord("."))
    fraction = (np.where(places, np.clip(digit[:, 18:27], 0, 9), 0) * 10 ** np.arange(8, -1, -1)).sum(axis=1)
    return np.where(good, (days * 86_400 + seconds) * 1_000_000_000 + fraction, -1)
