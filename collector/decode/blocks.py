"""A protocol applied to whole blocks of datagrams with numpy: no loop per datagram or message.

Headers are gathered as rows. Messages of one datagram follow each other by their lengths, so all datagrams are walked
in lockstep: one numpy step per message of the longest. Every length is a claim: a message that does not lie inside its
datagram ends the walk of it, and the datagram is a `Fault`; nothing outside it is read.

Cost: 90 to 150 ns a message (500 with repeating groups), 250 with keys and digests; see docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scapy.packet import NoPayload, Raw

from collector.decode import Datagrams, DecodedColumns, Fault
from collector.decode.digest import digests
from collector.decode.halts import HaltReader
from collector.decode.layout import FixedField, Layout
from collector.decode.protocol import Protocol, derive
from collector.decode.reading import instrument_name, number_at
from collector.decode.symbols import Symbols
from collector.keys import xxh64_rows
from collector.packet.block import rows_at

Ints = NDArray[np.int64]

HIGHEST = 1 << 62  # no feed numbers that far, and sums with larger ones would overflow
_SESSIONS = 4096  # names that are remembered
_KEY_ROWS = 16_384  # whose columns stay in the cache while they are hashed
UNKNOWN = "unknown"


class BlockDecoder:
    """Decodes datagrams of a protocol.

    Args:
        protocol: the declaration. Raises LayoutError when it cannot be followed.
        keys, digests: whether to compute them.
        sample: of messages with a variable layout, scapy dissects one in this many, the first of each block included.
    """

    def __init__(self, protocol: Protocol, *, keys: bool = True, digests: bool = True, sample: int = 1000) -> None:
        self.protocol = protocol
        self.name = protocol.name
        self.time_zone = protocol.time_zone
        self.sessions = bool(protocol.session)
        self.layouts = derive(protocol)
        self._keys, self._digests, self._sample = keys, digests, max(1, sample)
        self._packet = self.layouts.packet
        self._sequence = self._packet.fields[protocol.sequence]
        self.sequence_bits = 8 * self._sequence.size
        items = self._packet.items
        counter = self._packet.fields[protocol.count] if protocol.count else items.field if items else None
        self._counter: FixedField | None = counter
        self._session_fields = [self._packet.fields[name] for name in protocol.session]
        self._names: dict[int, str] = {}
        self._numbers: dict[bytes, int] = {}
        self._kinds = _Kinds(protocol, self.layouts.message, self.layouts.bodies)
        self.kinds = self._kinds.names
        self._halts = HaltReader(protocol, self.layouts.bodies)
        self._symbols = Symbols(protocol, self.layouts.bodies)

    def decode(self, data: NDArray[np.uint8], starts: Ints, lengths: Ints) -> DecodedColumns:
        """The messages of the datagrams `data[starts[i] : starts[i] + lengths[i]]`; see `collector.decode.Decoder`."""
        reasons = np.zeros(len(starts), dtype=np.uint8)
        reasons[lengths < self._packet.size] = Fault.SHORT
        row = np.flatnonzero(reasons == 0)
        head = rows_at(data, starts[row], self._packet.size) if len(row) else np.empty((0, self._packet.size), np.uint8)
        row, head = self._check(row, head, reasons)
        # SEQUENCE is settled, so that the number fits.
        sequence = self._sequence.read(head).view(np.int64) if len(row) else np.empty(0, np.int64)
        names, session = self._session(head)
        count, end = self._count(head)
        at, end_at = starts[row] + self._packet.size, starts[row] + lengths[row]
        walk = self._walk(data, at, end_at, count)
        bad = (walk.fault != Fault.NONE) & (walk.fault != Fault.TRAILING)
        reasons[row] = walk.fault
        numbers = np.ones(len(row), dtype=np.int64) if self.protocol.unit == "datagram" else count
        headers = Datagrams(row, session, sequence, numbers, self._time(head), end, reasons[row])
        keep = ~bad[walk.owner] if bad.any() else slice(None)
        owner, body_at, body_len, header_at = (x[keep] for x in (walk.owner, walk.body_at, walk.body_len, walk.at))
        unit_owner, unit_sequence, unit_count, message_row = self._units(headers, bad, owner)
        kind, unknown, malformed = self._kinds.read(data, header_at, body_at, body_len)
        instrument_row, instrument = self._kinds.instruments(data, kind, body_at, body_len, message_row)
        self._symbols.learn(data, kind, body_at, session)
        time_ns = None if headers.time_ns is None else headers.time_ns[unit_owner]
        if self.protocol.time_zone:
            time_ns = self._kinds.times(data, kind, body_at)
        if not self._digests:
            digest = np.empty(0, dtype=np.uint64)
        elif self.protocol.unit == "datagram":
            digest = digests(data, at[unit_owner], (end_at - at)[unit_owner])
        else:
            digest = digests(data, body_at, body_len)
        sampled, sampled_of, errors = self._dissect(data, kind, body_at, body_len)
        faults = np.bincount(reasons, minlength=len(Fault)).tolist()
        return DecodedColumns(
            row=row[unit_owner],
            key=self._key(names, unit_owner, unit_sequence) if self._keys else np.empty(0, dtype=np.uint64),
            sequence=unit_sequence,
            count=unit_count,
            time_ns=time_ns,
            datagrams=headers,
            message_row=message_row,
            message_at=body_at,
            message_len=body_len,
            kind=kind,
            instrument_row=instrument_row,
            instrument=instrument,
            digest=digest,
            kinds=self.kinds,
            sessions=self._names,
            faults={fault: faults[fault] for fault in Fault if fault and faults[fault]},
            unknown=unknown,
            malformed=malformed,
            version=self._kinds.version(data, header_at),
            sampled=sampled,
            sampled_of=sampled_of,
            sample_errors=errors,
            halts=self._halts.read(data, kind, body_at, message_row),
        )

    def describe(self, instrument: int) -> str:
        """The text of an instrument: its symbol, or its number where the wire has not said that."""
        if self._kinds.symbols:
            return instrument.to_bytes(8, "little").decode("ascii", "backslashreplace").strip("\0 ")
        return self._symbols.name(instrument)

    def _check(self, row: Ints, head: NDArray[np.uint8], reasons: NDArray[np.uint8]) -> tuple[Ints, NDArray[np.uint8]]:
        if not len(row):
            return row, head
        wrong = np.zeros(len(row), dtype=np.bool_)
        for name, allowed in self.protocol.expect.items():
            wrong |= ~np.isin(self._packet.fields[name].read(head), np.array(allowed, dtype=np.uint64))
        reasons[row[wrong]] = Fault.HEADER
        if self._sequence.size == 8:
            beyond = ~wrong & (self._sequence.read(head) >= np.uint64(HIGHEST))
            reasons[row[beyond]] = Fault.SEQUENCE
            wrong |= beyond
        return (row[~wrong], head[~wrong]) if wrong.any() else (row, head)

    def _session(self, head: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint64]]:
        """The bytes that name each datagram's session, and its number."""
        parts = [head[:, f.at : f.at + f.size] for f in self._session_fields]
        if not parts:
            return np.empty((len(head), 0), dtype=np.uint8), np.zeros(len(head), dtype=np.uint64)
        names = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)
        if not len(names):
            return names, np.zeros(0, dtype=np.uint64)
        if (names == names[0]).all():
            return names, np.full(len(names), self._number(names[0], head[0]), dtype=np.uint64)
        flat = np.ascontiguousarray(names).view(f"V{names.shape[1]}")[:, 0]
        _, first, inverse = np.unique(flat, return_index=True, return_inverse=True)
        numbers = np.array([self._number(names[i], head[i]) for i in first.tolist()], dtype=np.uint64)
        return names, numbers[inverse]

    def _number(self, name: NDArray[np.uint8], head: NDArray[np.uint8]) -> int:
        raw = name.tobytes()
        number = self._numbers.get(raw)
        if number is None:
            if len(self._numbers) >= _SESSIONS:
                self._numbers.clear()
                self._names.clear()
            number = int(xxh64_rows(np.ascontiguousarray(name).reshape(1, -1))[0]) or 1
            values = [f.read(head.reshape(1, -1))[0] for f in self._session_fields]
            texts = [v.tobytes().decode("ascii", "backslashreplace").strip("\0 ") if f.kind == "bytes" else str(v)
                     for f, v in zip(self._session_fields, values, strict=True)]  # fmt: skip
            self._numbers[raw], self._names[number] = number, "/".join(texts)
        return number

    def _count(self, head: NDArray[np.uint8]) -> tuple[Ints, NDArray[np.bool_]]:
        if self._counter is None:
            return np.full(len(head), -1, dtype=np.int64), np.zeros(len(head), dtype=np.bool_)
        items = self._packet.items
        count = self._counter.read(head).astype(np.int64)
        end = np.zeros(len(head), dtype=np.bool_)
        if self.protocol.end_count is not None:
            end = count == self.protocol.end_count
            count[end] = 0
        if items is not None and items.field is self._counter:
            count = (count - items.offset) * items.scale
        return np.maximum(count, 0), end

    def _time(self, head: NDArray[np.uint8]) -> Ints | None:
        if not self.protocol.time or self.protocol.time_zone:
            return None
        return self._packet.fields[self.protocol.time].read(head).view(np.int64)

    def _walk(self, data: NDArray[np.uint8], at: Ints, end: Ints, count: Ints) -> _Walk:
        """All messages of all datagrams; a count of -1 means up to the end."""
        fault = np.zeros(len(at), dtype=np.uint8)
        message = self.layouts.message
        if message is None:
            empty = np.empty(0, dtype=np.int64)
            return _Walk(empty, empty, empty, empty, fault)
        length = message.body.field if message.body else None
        scale, offset = (message.body.scale, message.body.offset) if message.body else (1, 0)
        at = at.copy()
        owners: list[Ints] = []
        headers: list[Ints] = []
        lengths: list[Ints] = []
        left = count.copy()
        active = np.flatnonzero((left > 0) | ((left < 0) & (at < end)))
        while len(active):
            here = at[active]
            room = end[active] - here - message.size
            good = room >= 0
            body = np.zeros(len(active), dtype=np.int64)
            if length is not None:
                claimed = here[good] + length.at
                body[good] = (length.read(_row(data, claimed, length)).astype(np.int64) - offset) * scale
                good &= (body >= 0) & (body <= room)
            if not good.all():
                wrong = active[~good]
                fault[wrong] = np.where((at[wrong] >= end[wrong]) & (left[wrong] > 0), Fault.COUNT, Fault.CUT)
                active, here, body = active[good], here[good], body[good]
            owners.append(active)
            headers.append(here)
            lengths.append(body)
            at[active] = here + message.size + body
            left[active] -= 1
            active = active[
                np.where(left[active] >= 0, left[active] > 0, (left[active] < -1) & (at[active] < end[active]))
            ]
        fault[(fault == 0) & (at < end)] = Fault.TRAILING
        if len(owners) == 1:
            owner, header, body = owners[0], headers[0], lengths[0]
        elif owners:
            owner = np.concatenate(owners)
            order = np.argsort(owner, kind="stable")
            owner, header, body = owner[order], np.concatenate(headers)[order], np.concatenate(lengths)[order]
        else:
            owner = header = body = np.empty(0, dtype=np.int64)
        return _Walk(owner, header, header + message.size, body, fault)

    def _units(self, headers: Datagrams, bad: NDArray[np.bool_], owner: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        """Owner, number and count of every numbered unit, and the unit of every message."""
        if self.protocol.unit == "datagram":
            good = np.flatnonzero(~bad)
            place = np.cumsum(~bad) - 1
            return good, headers.sequence[good], np.bincount(owner, minlength=len(bad))[good], place[owner]
        first = np.searchsorted(owner, np.arange(len(bad)))
        number = headers.sequence[owner] + np.arange(len(owner)) - first[owner]
        return owner, number, np.ones(len(owner), dtype=np.int64), np.arange(len(owner), dtype=np.int64)

    def _key(self, names: NDArray[np.uint8], owner: Ints, sequence: Ints) -> NDArray[np.uint64]:
        prefix = np.frombuffer(self.protocol.space.encode() + b"\0", dtype=np.uint8)
        ids: Callable[..., NDArray[np.uint64]] | None = self.protocol.ids
        width = 0 if ids else names.shape[1]
        out = np.empty(len(owner), dtype=np.uint64)
        for low in range(0, len(owner), _KEY_ROWS):
            part = slice(low, low + _KEY_ROWS)
            number = sequence[part].astype("<u8")
            if ids:
                number = self._ids(ids, names, owner[part], sequence[part]).astype("<u8")
            rows = np.empty((len(number), len(prefix) + width + 8), dtype=np.uint8)
            rows[:, : len(prefix)] = prefix
            if width:
                rows[:, len(prefix) : len(prefix) + width] = names[owner[part]]
            rows[:, len(prefix) + width :] = number.view(np.uint8).reshape(-1, 8)
            out[part] = xxh64_rows(rows)
        return out

    def _ids(
        self, ids: Callable[..., NDArray[np.uint64]], names: NDArray[np.uint8], owner: Ints, sequence: Ints
    ) -> NDArray[np.uint64]:
        flat = np.ascontiguousarray(names).view(f"V{names.shape[1]}")[:, 0] if names.shape[1] else np.zeros(len(names))
        distinct, inverse = np.unique(flat[owner], return_inverse=True)
        return ids([one.tobytes() for one in distinct], inverse, sequence)

    def _dissect(self, data: NDArray[np.uint8], kind: NDArray[np.uint16], at: Ints, size: Ints) -> tuple[int, int, int]:
        """Let scapy take a share of the messages with a variable layout apart: (dissected, of how many, failed)."""
        classes = self._kinds.variable
        if not classes:
            return 0, 0, 0
        of = np.flatnonzero(np.isin(kind, np.array(list(classes), dtype=np.uint16)))
        chosen = of[:: self._sample]
        errors = 0
        for i in chosen.tolist():
            start = int(at[i])
            raw = data[start : start + int(size[i])].tobytes()
            try:
                errors += not _whole(classes[int(kind[i])](raw))
            except Exception:  # noqa: BLE001 - whatever a class does with hostile bytes, it is one message less
                errors += 1
        return len(chosen), len(of), errors


def _whole(packet: Any) -> bool:
    """Whether scapy took it apart to its end, and found as many elements as each count says."""
    if not isinstance(packet.payload, NoPayload):
        return False
    for field in packet.fields_desc:
        listed = getattr(field, "count_of", None)
        if listed and len(packet.getfieldval(listed)) != packet.getfieldval(field.name):
            return False
    return not any(isinstance(one, Raw) for v in packet.fields.values() if isinstance(v, list) for one in v)


def _row(data: NDArray[np.uint8], at: Ints, field: FixedField) -> NDArray[np.uint8]:
    """The bytes of one field only, placed so that `field.read` finds them."""
    rows = rows_at(data, at, field.size)
    if not field.at:
        return rows
    wide = np.zeros((len(rows), field.at + field.size), dtype=np.uint8)
    wide[:, field.at :] = rows
    return wide


class _Walk:
    """Messages found: owner datagram, header and body positions, body lengths; and the fault of each datagram."""

    __slots__ = ("at", "body_at", "body_len", "fault", "owner")

    def __init__(self, owner: Ints, at: Ints, body_at: Ints, body_len: Ints, fault: NDArray[np.uint8]) -> None:
        self.owner, self.at, self.body_at, self.body_len, self.fault = owner, at, body_at, body_len, fault


class _Kinds:
    """Message types: how they are told apart, and where the fields that matter lie in each."""

    def __init__(self, protocol: Protocol, message: Layout | None, bodies: Any) -> None:
        self._message = message
        self.names = [UNKNOWN]
        self.symbols = False
        self._field: FixedField | None = None
        self._in_body = False
        self._size = np.zeros(1, dtype=np.int64)
        self.variable: dict[int, Any] = {}
        self._places: dict[tuple[int, FixedField], list[int]] = {}  # one instrument a message: (place, field) -> kinds
        self._groups: list[tuple[int, Layout, Layout, FixedField]] = []
        self._times: FixedField | None = None
        self._version = message.fields.get(protocol.version) if message and protocol.version else None
        if message is None:
            return
        self._field = message.fields.get(protocol.kind)
        if self._field is None and bodies:
            fields = {layout.fields.get(protocol.kind) for layout in bodies.values()}
            if len(fields) != 1 or None in fields:
                raise ValueError(
                    f"protocol {protocol.name}: kind {protocol.kind!r} must be a field of {message.cls.__name__}, or "
                    "lie at the same place in every body"
                )
            self._field = fields.pop()
            self._in_body = True
        sizes = [0]
        values = []
        for code, (value, layout) in enumerate(bodies.items(), 1):
            text = value.decode("ascii", "backslashreplace") if isinstance(value, bytes) else str(value)
            self.names.append(f"{text} {layout.cls.__name__}")
            sizes.append(layout.size)
            values.append(int.from_bytes(value, "big") if isinstance(value, bytes) else value)
            if not layout.fixed:
                self.variable[code] = layout.cls
            self._instrument(protocol.instrument, code, layout)
            if protocol.time_zone and protocol.time in layout.fields:
                self._times = layout.fields[protocol.time]
        self._size = np.array(sizes, dtype=np.int64)
        order = np.argsort(np.array(values, dtype=np.uint64))
        self._values = np.array(values, dtype=np.uint64)[order]
        self._codes = (order + 1).astype(np.uint16)
        if self._field is not None and self._field.kind == "bytes":
            f = self._field
            self._field = FixedField(f.name, f.at, f.size, "uint")

    def _instrument(self, name: str, code: int, layout: Layout) -> None:
        if name in layout.fields:
            field = layout.fields[name]
            self.symbols |= field.kind == "bytes"
            self._places.setdefault((field.at, field), []).append(code)
        elif layout.items is not None and layout.items.field is not None and isinstance(layout.items.cls, type):
            from collector.decode.layout import layout as derive_layout

            element = derive_layout(layout.items.cls)
            if element.fixed and name in element.fields:
                self.symbols |= element.fields[name].kind == "bytes"
                self._groups.append((code, layout, element, element.fields[name]))

    def read(
        self, data: NDArray[np.uint8], header_at: Ints, body_at: Ints, body_len: Ints
    ) -> tuple[NDArray[np.uint16], int, int]:
        """The code of every message's type, and how many are unknown or too short for theirs (code 0 both)."""
        kind = np.zeros(len(body_at), dtype=np.uint16)
        if self._field is None or not len(body_at) or not len(self._values):
            return kind, len(kind), 0
        field = self._field
        if self._in_body:
            has = body_len >= field.at + field.size
            base = body_at
        else:
            has, base = np.ones(len(body_at), dtype=np.bool_), header_at
        where = base + field.at if has.all() else (base + field.at)[has]
        plain = FixedField(field.name, 0, field.size, "uint", field.little)
        value = plain.read(rows_at(data, where, field.size))
        place = np.minimum(np.searchsorted(self._values, value), len(self._values) - 1)
        kind[has] = np.where(self._values[place] == value, self._codes[place], 0)
        unknown = int((kind == 0).sum())
        short = body_len < self._size[kind]
        malformed = int(short.sum())
        if malformed:
            kind[short] = 0
        return kind, unknown, malformed

    def instruments(
        self, data: NDArray[np.uint8], kind: NDArray[np.uint16], body_at: Ints, body_len: Ints, message_row: Ints
    ) -> tuple[Ints, NDArray[np.uint64]]:
        """(unit, instrument) of every update, in the order of the units."""
        rows: list[Ints] = []
        found: list[NDArray[np.uint64]] = []
        for (place, field), codes in self._places.items():
            at = np.flatnonzero(np.isin(kind, np.array(codes, dtype=np.uint16)))
            rows.append(at)
            found.append(instrument_name(rows_at(data, body_at[at] + place, field.size), field))
        for code, layout, element, field in self._groups:
            at = np.flatnonzero(kind == code)
            items = layout.items
            if items is None or items.field is None:
                continue
            count = number_at(data, body_at[at], items.field)
            count = np.clip((count - items.offset) * items.scale, 0, None)
            inside = layout.size + count * element.size <= body_len[at]
            at, count = at[inside], count[inside]
            which = np.repeat(np.arange(len(at)), count)
            index = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
            places = body_at[at][which] + layout.size + index * element.size + field.at
            rows.append(at[which])
            found.append(instrument_name(rows_at(data, places, field.size), field))
        if len(rows) == 1:
            return message_row[rows[0]], found[0]
        if not rows:
            return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.uint64)
        message = np.concatenate(rows)
        order = np.argsort(message, kind="stable")
        return message_row[message[order]], np.concatenate(found)[order]

    def times(self, data: NDArray[np.uint8], kind: NDArray[np.uint16], body_at: Ints) -> Ints:
        """The time of every message, -1 where its type is unknown."""
        out = np.full(len(kind), -1, dtype=np.int64)
        if self._times is not None:
            known = np.flatnonzero(kind)
            out[known] = number_at(data, body_at[known], self._times)
        return out

    def version(self, data: NDArray[np.uint8], header_at: Ints) -> int | None:
        """The largest schema version."""
        if self._version is None or not len(header_at):
            return None
        return int(number_at(data, header_at, self._version).max())
