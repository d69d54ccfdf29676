"""Bound parameters as plain values that every engine takes."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np


def plain(params: Mapping[str, Any] | None) -> dict[str, Any]:
    """Parameters as int, float, str, bool, None and lists of them. Raises TypeError naming what cannot be bound."""
    return {name: _plain(name, value) for name, value in (params or {}).items()}


def _plain(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(name, element) for element in value]
    if isinstance(value, uuid.UUID):
        return str(value)
    if isinstance(value, dt.datetime):
        if value.tzinfo is None:
            raise TypeError(f"parameter {name}: {value} has no time zone")
        return value.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    if isinstance(value, dt.date):
        return value.isoformat()
    raise TypeError(f"parameter {name}: {type(value).__name__} cannot be bound; pass a number, text, time or list")


_ESCAPES = str.maketrans({"\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\0": "\\0", "\b": "\\b", "\f": "\\f"})


def texts(params: Mapping[str, Any] | None) -> dict[str, str]:
    """Parameters in the text form that the engine parses them from: escaped outside, quoted inside lists.

    chDB's own rendering leaves lists of strings unquoted, backslashes unescaped, and None as a word.
    """
    return {name: _outer(value) for name, value in plain(params).items()}


def _outer(value: Any) -> str:
    if value is None:
        return "\\N"
    if isinstance(value, str):
        return value.translate(_ESCAPES)
    return _inner(value)


def _inner(value: Any) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "'" + value.translate(_ESCAPES).replace("'", "\\'") + "'"
    if isinstance(value, list):
        return "[" + ",".join(_inner(element) for element in value) + "]"
    return repr(value)
