"""The symbols of instruments that a protocol numbers, learnt from the messages that carry both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from collector.decode.layout import FixedField, Layout, LayoutError
from collector.decode.reading import number_at
from collector.packet.block import rows_at

if TYPE_CHECKING:
    from collector.decode.protocol import Protocol

Ints = NDArray[np.int64]

MOST = 65_536  # numbers that are named; others keep their number


class Symbols:
    """Names of one session: with the next one the numbers may mean others. Raises LayoutError.

    Cost: a look-up of each message that carries both; a number is read once.
    """

    def __init__(self, protocol: Protocol, bodies: Mapping[Any, Layout]) -> None:
        self._fields: list[tuple[int, FixedField, FixedField]] = []
        self._known = np.zeros(MOST, dtype=np.bool_)
        self._names: dict[int, str] = {}
        self._session: int | None = None
        if not protocol.symbol:
            return
        for code, layout in enumerate(bodies.values(), 1):
            number, text = layout.fields.get(protocol.instrument), layout.fields.get(protocol.symbol)
            if number is not None and text is not None:
                if number.kind != "uint" or text.kind != "bytes":
                    raise LayoutError(
                        f"protocol {protocol.name}: {layout.cls.__name__} must have {protocol.instrument!r} as a "
                        f"number and {protocol.symbol!r} as bytes, to name the one by the other"
                    )
                self._fields.append((code, number, text))

    def learn(
        self, data: NDArray[np.uint8], kind: NDArray[np.uint16], body_at: Ints, session: NDArray[np.uint64]
    ) -> None:
        """Take the names in a block's messages. `session` is that of its datagrams."""
        if not self._fields or not len(kind):
            return
        if len(session) and int(session[-1]) != self._session:
            self._session = int(session[-1])
            self._names.clear()
            self._known[:] = False
        for code, number, text in self._fields:
            at = body_at[kind == code]
            if not len(at):
                continue
            numbers = number_at(data, at, number)
            inside = (numbers >= 0) & (numbers < MOST)
            fresh = np.flatnonzero(inside & ~self._known[np.where(inside, numbers, 0)])
            if not len(fresh):
                continue
            found, first = np.unique(numbers[fresh], return_index=True)
            rows = rows_at(data, at[fresh[first]] + text.at, text.size)
            for one, raw in zip(found.tolist(), rows, strict=True):
                self._names[one] = raw.tobytes().decode("ascii", "backslashreplace").strip("\0 ")
            self._known[found] = True

    def name(self, instrument: int) -> str:
        """The symbol of a number, or the number itself."""
        return self._names.get(instrument) or str(instrument)
