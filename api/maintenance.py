"""Maintenance windows in the control state: who declared them, which episodes they hold, and when those are told."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from analytics.slo.episodes import OPEN
from analytics.slo.maintenance import MAX_WINDOWS, NS, Window, covering, ended
from api.control import Control
from collector.log import logger

KEEP_NS = 31 * 86_400 * NS  # of a window that is over: late corrections of its time still have to know it
_LATE_NS = 60 * NS  # how far in the past a window may begin: the clocks of people
_log = logger("maintenance")


@dataclass(frozen=True, slots=True)
class Held:
    """An episode that fired in a window and that nobody has been told of."""

    episode: str
    window: str
    objective: str
    rule: str
    service: str
    held_ns: int
    let_go_ns: int = 0
    outcome: str = ""  # "": held; told: it went on and was sent; over: it ended in the window and nobody was told

    def write(self, db: sqlite3.Connection) -> None:
        """As a row, in the transaction that writes the episode's notification."""
        db.execute(
            "INSERT OR IGNORE INTO maintenance_held (episode, name, objective, rule, service, held_ns) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (self.episode, self.window, self.objective, self.rule, self.service, self.held_ns),
        )


@dataclass(frozen=True, slots=True)
class Declared:
    """A window and where it comes from."""

    window: Window
    declared_ns: int = 0
    declared_by: str = "the configuration"
    ended_ns: int = 0
    ended_by: str = ""


class UnknownWindowError(KeyError):
    """There is no window of this name."""


class Maintenance:
    """The windows of the configuration and those of the control state."""

    def __init__(self, control: Control, configured: Sequence[Window] = ()) -> None:
        self._control, self._configured = control, tuple(configured)

    def declared(self) -> list[Declared]:
        """All windows by start; one of the configuration that was ended early is the one of the control state."""
        rows = self._control.rows("SELECT * FROM maintenance ORDER BY start_ns, name")
        own = [
            Declared(
                Window(
                    r["name"], r["start_ns"], r["end_ns"], r["who"], r["why"], tuple(json.loads(r["objectives"])),
                    tuple(json.loads(r["services"])), r["send"], bool(r["budget_burns"]),
                ),
                r["declared_ns"], r["declared_by"], r["ended_ns"] or 0, r["ended_by"],
            )
            for r in rows
        ]  # fmt: skip
        ended_early = {(one.window.name, one.window.start_ns) for one in own}
        given = [Declared(one) for one in self._configured if (one.name, one.start_ns) not in ended_early]
        return sorted([*given, *own], key=lambda one: (one.window.start_ns, one.window.name))

    def windows(self) -> list[Window]:
        """All windows."""
        return [one.window for one in self.declared()]

    def add(self, window: Window, who: str) -> Declared:
        """Declare a window. Raises ConfigError for what makes no sense, ValueError for a name that is taken."""
        now = time.time_ns()
        window.check()
        if window.start_ns < now - _LATE_NS:
            window = replace(window, start_ns=now)  # the past has been told already
        if window.end_ns <= now:
            raise ValueError(f"the window {window.name} would be over already")
        known = self.declared()
        if any(one.window.name == window.name for one in known):
            raise ValueError(f"a window is called {window.name} already; take another name")
        if sum(one.window.end_ns > now for one in known) >= MAX_WINDOWS:
            raise ValueError(f"there are {MAX_WINDOWS} windows that are not over; end one first")
        self._write(window, now, who)
        return Declared(window, now, who)

    def end(self, name: str, who: str) -> Declared:
        """End a window now. Raises UnknownWindowError, or ValueError when it is over already."""
        now = time.time_ns()
        found = next((one for one in self.declared() if one.window.name == name), None)
        if found is None:
            known = ", ".join(one.window.name for one in self.declared() if one.window.end_ns > now) or "none"
            raise UnknownWindowError(f"no window is called {name!r}; not over are {known}")
        window = ended(found.window, now)
        self._write(window, found.declared_ns or now, found.declared_by, now, who)
        return replace(found, window=window, ended_ns=now, ended_by=who)

    def held(self, *, all_: bool = False) -> list[Held]:
        """The episodes that are held now; with `all_` also those that were, newest first."""
        where = "" if all_ else "WHERE outcome = ''"
        rows = self._control.rows(f"SELECT * FROM maintenance_held {where} ORDER BY held_ns DESC LIMIT 1000")  # noqa: S608 - text of ours
        return [
            Held(
                r["episode"], r["name"], r["objective"], r["rule"], r["service"], r["held_ns"], r["let_go_ns"] or 0,
                r["outcome"],
            )
            for r in rows
        ]  # fmt: skip

    def let_go(self, now_ns: int) -> int:
        """Tell of what fires and is in no window any more, and forget what ended in one; how many are told now."""
        held = self.held()
        if not held:
            return 0
        windows = {one.name: one for one in self.windows()}
        told = 0
        with self._control.deciding() as db:
            states = dict(db.execute("SELECT episode, state FROM slo_alerts"))
            for one in held:
                if states.get(one.episode) not in OPEN:
                    db.execute("UPDATE slo_outbox SET sent_ns = ? WHERE episode = ?", (now_ns, one.episode))
                    _outcome(db, one.episode, "over", now_ns)
                    continue
                cover = covering(windows.values(), one.objective, one.service, now_ns)
                if cover is not None and cover.send == "hold":
                    continue
                self._annotate(db, one, windows.get(one.window), now_ns)
                _outcome(db, one.episode, "told", now_ns)
                told += 1
        if told:
            _log.info("maintenance_over", told=told)
        return told

    def tidy(self, now_ns: int) -> None:
        """Forget windows and episodes that were over long ago."""
        with self._control.transaction() as db:
            db.execute("DELETE FROM maintenance WHERE end_ns < ?", (now_ns - KEEP_NS,))
            db.execute("DELETE FROM maintenance_held WHERE outcome != '' AND let_go_ns < ?", (now_ns - KEEP_NS,))

    def _annotate(self, db: sqlite3.Connection, one: Held, window: Window | None, now_ns: int) -> None:
        """What is told says why it comes so late. Its time is now: nobody has waited for it before."""
        for row in db.execute(
            "SELECT id, body FROM slo_outbox WHERE episode = ? AND kind = 'firing'", (one.episode,)
        ).fetchall():
            body = json.loads(row["body"])
            body["maintenance"] = {**(note(window) if window else {"name": one.window}), "held_until_ns": now_ns}
            db.execute(
                "UPDATE slo_outbox SET body = ?, at_ns = ? WHERE id = ?",
                (json.dumps(body, sort_keys=True), now_ns, row["id"]),
            )

    def _write(self, one: Window, declared_ns: int, by: str, ended_ns: int | None = None, ended_by: str = "") -> None:
        with self._control.deciding() as db:
            db.execute(
                "INSERT OR REPLACE INTO maintenance VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    one.name, one.start_ns, one.end_ns, one.who, one.why, json.dumps(one.objectives),
                    json.dumps(one.services), one.send, int(one.budget_burns), declared_ns, by, ended_ns, ended_by,
                ),
            )  # fmt: skip


