"""The window job: stitches what has arrived into messages and counts, and commits it generation by generation.

`run_due` may be called at any time, by several runners, and killed anywhere. It writes the messages, bucket counts and
summaries of a run of windows (`analytics.runs`) under new generations and their rows in `windows` last; without that
row nobody reads them. Late stamps write the next generation. Levels 60 and 3600 are sums of the current generations of
level 10 (`analytics.levels`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

from analytics import levels, runs
from analytics.arrivals import Landed, landed, touched
from analytics.due import LEVEL_NS, NS, Committed, Touched, due, settled
from analytics.generations import Generations
from analytics.paths import Path
from analytics.runs import Goals, WindowDone
from analytics.window_settings import WindowSettings
from collector.store import Store

__all__ = ["WindowDone", "WindowJob", "WindowSettings", "run_due"]

# A path's turn ends after so many stamps, so that a long backlog does not starve the others.
_TURN_STAMPS = 4_000_000


def run_due(
    store: Store,
    paths: Mapping[str, Path],
    settings: WindowSettings | None = None,
    now_ns: int | None = None,
    goals: Goals | None = None,
) -> list[WindowDone]:
    """Compute the windows of `paths` that are due at `now_ns`, at most `settings.batch` per path; return them.

    Call it again at once while it returns windows, else every second or so. Raises StoreError; what was committed
    before it stays, what was not is done by the next call.
    """
    settings = settings or WindowSettings()
    now = time.time_ns() if now_ns is None else now_ns
    arrived = landed(store, now, settings.live_ns)
    return [one for path in paths.values() for one in _turn(store, path, arrived, settings, now, goals).done]


class WindowJob:
    """`run_due` for a caller that comes every second: it looks closely only when something may have become due.

    That is when the watermark or the grace has passed the end of another window, when the last turn was cut short, and
    every `LOOK_NS` while batches arrive or windows are open. While the ledger does not grow and everything is settled,
    a call costs one count.
    """

    LOOK_NS = 5 * NS

    def __init__(self, settings: WindowSettings | None = None) -> None:
        self._settings = settings or WindowSettings()
        self.goals = Goals()  # the owner sets others when objectives are applied
        self._batches, self._ends, self._looked_ns = -1, [0], 0
        self._settled, self._more = False, True
        self._paths: list[Path] = []

    def run_due(self, store: Store, paths: Mapping[str, Path], now_ns: int | None = None) -> list[WindowDone]:
        """What `run_due` does, or nothing. Raises StoreError."""
        now = time.time_ns() if now_ns is None else now_ns
        batches = int(store.query("SELECT count() AS n FROM batches")["n"][0])
        if self._paths != list(paths.values()):  # one was learned since the last call
            self._paths = list(paths.values())
            self._settled, self._more = False, True
        if self._settled and batches == self._batches:
            return []
        arrived = landed(store, now, self._settings.live_ns)
        passed = max(arrived.watermark_ns or 0, now - self._settings.grace_ns)
        ends = [(passed - path.reach_ns) // LEVEL_NS for path in paths.values()]
        if not self._more and ends == self._ends and abs(now - self._looked_ns) < self.LOOK_NS:
            return []
        self._settled, self._more = False, True  # until this pass has said otherwise
        turns = [_turn(store, path, arrived, self._settings, now, self.goals) for path in paths.values()]
        self._batches, self._ends, self._looked_ns = batches, ends, now
        self._settled, self._more = all(turn.settled for turn in turns), any(turn.more for turn in turns)
        return [one for turn in turns for one in turn.done]


@dataclass(frozen=True, slots=True)
class _Turn:
    """What was done for a path, whether more is due already, and whether nothing is until another batch arrives."""

    done: list[WindowDone]
    more: bool
    settled: bool


def _turn(
    store: Store, path: Path, arrived: Landed, settings: WindowSettings, now: int, goals: Goals | None = None
) -> _Turn:
    position = _position(store, path.name)
    windows = touched(store, path, position)
    if not windows:
        return _Turn([], more=False, settled=True)
    known = committed(store, path.name, windows)
    ready = due(
        windows,
        known,
        now_ns=now,
        watermark_ns=arrived.watermark_ns,
        reach_ns=path.reach_ns,
        settings=settings,
    )
    todo = ready[: settings.batch]
    generations = Generations(store, path.name, now)
    events = {w.window: w.events for w in windows}
    done: list[WindowDone] = []
    taken = 0
    for run in runs.runs([one for one in todo if one.recount], events):
        stamps = sum(events[one.window] for one in run)
        if taken and taken + stamps > _TURN_STAMPS:
            break
        done += runs.compute(store, path, run, generations, settings, now, arrived.not_live, goals)
        taken += stamps
    finals = [(one, known[one.window].generation) for one in todo if not one.recount]
    if finals:
        done += runs.finish(store, path.name, finals, now, arrived.not_live)
    bases = {one.window: one.basis for one in todo}
    for one in done:
        window = one.window_ns // NS
        known[window] = Committed(one.generation, bases[window], one.state == "final", now)
    waiting = {w.window for w in windows} - set(known)
    done += levels.run_due(store, path, windows, waiting, generations, settings, now)
    finished = _advance(store, path, windows, known, generations, position, settings, now)
    return _Turn(done, more=sum(one.level == runs.LEVEL_S for one in done) < len(ready), settled=finished)


def committed(store: Store, path: str, windows: list[Touched]) -> dict[int, Committed]:
    """The current generations of those of `windows`, ascending, that have one, by window."""
    rows = store.query(
        """
        SELECT toUInt32(window) AS w, max(generation) AS g,
            argMax(basis, (generation, state)) AS b, argMax(state, (generation, state)) = 'final' AS f,
            toUnixTimestamp64Nano(argMax(computed, (generation, state))) AS at
        FROM windows
        WHERE path = {path:String} AND level = 10
            AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window <= toDateTime({to_s:UInt32}, 'UTC')
        GROUP BY window
        """,
        {"path": path, "from_s": windows[0].window, "to_s": windows[-1].window},
    )
    touched_windows = {w.window for w in windows}
    return {w: Committed(g, b, bool(f), at) for w, g, b, f, at in rows.iter_rows() if w in touched_windows}


def _position(store: Store, path: str) -> int:
    rows = store.query(
        "SELECT max(toUnixTimestamp64Nano(computed)) AS p FROM windows WHERE path = {path:String} AND level = 0",
        {"path": path},
    )
    return int(rows["p"][0] or 0)


def _advance(
    store: Store,
    path: Path,
    windows: list[Touched],
    known: Mapping[int, Committed],
    generations: Generations,
    position_ns: int,
    settings: WindowSettings,
    now_ns: int,
) -> bool:
    """Move the position to before the first batch that touches a window with work left, or whose levels are open.

    Returns whether there is no such window.
    """
    still = [w.received_ns for w in windows if not settled(w, known.get(w.window), now_ns, settings)]
    if min(still, default=now_ns) < position_ns + 60 * NS and still:
        return False
    fresh = levels.fresh(store, path.name, windows)
    still += [w.received_ns for w in windows if w.window not in fresh]
    position = min(still, default=max(w.received_ns for w in windows) + 1)
    if position < position_ns + 60 * NS:
        return not still
    store.execute(
        """
        INSERT INTO windows (path, level, window, generation, state, messages, finished, unfinished, headless,
        stamps, completeness, basis, computed)
        SELECT {path:String}, 0, toDateTime({now_s:UInt32}, 'UTC'), {generation:UInt64}, 'provisional', 0, 0, 0, 0, 0,
        NULL, 0,
            fromUnixTimestamp64Nano({position:Int64}, 'UTC')
        """,
        {"path": path.name, "now_s": now_ns // NS, "generation": generations.next(), "position": position},
    )
    return not still
