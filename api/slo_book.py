"""Objectives, alerts and the outbox in the control state: the truth about episodes, over restarts and kills.

An alert's state and the notifications that follow from it are written in one transaction, before anybody is told.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from analytics.kpis import KpiDefinition
from analytics.slo.compiled import Compiled, compiled
from analytics.slo.episodes import Alert, Episode, Transition, acknowledge
from analytics.slo.openslo_read import Source, read
from api.audit import Audit
from api.control import Control
from api.maintenance import Held
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

_COLUMNS = tuple(field.name for field in fields(Alert))


# Somebody may acknowledge an alert while the evaluation of the same tick is being written: that stays.
_SAVE = f"""
INSERT INTO slo_alerts ({", ".join(_COLUMNS)}) VALUES ({", ".join(":" + name for name in _COLUMNS)})
ON CONFLICT (objective, rule) DO UPDATE SET
    {", ".join(f"{name} = excluded.{name}" for name in _COLUMNS if name not in ("objective", "rule"))}
WHERE NOT (state = 'acknowledged' AND excluded.state = 'firing' AND episode = excluded.episode)
"""  # noqa: S608 - names of ours


_EPISODE = """
INSERT INTO slo_episodes (episode, objective, rule, severity, breach_ns, fired_ns, resolved_ns)
VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (episode) DO UPDATE SET resolved_ns = excluded.resolved_ns
"""


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying documents changed, each as `kind name`."""

    added: tuple[str, ...]
    changed: tuple[str, ...]
    removed: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.added or self.changed or self.removed)


class UnknownEpisodeError(KeyError):
    """There is no firing alert with this episode."""


