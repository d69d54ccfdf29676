"""Which messages say that an instrument's trading is halted, or goes on, in whole blocks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from collector.decode import Halts
from collector.decode.layout import FixedField, Layout, LayoutError
from collector.decode.reading import instrument_name, number_at
from collector.packet.block import rows_at

if TYPE_CHECKING:
    from collector.decode.protocol import HaltRule, Protocol

Ints = NDArray[np.int64]

MOST_RULES = 8  # each has a bit in an instrument's state


class HaltReader:
    """Applies the `halts` of a protocol. Raises LayoutError for a rule whose fields have no fixed place."""

    def __init__(self, protocol: Protocol, bodies: Mapping[Any, Layout]) -> None:
        if len(protocol.halts) > MOST_RULES:
            raise LayoutError(f"protocol {protocol.name}: {len(protocol.halts)} rules for halts, at most {MOST_RULES}")
        self._rules: list[tuple[int, int, FixedField, FixedField, HaltRule]] = []
        codes = {value: code for code, value in enumerate(bodies, 1)}
        for reason, rule in enumerate(protocol.halts):
            if rule.kind not in codes:
                raise LayoutError(f"protocol {protocol.name}: a rule for halts names no declared body: {rule.kind!r}")
            fields = bodies[rule.kind].fields
            instrument = rule.instrument or protocol.instrument
            for name in (rule.field, instrument):
                if name not in fields:
                    raise LayoutError(
                        f"protocol {protocol.name}: {bodies[rule.kind].cls.__name__} has no field {name!r} at a fixed "
                        f"place; it has {', '.join(fields)}"
                    )
            self._rules.append((reason, codes[rule.kind], fields[rule.field], fields[instrument], rule))

    def read(self, data: NDArray[np.uint8], kind: NDArray[np.uint16], body_at: Ints, message_row: Ints) -> Halts | None:
        """What the messages say of halts, in their order; None where nothing does."""
        found: list[tuple[Ints, NDArray[np.uint64], Ints, NDArray[np.bool_]]] = []
        for reason, code, field, instrument, rule in self._rules:
            at = np.flatnonzero(kind == code)
            if not len(at):
                continue
            state = number_at(data, body_at[at], field)
            halted = np.isin(state, rule.halted)
            said = halted | np.isin(state, rule.trading)
            names = instrument_name(rows_at(data, body_at[at] + instrument.at, instrument.size), instrument)
            if rule.nobody is not None:
                said &= names != np.uint64(rule.nobody)
            at = at[said]
            found.append((at, names[said], np.full(len(at), reason), halted[said]))
        if not sum(len(at) for at, *_ in found):
            return None
        message, names, reasons, halted = (np.concatenate(parts) for parts in zip(*found, strict=True))
        order = np.argsort(message, kind="stable")
        return Halts(message_row[message[order]], names[order], reasons[order].astype(np.uint8), halted[order])
