"""Beside the order path: looks after its experiments, and brings their assignments and changes to the product.

Two threads of `tailsight up` and `tailsight demo`. One ends an experiment whose objective alerts (or is judged by
nobody any more), and has begin and end recorded as changes. The other brings assignments, over REST to the server that
runs, else with `tailsight import assignments`: the same rows again change nothing, so what is not known to have arrived
is sent again.
"""

from __future__ import annotations

import logging
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from api.demo.control import FOLDER, Records
from api.demo.experiments import HEADER, Experiment, Experiments, Tally, empty, ended_ns, over
from api.demo.rollout import Change
from api.up.hold import locked

_POLL_S = 0.5
_SHIP_S = 5.0
_COMMAND_S = 60.0  # a process each time
_PATIENCE_S = 20.0
_SETTLE_NS = 1_000_000_000
_ROWS = 2_000  # of one call
_MOST_BYTES = 8 << 20  # of one command

log = logging.getLogger(__name__)


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What the product knows of an experiment: its begin and end, and so many bytes of its file of assignments."""

    id: str
    start_ns: int
    begun: bool = False
    ended: bool = False
    shipped: int = 0


class Steward:
    """Looks after the experiments of one data directory. Those of an earlier session are over."""

    def __init__(self, data: Path, record: Callable[[Change], None], config: Path | None = None) -> None:
        self._data = data.absolute()
        self._given = ["--data", str(self._data), *(["--config", str(config.absolute())] if config else [])]
        self._record = record
        self.experiments = Experiments(data / FOLDER)
        self._told = Records(self.experiments.folder / "told", Told)
        self._lock = threading.Lock()  # of what was told
        self._tried_s = -_COMMAND_S
        self._closing = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=(_POLL_S, self.watch), name="experiments", daemon=True),
            threading.Thread(target=self._every, args=(_SHIP_S, self.ship), name="assignments", daemon=True),
        ]
        self._end_all("the order path was started anew")

    def start(self) -> None:
        """Look after them until `close`."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End what runs, and tell what is left to tell if that does not take too long."""
        self._closing.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(timeout=_PATIENCE_S)
        if self._end_all("the order path ended"):
            time.sleep(0.2)  # the engine writes its last assignments
        self.watch()
        self._tried_s = -_COMMAND_S
        self.ship()

    def watch(self) -> None:
        """End what must end, and record what has begun and ended."""
        told, tallies, now_ns = self.told(), self.experiments.tallies(), time.time_ns()
        for one in self.experiments.read():
            known = told.get(one.id, Told(id=one.id, start_ns=one.start_ns))
            if known.ended:
                continue
            tally = tallies.get(one.id, empty(one))
            why = over(one, tally, now_ns, killed=self.experiments.killed)
            if not why and one.stop_if and (why := unsafe(self._data, one.stop_if)):
                one = self.experiments.stop(one.id, why, now_ns) or one
            elif why and one.stopped_ns is None and tally.ended_ns is None and now_ns < one.end_ns:
                one = self.experiments.stop(one.id, why, now_ns) or one  # the engine is not there
            if not known.begun:
                self._record(begins(one))
            # The engine hears of an end a moment later, and tells then of its last orders.
            young = why and tally.ended_ns is None and now_ns - ended_ns(one, tally) < _SETTLE_NS
            if young and not self._closing.is_set():
                why = ""
            if why:
                self._record(ends(one, self.experiments.tally(one), why))
            if not known.begun or why:
                self._tell(one, begun=True, ended=bool(why))

    def ship(self) -> None:
        """Bring the assignments that were not brought yet, as far as they are taken."""
        for one in self.experiments.read():
            while rest := _rows(self.experiments.journal(one.id), at := self._shipped(one), _ROWS):
                if not self._over_rest(one.id, rest):
                    self._by_command(one)
                    break
                self._tell(one, shipped=at + len(rest))

    def told(self) -> dict[str, Told]:
        """What the product knows, by experiment."""
        return {one.id: one for one in self._told.read()}

    def _every(self, seconds: float, step: Callable[[], None]) -> None:
        while not self._closing.wait(seconds):
            try:
                step()
            except OSError as error:
                log.warning("experiments: %s", error)

    def _end_all(self, why: str) -> int:
        now_ns = time.time_ns()
        return sum(self.experiments.stop(one.id, why, now_ns) is not None for one in self.experiments.read())

    def _shipped(self, one: Experiment) -> int:
        known = self.told().get(one.id)
        return known.shipped if known is not None and known.shipped else len(HEADER)

    def _tell(self, one: Experiment, *, begun: bool = False, ended: bool = False, shipped: int = 0) -> None:
        with self._lock:
            known = self.told().get(one.id, Told(id=one.id, start_ns=one.start_ns))
            at = max(known.shipped, shipped, len(HEADER))
            self._told.write(
                msgspec.structs.replace(known, begun=known.begun or begun, ended=known.ended or ended, shipped=at)
            )

    def _over_rest(self, name: str, rows: bytes) -> bool:
        """Whether a server has taken them; one that wants a token is passed by."""
        values = []
        for line in rows.decode("ascii").splitlines():
            _, arm, key, dose, ts_ns = line.split(",")
            values.append({"arm": arm, "key": key, "dose": float(dose), "when": ts_ns})
        try:
            url = msgspec.json.decode((self._data / "server.json").read_bytes())["url"]
            body = {"experiment": name, "assignments": values}
            answer = httpx.post(f"{url}/v1/experiments/assignments", json=body, timeout=10, trust_env=False)
        except (OSError, httpx.HTTPError, msgspec.DecodeError, KeyError):
            return False
        return answer.is_success

    def _by_command(self, one: Experiment) -> None:
        now_s = time.monotonic()
        if now_s - self._tried_s < _COMMAND_S:
            return
        self._tried_s = now_s
        while rest := _rows(self.experiments.journal(one.id), at := self._shipped(one), _MOST_BYTES // 64):
            with tempfile.NamedTemporaryFile(suffix=".csv", dir=self.experiments.folder) as file:
                file.write(HEADER.encode() + rest)
                file.flush()
                argv = [sys.executable, "-m", "api.cli", "import", "assignments", file.name, *self._given, "--json"]
                try:
                    # Our own command with our own arguments; no shell is involved.
                    subprocess.run(argv, check=True, timeout=_PATIENCE_S, capture_output=True)  # noqa: S603
                except (OSError, subprocess.SubprocessError) as error:
                    log.warning("assignments of %s wait: %s", one.id, error)
                    return
            self._tell(one, shipped=at + len(rest))


def taken(experiments: Experiments, one: Experiment) -> int:
    """How many of an experiment's assignments the product has."""
    told = next((t for t in Records(experiments.folder / "told", Told).read() if t.id == one.id), None)
    if told is None or not told.shipped:
        return 0
    with experiments.journal(one.id).open("rb") as file:
        return file.read(told.shipped).count(b"\n") - 1


def unsafe(data: Path, objective: str) -> str:
    """Why an experiment with this stop rule must not run: the objective alerts, or nobody judges it; else empty."""
    if not locked(data / "server.lock"):
        return f"the server is away: nobody judges {objective}"
    file = (data / "control.sqlite").absolute()
    try:
        db = sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True, timeout=2.0)
        try:
            found = db.execute(
                "SELECT rule FROM slo_alerts WHERE objective = ? AND state IN ('firing', 'acknowledged') LIMIT 1",
                (objective,),
            ).fetchone()
        finally:
            db.close()
    except sqlite3.Error as error:
        return f"whether {objective} alerts cannot be read: {error}"
    return f"the objective {objective} alerts (rule {found[0]})" if found else ""


def begins(one: Experiment) -> Change:
    """The change that the begin of an experiment is."""
    words = f"experiment {one.id} begins: {one.dose_ms:g} ms more on {100 * one.share:g} % of the orders"
    return Change(one.start_ns, words, "engine", 0, _labels(one), kind="flag")


def ends(one: Experiment, tally: Tally, why: str) -> Change:
    """The change that its end is."""
    words = f"experiment {one.id} ended: {why}; {tally.delayed:,} of {tally.delayed + tally.control:,} orders delayed"
    at_ns = min(ended_ns(one, tally), time.time_ns())
    return Change(at_ns, words, "engine", 0, _labels(one), kind="flag")


def _labels(one: Experiment) -> dict[str, str]:
    return {"experiment": one.id, "dose_ms": f"{one.dose_ms:g}", "share": f"{one.share:g}", "ordered_by": one.who}


def _rows(file: Path, at: int, most: int) -> bytes:
    """At most so many whole lines of a file from a byte on; empty without one."""
    try:
        with file.open("rb") as stream:
            stream.seek(at)
            data = stream.read(most * 64)
    except FileNotFoundError:
        return b""
    lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
    return b"".join(lines[:most])
