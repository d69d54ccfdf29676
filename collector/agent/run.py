"""The agent: runs the collectors that its permissions allow, spools what they see, and ships it.

Four threads: polls (this one), group commit, shipping, heartbeats. A stop (SIGTERM) ends the intake, makes everything
durable, sends for up to `shutdown_s`, and leaves the rest in the spool; kill -9 loses nothing that was durable.
"""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import msgspec
import structlog

from collector.agent.metrics import AgentMetrics, write_status
from collector.agent.registry import make_source
from collector.agent.runner import GivesLines, Runner, TakesFolder, TakesLines
from collector.agent.settings import AgentSettings
from collector.clock import BoundSource, HostClock
from collector.clocks.authorities import authorities
from collector.heartbeat import Heartbeat
from collector.shipper import Shipper
from collector.sources import Source
from collector.spool import Spool
from collector.uplink import Outcome, Uplink

_LONGEST_NAP_S = 0.2
_LONGEST_REST_S = 0.5  # of the commits: segments age, and the disk's reserve is restored, with nothing new
_LAST_POLLS, _LAST_PAUSE_S = 3, 0.22  # the probe asks every 0.2 s whether a program lives

log = structlog.get_logger("agent")

SourceMaker = Callable[[str, AgentSettings, str, HostClock], Source]


class ClockMaker(Protocol):
    """Makes the host's clock. This is the door at which a test gives a host a clock of its own."""

    def __call__(self, bounds: BoundSource, *, sample_s: float) -> HostClock:
        """A clock that takes its bound from `bounds` and makes a row every `sample_s`."""


def run_agent(
    settings: AgentSettings,
    data: Path,
    stop: threading.Event,
    make: SourceMaker = make_source,
    clock: ClockMaker | None = None,
) -> int:
    """Run until `stop` is set; returns the exit code.

    `make` turns a collector's name into its source, `clock` makes the host's clock from who states its bound.

    Raises ConfigError for settings that cannot work, LockedError when another agent has `data`.
    """
    settings.validate()
    return Agent(settings, data, make, clock).run(stop)


