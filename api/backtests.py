"""Backtests for the command line and REST: which objectives, over which counts, and which thresholds page n times."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from analytics.slo.backtest import MAX_SPAN_S, NS, Backtest, TooLongError, Work, answer, backtest, targets
from analytics.slo.histories import World, candidates, history, threshold_of, unrecorded, with_threshold
from analytics.slo.indicators import Latency, Maximum
from analytics.slo.objectives import Objective
from analytics.slo.settings import SloSettings
from api.control import Control

MAX_OBJECTIVES = 20
_FIRST, _SECOND = 32, 16  # thresholds that are tried over the whole range, and between the two nearest ones


class AskedError(ValueError):
    """The question cannot be answered as it was put; the message says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A backtest: of which time (epoch seconds), against which incidents, and how often it should have paged."""

    from_s: int
    to_s: int
    incidents: Sequence[tuple[int, int]] = ()
    fires: int | None = None
    fresh: bool = False

    def checked(self, now_s: int) -> Asked:
        """With whole ticks; raises AskedError."""
        from_s, to_s = self.from_s // 3_600 * 3_600, min(self.to_s, now_s) // 10 * 10
        if from_s >= to_s:
            raise AskedError("the time asked for is empty, or lies ahead")
        if to_s - from_s > MAX_SPAN_S + 3_600:
            raise AskedError(f"at most {MAX_SPAN_S // 86_400} days are replayed at once")
        if self.fires is not None and not 0 <= self.fires <= 1_000:
            raise AskedError("how often it should have paged must be 0 to 1000")
        if any(a >= b for a, b in self.incidents):
            raise AskedError("an incident has to end after it began")
        return replace(self, from_s=from_s, to_s=to_s)


def run(
    world: World, every: Sequence[Objective], names: Sequence[str], settings: SloSettings, asked: Asked, *, ticks: int
) -> dict[str, Any]:
    """Replay the objectives called `names` of `every`; at most `ticks` ticks are judged.

    Raises AskedError, and StoreError.
    """
    known = {one.name: one for one in every}
    if len(names) > MAX_OBJECTIVES:
        raise AskedError(f"{len(names)} objectives; at most {MAX_OBJECTIVES} are replayed at once")
    work = Work(ticks)
    found, notes = [], []
    for name in names:
        one = known[name]
        if asked.fresh and unrecorded(one):
            notes.append(
                f"{name} joins messages with other sides: it is counted once it is in force, and then replayed"
            )
            continue
        needed = _needed(one, known)
        back_s = max(one.period_s, *(rule.long_s for rule in one.rules), 3_600) if one.rules else one.period_s
        counted = history(world, needed, asked.from_s, asked.to_s, back_s=back_s, fresh=asked.fresh)
        try:
            made = backtest(
                one, needed, counted.sums, asked.from_s, asked.to_s, delay_s=settings.delay_s, lag=settings.lag,
                incidents=asked.incidents, work=work,
            )  # fmt: skip
        except TooLongError as error:
            raise AskedError(str(error)) from error
        if not made.events:
            notes.append(f"{name}: nothing was counted in this time")
        if counted.rough_s:
            hours = counted.rough_s // 3_600
            notes.append(f"{name}: {hours} hours are known by the minute or hour only, their events spread evenly")
        search = None if asked.fires is None else _search(world, one, asked, settings, work)
        found.append({**answer(made), "stored_counts": name in counted.stored, "search": search})
    return {
        "from_ns": asked.from_s * NS, "to_ns": asked.to_s * NS, "objectives": found, "notes": notes,
        "ticks_left": max(0, work.left),
    }  # fmt: skip


def _needed(one: Objective, known: Mapping[str, Objective]) -> list[Objective]:
    others = {over.objective for rule in one.rules for over in rule.overs if over.objective in known}
    return [one, *(known[name] for name in sorted(others - {one.name}))]


def _search(world: World, one: Objective, asked: Asked, settings: SloSettings, work: Work) -> dict[str, Any]:
    """Which thresholds would have paged `fires` times; of what has none, which targets."""
    wanted = asked.fires or 0
    by_value = threshold_of(one.indicator) is not None
    values = candidates(world, one, asked.from_s, asked.to_s, _FIRST) if by_value else targets(one.rules, _FIRST)
    tried: dict[float, int] = {}
    note = "" if values else "nothing was recorded in this time to choose thresholds from"
    try:
        tried |= _pages(world, one, values, by_value, asked, settings, work)
        between = _between(tried, wanted)
        if between and wanted not in tried.values():
            low, high = between
            more = [low + (high - low) * (i + 1) / (_SECOND + 1) for i in range(_SECOND)]
            tried |= _pages(world, one, more, by_value, asked, settings, work)
    except TooLongError:
        note = "not all thresholds were tried: judging them takes too long; ask for less time"
    hits = sorted(value for value, pages in tried.items() if pages == wanted)
    parameter = "target" if not by_value else (
        "threshold_ns" if isinstance(one.indicator, Latency | Maximum) else "value"
    )  # fmt: skip
    return {
        "parameter": parameter, "fires": wanted, "from": hits[0] if hits else None, "to": hits[-1] if hits else None,
        "tried": [{"value": value, "pages": pages} for value, pages in sorted(tried.items())], "note": note,
    }  # fmt: skip


def _pages(
    world: World, one: Objective, values: Sequence[float], by_value: bool, asked: Asked, settings: SloSettings,
    work: Work,
) -> dict[float, int]:  # fmt: skip
    """Pages per threshold or target; all thresholds are counted in one pass."""
    variants = [with_threshold(one, value, i) if by_value else replace(one, target=value)
                for i, value in enumerate(values)]  # fmt: skip
    if not variants:
        return {}
    back_s = max((rule.long_s for rule in one.rules), default=3_600)
    chosen = variants if by_value else [one]
    counted = history(world, chosen, asked.from_s, asked.to_s, back_s=back_s, fresh=by_value or asked.fresh)
    found: dict[float, int] = {}
    for value, variant in zip(values, variants, strict=True):
        made: Backtest = backtest(
            variant, [variant], counted.sums, asked.from_s, asked.to_s, delay_s=settings.delay_s, lag=settings.lag,
            points=0, work=work,
        )  # fmt: skip
        found[value] = made.count("page")
    return found


def _between(tried: Mapping[float, int], wanted: int) -> tuple[float, float] | None:
    """The first two neighbours between which the number of pages passes `wanted`."""
    ordered = sorted(tried.items())
    for (low, a), (high, b) in pairwise(ordered):
        if min(a, b) < wanted < max(a, b):
            return low, high
    return None


def live_pages(control: Control, name: str, from_ns: int, to_ns: int) -> list[dict[str, Any]]:
    """What the server told of an objective in that time, as far as the outbox still has it."""
    sql = (
        "SELECT rule, at_ns, episode FROM slo_outbox WHERE objective = ? AND kind = 'firing' AND at_ns >= ? "
        "AND at_ns < ? ORDER BY at_ns"
    )
    return [dict(row) for row in control.rows(sql, (name, from_ns, to_ns))]
