"""The kernel's own type information (BTF): where fields lie and which types tracepoints pass. No compiler, no library.

Format: https://docs.kernel.org/bpf/btf.html. The file is walked once (130,000 types, about 0.1 s); only what is asked
for by name is kept.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")
_MAGIC = 0xEB9F
_HEADER = struct.Struct("<HBBIIIII")
_TYPE = struct.Struct("<III")
_INT, _ARRAY, _STRUCT, _UNION, _ENUM, _PTR, _TYPEDEF, _PROTO = 1, 3, 4, 5, 6, 2, 8, 13
# Bytes that follow a type, by kind: fixed, and per element.
_EXTRA = {
    1: (4, 0),
    3: (12, 0),
    4: (0, 12),
    5: (0, 12),
    6: (0, 8),
    13: (0, 8),
    14: (4, 0),
    15: (0, 12),
    17: (4, 0),
    19: (0, 12),
}


class BtfError(Exception):
    """The kernel has no BTF, or lacks what is needed; the message says which."""


@dataclass(frozen=True, slots=True)
class Member:
    """A field of a structure: where it begins and how many bits it has (0: not a bit field)."""

    bit: int
    bits: int

    @property
    def offset(self) -> int:
        """The byte it begins in."""
        return self.bit // 8


@dataclass(frozen=True, slots=True)
class Btf:
    """What was asked for: ids of typedefs, members of structures, and how many arguments tracepoints have."""

    typedefs: dict[str, int]
    structs: dict[str, dict[str, Member]]
    arguments: dict[str, int]

    def member(self, structure: str, name: str) -> Member:
        """A field. Raises BtfError naming it."""
        try:
            return self.structs[structure][name]
        except KeyError:
            raise BtfError(f"this kernel's {structure} has no field {name}") from None

    def tracepoint(self, name: str, arguments: int) -> int:
        """The id that a program on tracepoint `name` is loaded for. Raises BtfError when it passes something else."""
        typedef = f"btf_trace_{name}"
        if typedef not in self.typedefs:
            raise BtfError(f"this kernel has no tracepoint {name}")
        if self.arguments.get(typedef) != arguments:
            raise BtfError(f"tracepoint {name} passes {self.arguments.get(typedef)} values here, not {arguments}")
        return self.typedefs[typedef]


def read(tracepoints: Iterable[str], structures: Iterable[str], path: Path = VMLINUX) -> Btf:
    """Look up tracepoints and structures by name. Raises BtfError when the file is absent or not BTF."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BtfError(f"{path}: {error.strerror}; this kernel was built without type information") from error
    return parse(data, {f"btf_trace_{name}" for name in tracepoints}, set(structures))


def parse(data: bytes, typedefs: set[str], structures: set[str]) -> Btf:
    """Pure: BTF's bytes to what was asked for. Raises BtfError for bytes that are not BTF."""
    try:
        magic, _, _, header, type_at, type_bytes, text_at, text_bytes = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise BtfError("not BTF: the magic number is wrong")
        return _walk(data, header + type_at, type_bytes, data[header + text_at :][:text_bytes], typedefs, structures)
    except (struct.error, IndexError, ValueError) as error:
        raise BtfError(f"BTF is damaged: {error}") from error


def _walk(data: bytes, start: int, length: int, texts: bytes, typedefs: set[str], structures: set[str]) -> Btf:
    wanted = {texts.find(b"\0" + name.encode() + b"\0") + 1: name for name in (*typedefs, *structures)}
    wanted.pop(0, None)
    found, members, targets = {}, {}, {}
    places: list[int] = [0]  # where each type lies, by id; id 0 is void
    at, end, unpack, extra = start, start + length, _TYPE.unpack_from, _EXTRA
    while at < end:
        name_at, info, size_or_type = unpack(data, at)
        kind, n = info >> 24 & 0x1F, info & 0xFFFF
        places.append(at)
        name = wanted.get(name_at)
        if name is not None:
            if kind == _TYPEDEF and name in typedefs:
                found[name], targets[name] = len(places) - 1, size_or_type
            elif kind == _STRUCT and name in structures:
                members[name] = _members(data, at + _TYPE.size, n, bool(info >> 31), texts)
        fixed, each = extra.get(kind, (0, 0))
        at += 12 + fixed + each * n
    return Btf(found, members, {name: _arguments(data, places, target) for name, target in targets.items()})


def _members(data: bytes, at: int, n: int, bit_fields: bool, texts: bytes) -> dict[str, Member]:
    out = {}
    for i in range(n):
        name_at, _, where = _TYPE.unpack_from(data, at + 12 * i)
        name = texts[name_at : texts.index(b"\0", name_at)].decode()
        out[name] = Member(where & 0xFFFFFF, where >> 24) if bit_fields else Member(where, 0)
    return out


def _arguments(data: bytes, places: list[int], target: int) -> int:
    """How many values a tracepoint passes: typedef -> pointer -> function of (context, values...)."""
    _, info, pointed = _TYPE.unpack_from(data, places[target])
    if info >> 24 & 0x1F != _PTR:
        return -1
    _, info, _ = _TYPE.unpack_from(data, places[pointed])
    return (info & 0xFFFF) - 1 if info >> 24 & 0x1F == _PROTO else -1