class Agent:
    """All of one host's collectors, their spools in `data/agent/NAME`, and the way to the server."""

    def __init__(
        self, settings: AgentSettings, data: Path, make: SourceMaker = make_source, clock: ClockMaker | None = None
    ) -> None:
        self._settings = settings
        self._folder = data / "agent"
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._host = settings.host_name or socket.gethostname()
        _be_modest(settings)
        self._authorities = authorities(settings.clock)
        make_clock = clock or HostClock
        self._clock = make_clock(self._authorities, sample_s=settings.clock_s)
        self._uplink = Uplink(settings)
        self._beat_uplink = Uplink(settings, timeout_s=min(5.0, settings.request_timeout_s))
        self._runners: list[Runner] = []
        self._broken = False
        self._appended = threading.Event()  # to a spool, and not durable yet
        try:
            for name in settings.collectors:
                source = make(name, settings, self._host, self._clock)
                if isinstance(source, TakesFolder):
                    source.use_folder(self._folder)
                policy = settings.spool(getattr(source, "when_full", ""))
                self._runners.append(Runner(source, Spool(self._folder / name, policy), self._host))
            sources = [runner.source for runner in self._runners]
            for taker in sources:
                for giver in sources:
                    if isinstance(taker, TakesLines) and isinstance(giver, GivesLines):
                        taker.use_taps(giver)
        except BaseException:
            self._close()
            raise
        self._shipper = Shipper(
            {r.name: r.spool for r in self._runners}, self._uplink, self._host, linger_s=settings.linger_s
        )

    def run(self, stop: threading.Event) -> int:
        """Collect and ship until `stop` is set.

        Returns 0 when everything durable was sent, 3 when some is left in the spool, 1 when a thread failed.
        """
        quiet = threading.Event()  # the intake has ended
        ended = threading.Event()
        shipping = self._thread("ship", lambda: self._shipper.run(quiet, self._settings.shutdown_s))
        others = [
            self._thread("commit", lambda: self._commits(ended)),
            self._thread("heartbeat", lambda: self._heartbeats(ended)),
        ]
        try:
            if self._settings.metrics_port:
                AgentMetrics(self._runners, self._shipper).serve(self._settings.metrics_port)
            self._authorities.start()
            self._clock.read()
            now = time.monotonic()
            for runner in self._runners:
                runner.start(now)
            for thread in (shipping, *others):
                thread.start()
            self._polls(stop)
            self._last_polls()
            # Who gives lines to others goes first.
            for runner in sorted(self._runners, key=lambda one: isinstance(one.source, TakesLines)):
                runner.finish(self._clock.read())
            for runner in self._runners:
                runner.close()
            quiet.set()
            shipping.join(self._settings.shutdown_s + self._settings.request_timeout_s)
            ended.set()
            for thread in others:
                thread.join(10.0)
            self._beat(stopped=True)
            left = sum(s.produced - s.acked_events for r in self._runners for s, _ in r.spool.boots())
            log.info("agent stopped", events_left_in_spool=left)
        finally:
            self._close()
        if self._broken:
            return 1
        return 3 if left else 0

    def _thread(self, name: str, target: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                target()
            except BaseException:
                # Half an agent would look alive; better to end and be started again, nothing durable is lost.
                log.exception("thread failed, the agent ends", thread=name)
                self._broken = True
                raise

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _polls(self, stop: threading.Event) -> None:
        while not stop.is_set() and not self._broken:
            reading = self._clock.read()
            now = time.monotonic()
            for runner in self._runners:
                if now >= runner.due:
                    runner.poll(reading, now)
                    if runner.spool.uncommitted:
                        self._appended.set()
                    reading = self._clock.read()  # a long poll must not date the next source's
            nap = min((r.due for r in self._runners), default=now + 1.0) - time.monotonic()
            stop.wait(min(max(nap, 0.001), _LONGEST_NAP_S))

    def _last_polls(self) -> None:
        """Take what is left, and long enough for a source to see that programs stopped with us have ended.

        Their rings are then read to the end and deleted, instead of waiting for the next agent.
        """
        for _ in range(_LAST_POLLS):
            reading = self._clock.read()
            for runner in self._runners:
                runner.poll(reading, max(time.monotonic(), runner.due))
                runner.spool.commit()
                runner.tell_durable()
            time.sleep(_LAST_PAUSE_S)

    def _commits(self, ended: threading.Event) -> None:
        pause = min(0.02, self._settings.spool().commit_s / 2)
        while not ended.wait(pause):
            # At rest nothing waits to be made durable for most of the time: look when something was appended.
            if not any(runner.spool.uncommitted for runner in self._runners):
                self._appended.wait(_LONGEST_REST_S)
            self._appended.clear()
            for runner in self._runners:
                runner.spool.tick()

    def _heartbeats(self, ended: threading.Event) -> None:
        due = 0.0
        while not ended.wait(1.0 if due else 0.05):
            beats = [b for r in self._runners for b in r.heartbeats(time.time_ns())]
            try:
                write_status(self._folder / "status.json", beats, self._shipper.stats.last_error)
            except OSError as error:
                log.warning("status.json cannot be written", error=str(error))
            if time.monotonic() >= due:
                due = time.monotonic() + self._settings.heartbeat_s
                self._send(beats)

    def _beat(self, stopped: bool) -> None:
        beats = [b for r in self._runners for b in r.heartbeats(time.time_ns(), stopped)]
        write_status(self._folder / "status.json", beats, self._shipper.stats.last_error)
        self._send(beats)

    def _send(self, beats: Sequence[Heartbeat]) -> None:
        headers = {"Content-Type": "application/json"}
        answer = self._beat_uplink.post("/v1/ingest/heartbeat", msgspec.json.encode(list(beats)), headers)
        if answer.outcome is not Outcome.STORED:
            return
        spools = {r.spool.stream.collector: r.spool for r in self._runners}
        for beat in beats:
            if beat.acked == beat.produced:
                spools[beat.collector].reported(beat.boot)

    def _close(self) -> None:
        for runner in self._runners:
            runner.spool.close()
        self._authorities.close()
        self._uplink.close()
        self._beat_uplink.close()


def _be_modest(settings: AgentSettings) -> None:
    """Keep to the given CPUs and step behind the observed programs; what is not allowed is said and left."""
    try:
        if settings.cpus:
            os.sched_setaffinity(0, settings.cpus)
        if settings.nice:
            os.nice(settings.nice)
    except OSError as error:
        log.warning("cannot set cpus or nice of the agent", cpus=settings.cpus, nice=settings.nice, error=str(error))
