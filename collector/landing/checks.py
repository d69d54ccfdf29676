"""Which rows of a batch cannot be believed, and why: vectorised, one reason per row, the first that applies."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from collector.changes import KINDS, is_change
from collector.keys import hash64
from collector.points import Point, is_point
from collector.record import Cache, Columns, Kind, Mode, Outcome

MAX_TEXT = 1_024
MAX_LABELS = 65_536
_LONG = frozenset({"labels", "body", "attributes", "layout", "counts"})
_ENUMS: Mapping[str, int] = {"outcome": max(Outcome), "mode": max(Mode), "cache": max(Cache)}


class Reason(IntEnum):
    """Why a row is quarantined; `OK` means that it is stored."""

    OK = 0
    NEGATIVE_TIME = 1
    TIME_OUT_OF_RANGE = 2
    UNKNOWN_POINT = 3
    BAD_ENUM = 4
    NOT_FINITE = 5
    NEGATIVE_DURATION = 6
    TEXT_TOO_LONG = 7
    BAD_LABEL_SET = 8
    BAD_CHANGE = 9
    BAD_ATTRIBUTES = 10

    @property
    def text(self) -> str:
        """The word in the ledger and in the quarantine."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Bounds:
    """Event times that are believed, in nanoseconds: `earliest_ns <= ts_ns <= latest_ns`."""

    earliest_ns: int
    latest_ns: int


def judge(columns: Columns, points: Mapping[str, Point], bounds: Bounds) -> NDArray[np.uint8]:
    """A `Reason` per row of one table: uint8[n]."""
    verdict = np.zeros(len(columns), np.uint8)

    def mark(bad: NDArray[np.bool_], reason: Reason) -> None:
        if bad.any():
            verdict[bad & (verdict == Reason.OK)] = reason

    values = columns.values
    if "ts_ns" in values:
        ts = values["ts_ns"]
        mark(ts < 0, Reason.NEGATIVE_TIME)
        mark((ts < bounds.earliest_ns) | (ts > bounds.latest_ns), Reason.TIME_OUT_OF_RANGE)
    if columns.table.name == "stamps":
        mark(_of_text(columns, "point", lambda text: not is_point(text, points)), Reason.UNKNOWN_POINT)
        for name, largest in _ENUMS.items():
            mark(values[name] > largest, Reason.BAD_ENUM)
    if "duration_ns" in values:
        mark(values["duration_ns"] < 0, Reason.NEGATIVE_DURATION)
    for column in columns.table.columns:
        if column.kind is Kind.F64:
            known = ~columns.nulls.get(column.name, np.zeros(len(columns), np.bool_))
            mark(known & ~np.isfinite(values[column.name]), Reason.NOT_FINITE)
        elif column.kind is Kind.TEXT:
            limit = MAX_LABELS if column.name in _LONG else MAX_TEXT
            mark(_of_text(columns, column.name, lambda text, limit=limit: len(text) > limit), Reason.TEXT_TOO_LONG)
    if columns.table.name == "label_sets":
        pairs = zip(values["label_set"].tolist(), columns.text("labels"), strict=True)
        mark(np.array([not _is_label_set(*pair) for pair in pairs], np.bool_), Reason.BAD_LABEL_SET)
    if columns.table.name == "changes":
        parts = zip(*(columns.text(name) for name in ("id", "kind", "url", "labels")), strict=True)
        mark(np.array([not is_change(*part) for part in parts], np.bool_), Reason.BAD_CHANGE)
    if columns.table.name == "events":
        mark(_of_text(columns, "attributes", lambda text: not _is_object(text)), Reason.BAD_ATTRIBUTES)
    return verdict


def explain(reason: Reason, row: Mapping[str, Any], bounds: Bounds) -> str:
    """One sentence about a quarantined row: what was wrong with it and what to do."""
    if reason is Reason.UNKNOWN_POINT:
        return f"point {row['point']!r} is not declared; add [points.{row['point']}] with its layer"
    if reason is Reason.NEGATIVE_TIME:
        return f"ts_ns is {row['ts_ns']}: a time before 1970"
    if reason is Reason.TIME_OUT_OF_RANGE:
        return (
            f"ts_ns is {row['ts_ns']}, outside {bounds.earliest_ns}..{bounds.latest_ns}; check the host's clock, "
            "or widen [landing] max_past or max_future"
        )
    if reason is Reason.BAD_ENUM:
        return "; ".join(f"{n} is {row[n]}, at most {m} is known" for n, m in _ENUMS.items() if row[n] > m)
    if reason is Reason.NEGATIVE_DURATION:
        return f"duration_ns is {row['duration_ns']}"
    if reason is Reason.TEXT_TOO_LONG:
        return f"a text is longer than {MAX_TEXT} characters ({MAX_LABELS} for labels, body and attributes)"
    if reason is Reason.BAD_LABEL_SET:
        return "labels must be a canonical JSON object of texts, and label_set its hash64('labels', labels)"
    if reason is Reason.BAD_CHANGE:
        return f"a change needs a UUID, a kind of {', '.join(KINDS)}, a url of http(s) or none, labels of texts"
    if reason is Reason.BAD_ATTRIBUTES:
        return "attributes must be a JSON object"
    return "a number is not finite"


def rows_of(columns: Columns) -> list[dict[str, Any]]:
    """Rows as dictionaries, as they came: null is None, and what JSON cannot hold (NaN, infinity) is its name."""
    lists: dict[str, list[Any]] = {}
    for column in columns.table.columns:
        if column.kind is Kind.TEXT:
            lists[column.name] = columns.text(column.name)
            continue
        numbers = columns.values[column.name].tolist()
        if column.kind is Kind.F64:
            numbers = [v if math.isfinite(v) else repr(v) for v in numbers]
        nulls = columns.nulls.get(column.name)
        if nulls is not None:
            numbers = [None if gone else v for v, gone in zip(numbers, nulls.tolist(), strict=True)]
        lists[column.name] = numbers
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _of_text(columns: Columns, name: str, bad: Any) -> NDArray[np.bool_]:
    """Per row, whether its text is bad; each distinct text is looked at once."""
    by_code = np.array([bool(bad(text)) for text in columns.texts[name]], np.bool_)
    codes = columns.values[name]
    return by_code[codes] if by_code.any() else np.zeros(len(codes), np.bool_)


def _is_label_set(label_set: int, labels: str) -> bool:
    try:
        parsed = msgspec.json.decode(labels, type=dict[str, str])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
    canonical = msgspec.json.encode(dict(sorted(parsed.items()))).decode()
    return labels == canonical and label_set == hash64("labels", labels)


def _is_object(text: str) -> bool:
    try:
        msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError):
        return False
    return True
