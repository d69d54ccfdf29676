"""Which hours a history has: whole ones, up to the last that is over or to where the directory's own stamps begin. Pure
but for what it asks the store.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from datetime import UTC, datetime

from api.demo.history.calendar import DAY_NS, HOUR_NS, NS
from api.demo.history.shipping import NAME
from collector.store import Store

MOST_HOURS = 366 * 24
_MARGIN_NS = 60 * NS  # no window may hold messages of a history and others


class PlanError(ValueError):
    """This history cannot be made here; the message says why and what could be done."""


@dataclass(frozen=True, slots=True)
class Range:
    """Whole hours, [from_ns, to_ns)."""

    from_ns: int
    to_ns: int

    @property
    def hours(self) -> range:
        """When each hour begins."""
        return range(self.from_ns, self.to_ns, HOUR_NS)

    def days(self) -> list[Range]:
        """It in pieces that lie within one UTC day."""
        found, at = [], self.from_ns
        while at < self.to_ns:
            end = min(self.to_ns, at - at % DAY_NS + DAY_NS)
            found.append(Range(at, end))
            at = end
        return found

    def sentence(self) -> str:
        """It in words."""
        return f"{_utc(self.from_ns)} to {_utc(self.to_ns)}"


def whole_hours(length_ns: int, end_ns: int) -> Range:
    """The whole hours that end at or before `end_ns` and are at least `length_ns` together. Raises PlanError."""
    hours = -(-length_ns // HOUR_NS)
    if not 1 <= hours <= MOST_HOURS:
        raise PlanError(f"a history is longer than nothing and at most {MOST_HOURS // 24} days, got {hours} hours")
    to_ns = end_ns - end_ns % HOUR_NS
    if to_ns < hours * HOUR_NS:
        raise PlanError("a history begins after 1970")
    return Range(to_ns - hours * HOUR_NS, to_ns)


def settle(store: Store, collector: uuid.UUID, length_ns: int, until_ns: int | None, now_ns: int) -> Range:
    """The hours of a history of `collector` in this store. Raises PlanError where others have stamps in them."""
    found = whole_hours(length_ns, now_ns - _MARGIN_NS if until_ns is None else min(until_ns, now_ns - _MARGIN_NS))
    first = _others(store, collector, found)
    if first is not None and until_ns is None and first[1] != NAME:
        found = whole_hours(length_ns, first[0] - _MARGIN_NS)
        first = _others(store, collector, found)
    if first is not None:
        at_ns, name = first
        what = "a history of other settings" if name == NAME else f"stamps of {name!r}"
        raise PlanError(
            f"this directory has {what} from {_utc(at_ns)} on, within {found.sentence()}: use another --data DIR, "
            f"or end before with --until {_utc((at_ns - _MARGIN_NS) // HOUR_NS * HOUR_NS)}"
        )
    return found


def refuse_others(store: Store, collector: uuid.UUID, span: Range) -> None:
    """Raise PlanError when others than `collector` have stamps in a span."""
    first = _others(store, collector, span)
    if first is not None:
        raise PlanError(
            f"this directory has stamps of {first[1]!r} from {_utc(first[0])} on, within {span.sentence()}: "
            "use another --data DIR"
        )


def _others(store: Store, collector: uuid.UUID, span: Range) -> tuple[int, str] | None:
    """The first event of others in a span, and whose it is."""
    rows = store.query(
        """
        SELECT toUnixTimestamp64Nano(greatest(first_ts, fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC'))) AS at,
            toString(name) AS called
        FROM batches
        WHERE collector != {me:UUID} AND (has(tables, 'stamps') OR has(tables, 'links'))
            AND first_ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
            AND last_ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
        ORDER BY at LIMIT 1
        """,
        {"me": collector, "from_ns": span.from_ns - _MARGIN_NS, "to_ns": span.to_ns + _MARGIN_NS},
    )
    return (int(rows["at"][0]), str(rows["called"][0])) if len(rows) else None


def _utc(ns: int) -> str:
    return f"{datetime.fromtimestamp(ns // NS, UTC):%Y-%m-%dT%H:%M:%SZ}"
