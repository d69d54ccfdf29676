"""Single fields of many messages: a number, or the 64 bits by which an instrument is named."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from collector.decode.layout import FixedField
from collector.packet.block import rows_at

Ints = NDArray[np.int64]


def number_at(data: NDArray[np.uint8], base: Ints, field: FixedField) -> Ints:
    """The field of the bodies that start at `base`, read as an unsigned number."""
    plain = FixedField(field.name, 0, field.size, "uint", field.little)
    return plain.read(rows_at(data, base + field.at, field.size)).astype(np.int64)


def instrument_name(rows: NDArray[np.uint8], field: FixedField) -> NDArray[np.uint64]:
    """An instrument's 64 bits: its number, or the first 8 bytes of its symbol, little-endian."""
    if field.kind == "bytes":
        wide = np.zeros((len(rows), 8), dtype=np.uint8)
        wide[:, : min(8, field.size)] = rows[:, :8]
        return wide.view("<u8")[:, 0].astype(np.uint64)
    return FixedField(field.name, 0, field.size, "uint", field.little).read(rows)
