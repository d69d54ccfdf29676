"""Who has been told what: one row per notification and target in the control state, written after each answer.

A notification is in the outbox before anybody is told, and told only when the receiver has said 2xx. A process that is
killed between the two tells it once more, under the same key: at least once, never not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from api.control import Control
from api.notify.payload import LATER, Notice
from api.notify.settings import NotifyTarget
from collector.log import logger

NS = 1_000_000_000
KEEP_TOLD_NS = 30 * 86_400 * NS
MAX_OUTBOX = 50_000
KEEP_EPISODES = 10_000
_OPEN = "SELECT episode FROM slo_alerts WHERE state IN ('firing', 'acknowledged')"
_HELD = "SELECT episode FROM maintenance_held WHERE outcome = ''"  # by a maintenance window: nobody is told yet
_log = logger("notify")

_WAITS = """AND NOT EXISTS (
    SELECT 1 FROM follow_changes c WHERE c.tbl = 'slo_outbox' AND c.key = json_array(o.id) AND c.seq > :after
        AND :now - o.at_ns BETWEEN 0 AND :wait)"""

# CROSS JOIN keeps SQLite to this order: the few notifications of one episode first, then their deliveries by key. Left
# to itself it scans all deliveries for each.
_DUE = """
SELECT o.id, o.episode, o.kind, o.objective, o.rule, o.at_ns, o.body, d.tries, d.told_ns
FROM notify_deliveries d CROSS JOIN slo_outbox o ON o.id = d.notification
WHERE d.target = :target AND d.done = 0 AND (d.due_ns <= :now OR d.due_ns > :horizon)
    AND NOT EXISTS (
        SELECT 1 FROM slo_outbox p CROSS JOIN notify_deliveries e ON e.notification = p.id AND e.target = d.target
        WHERE p.episode = o.episode AND p.id < o.id
            AND (e.told_ns IS NULL AND e.done = 0
                OR o.kind = 'resolved' AND p.kind = 'firing' AND e.told_ns BETWEEN :now - :settle + 1 AND :now)
    )
