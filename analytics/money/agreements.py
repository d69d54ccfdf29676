"""Provider agreements: a contract's percentile, what was measured, and the credit that is due. `[agreements.NAME]`.

Measured is not exact: the percentile has its interval from the count, every latency may be off by its clocks' error,
and messages that did not finish or never arrived may have been fast or slow. The near end of all that is the smallest
latency the provider may still have delivered, the far end the largest. Broken is what even the near end breaks; kept is
what even the far end keeps; between them it is not decided, and no credit is due.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

import msgspec

from analytics.completeness import share
from analytics.money.value import tables
from analytics.paths import END_TO_END, Path
from analytics.percentiles import Counts, percentile
from analytics.slo.objectives import period
from analytics.slo.openslo import TimeWindow
from analytics.tally import Tally, stored, widen
from collector.settings import ConfigError, Section, duration_ns, section
from collector.store import Store

NS = 1_000_000_000
_MOST = 100
_UNITS = {"day": "d", "week": "w", "month": "M", "quarter": "Q", "year": "Y"}
Verdict = Literal["kept", "broken", "not decided"]


class CreditStep(Section, frozen=True, kw_only=True):
    """Above this latency, so much of the fee comes back."""

    above: str
    share: float

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if duration_ns(self.above, "above") <= 0:
            raise ConfigError("above", "must be longer than nothing")
        if not 0 < self.share <= 1:
            raise ConfigError("share", "must be a share of the fee, above 0 and at most 1")

    @property
    def above_ns(self) -> int:
        """`above` in nanoseconds."""
        return duration_ns(self.above, "above")


class Agreement(Section, frozen=True, kw_only=True):
    """`[agreements.NAME]`: `percentile` of `stage` of `path` is at most `limit`, per calendar `period` in `time_zone`.

    `credits` are steps of latency with the share of `fee` (per period) that is due; the first is usually the limit.
    `match` is one label that the path counts: the provider's own messages.
    """

    provider: str
    path: str
    percentile: float
    limit: str
    stage: str = END_TO_END
    match: str = ""
    period: Literal["day", "week", "month", "quarter", "year"] = "month"
    time_zone: str = "UTC"
    fee: float = 0.0
    credits: tuple[CreditStep, ...] = ()

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if not self.provider.strip() or len(self.provider) > 200:
            raise ConfigError("provider", "must be 1 to 200 characters")
        if not 0 < self.percentile < 100:
            raise ConfigError("percentile", f"{self.percentile} must lie between 0 and 100, such as 99.9")
        if duration_ns(self.limit, "limit") <= 0:
            raise ConfigError("limit", "must be longer than nothing")
        if not 0 <= self.fee < math.inf:
            raise ConfigError("fee", "must be 0 or more")
        if self.match and not self.match.partition("=")[2]:
            raise ConfigError("match", f"{self.match!r} must be label=value")
        try:
            ZoneInfo(self.time_zone)
        except (KeyError, ValueError, OSError):
            raise ConfigError("time_zone", f"{self.time_zone[:80]!r} is no time zone, such as Europe/Berlin") from None
        before = self.limit_ns - 1
        for i, step in enumerate(self.credits):
            try:
                step.validate()
            except ConfigError as error:
                raise ConfigError(f"credits[{i}].{error.field}", error.problem) from error
            if step.above_ns <= before:
                raise ConfigError(f"credits[{i}].above", "must grow from step to step, and not be below the limit")
            before = step.above_ns

    @property
    def limit_ns(self) -> int:
        """`limit` in nanoseconds."""
        return duration_ns(self.limit, "limit")

    def around(self, at_s: int) -> tuple[int, int]:
        """Start and end of the calendar period that holds `at_s`, epoch seconds."""
        # 2018 began on a Monday, as weeks do.
        window = TimeWindow(1, _UNITS[self.period], False, "2018-01-01T00:00:00", self.time_zone)
        return period(window, at_s)


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """An agreement in one period: measured, how sure, and what is due.

    `near_ns` and `far_ns` (None: no bound) are the ends of what the percentile may have been, with the interval of the
    count (`ci`), the largest clock error (`clock_error_ns`, None: not known), `unfinished` messages, those `missing`
    the stage, and `lost` events (None: not known), each of which may have been a message's.
    `credit` is of the step that even `near_ns` exceeds. `over` says whether the period has ended.
    """

    agreement: str
    provider: str
    path: str
    stage: str
    match: str
    percentile: float
    limit_ns: int
    from_ns: int
    to_ns: int
    over: bool
    count: int
    unfinished: int
    missing: int
    lost: int | None
    value_ns: int | None
    ci: tuple[int, int] | None
    clock_error_ns: int | None
    near_ns: int | None
    far_ns: int | None
    verdict: Verdict
    credit_share: float
    credit: float
    currency: str
    reason: str
    sentence: str


def agreements_from(document: Mapping[str, Any], paths: Mapping[str, Path], source: str = "") -> dict[str, Agreement]:
    """The declared agreements by name. Raises ConfigError."""
    found = {}
    for name, fields in tables(document, "agreements", source, _MOST).items():
        one = section(fields, Agreement, f"agreements.{name}", source)
        path = paths.get(one.path)
        where = f"agreements.{name}"
        if path is None:
            known = ", ".join(sorted(paths)) or "none"
            raise ConfigError(f"{where}.path", f"there is no path {one.path[:80]!r}; there are {known}", source)
        if one.stage not in path.stage_names:
            stages = ", ".join(path.stage_names)
            raise ConfigError(f"{where}.stage", f"path {path.name} has no such stage; it has {stages}", source)
        label = one.match.partition("=")[0]
        if label and label not in path.rollup:
            raise ConfigError(
                f"{where}.match", f"{label!r} is not counted: add it to rollup of [paths.{path.name}]", source
            )
        found[name] = one
    return found


def bounds(
    counts: Counts, quantile: float, unseen: int | None, clock_error_ns: int | None
) -> tuple[int | None, int | None, str]:
    """The near and the far end of a percentile, and the reason where there is none.

    `unseen` messages have no latency (unfinished, without an end, or lost with an event): they are taken for the
    fastest of all at the near end and for the slowest at the far end. Without a known clock error, or where nobody
    knows what was lost, there is no end.
    """
    asked = percentile(counts, quantile)
    if asked.refused:
        return None, None, asked.refused
    if clock_error_ns is None:
        return None, None, "the clocks' error is not known for some messages"
    if unseen is None:
        return None, None, "how many events did not arrive is not known"
    n = counts.count
    # Rank r of all is rank r - unseen of those seen if the others were faster, and r if they were slower.
    low, high = (quantile * (n + unseen) - unseen) / n, quantile * (n + unseen) / n
    near = percentile(counts, low) if 0 < low < 1 else None
    far = percentile(counts, high) if high < 1 else None
    near_ns = None if near is None or near.low_ns is None else near.low_ns - clock_error_ns
    far_ns = None if far is None or far.high_ns is None else far.high_ns + clock_error_ns
    return near_ns, far_ns, ""


def judge(limit_ns: int, near_ns: int | None, far_ns: int | None) -> Verdict:
    """Broken where even the near end is above the limit, kept where even the far end is not."""
    if near_ns is not None and near_ns > limit_ns:
        return "broken"
    return "kept" if far_ns is not None and far_ns <= limit_ns else "not decided"


def due(one: Agreement, near_ns: int | None) -> float:
    """The share of the fee that is due: of the highest step that even the near end exceeds."""
    return max((step.share for step in one.credits if near_ns is not None and near_ns > step.above_ns), default=0.0)


def agreement(
    store: Store, name: str, one: Agreement, currency: str, *, at_ns: int, now_ns: int | None = None
) -> Judged:
    """Judge the calendar period that holds `at_ns`. Raises StoreError."""
    now = time.time_ns() if now_ns is None else now_ns
    start, end = one.around(at_ns // NS)
    first, last = widen(start * NS, min(end * NS, now))
    quantile = one.percentile / 100
    found = stored(store, one.path, first, max(last, first + 10), stage=one.stage, rollup=one.match)
    tally = next(iter(found.values()), None) or Tally()
    counts = tally.counts
    known = share(store, first * NS, min(last * NS, now), now_ns=now)
    complete = known.share if known.share is not None or end * NS <= now else known.known_share
    lost = None if complete is None else known.missing
    clock = None if tally.sums["error_unknown"] else tally.max_error_ns
    asked = percentile(counts, quantile)
    unseen = None if lost is None else tally.sums["unfinished"] + tally.sums["missing"] + lost
    near, far, reason = bounds(counts, quantile, unseen, clock)
    verdict = judge(one.limit_ns, near, far)
    over = end * NS <= now
    # Before a period ends it can be broken already in no sense that pays: the rest may mend it.
    credit = due(one, near) if over else 0.0
    return Judged(
        agreement=name, provider=one.provider, path=one.path, stage=one.stage, match=one.match,
        percentile=one.percentile, limit_ns=one.limit_ns, from_ns=start * NS, to_ns=end * NS, over=over,
        count=counts.count, unfinished=tally.sums["unfinished"], missing=tally.sums["missing"], lost=lost,
        value_ns=asked.value_ns,
        ci=None if asked.low_ns is None or asked.high_ns is None else (asked.low_ns, asked.high_ns),
        clock_error_ns=clock, near_ns=near, far_ns=far, verdict=verdict, credit_share=credit,
        credit=credit * one.fee, currency=currency, reason=reason or _why(verdict, near, far),
        sentence=_sentence(one, asked.value_ns, near, far, verdict, credit, currency, over, reason, start),
    )  # fmt: skip


def _why(verdict: Verdict, near: int | None, far: int | None) -> str:
    if verdict != "not decided":
        return ""
    if near is None or far is None:
        return "so many messages did not finish or arrive that the percentile has no bound"
    return "the limit lies inside what the measurement leaves open"


def _ms(ns: int | None) -> str:
    return "no bound" if ns is None else f"{ns / 1e6:.4g} ms"


def _sentence(
    one: Agreement, value: int | None, near: int | None, far: int | None, verdict: Verdict, credit: float,
    currency: str, over: bool, reason: str, start: int,
) -> str:  # fmt: skip
    since = datetime.fromtimestamp(start, UTC).astimezone(ZoneInfo(one.time_zone)).date().isoformat()
    head = f"{one.provider}, {one.period} from {since}{'' if over else ' so far'}: "
    if value is None or reason:
        return f"{head}not decided, {reason or 'there are no messages'}."
    said = f"p{one.percentile:g} {_ms(value)}, surely between {_ms(near)} and {_ms(far)}, limit {_ms(one.limit_ns)}: "
    tail = f", credit due {credit * one.fee:,.2f} {currency} ({100 * credit:g} % of the fee)" if credit else ""
    return f"{head}{said}{verdict}{tail}."
