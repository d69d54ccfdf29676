"""`hash64`: the key of an identifier in a key space, equal to the agent's and the store's.

    hash64(space, id) = XXH64(utf8(space) + 0x00 + id_bytes, seed 0)

The compiled core or the `xxhash` package compute it when they are there; the pure Python form below always works.
XXH64: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

from collections.abc import Callable

_P1, _P2, _P3, _P4, _P5 = (
    0x9E3779B185EBCA87,
    0xC2B2AE3D27D4EB4F,
    0x165667B19E3779F9,
    0x85EBCA77C2B2AE63,
    0x27D4EB2F165667C5,
)
_M = (1 << 64) - 1


def xxh64_pure(data: bytes) -> int:
    """XXH64 of `data` with seed 0, in Python integers (some microseconds for a short text)."""
    n = len(data)
    at = 0
    if n >= 32:
        lanes = [(_P1 + _P2) & _M, _P2, 0, -_P1 & _M]
        while at + 32 <= n:
            for lane in range(4):
                lanes[lane] = _round(lanes[lane], int.from_bytes(data[at : at + 8], "little"))
                at += 8
        acc = (_rotl(lanes[0], 1) + _rotl(lanes[1], 7) + _rotl(lanes[2], 12) + _rotl(lanes[3], 18)) & _M
        for lane in lanes:
            acc = ((acc ^ _round(0, lane)) * _P1 + _P4) & _M
    else:
        acc = _P5
    acc = (acc + n) & _M
    while at + 8 <= n:
        acc ^= _round(0, int.from_bytes(data[at : at + 8], "little"))
        acc = (_rotl(acc, 27) * _P1 + _P4) & _M
        at += 8
    if at + 4 <= n:
        acc ^= int.from_bytes(data[at : at + 4], "little") * _P1 & _M
        acc = (_rotl(acc, 23) * _P2 + _P3) & _M
        at += 4
    while at < n:
        acc ^= data[at] * _P5 & _M
        acc = _rotl(acc, 11) * _P1 & _M
        at += 1
    acc = ((acc ^ (acc >> 33)) * _P2) & _M
    acc = ((acc ^ (acc >> 29)) * _P3) & _M
    return acc ^ (acc >> 32)


def _rotl(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (64 - bits))) & _M


def _round(acc: int, word: int) -> int:
    return _rotl((acc + word * _P2) & _M, 31) * _P1 & _M


def _fastest() -> Callable[[bytes], int]:
    try:
        from tailsight_probe._core import xxh64

        return xxh64
    except ImportError:
        pass
    try:
        from xxhash import xxh64_intdigest

        return xxh64_intdigest
    except ImportError:
        return xxh64_pure


xxh64 = _fastest()


def prefix(space: str) -> bytes:
    """What is hashed before the identifier. Raises ValueError for a key space with a NUL."""
    encoded = space.encode()
    if b"\0" in encoded:
        raise ValueError(f"key space {space!r} holds a NUL, which separates it from the identifier")
    return encoded + b"\0"


def hash64(space: str, identifier: int | bytes | str) -> int:
    """The 64-bit key of one identifier in a key space.

    Raises ValueError for an integer outside 0..2^64-1 or a key space with a NUL. (`stamp` and `link` do not raise.)
    """
    if isinstance(identifier, int):
        if not 0 <= identifier <= _M:
            raise ValueError(f"identifier {identifier} does not fit an unsigned 64-bit integer; pass its bytes")
        data = identifier.to_bytes(8, "little")
    elif isinstance(identifier, str):
        data = identifier.encode()
    else:
        data = bytes(identifier)
    return xxh64(prefix(space) + data)
