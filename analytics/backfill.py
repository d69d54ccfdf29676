"""Backfill: every window of a closed range that batches touch, in runs, whatever the window job's position is.

For events that arrive long after they happened and in one go: an import, a history, the end of a long outage. It writes
what `analytics.windows` would write, with the same runs and generations, and may meet the window job on one window. A
window whose basis is that of its committed generation is left alone, so that it may be killed and called again; one
whose stamps have changed is computed again however old it is: the caller knows that its stamps are still there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import msgspec

from analytics import levels, runs
from analytics.arrivals import landed, touched_between
from analytics.due import LEVEL_NS, NS, Due, Touched
from analytics.generations import Generations
from analytics.paths import Path
from analytics.runs import WindowDone
from analytics.window_settings import WindowSettings
from analytics.windows import committed
from collector.store import Store

_LONGEST_S = 7 * 86_400  # of level 10 that is summed at a time


def backfill(
    store: Store,
    paths: Mapping[str, Path],
    from_ns: int,
    to_ns: int,
    settings: WindowSettings | None = None,
    now_ns: int | None = None,
    progress: Callable[[WindowDone], None] | None = None,
) -> list[WindowDone]:
    """Compute the windows of `paths` that start in [from_ns, to_ns) and are over, and sum their coarse windows.

    `progress` hears of each 10 s window. Returns the windows that were computed, of all levels. Raises StoreError; what
    was committed before it stays. Raises ValueError when the range is empty.
    """
    if from_ns >= to_ns:
        raise ValueError(f"the range is empty: from {from_ns} to {to_ns}")
    now = time.time_ns() if now_ns is None else now_ns
    # Coarse windows are summed again at once: nobody waits for more of them.
    chosen = msgspec.structs.replace(settings or WindowSettings(), rerun_after="0ns")
    not_live = landed(store, now, chosen.live_ns).not_live
    done: list[WindowDone] = []
    for path in paths.values():
        windows = touched_between(store, path, from_ns, to_ns)
        if windows:
            done += _path(store, path, windows, chosen, now, not_live, progress)
    return done


def _path(
    store: Store,
    path: Path,
    windows: list[Touched],
    settings: WindowSettings,
    now: int,
    not_live: tuple[str, ...],
    progress: Callable[[WindowDone], None] | None,
) -> list[WindowDone]:
    known = committed(store, path.name, windows)
    todo, waiting = [], set()
    for one in windows:
        end = one.window * NS + LEVEL_NS
        before = known.get(one.window)
        if end + path.reach_ns > now:
            waiting.add(one.window)
        elif before is None or before.basis != one.basis:
            final = now >= end + settings.lateness_ns
            todo.append(Due(one.window, one.basis, "new" if before is None else "late", final, recount=True))
    generations = Generations(store, path.name, now)
    events = {one.window: one.events for one in windows}
    done: list[WindowDone] = []
    for run in runs.runs(todo, events, run_windows=runs.LONG_WINDOWS, over_gaps=True):
        computed = runs.compute(store, path, run, generations, settings, now, not_live)
        done += computed
        if progress is not None:
            for window in computed:
                progress(window)
    return done + levels.run_due(store, path, windows, waiting, generations, settings, now, _span_s(windows))


def _span_s(windows: list[Touched]) -> int:
    """How much of level 10 is summed at a time: what about as many stamps led to as a run takes in."""
    stamps = max(1, sum(one.events for one in windows))
    lasts_s = windows[-1].window - windows[0].window
    return min(_LONGEST_S, max(levels.SPAN_S, lasts_s * runs.RUN_STAMPS // stamps))
