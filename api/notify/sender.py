"""Tells one target what it has to be told; its own thread, so that neither the evaluation nor another target waits."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from api.notify.address import RefusedError, place
from api.notify.deliveries import NS, Deliveries, Due
from api.notify.payload import alert, content
from api.notify.post import PostError, post
from api.notify.settings import NotifyTarget
from api.notify.signature import signed
from collector.log import logger

_BATCH = 64  # alerts in one request, or requests between two looks at what is due
_RUN_S = 20.0  # a run ends then, so that its job shows that it lives
_log = logger("notify")


@dataclass(slots=True)
class Sent:
    """What a sender has done since the process began."""

    posts: int = 0
    accepted: int = 0
    failures: int = 0


class Sender:
    """Sends what is due to one target. `run` never raises for what the target does."""

    def __init__(self, name: str, target: NotifyTarget, deliveries: Deliveries, public_url: str = "") -> None:
        self.name, self.target, self.deliveries, self.public_url = name, target, deliveries, public_url
        self.count = Sent()
        self._tries = 0
        self._not_before_s = 0.0
        self._jitter = random.Random()  # noqa: S311 - spreads tries, hides nothing

    def run(self, stopping: Callable[[], bool] = lambda: False) -> int:
        """Take in what is new and send what is due; how many notifications were accepted."""
        self.deliveries.take_in(self.name, time.time_ns())
        accepted, end_s = 0, time.monotonic() + _RUN_S
        batch = self.target.kind == "alertmanager"
        while some := self._due(end_s, stopping):
            for group in [some] if batch else [[one] for one in some]:
                if self._may(end_s, stopping):
                    accepted += self._try(group)
        return accepted

    def _due(self, end_s: float, stopping: Callable[[], bool]) -> list[Due]:
        return self.deliveries.due(self.name, time.time_ns(), _BATCH) if self._may(end_s, stopping) else []

    def _may(self, end_s: float, stopping: Callable[[], bool]) -> bool:
        return not stopping() and self._not_before_s <= time.monotonic() < end_s

    def _try(self, some: Sequence[Due]) -> int:
        try:
            self._send(some)
        except PostError as error:
            if error.ours and len(some) > 1:
                # One of them is refused: the others must not wait for it.
                return sum(self._try([one]) for one in some if self._not_before_s <= time.monotonic())
            self._failed(some, error)
            return 0
        except (RefusedError, OSError) as error:
            self._failed(some, PostError(f"{type(error).__name__}: {error}"))
            return 0
        self.deliveries.told(self.name, some, time.time_ns())
        if self._tries:
            _log.info("target_takes_again", target=self.name, tries=self._tries)
        self._tries = 0
        self.count.accepted += len(some)
        return len(some)

    def _failed(self, some: Sequence[Due], error: PostError) -> None:
        self.count.failures += 1
        if not error.ours:
            self._tries += 1
            self._not_before_s = time.monotonic() + self._wait_ns(self._tries) / NS
            _log.warning("target_failed", target=self.name, tries=self._tries, error=str(error))
        else:
            _log.error("notification_refused", target=self.name, id=some[0].notice.key, error=str(error))
        # Of a target that fails, the wait is the target's: its rows are due at once when it is over.
        wait = self._wait_ns(some[0].tries + 1) if error.ours else 0
        self.deliveries.failed(self.name, some, str(error), time.time_ns() + wait)

    def _wait_ns(self, tries: int) -> int:
        most = min(self.target.ns("retry_max"), self.target.ns("retry_first") << min(tries - 1, 30))
        return round(most * self._jitter.uniform(0.5, 1.0))

    def _send(self, some: Sequence[Due]) -> None:
        target, secret = self.target, b""
        if target.secret_env:
            secret = os.environ.get(target.secret_env, "").encode()
            if not secret:
                raise PostError(f"the environment variable {target.secret_env} is not set")
        headers = {"Content-Type": "application/json", "User-Agent": "tailsight"}
        if target.kind == "alertmanager":
            where = place(target, "/api/v2/alerts")
            body = _said(lambda: [self._alert(one) for one in some])
            if secret:
                headers["Authorization"] = f"Bearer {secret.decode()}"
        else:
            where = place(target)
            notice = some[0].notice
            body = _said(lambda: content(notice, target.dashboards, self.public_url))
            headers |= signed(secret, notice.key, time.time_ns() // NS, body)
        self.count.posts += 1
        post(where, body, headers, target.ns("timeout") / NS)

    def _alert(self, one: Due) -> dict[str, object]:
        resolved = one.notice if one.notice.kind == "resolved" else None
        first = self.deliveries.beginning(one.notice)
        later = self.deliveries.explained(first.episode)
        resend_ns, dashboards = self.target.ns("resend"), self.target.dashboards
        return alert(first, resolved, time.time_ns(), resend_ns, dashboards, later, self.public_url)


def _said(make: Callable[[], object]) -> bytes:
    """A body as JSON. Raises PostError for a notice that cannot be put into words: the others must not wait for it."""
    try:
        return json.dumps(make(), sort_keys=True).encode()
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise PostError(f"cannot be written: {type(error).__name__}: {error}", 422) from error
