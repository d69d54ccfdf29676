"""Rows of an export as columns, and what was wrong with the records that were not taken."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from collector.keys import hash64
from collector.record import LABEL_SETS, Columns, Kind, Table
from collector.settings import duration_ns

_CHUNK = 32_768
_SAID = 5  # kinds of error that a partial success spells out
MAX_BODY = 8_192
MAX_VALUE = 1_024  # characters of one attribute's text
MAX_ATTRIBUTES = 32_768  # characters of all attributes of a record as JSON


class RecordError(ValueError):
    """One record cannot be taken; the others can."""


@dataclass(slots=True)
class Rows:
    """What one export becomes: rows per table, in column order, and the records that were rejected, by reason."""

    tables: dict[str, list[tuple[Any, ...]]] = field(default_factory=lambda: defaultdict(list))
    kinds: dict[str, Table] = field(default_factory=dict)
    rejected: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)  # taken, but not as sent

    def add(self, table: Table, *row: Any) -> None:
        """One row, in the table's column order."""
        self.kinds[table.name] = table
        self.tables[table.name].append(row)

    def reject(self, reason: str, n: int = 1) -> None:
        """Count records that are not taken."""
        self.rejected += n
        if reason in self.reasons or len(self.reasons) < 100:
            self.reasons[reason] = self.reasons.get(reason, 0) + n

    def note(self, text: str) -> None:
        """Count records that are taken, but not as they were sent."""
        self.notes[text] = self.notes.get(text, 0) + 1

    @property
    def message(self) -> str:
        """What was rejected and what was changed, in one line; empty when nothing was."""
        both = [*sorted(self.reasons.items(), key=lambda each: -each[1]), *self.notes.items()]
        said = [f"{n} x {reason}" for reason, n in both[:_SAID]]
        return "; ".join([*said, f"and {len(both) - _SAID} kinds more"] if len(both) > _SAID else said)

    def columns(self) -> list[Columns]:
        """All rows, at most 32,768 in each. Raises ValueError for a number that does not fit its column."""
        return [made for name, rows in self.tables.items() for made in columns_of(self.kinds[name], rows)]


def columns_of(table: Table, rows: Sequence[tuple[Any, ...]]) -> Iterator[Columns]:
    """Tuples in column order as columns; None is null."""
    for start in range(0, len(rows), _CHUNK):
        values: dict[str, NDArray[Any]] = {}
        texts: dict[str, list[str]] = {}
        nulls: dict[str, NDArray[np.bool_]] = {}
        for column, raw in zip(table.columns, zip(*rows[start : start + _CHUNK], strict=True), strict=True):
            if column.kind is Kind.TEXT:
                codes: dict[str, int] = {}
                values[column.name] = np.array([codes.setdefault(v, len(codes)) for v in raw], dtype="<u2")
                texts[column.name] = list(codes)
                continue
            if column.nullable:
                nulls[column.name] = np.array([v is None for v in raw], dtype=np.bool_)
                raw = tuple(0 if v is None else v for v in raw)
            try:
                values[column.name] = np.array(raw, dtype=column.kind.dtype)
            except OverflowError as error:
                raise ValueError(f"{column.name}: {error}") from None
        yield Columns(table, values, texts, nulls)


class Ages(Protocol):
    """Settings that say how far an event time may be from now, as durations."""

    @property
    def max_past(self) -> str:
        """The oldest."""

    @property
    def max_future(self) -> str:
        """The furthest ahead."""


class Times:
    """Which event times are believed."""

    def __init__(self, settings: Ages) -> None:
        self._past_ns = duration_ns(settings.max_past, "max_past")
        self._future_ns = duration_ns(settings.max_future, "max_future")

    def check(self, ts_ns: int, now_ns: int, what: str) -> int:
        """`ts_ns`. Raises RecordError when it is too far from `now_ns`."""
        if ts_ns < now_ns - self._past_ns:
            raise RecordError(f"{what} is older than max_past allows")
        if ts_ns > now_ns + self._future_ns:
            raise RecordError(f"{what} is further ahead than max_future allows")
        return ts_ns


class LabelSets:
    """Interns label sets, a bounded number; rows of new ones go with the export that brought them."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[tuple[tuple[str, str], ...], int] = {}

    def intern(self, labels: Iterable[tuple[str, str]], rows: Rows) -> int:
        """The set's id; 0 for an empty one, and for every new one once there are too many."""
        pairs = tuple(sorted(labels))
        if not pairs:
            return 0
        known = self._known.get(pairs)
        if known is not None:
            return known
        if len(self._known) >= self._limit:
            rows.note("labels were left out: there are too many distinct sets (label_sets)")
            return 0
        text = msgspec.json.encode(dict(pairs)).decode()
        name = self._known[pairs] = hash64("labels", text)
        rows.add(LABEL_SETS, name, text)
        return name

    def forget(self) -> None:
        """What was handed over may not have been kept: ship every set again."""
        self._known.clear()


def attributes_json(values: dict[str, Any]) -> str:
    """Attributes as the JSON object of an event. Raises RecordError when they are too large together."""
    text = msgspec.json.encode(dict(sorted(values.items()))).decode()
    if len(text) > MAX_ATTRIBUTES:
        raise RecordError(f"attributes have more than {MAX_ATTRIBUTES} characters together")
    return text