class SloBook:
    """The objectives and alerts of one data directory."""

    def __init__(self, control: Control) -> None:
        self.control = self._control = control

    def revision(self) -> tuple[int, int]:
        """Changes whenever objects are applied or removed."""
        row = self._control.rows("SELECT count(*) AS n, coalesce(max(applied_ns), 0) AS at FROM slo_objects")[0]
        return int(row["n"]), int(row["at"])

    def text(self) -> str:
        """All objects as one OpenSLO document (JSON is YAML)."""
        rows = self._control.rows("SELECT body FROM slo_objects ORDER BY kind, name")
        return "[" + ",\n".join(row["body"] for row in rows) + "]"

    def compiled(
        self,
        paths: Iterable[str] | None = None,
        calendars: Iterable[str] | None = None,
        kpis: Mapping[str, KpiDefinition] | None = None,
    ) -> Compiled:
        """The objectives in force, and what is wrong with them under the present configuration."""
        found = read(self.text(), "applied")
        known = None if paths is None else set(paths)
        named = None if calendars is None else set(calendars)
        made = compiled(found.objects, paths=known, calendars=named, kpis=kpis)
        return Compiled(made.objectives, (*found.problems, *made.problems))

    def apply(self, sources: Sequence[Source], who: str, *, prune: bool = False) -> Applied:
        """Put objects in force, in one transaction; with `prune` those that are not among them end."""
        now = time.time_ns()
        added: list[str] = []
        changed: list[str] = []
        removed: list[str] = []
        with self._control.deciding() as db:
            known = {(r["kind"], r["name"]): r["body"] for r in db.execute("SELECT kind, name, body FROM slo_objects")}
            given = {(one.kind, one.name): json.dumps(one.body, sort_keys=True, default=str) for one in sources}
            for key, body in given.items():
                if known.get(key) == body:
                    continue
                (changed if key in known else added).append(" ".join(key))
                db.execute(
                    "INSERT INTO slo_objects VALUES (?, ?, ?, ?, ?) ON CONFLICT (kind, name) DO UPDATE SET "
                    "body = excluded.body, applied_ns = excluded.applied_ns, applied_by = excluded.applied_by",
                    (*key, body, now, who),
                )
            for key in known.keys() - given.keys() if prune else ():
                removed.append(" ".join(key))
                db.execute("DELETE FROM slo_objects WHERE kind = ? AND name = ?", key)
        return Applied(tuple(added), tuple(changed), tuple(sorted(removed)))

    def alerts(self) -> list[Alert]:
        """Every alert as it was last written."""
        rows = self._control.rows(f"SELECT {', '.join(_COLUMNS)} FROM slo_alerts ORDER BY objective, rule")  # noqa: S608 - names of ours
        return [Alert(**dict(row)) for row in rows]

    def save(
        self,
        alerts: Iterable[Alert],
        heard: Sequence[tuple[Transition, Mapping[str, Any]]],
        held: Sequence[Held] = (),
    ) -> None:
        """Write alerts and what follows from them, in one transaction; a notification that exists stays as it is.

        Of episodes in `held` nobody is told until their maintenance window lets go of them.
        """
        with self._control.deciding() as db:
            for alert in alerts:
                db.execute(_SAVE, asdict(alert))
            for one, body in heard:
                if one.kind != "acknowledged":
                    a = one.alert
                    db.execute(
                        _EPISODE,
                        (
                            a.episode, a.objective, a.rule, str(body.get("severity") or ""), a.breach_ns, a.fired_ns,
                            a.resolved_ns,
                        ),
                    )  # fmt: skip
                db.execute(
                    "INSERT OR IGNORE INTO slo_outbox (episode, kind, objective, rule, at_ns, body) "
                    "VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        one.alert.episode, one.kind, one.alert.objective, one.alert.rule, one.at_ns,
                        json.dumps(body, sort_keys=True),
                    ),
                )  # fmt: skip
            for hold in held:
                hold.write(db)

    def acknowledge(self, episode: str, who: str) -> Alert:
        """Take a firing alert. Raises UnknownEpisodeError, or ValueError when it does not fire."""
        found = [one for one in self.alerts() if one.episode == episode]
        if not found:
            raise UnknownEpisodeError(f"no alert has the episode {episode}")
        alert, heard = acknowledge(found[0], who, time.time_ns())
        self.save([alert], [(heard, {"acknowledged_by": who})])
        return alert

    def episodes(self, from_ns: int = 0, to_ns: int = (1 << 63) - 1, limit: int = 1_000) -> list[Episode]:
        """Episodes that fired in a part of [from_ns, to_ns), the newest first: those that still fire have no end."""
        sql = (
            "SELECT * FROM slo_episodes WHERE fired_ns < ? AND (resolved_ns = 0 OR resolved_ns >= ?) "
            "ORDER BY fired_ns DESC, episode LIMIT ?"
        )
        return [Episode(**dict(row)) for row in self._control.rows(sql, (to_ns, from_ns, limit))]

    def unexplained(self, limit: int = 20) -> list[Alert]:
        """Alerts that fire and of which nobody has been told the cause and the cost yet, oldest first."""
        sql = (
            f"SELECT {', '.join(_COLUMNS)} FROM slo_alerts a WHERE state IN ('firing', 'acknowledged') "  # noqa: S608 - names of ours
            "AND NOT EXISTS (SELECT 1 FROM slo_outbox o WHERE o.episode = a.episode AND o.kind = 'explained') "
            # Of what maintenance holds back nobody has been told, so that nothing can be added to it.
            "AND NOT EXISTS (SELECT 1 FROM maintenance_held h WHERE h.episode = a.episode AND h.outcome = '') "
            "ORDER BY fired_ns LIMIT ?"
        )
        return [Alert(**dict(row)) for row in self._control.rows(sql, (limit,))]

    def explain(self, episode: str, found: Mapping[str, Any], at_ns: int) -> bool:
        """Add what was found out about an episode to what its first notification said; False if it is over.

        It is a notification of its own, `explained`, once per episode.
        """
        with self._control.transaction() as db:
            row = db.execute(
                "SELECT objective, rule, body FROM slo_outbox WHERE episode = ? AND kind = 'firing'", (episode,)
            ).fetchone()
            open_ = db.execute(
                "SELECT 1 FROM slo_alerts WHERE episode = ? AND state IN ('firing', 'acknowledged')", (episode,)
            ).fetchone()
            if row is None or open_ is None:
                return False
            body = {**json.loads(row["body"]), **found, "kind": "explained"}
            db.execute(
                "INSERT OR IGNORE INTO slo_outbox (episode, kind, objective, rule, at_ns, body) "
                "VALUES (?, 'explained', ?, ?, ?, ?)",
                (episode, row["objective"], row["rule"], at_ns, json.dumps(body, sort_keys=True)),
            )
        return True

    def outbox(self, limit: int = 100) -> list[dict[str, Any]]:
        """Notifications that have not been sent, oldest first."""
        sql = "SELECT * FROM slo_outbox WHERE sent_ns IS NULL ORDER BY id LIMIT ?"
        return [{**dict(row), "body": json.loads(row["body"])} for row in self._control.rows(sql, (limit,))]


def record_changes(store: Store | None, audit: Audit, applied: Applied, who: str) -> None:
    """Every object that was applied as a row of `changes`, and all of them as one audited action."""
    now = time.time_ns()
    texts = [
        *(f"applied {what}" for what in applied.added),
        *(f"changed {what}" for what in applied.changed),
        *(f"removed {what}" for what in applied.removed),
    ]
    detail = {"added": applied.added, "changed": applied.changed, "removed": applied.removed}
    audit.record(who, "slo.apply", f"{len(texts)} objects", "ok", detail)
    if store is None or not texts:
        return
    rows = [
        {
            "ts": now, "id": str(uuid.uuid4()), "kind": "slo", "who": who, "what": text, "host": "", "service": "",
            "version": "", "url": "", "labels": "{}", "recorded": now,
        }
        for text in texts
    ]  # fmt: skip
    store.insert("changes", from_rows(table_types()["changes"], rows), token=f"changes/{rows[0]['id']}")