def holds(windows: Iterable[Window], episode: str, objective: str, rule: str, service: str, now_ns: int) -> Held | None:
    """The hold of an episode that begins to fire now; None when nothing holds it."""
    found = covering(windows, objective, service, now_ns)
    if found is None or found.send != "hold":
        return None
    return Held(episode, found.name, objective, rule, service, now_ns)


def note(window: Window) -> dict[str, Any]:
    """What a notification says of the window that it comes from."""
    return {"name": window.name, "who": window.who, "why": window.why, "until_ns": window.end_ns}


def shown(one: Declared, held: Sequence[Held], now_ns: int, about: Callable[[Window], list[str]]) -> dict[str, Any]:
    """A window for an answer; `about` says which objectives in force it is about."""
    window = one.window
    state = "over" if window.end_ns <= now_ns else "active" if window.at(now_ns) else "planned"
    return {
        "name": window.name, "state": state, "start_ns": window.start_ns, "end_ns": window.end_ns, "who": window.who,
        "why": window.why, "objectives": list(window.objectives), "services": list(window.services),
        "send": window.send, "budget": "burns" if window.budget_burns else "pauses",
        "declared_ns": one.declared_ns, "declared_by": one.declared_by, "ended_ns": one.ended_ns,
        "ended_by": one.ended_by, "about": about(window),
        "held": [h.episode for h in held if h.window == window.name and not h.outcome],
    }  # fmt: skip


def _outcome(db: sqlite3.Connection, episode: str, outcome: str, now_ns: int) -> None:
    db.execute("UPDATE maintenance_held SET outcome = ?, let_go_ns = ? WHERE episode = ?", (outcome, now_ns, episode))
