"""How long the store keeps what a history made, in words: a month in the past is not kept for a month."""

from __future__ import annotations

from collections.abc import Mapping

from collector.store.schema import Retention

# From when they were written on (schema/0001_initial.sql), whatever time they speak of.
_TABLES = {
    "stamps": "stamps",
    "messages": "messages",
    "counts_10s": "counts by 10 s",
    "counts_1m": "by minutes",
    "counts_1h": "by hours",
}


def kept_hours(retention: Retention) -> dict[str, int]:
    """Hours from now on for which each kind of row is kept, and of `heartbeats` the hours of their own time."""
    return {name: int(getattr(retention, name)) for name in (*_TABLES, "heartbeats")}


def sentences(kept: Mapping[str, int], hours: int) -> list[str]:
    """What stays of a history of so many hours, and for how long; and what is gone at once."""
    said = ", ".join(f"{words} {_span(kept[name])}" for name, words in _TABLES.items())
    found = [f"Kept from now on, by [retention]: {said}. Raise it before making a history to keep more."]
    if kept["heartbeats"] < hours:
        found.append(
            f"Completeness is known for the last {_span(kept['heartbeats'])} only ([retention] heartbeats): hours"
            " before are made again when the history is asked for again."
        )
    return found


def _span(hours: int) -> str:
    return f"{hours} h" if hours < 48 else f"{hours / 24:g} days"
