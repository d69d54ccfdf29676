"""The source `probes`: runs its checks at their intended times and hands over their stamps, mode `synthetic`.

A stamp lies where a phase ended; the first one at the intended start, so that a check that had to wait shows it. One
that fails has no last stamp and the outcome error, timeout or rejected; what the agent could not begin is `shed`.
Cost: a thread for each check under way, and some 0.1 ms of CPU for a check (TLS some 2 ms).
"""

from __future__ import annotations

import ipaddress
import secrets
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import structlog

from collector.clock import ClockReading
from collector.keys import hash64
from collector.otlp.rows import LabelSets, Rows
from collector.probes.check import Result, context_of, run
from collector.probes.settings import START, Check, ProbesSettings
from collector.record import STAMPS, Mode, Outcome
from collector.sources import Availability, Poll

KEY_SPACE = "probe"
_WAITING = 10_000  # results that no poll has taken: a full spool makes further checks be shed
_TICK_S = 0.02

log = structlog.get_logger("agent")


class ProbesSource:
    """Begins checks in a thread of its own and runs each in one of a bounded pool."""

    name = "probes"
    period_s = 0.25

    def __init__(self, host: str, settings: ProbesSettings | None = None) -> None:
        self._host = host
        self._settings = settings or ProbesSettings()
        self._allow = [ipaddress.ip_network(text) for text in self._settings.allow]
        self._labels = LabelSets(10_000)
        self._results: deque[Result] = deque()
        self._running = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._pool: ThreadPoolExecutor | None = None
        self._clockwork: threading.Thread | None = None
        self._session = secrets.token_hex(6)  # so that no two runs of the agent give the same key
        self._numbers: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._failing: dict[str, str] = {}
        self.shed = 0

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 - nothing is read, all is made
        """Begin; degraded without checks."""
        checks = self._settings.checks
        if not checks:
            return Availability("degraded", "no checks: declare some as [probes.NAME]")
        for one in checks.values():
            if one.secured:
                try:
                    context_of(one)
                except OSError:
                    continue  # the check will say so
        now = time.monotonic_ns()
        # Spread over their periods: checks of one period would otherwise begin in the same instant for ever.
        self._due = {
            name: now + hash64("probe phase", f"{self._host} {name}") % one.ns("every") for name, one in checks.items()
        }
        self._stop.clear()
        self._pool = ThreadPoolExecutor(self._settings.max_running, thread_name_prefix="check")
        self._clockwork = threading.Thread(target=self._keep_time, name="probes", daemon=True)
        self._clockwork.start()
        return Availability("running")

    def state(self) -> Availability:
        """Running; targets that fail are in the data, not in the agent's state."""
        if not self._settings.checks:
            return Availability("degraded", "no checks: declare some as [probes.NAME]")
        if self.shed:
            return Availability("degraded", f"{self.shed} checks could not be begun in time; the host is too busy")
        return Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        """The stamps of the checks that have ended."""
        rows = Rows()
        for _ in range(len(self._results)):
            result = self._results.popleft()
            self._add(rows, result, clock)
            self._say(result)
        return Poll(columns=rows.columns())

    def close(self) -> None:
        """Begin no more; what is under way is not waited for."""
        self._stop.set()
        if self._clockwork is not None:
            self._clockwork.join(1.0)
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _keep_time(self) -> None:
        while not self._stop.is_set():
            nearest = min(self._due.values())
            now = time.monotonic_ns()
            if nearest > now:
                self._stop.wait(min((nearest - now) / 1e9, 1.0))
                continue
            for name, due in list(self._due.items()):
                if due <= now:
                    self._begin(name, self._settings.checks[name], due, now)

    def _begin(self, name: str, check: Check, due_ns: int, now_ns: int) -> None:
        """Begin a check at its intended time, and account for those whose time passed while nothing ran."""
        every = check.ns("every")
        missed = min((now_ns - due_ns) // every, 1_000)
        for i in range(missed):
            # An agent that was stopped for minutes must not send all of it at once; nor may it forget it.
            self._shed(name, due_ns + i * every)
        intended = due_ns + (now_ns - due_ns) // every * every
        self._due[name] = intended + every
        with self._lock:
            full = self._running >= self._settings.max_running or len(self._results) >= _WAITING
            self._running += not full
        if full or self._pool is None:
            self._shed(name, intended)
            return
        self._pool.submit(self._run, name, check, intended)

    def _run(self, name: str, check: Check, intended_ns: int) -> None:
        try:
            self._results.append(run(name, check, intended_ns, self._allow))
        finally:
            with self._lock:
                self._running -= 1

    def _shed(self, name: str, intended_ns: int) -> None:
        self.shed += 1
        if len(self._results) < 2 * _WAITING:
            self._results.append(
                Result(name, intended_ns, [(START, intended_ns)], Outcome.SHED, "the agent could not begin it in time")
            )

    def _add(self, rows: Rows, result: Result, clock: ClockReading) -> None:
        check = self._settings.checks[result.name]
        number = self._numbers[result.name] = self._numbers.get(result.name, 0) + 1
        key = hash64(KEY_SPACE, f"{self._session} {result.name} {number}")
        labels = {"probe": result.name, "kind": check.kind, "target": check.target}
        for name in ("via", "at"):
            if getattr(check, name):
                labels[name] = getattr(check, name)
        label_set = self._labels.intern(labels.items(), rows)
        service = f"probe-{result.name}"
        for point, at_ns in result.ends:
            rows.add(
                STAMPS, at_ns + clock.offset_ns, key, point, self._host, service, 0, "MONOTONIC",
                None if clock.error_ns is None else min(clock.error_ns, 0xFFFF_FFFE), None, label_set,
                int(result.outcome), int(Mode.SYNTHETIC), 0, None,
            )  # fmt: skip

    def _say(self, result: Result) -> None:
        before = self._failing.get(result.name, "")
        if (result.outcome is Outcome.OK) == bool(before):
            if result.outcome is Outcome.OK:
                self._failing.pop(result.name, None)
                log.info("probe_succeeds", name=result.name)
            else:
                self._failing[result.name] = result.why
                log.warning("probe_fails", name=result.name, outcome=result.outcome.name.lower(), why=result.why)
