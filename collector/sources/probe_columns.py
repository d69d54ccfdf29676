"""Ring records into STAMPS, LINKS and INTERVALS columns: keys hashed, codes resolved, times converted. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tailsight_probe import layout

from collector.clock import ClockReading
from collector.keys import hash64_ints
from collector.record import INTERVALS, LINKS, STAMPS, Columns, Kind, Table
from collector.sources.ring_dictionary import RingDictionary

_U32_MAX = 0xFFFFFFFF
Arrays = dict[str, NDArray[Any]]


@dataclass(slots=True)
class ColumnParts:
    """Columns of one table under construction: parts of equal shape, and the texts they share."""

    table: Table
    parts: list[Arrays] = field(default_factory=list)
    words: dict[str, dict[str, int]] = field(default_factory=dict)

    def word(self, column: str, text: str) -> int:
        """The code of `text` in a TEXT column."""
        words = self.words.setdefault(column, {})
        return words.setdefault(text, len(words))

    def columns(self) -> Columns | None:
        """Everything as one `Columns`; None when there is nothing. Nulls are parts named `<column>?`."""
        if not self.parts:
            return None
        joined = {
            name: self.parts[0][name] if len(self.parts) == 1 else np.concatenate([part[name] for part in self.parts])
            for name in self.parts[0]
        }
        return Columns(
            self.table,
            {column.name: joined[column.name] for column in self.table.columns},
            {c.name: list(self.words.get(c.name, {})) for c in self.table.columns if c.kind is Kind.TEXT},
            {name[:-1]: array for name, array in joined.items() if name.endswith("?")},
        )


class RecordColumns:
    """Collects the records of several programs into one `Columns` per table."""

    def __init__(self, host: str, clock: ClockReading) -> None:
        self.stamps = ColumnParts(STAMPS)
        self.links = ColumnParts(LINKS)
        self.intervals = ColumnParts(INTERVALS)
        self.refused = 0
        self._host = host
        self._clock = clock

    def add(
        self,
        rows: NDArray[np.void],
        threads: NDArray[np.uint32],
        dictionary: RingDictionary,
        service: str,
        offset_ns: int | None = None,
    ) -> None:
        """Add records of one program.

        `offset_ns` replaces the clock's own for rings of an earlier boot, whose MONOTONIC is another one; nothing
        bounds their error then. A record with a code that the dictionary does not explain is counted in `refused`.
        """
        spans = rows["flags"] == layout.FLAG_INTERVAL
        if spans.any():
            self._add_intervals(rows[spans], threads[spans], dictionary, offset_ns)
            rows, threads = rows[~spans], threads[~spans]
        is_link = rows["point"] == layout.LINK_POINT
        if is_link.any():
            self._add_links(rows[is_link], dictionary, service, offset_ns)
            rows, threads = rows[~is_link], threads[~is_link]
        if len(rows):
            self._add_stamps(rows, threads, dictionary, service, offset_ns)

    def _add_stamps(
        self,
        rows: NDArray[np.void],
        threads: NDArray[np.uint32],
        dictionary: RingDictionary,
        service: str,
        offset_ns: int | None,
    ) -> None:
        point, known = _resolve(rows["point"], dictionary.texts["point"], lambda t: self.stamps.word("point", t))
        clock, clock_known = _resolve(rows["clock"], dictionary.texts["clock"], lambda t: self.stamps.word("clock", t))
        labels, labels_known = _label_sets(rows["labels"], dictionary.label_sets)
        keys, space_known = _keys(rows["id"], rows["space"], dictionary.texts["space"])
        known &= clock_known & labels_known & space_known
        error, error_null = self._errors(rows, dictionary.texts["clock"], offset_ns is None)
        monotonic = rows["clock"] == layout.MONOTONIC
        offset = self._clock.offset_ns if offset_ns is None else offset_ns
        depth_null = rows["depth"] == layout.NO_DEPTH
        age_null = rows["value"] == layout.NO_AGE
        n = len(rows)
        part: Arrays = {
            "ts_ns": rows["time_ns"] + np.where(monotonic, np.int64(offset), np.int64(0)),
            "key": keys,
            "point": point,
            "host": np.full(n, self.stamps.word("host", self._host), dtype="<u2"),
            "service": np.full(n, self.stamps.word("service", service), dtype="<u2"),
            "thread": threads,
            "clock": clock,
            "error_ns": error,
            "error_ns?": error_null,
            "depth": np.where(depth_null, np.int32(0), rows["depth"]),
            "depth?": depth_null,
            "label_set": labels,
            "outcome": rows["outcome"].copy(),
            "mode": rows["mode"].copy(),
            "cache": rows["cache"].copy(),
            "data_age_ns": np.where(age_null, np.int64(0), rows["value"]),
            "data_age_ns?": age_null,
        }
        self._keep(self.stamps, part, known)

    def _add_links(
        self, rows: NDArray[np.void], dictionary: RingDictionary, service: str, offset_ns: int | None
    ) -> None:
        spaces = dictionary.texts["space"]
        child, child_known = _keys(rows["id"], rows["space"], spaces)
        # In a link, `value` holds the parent's unsigned id and `clock` its key space.
        parent, parent_known = _keys(np.ascontiguousarray(rows["value"]).view(np.uint64), rows["clock"], spaces)
        n = len(rows)
        part: Arrays = {
            "ts_ns": rows["time_ns"] + np.int64(self._clock.offset_ns if offset_ns is None else offset_ns),
            "parent": parent,
            "child": child,
            "host": np.full(n, self.links.word("host", self._host), dtype="<u2"),
            "service": np.full(n, self.links.word("service", service), dtype="<u2"),
        }
        self._keep(self.links, part, child_known & parent_known)

    def _add_intervals(
        self, rows: NDArray[np.void], threads: NDArray[np.uint32], dictionary: RingDictionary, offset_ns: int | None
    ) -> None:
        kind, known = _resolve(rows["point"], dictionary.texts["point"], lambda t: self.intervals.word("kind", t))
        labels, labels_known = _label_sets(rows["labels"], dictionary.label_sets)
        # The level says which: of a garbage collection the generation.
        culprits = ["" if d == layout.NO_DEPTH else f"generation {d}" for d in rows["depth"].tolist()]
        n = len(rows)
        part: Arrays = {
            "ts_ns": rows["time_ns"] + np.int64(self._clock.offset_ns if offset_ns is None else offset_ns),
            "duration_ns": rows["value"].copy(),
            "kind": kind,
            "host": np.full(n, self.intervals.word("host", self._host), dtype="<u2"),
            "thread": threads,
            "culprit": np.array([self.intervals.word("culprit", text) for text in culprits], dtype="<u2"),
            "label_set": labels,
        }
        self._keep(self.intervals, part, known & labels_known)

    def _keep(self, parts: ColumnParts, part: Arrays, known: NDArray[np.bool_]) -> None:
        if not known.all():
            self.refused += len(known) - int(np.count_nonzero(known))
            part = {name: array[known] for name, array in part.items()}
        if len(part["ts_ns"]):
            parts.parts.append(part)

    def _errors(
        self, rows: NDArray[np.void], clocks: Mapping[int, str], bound_holds: bool
    ) -> tuple[NDArray[np.uint32], NDArray[np.bool_]]:
        """The error column: what the caller stated, else the clock's own bound for the host's clocks, else null."""
        stated = rows["error_ns"]
        # Unknown until something says otherwise; a bound beyond 4.29 s does not fit and says as little.
        bounds = np.full(max(clocks) + 2, layout.NO_ERROR, dtype=np.uint32)
        bound = self._clock.error_ns if bound_holds else None
        if bound is not None:
            for code, text in clocks.items():
                if text == "monotonic":
                    bounds[code] = min(bound + self._clock.bracket_ns, _U32_MAX)
                elif text == "realtime":
                    bounds[code] = min(bound, _U32_MAX)
        of_clock = bounds[np.minimum(rows["clock"], len(bounds) - 1)]
        error = np.where(stated == layout.NO_ERROR, of_clock, stated)
        null = error >= layout.LARGE_ERROR
        error[null] = 0
        return error, null


def _resolve(
    codes: NDArray[np.uint16], texts: Mapping[int, str], word: Any
) -> tuple[NDArray[np.uint16], NDArray[np.bool_]]:
    """Codes of one program as codes of the batch; False where the program's dictionary has no such code."""
    used = np.flatnonzero(np.bincount(codes))
    table = np.zeros(int(used[-1]) + 1, dtype="<u2")
    known = np.zeros(len(table), dtype=np.bool_)
    for code in used.tolist():
        if code in texts:
            table[code] = word(texts[code])
            known[code] = True
    return table[codes], known[codes]


