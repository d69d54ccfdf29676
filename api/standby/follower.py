"""This server's half of a pair: asks the other one, takes over what it says, and knows whether it may act.

A server acts only while it is active and has looked at its peer within a lease: one that was stopped for a while, by a
signal or a suspended machine, looks first, and finds that the other one has taken over.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from api.control import Control
from api.standby import journal
from api.standby.role import Role, Said, decide
from api.standby.settings import NS, StandbySettings
from collector.log import logger
from collector.settings import ConfigError

_MAX_ANSWER = 32 << 20
_PAGES = 50  # in one run: then the lease is looked at again
_ROLES: tuple[Role, ...] = ("candidate", "standby", "active")
_log = logger("standby")


def boot_ns() -> int:
    """A clock that no one sets and that counts while the machine sleeps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Standby:
    """The pair as this server sees it. `run` belongs to one thread; the rest may be asked from any."""

    def __init__(self, settings: StandbySettings, control: Control, clock: Callable[[], int] = boot_ns) -> None:
        self.settings, self._control, self._clock = settings, control, clock
        journal.install(control)
        rows = control.rows("SELECT * FROM follow_state")
        self._peer_log: str = rows[0]["peer_log"] if rows else ""
        self._peer_seq: int = rows[0]["peer_seq"] if rows else -1
        self.me = Said(settings.name, "candidate", rows[0]["epoch"] if rows else 0)
        self.peer: Said | None = None
        self.problem = "the peer was not asked yet"
        self.since_ns = time.time_ns()
        self.synced_ns = 0  # when everything of the peer was last here
        self._seen: dict[str, set[tuple[Any, ...]]] | None = None
        self._looked = self._heard = clock()
        self._lease_ns = settings.ns("lease")
        self._confirmed: tuple[int, int] | None = (
            None  # up to which number the peer has our changes, and when it said so
        )
        self.on_active: Callable[[], None] = lambda: None
        self._lock = threading.RLock()  # of the role: asked and asking are two threads
        self._client: httpx.Client | None = None
        self._write()

    def active(self) -> bool:
        """Whether this server judges and tells at this moment."""
        return self.me.role == "active" and self._clock() - self._looked < self._lease_ns

    def run(self) -> int:
        """Ask the peer once, take over what it has, and decide; how many rows were taken over."""
        # Before the question: an answer that was heard before a long stop is none.
        taken, started = 0, self._clock()
        try:
            for _ in range(_PAGES):
                answer = self._ask()
                self.heard(answer["name"], answer["role"], answer["epoch"])
                if self.me.role == "active" or answer["role"] != "active":
                    break
                taken += self._take(answer)
                if not answer["more"]:
                    break
            self.problem = ""
        except (httpx.HTTPError, journal.FollowError, OSError, ValueError, KeyError, TypeError) as error:
            text = f"{type(error).__name__}: {error}"[:300]
            if text != self.problem:
                _log.warning("peer_not_followed", peer=self.settings.peer, error=text)
            self.problem = text
        with self._lock:
            self._decide()
            self._looked = started
        if self.me.role == "active":
            journal.tidy(self._control)
        return taken

    def heard(self, name: str, role: str, epoch: int) -> None:
        """The peer said what it is, when asked or when asking. Raises FollowError for what cannot be."""
        if name == self.settings.name or role not in _ROLES or epoch < 0:
            raise journal.FollowError(
                f"the peer says it is {name[:100]!r}, {role[:20]!r}: it needs a name of its own in [standby]"
            )
        self._heard = self._clock()
        with self._lock:
            self.peer = Said(name, _ROLES[_ROLES.index(role)], epoch)
            if self.me.role == "active" and role == "active" and self.peer.rank > self.me.rank:
                self._become(Said(self.me.name, "standby", self.me.epoch))

    def asked(self, name: str, role: str, epoch: int, log: str, after: int) -> dict[str, Any]:
        """The answer to the peer's question: what this server is, and what has changed since."""
        self.heard(name, role, epoch)
        found = journal.changes(self._control, log, after)
        if not found["reset"] and role != "active":
            self._confirmed = (after, self._clock())
        return {"name": self.me.name, "role": self.me.role, "epoch": self.me.epoch, **found}

    def unconfirmed(self) -> tuple[int, int] | None:
        """Above which number of the journal changes are only here, and for how many ns they may wait to be told.

        None: nobody follows at this moment, so that waiting would gain nothing.
        """
        told = self._confirmed
        if told is None or self._clock() - told[1] > self._lease_ns:
            return None
        return told[0], self.settings.ns("confirm")

    def close(self) -> None:
        """Let go of the connection."""
        if self._client is not None:
            self._client.close()

    def _decide(self) -> None:
        now = self._clock()
        silent = now - self._heard > self._lease_ns
        after = decide(self.me, self.peer, silent=silent)
        if after != self.me:
            self._become(after)

    def _become(self, after: Said) -> None:
        before, self.me = self.me, Said(after.name, "standby", after.epoch)  # nothing acts while it is written
        if after.role == "active":
            # What is changed here from now on, the peer has not: after another turn everything is copied anew.
            self._peer_log, self._peer_seq, self._seen = "", -1, None
        self._write(after)
        if after.role == "active":
            self.on_active()
        if before.role != after.role:
            self.since_ns = time.time_ns()
            _log.warning("role", role=after.role, epoch=after.epoch, peer=self.settings.peer, problem=self.problem)
        self.me = after

    def _write(self, said: Said | None = None) -> None:
        said = said or self.me
        with self._control.transaction() as db:
            db.execute(
                "INSERT OR REPLACE INTO follow_state VALUES (1, ?, ?, ?, ?, ?, ?)",
                (said.name, self.settings.peer, said.role, said.epoch, self._peer_log, self._peer_seq),
            )

    def _take(self, answer: dict[str, Any]) -> int:
        rows = answer["rows"]
        if answer["reset"]:
            self._seen = {}
        with self._control.transaction() as db:
            journal.take_over(db, rows)
            if self._seen is not None:
                for one in rows:
                    if one["row"] is not None:
                        self._seen.setdefault(one["table"], set()).add(tuple(one["key"]))
                if not answer["more"]:
                    journal.forget_others(db, self._seen)
            self._peer_log, self._peer_seq = str(answer["log"]), int(answer["seq"])
            db.execute("UPDATE follow_state SET peer_log = ?, peer_seq = ?", (self._peer_log, self._peer_seq))
        if not answer["more"]:
            self._seen = None
            self.synced_ns = time.time_ns()
        return len(rows)

    def _ask(self) -> dict[str, Any]:
        if self._client is None:
            verify: ssl.SSLContext | bool = True
            if self.settings.ca_file:
                verify = ssl.create_default_context(cafile=self.settings.ca_file)
            self._client = httpx.Client(
                base_url=self.settings.peer, timeout=min(5.0, self._lease_ns / NS / 4), trust_env=False, verify=verify
            )
        # Between the pages of a whole copy the position is kept; a copy that broke off begins anew.
        begun = self._seen is not None or self._peer_log
        params: dict[str, str | int] = {
            "name": self.me.name, "role": self.me.role, "epoch": self.me.epoch,
            "log": self._peer_log if begun else "", "after": max(0, self._peer_seq),
        }  # fmt: skip
        body = bytearray()
        with self._client.stream("GET", "/v1/control/follow", params=params, headers=self._token()) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > _MAX_ANSWER:
                    raise journal.FollowError(f"the peer's answer has more than {_MAX_ANSWER >> 20} MiB")
        if answer.status_code != 200:
            raise journal.FollowError(
                f"the peer answered {answer.status_code}: {body[:200].decode('utf-8', 'replace')}"
            )
        import msgspec

        found = msgspec.json.decode(bytes(body), type=dict[str, Any])
        if not isinstance(found["rows"], list) or not isinstance(found["epoch"], int):
            raise journal.FollowError("the peer's answer is none of this version")
        return found

    def _token(self) -> dict[str, str]:
        if not self.settings.token_file:
            return {}
        file = Path(self.settings.token_file)
        if file.stat().st_mode & 0o077:
            raise ConfigError("standby.token_file", f"{file} can be read by others; chmod 600 it")
        return {"Authorization": f"Bearer {file.read_text('ascii').strip()}"}
