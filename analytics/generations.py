"""Generations: which rows of a window a reader sees, and the number of the next ones.

A window's rows are written under a new generation and count once its commit row is in `windows`. Generation numbers are
unique and grow per path, so that a set of them names a set of windows: time in nanoseconds, never below what the path
has, with the low 12 bits drawn by the runner. Two runners that meet on one window write two whole generations; the
larger is read. Summaries are written before counts: a generation that has counts shows in `stage_windows`, which is
small.
"""

from __future__ import annotations

import secrets

from collector.store import Store

LEVELS = (10, 60, 3600)
_RUNNER_BITS = 12
STEP = 1 << _RUNNER_BITS  # between two generations that one runner takes together

# The current generation of every window of one path, level and range. Put into an IN (...).
CURRENT = """SELECT max(generation) FROM windows
WHERE path = {path:String} AND level = {level:UInt16}
    AND window >= toDateTime({from_s:UInt32}, 'UTC') AND window < toDateTime({to_s:UInt32}, 'UTC')
GROUP BY window"""


class Generations:
    """Hands out the generations of one path to one runner."""

    def __init__(self, store: Store, path: str, now_ns: int) -> None:
        self._store, self._path = store, path
        self._last, self._asked = now_ns, False
        self._runner = secrets.randbits(_RUNNER_BITS)

    def next(self) -> int:
        """A number larger than every generation that this path had, and than those handed out before."""
        return self.take(1)[0]

    def take(self, count: int) -> list[int]:
        """The next `count` numbers, `STEP` apart."""
        if not self._asked:  # only now: most calls of the job find nothing to do
            largest = self._store.query(
                "SELECT max(generation) AS g FROM windows WHERE path = {path:String}", {"path": self._path}
            )
            self._last, self._asked = max(int(largest["g"][0] or 0), self._last), True
        first = (((self._last >> _RUNNER_BITS) + 1) << _RUNNER_BITS) | self._runner
        taken = list(range(first, first + count * STEP, STEP))
        self._last = taken[-1]
        return taken
