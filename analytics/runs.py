"""Runs: windows of one path that follow each other, written from one stitch.

A message and a headless stamp depend on their surroundings alone, so that a run gives each of its windows the rows that
the window would have on its own. Each has a generation of its own, and all are committed by one insert, last. Where
nothing happened for some time (a night), a run may go over it: there are no rows to be written of what is left out.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from analytics import counts
from analytics.completeness import completeness
from analytics.due import LEVEL_NS, NS, Due
from analytics.generations import STEP, Generations
from analytics.paths import Path
from analytics.slo.calendars import SloCalendar, closed_windows
from analytics.slo.counting import COLUMNS as OBJECTIVE_COLUMNS
from analytics.slo.counting import statements
from analytics.slo.objectives import Objective
from analytics.stitch import COLUMNS, headless, stitch
from analytics.window_settings import WindowSettings
from collector.keys import hash64
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

LEVEL_S = LEVEL_NS // NS
# What one stitch may take in: 2 million stamps need about 1 GB in the engine. A window may be more by itself.
RUN_STAMPS = 2_000_000
RUN_WINDOWS = 2_160  # six hours
LONG_WINDOWS = 17_280  # two whole days, or many more days with nights
_LONGEST_S = 7 * 86_400  # messages lie in partitions of a day: one insert opens few of them
_APART_S = 3_600  # completeness is not asked of what lies between windows so far apart
State = Literal["provisional", "final"]


@dataclass(frozen=True, slots=True)
class WindowDone:
    """One window that was computed or made final, and what it holds. `not_live`: collectors it did not wait for.

    `seconds` is its share of the run's time.
    """

    path: str
    level: int
    window_ns: int
    generation: int
    state: State
    why: str
    messages: int
    finished: int
    unfinished: int
    headless: int
    stamps: int
    seconds: float
    not_live: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Goals:
    """The objectives that count messages, by path, and the calendars that they name."""

    by_path: Mapping[str, Sequence[Objective]] = field(default_factory=dict)
    calendars: Mapping[str, SloCalendar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Written:
    """What was written of one window: its generation, and what its commit row says."""

    window: int
    generation: int
    messages: int
    finished: int
    headless: int
    stamps: int
    completeness: float | None


def runs(
    todo: Sequence[Due],
    events: Mapping[int, int],
    run_stamps: int = RUN_STAMPS,
    run_windows: int = RUN_WINDOWS,
    *,
    over_gaps: bool = False,
) -> Iterator[list[Due]]:
    """Cut windows to be computed, in order, into runs of neighbours that are not too large together.

    `events` are the windows' estimated stamps. With `over_gaps` they are all windows that anything touches, ascending,
    and those are neighbours between which there is none of them.
    """
    place = {window: at for at, window in enumerate(events)} if over_gaps else {}
    run: list[Due] = []
    stamps = 0
    for one in todo:
        more = events.get(one.window, 0)
        if run:
            before = run[-1].window
            joined = place[one.window] == place[before] + 1 if over_gaps else one.window == before + LEVEL_S
            long = len(run) >= run_windows or one.window - run[0].window >= _LONGEST_S
            if not joined or long or stamps + more > run_stamps:
                yield run
                run, stamps = [], 0
        run.append(one)
        stamps += more
    if run:
        yield run


def compute(
    store: Store,
    path: Path,
    run: Sequence[Due],
    generations: Generations,
    settings: WindowSettings,
    now_ns: int,
    not_live: tuple[str, ...],
    goals: Goals | None = None,
) -> list[WindowDone]:
    """Write and commit a run."""
    started = time.perf_counter()
    windows = [one.window for one in run]
    places = [(window - windows[0]) // LEVEL_S for window in windows]
    taken = generations.take(places[-1] + 1)
    written = write(store, path, windows, [taken[place] for place in places], settings, now_ns, goals)
    rows = [
        {
            "path": path.name, "level": LEVEL_S, "window": w.window, "generation": w.generation, "state": _state(one),
            "messages": w.messages, "finished": w.finished, "unfinished": w.messages - w.finished,
            "headless": w.headless, "stamps": w.stamps, "completeness": w.completeness, "basis": one.basis,
            "computed": now_ns,
        }
        for one, w in zip(run, written, strict=True)
    ]  # fmt: skip
    token = f"windows#{hash64('path', path.name):016x}#{written[0].generation}#{len(written)}"
    store.insert("windows", from_rows(table_types()["windows"], rows), token=token)
    seconds = (time.perf_counter() - started) / len(run)
    return [
        WindowDone(
            path=path.name,
            level=LEVEL_S,
            window_ns=w.window * NS,
            generation=w.generation,
            state=_state(one),
            why=one.why,
            messages=w.messages,
            finished=w.finished,
            unfinished=w.messages - w.finished,
            headless=w.headless,
            stamps=w.stamps,
            seconds=seconds,
            not_live=not_live,
        )
        for one, w in zip(run, written, strict=True)
    ]


def finish(
    store: Store, path: str, run: Sequence[tuple[Due, int]], now_ns: int, not_live: tuple[str, ...]
) -> list[WindowDone]:
    """Make windows final whose rows stand, each given with its generation."""
    started = time.perf_counter()
    params = {"path": path, "generations": [generation for _, generation in run], "now": now_ns}
    store.execute(_FINISH, params)
    found = {row["generation"]: row for row in store.query(_FINISHED, params).iter_rows(named=True)}
    seconds = (time.perf_counter() - started) / len(run)
    return [
        WindowDone(
            path=path, level=LEVEL_S, window_ns=one.window * NS, state="final", why=one.why, **found[generation],
            seconds=seconds, not_live=not_live,
        )
        for one, generation in run
    ]  # fmt: skip


def write(
    store: Store,
    path: Path,
    windows: Sequence[int],
    generations: Sequence[int],
    settings: WindowSettings,
    now_ns: int,
    goals: Goals | None = None,
) -> list[Written]:
    """Write the rows of windows (starts in seconds, ascending), not their commits.

    Each window's generation is `STEP` above that of the 10 s before it, whether those are to be written or not; nothing
    may lie in those that are not.
    """
    begin, end = windows[0] * NS, windows[-1] * NS + LEVEL_NS
    shares = {
        c.from_ns // NS: c.share
        for first, last in _together(windows)
        for c in completeness(store, first * NS, last * NS + LEVEL_NS, LEVEL_S, now_ns=now_ns)
    }
    found = stitch(
        store, path, begin, end, clock=settings.clock, generation=generations[0], generation_step=STEP, shares=shares
    )
    messages: dict[int, tuple[int, int]] = {}
    lost: dict[int, int] = {}
    if found is not None:
        store.execute(f"INSERT INTO messages ({', '.join(COLUMNS)}) {found.sql}", found.params)
        params = {
            **counts.parameters(path), "from_s": windows[0], "to_s": windows[-1] + LEVEL_S,
            "generation": generations[0], "step": STEP,
        }  # fmt: skip
        for table, columns, select in (
            ("stage_windows", counts.SUMMARY, counts.summary_sql),
            ("stage_counts", counts.COUNTED, counts.bucket_counts_sql),
        ):
            store.execute(
                f"INSERT INTO {table} (path, level, {', '.join((*counts.WINDOW, *columns))})"  # noqa: S608 - names of ours
                f" SELECT {{path:String}}, 10, * FROM ({select(path, counts.STORED, group=counts.WINDOW)})",
                params,
            )
        _count_objectives(store, path, goals or Goals(), params)
        messages = {int(w): (int(n), int(f)) for w, n, f in store.query(_MESSAGES, params).iter_rows()}
        lost = headless(store, path, begin, end)
    return [
        Written(
            window,
            generation,
            *messages.get(window, (0, 0)),
            lost.get(window, 0),
            found.stamps.get(window, 0) if found else 0,
            shares[window],
        )
        for window, generation in zip(windows, generations, strict=True)
    ]


def _together(windows: Sequence[int]) -> list[tuple[int, int]]:
    """The first and last windows of those that lie together."""
    ends = [at for at in range(1, len(windows)) if windows[at] - windows[at - 1] >= _APART_S]
    return [(windows[a], windows[b - 1]) for a, b in itertools.pairwise([0, *ends, len(windows)])]


def _count_objectives(store: Store, path: Path, goals: Goals, params: Mapping[str, Any]) -> None:
    """Good and total of the path's objectives, exact, of the messages that have just been written."""
    objectives = goals.by_path.get(path.name, ())
    closed = {
        name: closed_windows(goals.calendars, name, params["from_s"], params["to_s"])
        for name in {one.hours for one in objectives}
    }
    for one in statements(path, objectives, counts.STORED, closed):
        store.execute(
            f"INSERT INTO objective_counts ({', '.join(OBJECTIVE_COLUMNS)}) {one.sql}",
            {**params, **one.params},
        )


def _state(one: Due) -> State:
    return "final" if one.final else "provisional"


_MESSAGES = f"""
SELECT toUInt32(window) AS w, count() AS messages, countIf(e2e_ns IS NOT NULL) AS finished
FROM ({counts.STORED}) GROUP BY w
"""  # noqa: S608 - fixed text

_FINISH = """
INSERT INTO windows (path, level, window, generation, state, messages, finished, unfinished, headless, stamps,
completeness, basis, computed)
SELECT path, level, window, generation, 'final', messages, finished, unfinished, headless, stamps, completeness, basis,
    fromUnixTimestamp64Nano({now:Int64}, 'UTC')
FROM windows
WHERE path = {path:String} AND level = 10 AND generation IN {generations:Array(UInt64)}
LIMIT 1 BY generation
"""

_FINISHED = """
SELECT generation, messages, finished, unfinished, headless, stamps FROM windows
WHERE path = {path:String} AND level = 10 AND generation IN {generations:Array(UInt64)}
LIMIT 1 BY generation
"""
