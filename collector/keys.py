"""`hash64`: the one function that names a message, the same in Python, numpy, C and SQL.

    hash64(space, id) = XXH64(utf8(space) + 0x00 + id_bytes, seed 0)

`id_bytes` is the identifier as the application or the wire has it: raw bytes, the UTF-8 of a text, or the 8
little-endian bytes of an unsigned 64-bit integer. The key space (order, feed, trace) keeps equal numbers of different
kinds apart. In ClickHouse SQL: `xxHash64(concat('order', '\\0', id))` for bytes and
`xxHash64(concat('order', '\\0', reinterpretAsFixedString(toUInt64(id))))` for integers. Test vectors:
`tests/collector/hash64.csv`. XXH64: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md
"""

from __future__ import annotations

import re
from contextlib import suppress

import numpy as np
import xxhash
from numpy.typing import NDArray

_P1, _P2, _P3, _P4, _P5 = (
    np.uint64(0x9E3779B185EBCA87),
    np.uint64(0xC2B2AE3D27D4EB4F),
    np.uint64(0x165667B19E3779F9),
    np.uint64(0x85EBCA77C2B2AE63),
    np.uint64(0x27D4EB2F165667C5),
)
# 16k rows of an 8-byte column keep every temporary inside the L2 cache.
_CHUNK = 16_384


def hash64(space: str, identifier: int | bytes | str) -> int:
    """The 64-bit key of one identifier in a key space.

    Raises ValueError for an integer outside 0..2^64-1 or a key space with a NUL.
    """
    return xxhash.xxh64_intdigest(_prefix(space) + _id_bytes(identifier))


def key_of(text: str) -> int:
    """The key that people write: `0x` and hex digits, decimal digits, or `space:id`.

    An id of digits is an integer identifier, `space:'17'` the text 17. A trace id (`trace:` and hex digits) and a
    span's (`span:TRACE-SPAN`) are always lower-case texts, as W3C Trace Context has them. Raises ValueError.
    """
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,16}", text):
        return int(text, 16)
    if re.fullmatch(r"[0-9]{1,20}", text) and int(text) < 1 << 64:
        return int(text)
    space, colon, identifier = text.partition(":")
    if colon and space and identifier and "\0" not in space:
        if space in ("trace", "span"):
            return hash64(space, identifier.lower())
        if re.fullmatch(r"[0-9]{1,20}", identifier) and int(identifier) < 1 << 64:
            return hash64(space, int(identifier))
        if len(identifier) > 2 and identifier[0] == identifier[-1] == "'":
            identifier = identifier[1:-1]
        with suppress(UnicodeEncodeError):
            return hash64(space, identifier)
    raise ValueError(f"{text[:80]!r} is not a key; write 0x and hex, decimal, or space:id")


def hash64_ints(space: str, ids: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """`hash64` of many integer identifiers of one key space, vectorised: uint64[n] in, uint64[n] out."""
    prefix = _prefix(space)
    out = np.empty(len(ids), dtype=np.uint64)
    for start in range(0, len(ids), _CHUNK):
        chunk = np.ascontiguousarray(ids[start : start + _CHUNK], dtype="<u8")
        rows = np.empty((len(chunk), len(prefix) + 8), dtype=np.uint8)
        rows[:, : len(prefix)] = np.frombuffer(prefix, dtype=np.uint8)
        rows[:, len(prefix) :] = chunk.view(np.uint8).reshape(-1, 8)
        out[start : start + _CHUNK] = xxh64_rows(rows)
    return out


def xxh64_rows(rows: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """XXH64 with seed 0 of every row: uint8[n, length] in, uint64[n] out; every row has the same length."""
    n, length = rows.shape
    at = 0
    with np.errstate(over="ignore"):
        if length >= 32:
            lanes: list[NDArray[np.uint64]] = [
                np.full(n, seed, dtype=np.uint64) for seed in (_P1 + _P2, _P2, np.uint64(0), np.uint64(0) - _P1)
            ]
            while at + 32 <= length:
                for lane in range(4):
                    lanes[lane] = _round(lanes[lane], _words(rows, at + 8 * lane, "<u8"))
                at += 32
            acc = _rotl(lanes[0], 1) + _rotl(lanes[1], 7) + _rotl(lanes[2], 12) + _rotl(lanes[3], 18)
            for state in lanes:
                acc = (acc ^ _round(np.zeros(n, dtype=np.uint64), state)) * _P1 + _P4
        else:
            acc = np.full(n, _P5, dtype=np.uint64)
        acc = acc + np.uint64(length)
        while at + 8 <= length:
            acc = acc ^ _round(np.zeros(n, dtype=np.uint64), _words(rows, at, "<u8"))
            acc = _rotl(acc, 27) * _P1 + _P4
            at += 8
        if at + 4 <= length:
            acc = acc ^ (_words(rows, at, "<u4") * _P1)
            acc = _rotl(acc, 23) * _P2 + _P3
            at += 4
        while at < length:
            acc = acc ^ (rows[:, at].astype(np.uint64) * _P5)
            acc = _rotl(acc, 11) * _P1
            at += 1
        acc = (acc ^ (acc >> np.uint64(33))) * _P2
        acc = (acc ^ (acc >> np.uint64(29))) * _P3
        return acc ^ (acc >> np.uint64(32))


def _prefix(space: str) -> bytes:
    encoded = space.encode()
    if b"\0" in encoded:
        raise ValueError(f"key space {space!r} holds a NUL, which separates it from the identifier")
    return encoded + b"\0"


def _id_bytes(identifier: int | bytes | str) -> bytes:
    if isinstance(identifier, int):
        if not 0 <= identifier < 1 << 64:
            raise ValueError(f"identifier {identifier} does not fit an unsigned 64-bit integer; pass its bytes")
        return identifier.to_bytes(8, "little")
    return identifier.encode() if isinstance(identifier, str) else bytes(identifier)


def _words(rows: NDArray[np.uint8], at: int, dtype: str) -> NDArray[np.uint64]:
    size = np.dtype(dtype).itemsize
    words = np.ascontiguousarray(rows[:, at : at + size]).view(dtype)[:, 0]
    return words.astype(np.uint64)


def _rotl(x: NDArray[np.uint64], bits: int) -> NDArray[np.uint64]:
    return (x << np.uint64(bits)) | (x >> np.uint64(64 - bits))


def _round(acc: NDArray[np.uint64], word: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return _rotl(acc + word * _P2, 31) * _P1
