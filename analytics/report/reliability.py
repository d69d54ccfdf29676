"""Reliability in figures that a business reads: how soon trouble was known and over, and what ran meanwhile."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from analytics.feeds import FeedLine
from analytics.report.period import Period
from analytics.report.value import EpisodeLine, GapLine, Reliability
from analytics.report.words import duration, many, money, percent

_MOST_SHOWN = 20


def reliability(
    episodes: Sequence[EpisodeLine],
    feeds: Sequence[FeedLine],
    time: Period,
    *,
    objectives: int,
    revenue: tuple[float, str] | None = None,
) -> Reliability:
    """From alert episodes that touch the period and the feeds' quality in it.

    `revenue` is (amount in the period, currency). What was exposed is revenue at the period's mean rate for as long as
    an objective was in breach: what was at risk, not what was lost.
    """
    touching = within(episodes, time)

    def end(one: EpisodeLine) -> int:
        """Where it ends, or the period does."""
        return time.to_ns if one.resolved_ns is None else min(one.resolved_ns, time.to_ns)

    detection = [e.fired_ns - e.breach_ns for e in touching if time.from_ns <= e.breach_ns <= e.fired_ns]
    over = [e for e in touching if e.resolved_ns is not None and e.resolved_ns <= time.to_ns]
    recovery = [end(e) - e.breach_ns for e in over]
    breach_ns = union_ns([(max(e.breach_ns, time.from_ns), end(e)) for e in touching])
    share = breach_ns / time.length_ns
    open_ = len(touching) - len(over)
    exposed = None if revenue is None else revenue[0] * share
    gaps = tuple(
        GapLine(
            channel=f.channel, host=f.host, gaps=f.gaps, missing=max(0, f.missing),
            recovery_mean_ns=f.recovery_mean_ns, recovery_max_ns=f.recovery_max_ns,
        )
        for f in feeds if not f.line
    )  # fmt: skip
    return Reliability(
        episodes=tuple(sorted(touching, key=lambda e: (e.breach_ns - end(e), e.episode))[:_MOST_SHOWN]),
        open=open_,
        detection_median_ns=statistics.median(detection) if detection else None,
        detection_max_ns=max(detection, default=None),
        recovery_median_ns=statistics.median(recovery) if recovery else None,
        recovery_max_ns=max(recovery, default=None),
        in_breach_ns=breach_ns,
        share_of_time=share,
        exposed=exposed,
        exposed_unit="" if revenue is None else revenue[1],
        gaps=gaps,
        sentences=tuple(
            _alerts(touching, detection, recovery, open_, breach_ns, share, exposed, revenue, objectives) + _feeds(gaps)
        ),
        unknown="" if objectives else "No objective is in force, so that nothing was judged.",
    )


def within(episodes: Sequence[EpisodeLine], time: Period) -> list[EpisodeLine]:
    """Episodes that touch a period, in order of their first breach."""
    found = [e for e in episodes if e.breach_ns < time.to_ns and (e.resolved_ns or time.to_ns) > time.from_ns]
    return sorted(found, key=lambda e: (e.breach_ns, e.episode))


def union_ns(spans: Sequence[tuple[int, int]]) -> int:
    """How long at least one of the spans lasted; overlaps count once."""
    total, end = 0, None
    for start, stop in sorted(s for s in spans if s[1] > s[0]):
        if end is None or start > end:
            total, end = total + stop - start, stop
        elif stop > end:
            total, end = total + stop - end, stop
    return total


def _alerts(
    touching: Sequence[EpisodeLine], detection: Sequence[int], recovery: Sequence[int], open_: int, breach_ns: int,
    share: float, exposed: float | None, revenue: tuple[float, str] | None, objectives: int,
) -> list[str]:  # fmt: skip
    if not objectives and not touching:
        return []
    if not touching:
        return [f"No alert was raised; {many(objectives, 'objective')} were judged."]
    said = [
        f"{many(len(touching), 'alert')}; at least one objective was in breach for {duration(breach_ns)} in all"
        f" ({percent(share)} of the time)."
    ]
    if detection:
        said.append(
            f"From the first breach to the alert it took {duration(statistics.median(detection))} (the middle one),"
            f" at most {duration(max(detection))}."
        )
    if recovery:
        said.append(
            f"From the first breach to the end it took {duration(statistics.median(recovery))} (the middle one),"
            f" at most {duration(max(recovery))}."
        )
    if open_:
        said.append(f"{many(open_, 'alert')} had not ended when the period did.")
    if exposed is not None and revenue is not None:
        said.append(
            f"At the period's mean rate {money(exposed, revenue[1])} of revenue ran while an objective was in breach."
            " That was exposed, not lost."
        )
    else:
        said.append("What ran meanwhile in money is not known: no measure of revenue that adds up is declared.")
    return said


def _feeds(gaps: Sequence[GapLine]) -> list[str]:
    if not gaps:
        return ["No feed is watched, so that gaps in market data and how long they lasted are not known."]
    count, missing = sum(g.gaps for g in gaps), sum(g.missing for g in gaps)
    if not count and not missing:
        return [f"{many(len(gaps), 'feed')} had no gap."]
    longest = max((g.recovery_max_ns for g in gaps if g.recovery_max_ns is not None), default=None)
    known = "" if longest is None else f" What came late was there again after at most {duration(longest)}."
    return [f"Feeds had {many(count, 'gap')}; {many(missing, 'message')} never came.{known}"]
