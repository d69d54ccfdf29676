"""Decisions that were taken on bad data: on a stale instrument, on old data, or while a channel had a gap.

What it needs, each on its own:

- a stamp per decision at `point`; without it there is no answer;
- `data_age_ns` on that stamp, to judge against a largest age;
- intervals `sequence_gap` of the feeds collector (after arbitration), whose channels the decisions are taken from;
- intervals `feed_stale`, and a label with the instrument on a stamp of the decision, named as the wire names it;
- a label with the notional, a number, to weigh decisions by.

What is not there is named in `lacking`, never counted as good.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from collector.store import Store

MOST = 1_000_000  # decisions that are judged at once
_SPANS = 200_000
_AROUND_NS = 10_000_000_000  # a decision's labels stand on stamps at most this much earlier

_DECISIONS = """
SELECT toUnixTimestamp64Nano(minIf(ts, point = {point:String})) AS at_ns,
    maxIf(data_age_ns, point = {point:String}) AS age_ns, anyIf(label_set, label_set != 0) AS labels
FROM stamps
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {around:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    AND key IN (
        SELECT key FROM stamps WHERE point = {point:String}
            AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
            AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    )
GROUP BY key
HAVING at_ns >= {from_ns:Int64} AND at_ns < {to_ns:Int64}
LIMIT {most:UInt64}
"""
_INTERVALS = """
SELECT kind, toUnixTimestamp64Nano(i.ts) AS low_ns, low_ns + i.duration_ns AS high_ns, l.labels AS labels
FROM intervals AS i
LEFT JOIN (SELECT label_set, any(labels) AS labels FROM label_sets GROUP BY label_set) AS l
    ON i.label_set = l.label_set
WHERE kind IN ('sequence_gap', 'feed_stale') AND i.ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    AND i.ts >= fromUnixTimestamp64Nano({from_ns:Int64} - 3600000000000, 'UTC')
LIMIT {most:UInt64}
"""
_LABELS = "SELECT label_set, any(labels) AS labels FROM label_sets WHERE label_set IN {sets:Array(UInt64)} GROUP BY 1"


class TooManyDecisionsError(ValueError):
    """More decisions than are judged at once; the message says what to ask instead."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """How many decisions were taken on what.

    Attributes:
        decisions: how many there were.
        aged: with data older than `max_age_ns`; None where no stamp says its data's age or no largest age was asked.
        gapped: while a channel had a gap after arbitration; None where there are no feeds.
        stale: on an instrument that was stale; None where decisions or intervals name no instruments.
        bad: on any of these.
        notional, bad_notional: sums; None where no label has one.
        lacking: what was not there to judge by.
    """

    decisions: int
    aged: int | None
    gapped: int | None
    stale: int | None
    bad: int
    notional: float | None
    bad_notional: float | None
    lacking: tuple[str, ...]


def decisions_on_bad_data(
    store: Store,
    from_ns: int,
    to_ns: int,
    *,
    point: str = "app_decision",
    max_age_ns: int | None = None,
    instrument_label: str = "symbol",
    notional_label: str = "notional",
) -> Decisions:
    """Judge the decisions in [from_ns, to_ns). Raises TooManyDecisionsError above a million."""
    asked = {"from_ns": from_ns, "to_ns": to_ns, "point": point, "around": _AROUND_NS, "most": MOST + 1}
    found = store.query(_DECISIONS, asked)
    if len(found) > MOST:
        raise TooManyDecisionsError(f"there are more than {MOST:,} decisions; ask for a shorter time")
    spans = store.query(_INTERVALS, {"from_ns": from_ns, "to_ns": to_ns, "most": _SPANS}).to_dicts()
    watched = store.query(
        "SELECT count() AS n FROM feeds WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64} - 60000000000, 'UTC') "
        "AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')",
        {"from_ns": from_ns, "to_ns": to_ns},
    )["n"][0]
    sets = found["labels"].unique().to_list() if len(found) else []
    texts = store.query(_LABELS, {"sets": sets}).to_dicts() if sets else []
    labels = {row["label_set"]: _object(row["labels"]) for row in texts}
    ages = [None if age is None else int(age) for age in found["age_ns"].to_list()]
    named = [labels.get(one, {}) for one in found["labels"].to_list()]
    return judge(
        found["at_ns"].to_numpy().astype(np.int64),
        ages,
        [one.get(instrument_label) for one in named],
        [_number(one.get(notional_label)) for one in named],
        [(s["kind"], s["low_ns"], s["high_ns"], _object(s["labels"])) for s in spans],
        watched=bool(watched),
        max_age_ns=max_age_ns,
    )


def judge(
    at_ns: NDArray[np.int64],
    ages_ns: list[int | None],
    instruments: list[str | None],
    notionals: list[float | None],
    spans: list[tuple[str, int, int, dict[str, str]]],
    *,
    watched: bool,
    max_age_ns: int | None,
) -> Decisions:
    """Judge decisions by plain values.

    Args:
        at_ns: when each was taken.
        ages_ns, instruments, notionals: of each; None where it is not known.
        spans: (kind, start, end, labels) of `sequence_gap` and `feed_stale`.
        watched: whether feeds were followed at all.
        max_age_ns: older data are stale.
    """
    count = len(at_ns)
    lacking = []
    bad = np.zeros(count, dtype=np.bool_)
    aged = gapped = stale = None
    if max_age_ns is None:
        lacking.append("a largest data age to judge by")
    elif not any(age is not None for age in ages_ns):
        lacking.append("data_age_ns on the decisions' stamps")
    else:
        old = np.array([age is not None and age > max_age_ns for age in ages_ns], dtype=np.bool_)
        aged, bad = int(old.sum()), bad | old
    if not watched:
        lacking.append("rows of the feeds collector")
    else:
        gaps = [(low, high) for kind, low, high, by in spans if kind == "sequence_gap" and by.get("line") == "all"]
        inside = _inside(at_ns, gaps)
        gapped, bad = int(inside.sum()), bad | inside
        if not any(instruments):
            lacking.append("a label with the instrument on the decisions' stamps")
        else:
            silent = np.zeros(count, dtype=np.bool_)
            by_name: dict[str, list[tuple[int, int]]] = {}
            for kind, low, high, by in spans:
                if kind == "feed_stale" and "instrument" in by:
                    by_name.setdefault(by["instrument"], []).append((low, high))
            names = np.array([name or "" for name in instruments], dtype=object)
            for name, times in by_name.items():
                mine = np.flatnonzero(names == name)
                silent[mine] = _inside(at_ns[mine], times)
            stale, bad = int(silent.sum()), bad | silent
    known = [(n, bool(b)) for n, b in zip(notionals, bad.tolist(), strict=True) if n is not None]
    if not known:
        lacking.append("a label with the notional")
    return Decisions(
        count,
        aged,
        gapped,
        stale,
        int(bad.sum()),
        sum(n for n, _ in known) if known else None,
        sum(n for n, b in known if b) if known else None,
        tuple(lacking),
    )


def _inside(at_ns: NDArray[np.int64], spans: list[tuple[int, int]]) -> NDArray[np.bool_]:
    """Which times lie in any of the spans, ends included."""
    if not spans:
        return np.zeros(len(at_ns), dtype=np.bool_)
    low, high = (np.array(sorted(column), dtype=np.int64) for column in zip(*spans, strict=True))
    begun = np.searchsorted(low, at_ns, side="right")
    ended = np.searchsorted(high, at_ns, side="left")
    return np.asarray(begun > ended)


def _object(text: Any) -> dict[str, str]:
    try:
        return dict(msgspec.json.decode(text or "{}", type=dict[str, str]))
    except msgspec.MsgspecError:
        return {}


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else None
    except ValueError:
        return None
    return value if value is not None and np.isfinite(value) else None
