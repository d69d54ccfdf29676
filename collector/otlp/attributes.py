"""OTLP attribute values as plain values, bounded."""

from __future__ import annotations

import math
from typing import Any

from collector.otlp.rows import MAX_VALUE, RecordError

_DEPTH = 8
_ITEMS = 128


def plain(pairs: Any, limit: int) -> dict[str, Any]:
    """Repeated `KeyValue` as a dictionary. Raises RecordError for more than `limit` of them."""
    if len(pairs) > limit:
        raise RecordError(f"{len(pairs)} attributes, at most {limit} are taken (attributes)")
    return {pair.key[:200]: value_of(pair.value) for pair in pairs}


def value_of(value: Any, depth: int = 0) -> Any:
    """An `AnyValue` as JSON has it: bytes as hex, what is not finite as its name, long texts cut."""
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    found = getattr(value, kind)
    if kind == "string_value":
        return found if len(found) <= MAX_VALUE else found[:MAX_VALUE] + "..."
    if kind == "double_value":
        return found if math.isfinite(found) else repr(found)
    if kind == "bytes_value":
        return found[: MAX_VALUE // 2].hex()
    if kind in ("array_value", "kvlist_value"):
        if depth >= _DEPTH or len(found.values) > _ITEMS:
            return "..."
        if kind == "array_value":
            return [value_of(each, depth + 1) for each in found.values]
        return {pair.key[:200]: value_of(pair.value, depth + 1) for pair in found.values}
    return found


def text_of(value: Any) -> str:
    """A value as the text of a label."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else "" if value is None else str(value)


class Resource:
    """Who says it: service, host, and the attributes that may become labels."""

    __slots__ = ("host", "known", "service")

    def __init__(self, resource: Any, here: str, limit: int) -> None:
        self.known = plain(resource.attributes, limit)
        self.service = text_of(self.known.get("service.name"))[:200] or "unknown_service"
        self.host = text_of(self.known.get("host.name"))[:200] or here

    def labels(self, own: dict[str, Any], names: tuple[str, ...]) -> list[tuple[str, str]]:
        """The labels among `names` that the record or its resource states."""
        found = []
        for name in names:
            value = own.get(name, self.known.get(name))
            if value is not None:
                found.append((name, text_of(value)[:200]))
        return found