def _label_sets(
    codes: NDArray[np.uint32], label_sets: Mapping[int, int]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    if not codes.any():
        return np.zeros(len(codes), dtype="<u8"), np.ones(len(codes), dtype=np.bool_)
    # Not bincount: a damaged code may be anywhere in 32 bits.
    used, inverse = np.unique(codes, return_inverse=True)
    found = [label_sets.get(code) for code in used.tolist()]
    table = np.array([0 if f is None else f for f in found], dtype="<u8")
    return table[inverse], np.array([f is not None for f in found])[inverse]


def _keys(
    ids: NDArray[np.uint64], codes: NDArray[np.uint16], spaces: Mapping[int, str]
) -> tuple[NDArray[np.uint64], NDArray[np.bool_]]:
    """Identifiers as keys: hashed per key space; those of space 0 are keys already."""
    out = np.array(ids, dtype="<u8")
    known = np.ones(len(ids), dtype=np.bool_)
    for code in np.flatnonzero(np.bincount(codes)).tolist():
        if code == layout.HASHED_SPACE:
            continue
        mine = codes == code
        if code not in spaces:
            known &= ~mine
        elif mine.all():
            out = hash64_ints(spaces[code], out)
        else:
            out[mine] = hash64_ints(spaces[code], out[mine])
    return out, known
