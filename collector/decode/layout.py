"""Where the fields of a scapy class lie: derived once, so that numpy can read them without scapy.

Every field is probed: scapy takes it from a few byte patterns, and its size, byte order and sign are those that explain
all answers. A field that takes different sizes, depends on others, or is no number or bytes has no fixed place; the
layout ends there. So whatever a class overrides, the derived layout either agrees with scapy or is not used.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scapy.fields import BitField, FieldLenField, PacketField, PacketLenField, PacketListField
from scapy.packet import Packet

_LONGEST = 4096  # bytes of a field that is believed to be fixed
_PATTERNS = 6


class LayoutError(ValueError):
    """A class whose layout cannot be derived; the message says which field, and what to declare instead."""


@dataclass(frozen=True, slots=True)
class FixedField:
    """A field that lies at one place.

    Attributes:
        name: as in the class.
        at: first byte, from the start of the class.
        size: bytes it touches.
        kind: uint, int, bytes, float; raw where scapy gives something else (an address text).
        little: byte order.
        bits: for a field of single bits, how many; 0 otherwise.
        shift: bits below it in the big-endian number of `size` bytes.
    """

    name: str
    at: int
    size: int
    kind: Literal["uint", "int", "bytes", "float", "raw"]
    little: bool = False
    bits: int = 0
    shift: int = 0

    def read(self, rows: NDArray[np.uint8]) -> NDArray[Any]:
        """The field of every row (uint8[n, at least at + size]): uint64, int64, float64, or bytes as void."""
        part = rows[:, self.at : self.at + self.size]
        if self.kind in ("bytes", "raw"):
            return np.ascontiguousarray(part).view(f"V{self.size}")[:, 0]
        if self.kind == "float":
            return np.ascontiguousarray(part).view(f"{'<' if self.little else '>'}f{self.size}")[:, 0].astype("f8")
        number = _unsigned(part, self.little)
        if self.bits:
            return (number >> np.uint64(self.shift)) & np.uint64((1 << self.bits) - 1)
        if self.kind == "int":
            room = 64 - 8 * self.size
            return (number << np.uint64(room)).view(np.int64) >> np.int64(room)
        return number


def _unsigned(part: NDArray[np.uint8], little: bool) -> NDArray[np.uint64]:
    size = part.shape[1]
    if size in (1, 2, 4, 8):
        order = "<" if little else ">"
        return np.ascontiguousarray(part).view(f"{order}u{size}")[:, 0].astype(np.uint64)
    wide = np.zeros((len(part), 8), dtype=np.uint8)
    if little:
        wide[:, :size] = part
        return wide.view("<u8")[:, 0].astype(np.uint64)
    wide[:, 8 - size :] = part
    return wide.view(">u8")[:, 0].astype(np.uint64)


@dataclass(frozen=True, slots=True)
class Part:
    """What follows the fixed fields: a list of packets, or a body with a length.

    Attributes:
        name: of the scapy field.
        cls: what it consists of; a class, or a function that chooses one.
        field: the fixed field that counts the list or measures the body; None = it goes on to the end.
        scale, offset: body length = (value - offset) * scale.
        last: no field follows it.
    """

    name: str
    cls: Any
    field: FixedField | None
    scale: int = 1
    offset: int = 0
    last: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """A class as numpy reads it.

    Attributes:
        cls: the class.
        fields: the fixed fields by name, in order, up to the first that has no fixed place.
        size: bytes of those.
        items: the list that follows them, if one does.
        body: the body that follows them, if one does.
        variable: names of the fields that have no fixed place and are neither.
    """

    cls: type[Packet]
    fields: dict[str, FixedField]
    size: int
    items: Part | None
    body: Part | None
    variable: tuple[str, ...]

    @property
    def fixed(self) -> bool:
        """Whether the class is its fixed fields and nothing else."""
        return self.items is None and self.body is None and not self.variable

    def read(self, rows: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """All fixed fields of rows of at least `size` bytes."""
        return {name: field.read(rows) for name, field in self.fields.items()}


@lru_cache(4096)
def layout(cls: type[Packet]) -> Layout:
    """Derive the layout of a class. Raises LayoutError when a count or length of it cannot be followed."""
    fields: dict[str, FixedField] = {}
    counts: dict[str, Any] = {}
    at = 0
    pending: list[tuple[str, int]] = []  # bit fields that do not yet end on a byte
    described = list(cls.fields_desc)
    for number, declared in enumerate(described):
        field: Any = declared
        if not getattr(field, "isconditional", False):
            field = getattr(field, "fld", field)
        rest = tuple(f.name for f in described[number + 1 :])
        if isinstance(field, (PacketListField, PacketField, PacketLenField)) and not pending:
            part = _part(cls, field, fields, counts, last=not rest)
            if part is None:
                return Layout(cls, fields, at, None, None, (field.name, *rest))
            items = part if isinstance(field, PacketListField) else None
            return Layout(cls, fields, at, items, None if items else part, rest)
        if isinstance(field, BitField):
            pending.append((field.name, field.size))
            if sum(size for _, size in pending) % 8:
                continue
            found = _bits(cls, described, pending, at)
            pending = []
        else:
            one = None if pending else _probe(cls, field, at)
            found = None if one is None else [one]
        if found is None:
            first = pending[0][0] if pending else field.name
            names = tuple(f.name for f in described)
            return Layout(cls, fields, at, None, None, names[names.index(first) :])
        for one in found:
            fields[one.name] = one
        at = found[-1].at + found[-1].size if len(found) == 1 else max(f.at + f.size for f in found)
        if isinstance(field, FieldLenField):
            counts[field.length_of or field.count_of or ""] = field
    if pending:
        return Layout(cls, fields, at, None, None, tuple(name for name, _ in pending))
    return Layout(cls, fields, at, None, None, ())


def _part(
    cls: type[Packet], field: Any, fields: dict[str, FixedField], counts: dict[str, Any], *, last: bool
) -> Part | None:
    chosen = getattr(field, "cls", None)
    if getattr(field, "next_cls_cb", None) is not None:
        return None
    counter = counts.get(field.name)
    measured = getattr(field, "length_from", None) or getattr(field, "count_from", None)
    if counter is None:
        if measured is not None:
            raise LayoutError(
                f"{cls.__name__}.{field.name}: its length or count is a function; declare the field it comes from as "
                f"FieldLenField(..., length_of={field.name!r}) or count_of={field.name!r}"
            )
        return Part(field.name, chosen, None, last=last)
    try:
        offset, high = int(counter.adjust(None, 0)), int(counter.adjust(None, 840))
        middle = int(counter.adjust(None, 420))
    except Exception as error:
        raise LayoutError(f"{cls.__name__}.{counter.name}: adjust cannot be followed: {error}") from error
    if high <= offset or 840 % (high - offset) or 2 * (middle - offset) != high - offset:
        raise LayoutError(f"{cls.__name__}.{counter.name}: adjust must be x // scale + offset")
    return Part(field.name, chosen, fields[counter.name], 840 // (high - offset), offset, last)


def _patterns(size: int) -> list[bytes]:
    rng = np.random.default_rng(20)
    rising = (np.arange(size) + 1).astype(np.uint8).tobytes()
    return [rising, b"\xff" * size, b"\x00" * size] + [rng.bytes(size) for _ in range(_PATTERNS)]


def _probe(cls: type[Packet], field: Any, at: int) -> FixedField | None:
    """The field as scapy takes it from every pattern; None if it has no fixed size."""
    if getattr(field, "isconditional", False):
        return None
    sizes = set()
    answers = []
    for pattern in _patterns(_LONGEST):
        try:
            left, value = field.getfield(cls(), pattern)
        except Exception:  # noqa: BLE001 - a field that cannot stand alone has no fixed place
            return None
        if not isinstance(left, bytes):
            return None
        sizes.add(len(pattern) - len(left))
        answers.append((pattern, value))
    if len(sizes) != 1:
        return None
    size = sizes.pop()
    if not 0 < size < _LONGEST:
        return None
    for kind, little in _readings(size):
        candidate = FixedField(field.name, at, size, kind, little)  # type: ignore[arg-type]
        moved = FixedField(field.name, 0, size, kind, little)  # type: ignore[arg-type]
        rows = np.frombuffer(b"".join(p[:size] for p, _ in answers), np.uint8).reshape(-1, size)
        got = moved.read(rows).tolist()
        if all(_same(a, b) for a, (_, b) in zip(got, answers, strict=True)):
            return candidate
    return FixedField(field.name, at, size, "raw")


def _same(one: Any, other: Any) -> bool:
    return type(one) is type(other) and (one == other or (one != one and other != other))  # NaN is NaN


def _readings(size: int) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = [("bytes", False)]
    if size <= 8:
        found = [("uint", False), ("uint", True), ("int", False), ("int", True), *found]
    if size in (4, 8):
        found += [("float", False), ("float", True)]
    return found


def _bits(cls: type[Packet], described: list[Any], names: list[tuple[str, int]], at: int) -> list[FixedField] | None:
    """A run of bit fields that ends on a byte, checked against scapy."""
    total = sum(size for _, size in names)
    found = []
    before = 0
    for name, size in names:
        if size <= 0:
            return None  # reversed
        first, last = before // 8, (before + size - 1) // 8
        if last - first >= 8:
            return None
        shift = (last + 1) * 8 - before - size
        whole = shift == 0 and size % 8 == 0 and before % 8 == 0
        found.append(FixedField(name, at + first, last - first + 1, "uint", False, 0 if whole else size, shift))
        before += size
    by_name = {f.name: f for f in described}
    for pattern in _patterns(total // 8):
        state: Any = pattern
        row = np.frombuffer(b"\0" * at + pattern, np.uint8).reshape(1, -1)
        for one in found:
            try:
                state, value = by_name[one.name].getfield(cls(), state)
            except Exception:  # noqa: BLE001 - as in _probe
                return None
            if not isinstance(value, int) or int(value) != int(one.read(row)[0]):
                return None
    return found
