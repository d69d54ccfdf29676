"""The dead man's heartbeat: an outside watcher is told that alerts would come, and raises the alarm when not.

A heartbeat stands for two things: objectives have been judged lately, and no notification is stuck. It is withheld as
soon as one of them does not hold, and it stops with the process.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from api.notify.address import RefusedError, place
from api.notify.post import PostError, post
from api.notify.settings import check_url
from collector.log import logger
from collector.settings import ConfigError, Section, duration_ns, section

if TYPE_CHECKING:
    from api.state import State

NS = 1_000_000_000
MAX_WATCHERS = 8
RETRY_S = 10.0
_log = logger("heartbeat")


class Watcher(Section, frozen=True, kw_only=True):
    """`[heartbeat.NAME]`: one outside watcher that is told every `every` while alerts would come.

    `late` is how long ago objectives may have been judged last, `stuck` how long a notification may wait to be taken.
    `secret_env` names the environment variable of a bearer token. Where `url` may lead is decided as for webhooks.
    """

    url: str = ""
    every: str = "1m"
    timeout: str = "5s"
    method: Literal["POST", "GET"] = "POST"
    secret_env: str = ""
    late: str = "45s"
    stuck: str = "2m"
    ports: tuple[int, ...] = (443,)
    allow_loopback: bool = False
    allow_private: bool = False

    @property
    def kind(self) -> str:
        """Its addresses are checked as a webhook's."""
        return "webhook"

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        check_url(self.url, "url")
        if self.ns("every") < 5 * NS:
            raise ConfigError("every", f"must be at least 5s, got {self.every}")
        if not NS // 100 <= self.ns("timeout") <= 30 * NS:
            raise ConfigError("timeout", f"must be 10ms to 30s, got {self.timeout}")
        if self.ns("late") < 20 * NS:
            raise ConfigError("late", f"must be at least two ticks, 20s, got {self.late}")
        if self.ns("stuck") < 10 * NS:
            raise ConfigError("stuck", f"must be at least 10s, got {self.stuck}")
        if not self.ports or not all(1 <= port <= 65535 for port in self.ports):
            raise ConfigError("ports", f"must be ports, 1 to 65535, got {list(self.ports)}")

    def ns(self, name: str) -> int:
        """A duration of it in nanoseconds."""
        return duration_ns(getattr(self, name), name)


def watchers_from(document: Mapping[str, Any], source: str = "") -> dict[str, Watcher]:
    """The declared watchers by name. Raises ConfigError."""
    declared = document.get("heartbeat", {})
    if not isinstance(declared, Mapping) or not all(isinstance(fields, Mapping) for fields in declared.values()):
        raise ConfigError("heartbeat", "must be sections [heartbeat.NAME]", source)
    if len(declared) > MAX_WATCHERS:
        raise ConfigError("heartbeat", f"holds {len(declared)} watchers, at most {MAX_WATCHERS} are told", source)
    return {name: section(fields, Watcher, f"heartbeat.{name}", source) for name, fields in declared.items()}


class Heartbeat:
    """Tells one watcher. `run` never raises for what the watcher does."""

    def __init__(self, name: str, watcher: Watcher) -> None:
        self.name, self.watcher = name, watcher
        self.sent = self.failures = self.withheld = 0
        self.last_ns = 0  # when the watcher last took one
        self.why = "none was sent yet"  # why it is withheld or did not arrive; empty while all is well
        self._due_s = 0.0

    def run(self, state: State) -> int:
        """Send one if it is time and all is well; how many were sent."""
        now_s = time.monotonic()
        if now_s < self._due_s:
            return 0
        found = unwell(state, self.watcher, time.time_ns())
        if found:
            self.withheld += 1
            self._say(f"withheld: {found}")
            self._due_s = now_s + RETRY_S  # it goes on as soon as all is well again
            return 0
        try:
            self._send()
        except (PostError, RefusedError, OSError) as error:
            self.failures += 1
            self._say(f"the watcher did not take it: {error}"[:300])
            self._due_s = now_s + min(RETRY_S, self.watcher.ns("every") / NS)
            return 0
        self._say("")
        self.sent += 1
        self.last_ns = time.time_ns()
        self._due_s = now_s + self.watcher.ns("every") / NS
        return 1

    def _send(self) -> None:
        headers = {"User-Agent": "tailsight"}
        if self.watcher.secret_env:
            secret = os.environ.get(self.watcher.secret_env, "")
            if not secret:
                raise PostError(f"the environment variable {self.watcher.secret_env} is not set")
            headers["Authorization"] = f"Bearer {secret}"
        post(place(self.watcher), b"", headers, self.watcher.ns("timeout") / NS, method=self.watcher.method)

    def _say(self, why: str) -> None:
        if why != self.why:
            (_log.warning if why else _log.info)("heartbeat", watcher=self.name, why=why or "all is well")
        self.why = why


def unwell(state: State, watcher: Watcher, now_ns: int) -> str:
    """Why alerts might not come: objectives are not judged, or what they said does not leave. Empty when well."""
    jobs = state.jobs
    judged = jobs.states.get("objectives") if jobs is not None else None
    if state.stopping or judged is None:
        return "the server stops or starts"
    if state.standby is not None and not state.standby.active():
        return "this server is not the active one of its pair"
    if judged.paused:
        return "the job objectives is paused"
    if judged.last_success_ns is None:
        return f"objectives have not been judged yet{': ' + judged.last_error if judged.last_error else ''}"
    if now_ns - judged.last_success_ns > watcher.ns("late"):
        return f"objectives were judged {(now_ns - judged.last_success_ns) / NS:.0f} s ago"
    for sender in state.senders:
        sending = jobs.states.get(f"notify-{sender.name}") if jobs is not None else None
        if sending is not None and sending.paused:
            return f"the job notify-{sender.name} is paused"
        count, oldest_ns = sender.deliveries.waiting(sender.name)
        if count and now_ns - oldest_ns > watcher.ns("stuck"):
            return f"{count} notifications wait for {sender.name}, the oldest for {(now_ns - oldest_ns) / NS:.0f} s"
    return ""
