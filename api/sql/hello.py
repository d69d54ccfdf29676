"""The first answer that clickhouse-go wants, encoded by hand.

From version 2.37 on it decodes this one block in the revision that it has asked for, and every later one in the
revision that the block names. The engine writes blocks of revision 0; so this block says 0.
"""

from __future__ import annotations

import struct

COLUMNS = ("displayName()", "version()", "revision()", "timezone()")
# From this revision on a block begins with its info, and each column has a byte for custom serialisation.
_WITH_BLOCK_INFO, _WITH_SERIALIZATION = 51_903, 54_454


def hello(protocol: int, display_name: str, version: str, timezone: str) -> bytes:
    """The Native block of `SELECT displayName(), version(), revision(), timezone()` for a client of that revision."""
    out = bytearray()
    if protocol >= _WITH_BLOCK_INFO:
        out += bytes.fromhex("010002ffffffff00")  # no overflow, no bucket, end
    out += bytes((len(COLUMNS), 1))
    values = (_text(display_name), _text(version), struct.pack("<I", 0), _text(timezone))
    for name, value in zip(COLUMNS, values, strict=True):
        out += _text(name) + _text("UInt32" if name == "revision()" else "String")
        if protocol >= _WITH_SERIALIZATION:
            out.append(0)
        out += value
    return bytes(out)


def _text(value: str) -> bytes:
    raw = value.encode()[:127]  # one byte of length
    return bytes((len(raw),)) + raw