ORDER BY d.tries, o.id LIMIT :limit
"""


@dataclass(frozen=True, slots=True)
class Due:
    """A notification that a target has to be told now."""

    notice: Notice
    tries: int
    told_ns: int | None  # when it was first accepted, of one that is told again


class Deliveries:
    """The deliveries of one data directory to the targets of its configuration."""

    def __init__(
        self,
        control: Control,
        targets: Mapping[str, NotifyTarget],
        hooks: Mapping[str, frozenset[str]] | None = None,
    ) -> None:
        self._control, self._targets, self._hooks = control, dict(targets), dict(hooks or {})
        # Above which number of the journal changes are only here, and how long they may wait for the standby to have
        # them; None: there is no standby that follows.
        self.unconfirmed: Callable[[], tuple[int, int] | None] = lambda: None

    def _takes(self, name: str, kind: str, gate: str) -> bool:
        """Whether a target is told of a notification: hooks of gates hear of their rollbacks, the others of alerts."""
        if name in self._hooks:
            return kind == "rollback" and gate in self._hooks[name]
        # Alertmanager knows no acknowledgement: those are silences of its own. Causes it hears when it is told again.
        skip = ("acknowledged", "explained") if self._targets[name].kind == "alertmanager" else ()
        return kind not in ("rollback", *skip)

    def begin(self, now_ns: int) -> None:
        """Forget targets that are gone; a new one hears of what fires already."""
        with self._control.transaction() as db:
            known = {row[0] for row in db.execute("SELECT DISTINCT target FROM notify_deliveries")}
            for name in known - self._targets.keys():
                db.execute("DELETE FROM notify_deliveries WHERE target = ?", (name,))
            for name in self._targets.keys() - self._hooks.keys():
                db.execute(
                    "INSERT OR IGNORE INTO notify_deliveries (notification, target, due_ns) "  # noqa: S608 - text of ours
                    f"SELECT id, ?, ? FROM slo_outbox WHERE kind = 'firing' AND episode IN ({_OPEN}) "
                    f"AND episode NOT IN ({_HELD})",
                    (name, now_ns),
                )

    def take_in(self, name: str, now_ns: int) -> int:
        """Make deliveries to a target of what is new in the outbox; how many."""
        # What somebody is told of, the standby should know: else it would begin an episode of its own after a kill.
        after, wait_ns = self.unconfirmed() or (0, 0)
        waits = _WAITS if wait_ns else ""
        fresh = self._control.rows(
            f"SELECT id, kind, objective FROM slo_outbox o WHERE sent_ns IS NULL AND episode NOT IN ({_HELD}) "  # noqa: S608 - text of ours
            "AND NOT EXISTS (SELECT 1 FROM notify_deliveries d WHERE d.target = :target AND d.notification = o.id) "
            f"{waits} ORDER BY id LIMIT 1000",
            {"target": name, "after": after, "now": now_ns, "wait": wait_ns},
        )
        if not fresh:
            return 0
        with self._control.transaction() as db:
            for row in fresh:
                told = None if self._takes(name, row["kind"], row["objective"]) else now_ns
                db.execute(
                    "INSERT OR IGNORE INTO notify_deliveries (notification, target, due_ns, told_ns, done) "
                    "VALUES (?, ?, ?, ?, ?)",
                    (row["id"], name, now_ns, told, int(told is not None)),
                )
        return len(fresh)

    def due(self, name: str, now_ns: int, limit: int = 64) -> list[Due]:
        """What a target has to be told now, the least tried first; of an episode only what comes next."""
        target = self._targets[name]
        # A due time far ahead was written before the clock was set back.
        horizon = now_ns + 2 * max(target.ns("resend"), target.ns("retry_max"))
        settle = target.ns("settle") if target.kind == "alertmanager" else 0
        rows = self._control.rows(
            _DUE, {"target": name, "now": now_ns, "horizon": horizon, "settle": settle, "limit": limit}
        )
        return [Due(_notice(row), row["tries"], row["told_ns"]) for row in rows]  # type: ignore[arg-type]

    def beginning(self, notice: Notice) -> Notice:
        """The notice that began the episode; the notice itself where that one is no longer kept."""
        if notice.kind == "firing":
            return notice
        rows = self._control.rows("SELECT * FROM slo_outbox WHERE episode = ? AND kind = 'firing'", (notice.episode,))
        return _notice(rows[0]) if rows else notice  # type: ignore[arg-type]

    def explained(self, episode: str) -> Mapping[str, Any]:
        """What was found out about an episode after it began: its cost and cause; empty where nothing was."""
        rows = self._control.rows("SELECT body FROM slo_outbox WHERE episode = ? AND kind = 'explained'", (episode,))
        body = json.loads(rows[0]["body"]) if rows else {}
        return {name: body[name] for name in LATER if name in body}

    def told(self, name: str, some: Sequence[Due], now_ns: int) -> None:
        """The target has accepted these."""
        target = self._targets[name]
        again = target.kind == "alertmanager"
        with self._control.transaction() as db:
            for one in some:
                first = one.told_ns or now_ns
                done = not again or (
                    one.notice.kind == "resolved" and not 0 <= now_ns - first < target.ns("resolved_for")
                )
                db.execute(
                    "UPDATE notify_deliveries SET told_ns = ?, tries = 0, error = '', due_ns = ?, done = max(done, ?) "
                    "WHERE target = ? AND notification = ?",
                    (first, now_ns + target.ns("resend"), int(done), name, one.notice.id),
                )
                if one.notice.kind == "resolved":
                    db.execute(
                        "UPDATE notify_deliveries SET done = 1 WHERE target = ? AND notification IN "
                        "(SELECT id FROM slo_outbox WHERE episode = ? AND id < ?)",
                        (name, one.notice.episode, one.notice.id),
                    )
            db.execute(_finished(len(self._targets)), (now_ns, *self._targets, len(self._targets)))

    def failed(self, name: str, some: Sequence[Due], error: str, due_ns: int) -> None:
        """The target has not accepted these; they are due again at `due_ns`."""
        with self._control.transaction() as db:
            for one in some:
                db.execute(
                    "UPDATE notify_deliveries SET tries = tries + 1, error = ?, due_ns = ? "
                    "WHERE target = ? AND notification = ?",
                    (error[:300], due_ns, name, one.notice.id),
                )

    def waiting(self, name: str) -> tuple[int, int]:
        """How many notifications the target has not accepted yet, and when the oldest of them was written."""
        row = self._control.rows(
            "SELECT count(*) AS n, coalesce(min(o.at_ns), 0) AS at FROM slo_outbox o "  # noqa: S608 - text of ours
            "LEFT JOIN notify_deliveries d ON d.notification = o.id AND d.target = ? "
            "WHERE o.sent_ns IS NULL AND d.told_ns IS NULL AND coalesce(d.done, 0) = 0 "
            f"AND o.episode NOT IN ({_HELD})",
            (name,),
        )[0]
        return int(row["n"]), int(row["at"])

    def tidy(self, now_ns: int, most: int = MAX_OUTBOX) -> int:
        """Bound the outbox: drop what was told long ago, give up what nobody took; how many were given up."""
        given_up = 0
        with self._control.transaction() as db:
            for name, target in self._targets.items():
                given_up += db.execute(
                    "UPDATE notify_deliveries SET done = 1, error = 'given up: ' || error "  # noqa: S608 - text of ours
                    "WHERE target = ? AND done = 0 "
                    "AND told_ns IS NULL AND notification IN (SELECT id FROM slo_outbox WHERE at_ns < ? "
                    f"AND episode NOT IN ({_OPEN}))",
                    (name, now_ns - target.ns("keep")),
                ).rowcount
            if self._targets:
                db.execute(_finished(len(self._targets)), (now_ns, *self._targets, len(self._targets)))
            else:
                db.execute("UPDATE slo_outbox SET sent_ns = ? WHERE sent_ns IS NULL", (now_ns,))
            closed = f"episode NOT IN ({_OPEN})"
            db.execute(
                f"DELETE FROM slo_outbox WHERE sent_ns < ? AND {closed}",  # noqa: S608 - text of ours
                (now_ns - KEEP_TOLD_NS,),
            )
            db.execute(
                "DELETE FROM slo_episodes WHERE resolved_ns > 0 AND episode NOT IN "
                "(SELECT episode FROM slo_episodes ORDER BY fired_ns DESC LIMIT ?)",
                (KEEP_EPISODES,),
            )
            over = db.execute("SELECT count(*) FROM slo_outbox").fetchone()[0] - most
            if over > 0:
                # What was told goes first, then the oldest episodes that are over.
                ids = db.execute(
                    f"SELECT id, sent_ns FROM slo_outbox WHERE {closed} ORDER BY sent_ns IS NULL, id LIMIT ?",  # noqa: S608 - text of ours
                    (over,),
                ).fetchall()
                given_up += sum(row["sent_ns"] is None for row in ids)
                db.executemany("DELETE FROM slo_outbox WHERE id = ?", [(row["id"],) for row in ids])
            db.execute("DELETE FROM notify_deliveries WHERE notification NOT IN (SELECT id FROM slo_outbox)")
        if given_up:
            _log.error("notifications_given_up", count=given_up)
        return given_up


def _finished(targets: int) -> str:
    """A notification is sent when every target has taken it, or will never."""
    marks = ", ".join("?" * targets)
    return (
        "UPDATE slo_outbox SET sent_ns = ? WHERE sent_ns IS NULL AND (SELECT count(*) FROM notify_deliveries d "  # noqa: S608 - marks only
        "WHERE d.notification = slo_outbox.id AND (d.told_ns IS NOT NULL OR d.done = 1) "
        f"AND d.target IN ({marks})) >= ?"
    )


def _notice(row: Mapping[str, object]) -> Notice:
    return Notice(
        row["id"], row["episode"], row["kind"], row["objective"], row["rule"], row["at_ns"],  # type: ignore[arg-type]
        json.loads(str(row["body"])),
    )  # fmt: skip
