"""Experiments on the order path: chance delays a share of the orders, within bounds, until a stop rule ends it.

What was ordered lies in DIR/demo/experiments, a file per experiment; beside it what the engine tells of it (`tallies`)
and who got which arm (`NAME.csv`, as `tailsight import assignments` takes it). A file named STOP there ends all of
them. Deciding is pure: keys and times (CLOCK_REALTIME ns) are passed in.
"""

from __future__ import annotations

import re
from pathlib import Path

import msgspec

from api.demo.control import Records
from api.demo.faults import mixed

_MS = 1_000_000
MOST_DOSE_NS = 20 * _MS  # what the demo's customers feel at most
LEAST_DOSE_NS = _MS // 10  # a sleep is not more exact
LEAST_SHARE, MOST_SHARE = 0.01, 0.5
MOST_FOR_NS = 24 * 3_600_000 * _MS
MOST_BUDGET = 100_000
MOST_ORDERS = 1_000_000  # of both arms: it bounds the file of assignments
CONTROL, DELAYED = "control", "delayed"
HEADER = "experiment,arm,key,dose,ts_ns\n"
STOP_FILE = "STOP"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class ExperimentError(ValueError):
    """An experiment that cannot be; the message says what can."""


class Experiment(msgspec.Struct, frozen=True, kw_only=True):
    """One experiment as it was ordered; `stopped_ns` and `why` once it was ended from outside of the engine."""

    id: str
    start_ns: int
    end_ns: int
    share: float
    dose_ns: int
    budget: int  # delayed orders
    salt: int
    stop_if: str = ""  # an objective
    who: str = ""
    stopped_ns: int | None = None
    why: str = ""

    def delays(self, key: int) -> bool:
        """Whether chance delays the message with this key: always the same answer for the same salt and key."""
        return mixed(key ^ self.salt) < self.share * 2**64

    @property
    def dose_ms(self) -> float:
        """The dose as assignments have it."""
        return self.dose_ns / _MS


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What the engine tells: orders of each arm so far, and when and why it ended the experiment itself."""

    id: str
    start_ns: int
    control: int = 0
    delayed: int = 0
    ended_ns: int | None = None
    why: str = ""


def checked(wanted: Experiment) -> Experiment:
    """The experiment itself. Raises ExperimentError with what would be right."""
    if not _NAME.fullmatch(wanted.id):
        raise ExperimentError(f"the name {wanted.id[:80]!r} must have 1 to 64 of A-Z, a-z, 0-9, _ and -")
    if not LEAST_DOSE_NS <= wanted.dose_ns <= MOST_DOSE_NS:
        raise ExperimentError(f"the delay must be from 0.1 ms to {MOST_DOSE_NS // _MS} ms, got {wanted.dose_ms:g} ms")
    if not LEAST_SHARE <= wanted.share <= MOST_SHARE:
        raise ExperimentError(f"the share must be from {LEAST_SHARE:g} to {MOST_SHARE:g}, got {wanted.share:g}")
    if not 0 < wanted.end_ns - wanted.start_ns <= MOST_FOR_NS:
        raise ExperimentError("the time must be above 0 and at most 24 h")
    if not 1 <= wanted.budget <= MOST_BUDGET:
        raise ExperimentError(f"the budget must be from 1 to {MOST_BUDGET:,} delayed orders, got {wanted.budget:,}")
    return wanted


def over(ordered: Experiment, tally: Tally, now_ns: int, *, killed: bool = False) -> str:
    """Why the experiment is over now; empty while it is not. What ended it first counts."""
    if tally.ended_ns is not None and (ordered.stopped_ns is None or tally.ended_ns <= ordered.stopped_ns):
        return tally.why
    if ordered.stopped_ns is not None:
        return ordered.why
    if killed:
        return f"the file {STOP_FILE} is there"
    if now_ns >= ordered.end_ns:
        return "its time is over"
    if tally.delayed >= ordered.budget:
        return f"its budget of {ordered.budget:,} delayed orders is used"
    if tally.delayed + tally.control >= MOST_ORDERS:
        return f"{MOST_ORDERS:,} orders were assigned"
    return ""


def ended_ns(ordered: Experiment, tally: Tally) -> int:
    """When an experiment that is over ended."""
    told = [at for at in (tally.ended_ns, ordered.stopped_ns) if at is not None]
    return min([ordered.end_ns, *told])


class Experiments:
    """The commands', the engine's and the courier's view of the folder. `folder` is the demo's control directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "experiments"
        self._ordered = Records(self.folder, Experiment)
        self._tallies = Records(self.folder / "tallies", Tally)

    def order(self, wanted: Experiment, now_ns: int) -> Experiment:
        """Order an experiment. Raises ExperimentError: for a name that was used, or while another one runs."""
        checked(wanted)
        if self.killed:
            raise ExperimentError(f"{self.kill_file} stops all experiments; remove it first")
        tallies = self.tallies()
        for one in self.read():
            if one.id == wanted.id:
                raise ExperimentError(f"there was an experiment {one.id} already; assignments would mix: choose a name")
            if not over(one, tallies.get(one.id, empty(one)), now_ns):
                raise ExperimentError(f"{one.id} runs; two would add up. Stop it first, or wait for its end")
        self._ordered.write(wanted)
        return wanted

    def stop(self, name: str, why: str, now_ns: int) -> Experiment | None:
        """End an experiment that is not over; None when there is none."""
        for one in self.read():
            if one.id == name and not over(one, self.tally(one), now_ns):
                stopped = msgspec.structs.replace(one, stopped_ns=now_ns, why=why)
                self._ordered.write(stopped)
                return stopped
        return None

    def read(self) -> list[Experiment]:
        """All experiments ever ordered here, oldest first."""
        return self._ordered.read()

    def changed(self) -> list[Experiment] | None:
        """As `read`, or None when nothing has changed since the last call."""
        return self._ordered.changed()

    def tallies(self) -> dict[str, Tally]:
        """What the engine told, by experiment."""
        return {one.id: one for one in self._tallies.read()}

    def tally(self, ordered: Experiment) -> Tally:
        """What the engine told of one."""
        return self.tallies().get(ordered.id, empty(ordered))

    def tell(self, tally: Tally) -> None:
        """The engine's part."""
        self._tallies.write(tally)

    def journal(self, name: str) -> Path:
        """Who got which arm, in the columns of `tailsight import assignments`."""
        return self.folder / f"{name}.csv"

    @property
    def kill_file(self) -> Path:
        """While it is there, nothing is delayed."""
        return self.folder / STOP_FILE

    @property
    def killed(self) -> bool:
        """Whether the kill file is there."""
        return self.kill_file.exists()


def empty(ordered: Experiment) -> Tally:
    """The tally of an experiment before its first order."""
    return Tally(id=ordered.id, start_ns=ordered.start_ns)
