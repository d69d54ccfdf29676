"""Says what was deployed, as every deploy pipeline does: over REST to the server that runs, else with the command.

In a thread of its own, so that the programs are not kept waiting; a change that nobody takes is logged and let go.
"""

from __future__ import annotations

import logging
import queue
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import msgspec

from api.demo.rollout import Change

_MOST_WAITING = 1_000
_PATIENCE_S = 60.0

log = logging.getLogger(__name__)


class Announcer:
    """Records changes in the order in which they are told."""

    def __init__(self, data: Path, config: Path | None = None) -> None:
        self._data = data.absolute()
        self._given = ["--data", str(self._data), *(["--config", str(config.absolute())] if config else [])]
        self._waiting: queue.Queue[Change | None] = queue.Queue(_MOST_WAITING)
        self._thread = threading.Thread(target=self._run, name="announcer", daemon=True)
        self._thread.start()

    def record(self, change: Change) -> None:
        """Record it soon."""
        try:
            self._waiting.put_nowait(change)
        except queue.Full:
            log.warning("too many changes wait: %s is not recorded", change.what)

    def close(self, patience_s: float = 5.0) -> None:
        """Record what waits, if it does not take too long."""
        self._waiting.put(None)
        self._thread.join(patience_s)

    def _run(self) -> None:
        while (change := self._waiting.get()) is not None:
            try:
                if not self._over_rest(change):
                    self._by_command(change)
            except (OSError, subprocess.SubprocessError) as error:
                log.warning("%s is not recorded: %s", change.what, error)

    def _over_rest(self, change: Change) -> bool:
        """Whether a server has taken it; one that wants a token is passed by."""
        server = self._data / "server.json"
        body = {
            "kind": change.kind, "what": change.what, "when": str(change.at_ns), "service": change.service,
            "version": _version(change), "labels": change.labels,
        }  # fmt: skip
        try:
            url = msgspec.json.decode(server.read_bytes())["url"]
            answer = httpx.post(f"{url}/v1/changes", json=body, timeout=10, trust_env=False)
        except (OSError, httpx.HTTPError, msgspec.DecodeError, KeyError):
            return False
        return answer.is_success

    def _by_command(self, change: Change) -> None:
        argv = [sys.executable, "-m", "api.cli", "changes", "record", change.what, "--kind", change.kind]
        argv += ["--service", change.service, "--version", _version(change), "--when", str(change.at_ns)]
        for name, value in change.labels.items():
            argv += ["--label", f"{name}={value}"]
        # Our own command with our own arguments; no shell is involved.
        subprocess.run(  # noqa: S603
            [*argv, *self._given, "--json"], check=True, timeout=_PATIENCE_S, capture_output=True
        )


def _version(change: Change) -> str:
    return str(change.version) if change.version else ""
