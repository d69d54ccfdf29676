"""The shipper: sends batches until their outcome is known, one at a time, fairly and without hurry.

- The cursor says that a batch is on the way before it is; every further try counts up `Tailsight-Attempt`, so that
  the server reads back before it inserts.
- Refused for good: a batch is halved until the guilty frame stands alone, which goes to the quarantine.
- An overloaded or absent server is left alone (full jitter, 0.2 to 30 s, or what Retry-After says). A batch that
  alone fails waits alone, and others go on.
- After an outage the newest batch and the oldest take turns: replay has half of the turns at most while live data
  flows.
- At most one batch is in memory.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import structlog

from collector.spool import Spool
from collector.spool.segment import Batch
from collector.uplink import Answer, Outcome, Uplink, stored_answer

_SHORTEST_S, _LONGEST_S = 0.2, 30.0
_STRANGE_TRIES = 10
_MAX_UNKNOWN = 4  # batches of one collector whose outcome is open; more would only grow the cursor
_IDLE_S = 0.1

log = structlog.get_logger("shipper")


@dataclass(slots=True)
class ShipperStats:
    """What the shipper did since the agent started."""

    sent_bytes: int = 0
    acked_events: int = 0
    acked_batches: int = 0
    duplicates: int = 0  # the server had the batch already
    retries: dict[str, int] = field(default_factory=dict)  # by outcome
    refused_batches: int = 0
    unreported_events: int = 0  # the server refused even the drop frames: the ledger will show a difference
    last_error: str = ""


@dataclass(slots=True)
class _Trouble:
    tries: int = 0
    strange: int = 0
    not_before: float = 0.0


class Shipper:
    """Ships the batches of several spools over one uplink. `step` is one turn; `run` loops until told to stop."""

    def __init__(
        self,
        spools: Mapping[str, Spool],
        uplink: Uplink,
        host: str,
        *,
        linger_s: float = 0.2,
        now: Callable[[], float] = time.monotonic,
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._spools = dict(spools)
        self._uplink = uplink
        self._host = host
        self._linger_s = linger_s
        self._now = now
        self._jitter = jitter
        self._turns = list(spools)
        self._newest_next: dict[str, bool] = {}
        self._trouble: dict[Batch, _Trouble] = {}
        self._failures = 0  # in a row, of the server as a whole
        self._wait_until = 0.0
        self._last_cut = 0.0
        self.stats = ShipperStats()

    def run(self, stop: threading.Event, grace_s: float) -> None:
        """Send until `stop` is set, then up to `grace_s` longer while there is something that can be sent."""
        while not stop.is_set():
            wait = self.step()
            if wait:
                stop.wait(wait)
        deadline = self._now() + grace_s
        for spool in self._spools.values():
            spool.cut()
        while self._now() < deadline and any(s.pending() for s in self._spools.values()):
            if self._failures:
                return  # the server is away; the spool keeps it all
            time.sleep(min(self.step(), 0.1))

    def step(self) -> float:
        """Send one batch if one is due; returns the seconds until it is worth calling again."""
        now = self._now()
        if now < self._wait_until:
            return min(self._wait_until - now, 1.0)
        if now - self._last_cut >= self._linger_s and not self._failures:
            self._last_cut = now
            for spool in self._spools.values():
                spool.cut()
        for name in list(self._turns):
            batch = self._choose(name, now)
            if batch:
                self._turns.remove(name)
                self._turns.append(name)  # the others come first next time
                self._send(name, self._spools[name], batch)
                return 0.0
        return _IDLE_S

    def _choose(self, name: str, now: float) -> Batch | None:
        pending = self._spools[name].pending()
        open_outcomes = [b for b in pending if b in self._trouble]
        if len(open_outcomes) >= _MAX_UNKNOWN:
            pending = open_outcomes
        ready = [b for b in pending if b not in self._trouble or self._trouble[b].not_before <= now]
        if not ready:
            return None
        newest = self._newest_next[name] = not self._newest_next.get(name, True)
        return ready[-1] if newest else ready[0]

    def _send(self, name: str, spool: Spool, batch: Batch) -> None:
        try:
            attempt = spool.claim(batch)
            body = spool.read(batch)
        except OSError as error:
            spool.release(batch)
            self._hold(batch, f"spool: {error}")
            return
        headers = {
            "Content-Type": "application/vnd.tailsight.frames",
            "Tailsight-Batch": batch.name,
            "Tailsight-Attempt": str(attempt),
            "Tailsight-Collector": f"{name}@{self._host}",
        }
        answer = self._uplink.post("/v1/ingest", body, headers)
        self.stats.sent_bytes += len(body)
        del body
        self._settle(spool, batch, answer)

    def _settle(self, spool: Spool, batch: Batch, answer: Answer) -> None:
        trouble = self._trouble.get(batch) or _Trouble()
        outcome = answer.outcome
        if outcome is Outcome.STORED:
            said = stored_answer(answer)
            if said and said.batch == batch.name and said.events == batch.events:
                self._done(spool, batch, said.status == "duplicate")
                return
            answer, outcome = (
                Answer(Outcome.STRANGE, answer.status, f"unexpected answer {answer.detail!r}"),
                Outcome.STRANGE,
            )
        if outcome is Outcome.STRANGE:
            trouble.strange += 1
            if trouble.strange >= _STRANGE_TRIES:
                outcome = Outcome.REFUSED
        if outcome is Outcome.REFUSED:
            self._failures = 0
            self._refused(spool, batch, answer)
            return
        spool.release(batch)
        self._trouble[batch] = trouble
        self.stats.retries[outcome.value] = self.stats.retries.get(outcome.value, 0) + 1
        if outcome in (Outcome.BUSY, Outcome.UNREACHABLE):
            self._failures += 1
            pause = answer.retry_after_s if answer.retry_after_s is not None else self._pause(self._failures)
            self._wait_until = self._now() + pause
            self._note(batch, answer.detail, pause)
        else:
            self._failures = 0
            self._hold(batch, answer.detail, answer.retry_after_s)

    def _done(self, spool: Spool, batch: Batch, duplicate: bool) -> None:
        self._failures = 0
        self._trouble.pop(batch, None)
        self.stats.acked_events += batch.events
        self.stats.acked_batches += 1
        self.stats.duplicates += duplicate
        self.stats.last_error = ""
        spool.ack(batch)

    def _refused(self, spool: Spool, batch: Batch, answer: Answer) -> None:
        self._trouble.pop(batch, None)
        if spool.halve(batch):
            return
        if batch.rejected:
            self.stats.unreported_events += batch.events
            log.error("drop frames refused", batch=batch.name, events=batch.events, answer=answer.detail)
            spool.ack(batch)
            return
        self.stats.refused_batches += 1
        log.error("batch quarantined", batch=batch.name, events=batch.events, answer=answer.detail)
        spool.reject(batch, answer.detail)

    def _hold(self, batch: Batch, why: str, retry_after_s: float | None = None) -> None:
        trouble = self._trouble.setdefault(batch, _Trouble())
        trouble.tries += 1
        pause = retry_after_s if retry_after_s is not None else self._pause(trouble.tries)
        trouble.not_before = self._now() + pause
        self._note(batch, why, pause)

    def _note(self, batch: Batch, why: str, pause: float) -> None:
        if why != self.stats.last_error:  # once per kind of trouble, not once per try
            log.warning("not delivered yet", batch=batch.name, why=why, next_try_s=round(pause, 2))
        self.stats.last_error = why

    def _pause(self, failures: int) -> float:
        """Full jitter: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/."""
        return self._jitter(_SHORTEST_S, max(_SHORTEST_S, min(_LONGEST_S, _SHORTEST_S * 2.0 ** min(failures, 10))))
