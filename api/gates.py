"""Gates in the control state: judged after every tick of the objectives, read by whoever asks, on this host or by REST.

A rollback is written to the outbox in the transaction that records that it was triggered, before anybody is told: a
killed server tells it after its restart, under the same id. Whoever asks gets what was judged last; when that is too
old, the gate is unknown, whatever it was.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from analytics.kpis import KpiDefinition
from analytics.slo.calendars import SloCalendar
from analytics.slo.gate_measures import closed_now, measure
from analytics.slo.gates import (
    Decision,
    GateSettings,
    GateSide,
    GateState,
    GateVerdict,
    SeenObjective,
    judge_gate,
    kpi_side,
    rule_sides,
    step,
)
from api.audit import Audit
from api.control import Control
from collector.log import logger
from collector.store import Store, StoreError
from collector.store.blocks import from_rows
from collector.store.schema import table_types

NS = 1_000_000_000
ROLLBACK = "rollback"  # the kind of its row in the outbox
MAX_UNRECORDED = 1_000
_MAX_ASKERS = 100
_log = logger("gates")
_COLUMNS = tuple(one.name for one in fields(GateState))


@dataclass(frozen=True, slots=True)
class GateRow:
    """A gate as it was judged last."""

    state: GateState
    judged_ns: int
    verdict: str
    passes: bool
    why: str
    sides: Sequence[Mapping[str, Any]]


class GateBook:
    """The gates of one data directory."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def rows(self) -> dict[str, GateRow]:
        """Every gate that was judged, by name."""
        found = {}
        for row in self._control.rows("SELECT * FROM gates ORDER BY name"):
            values: dict[str, Any] = {name: row[name] for name in _COLUMNS}
            state = GateState(**{**values, "done": bool(row["done"]), "held_back": bool(row["held_back"])})
            body = json.loads(row["body"])
            found[state.name] = GateRow(
                state, row["judged_ns"], state.verdict, body["passes"], body["why"], body["sides"]
            )
        return found

    def save(
        self, judged: Sequence[tuple[GateState, GateVerdict, GateSettings]], decided: Sequence[Decision], now_ns: int
    ) -> None:
        """Write where gates stand, and the rollbacks that follow, in one transaction."""
        names = ", ".join((*_COLUMNS, "judged_ns", "body"))
        marks = ", ".join(f":{name}" for name in (*_COLUMNS, "judged_ns", "body"))
        news = ", ".join(f"{name} = excluded.{name}" for name in (*_COLUMNS, "judged_ns", "body") if name != "name")
        with self._control.transaction() as db:
            for state, verdict, gate in judged:
                body = {"passes": verdict.passes, "why": verdict.why, "sides": [asdict(one) for one in verdict.sides]}
                db.execute(
                    f"INSERT INTO gates ({names}) VALUES ({marks}) ON CONFLICT (name) DO UPDATE SET {news}",  # noqa: S608 - names of ours
                    {**asdict(state), "judged_ns": now_ns, "body": json.dumps(body, sort_keys=True)},
                )
                for one in decided:
                    if one.kind == ROLLBACK and one.gate == state.name:
                        told = {"description": gate.description, "closing_ns": state.closing_ns, **body}
                        db.execute(
                            "INSERT OR IGNORE INTO slo_outbox (episode, kind, objective, rule, at_ns, body) "
                            "VALUES (?, ?, ?, 'gate', ?, ?)",
                            (one.trigger, ROLLBACK, one.gate, one.at_ns, json.dumps(told, sort_keys=True)),
                        )
            known = [state.name for state, _, _ in judged]
            gone = f"DELETE FROM gates WHERE name NOT IN ({', '.join('?' * len(known))})"  # noqa: S608 - marks only
            db.execute(gone, known)

    def asked(self, name: str, who: str, verdict: str) -> bool:
        """Note what somebody is told; whether it is something else than the last time."""
        with self._control.transaction() as db:
            row = db.execute("SELECT verdict FROM gate_answers WHERE gate = ? AND who = ?", (name, who)).fetchone()
            if row is not None and row["verdict"] == verdict:
                return False
            db.execute(
                "INSERT INTO gate_answers VALUES (?, ?, ?, ?) ON CONFLICT (gate, who) DO UPDATE SET "
                "verdict = excluded.verdict, at_ns = excluded.at_ns",
                (name, who, verdict, time.time_ns()),
            )
            db.execute(
                "DELETE FROM gate_answers WHERE gate = ? AND who NOT IN "
                "(SELECT who FROM gate_answers WHERE gate = ? ORDER BY at_ns DESC LIMIT ?)",
                (name, name, _MAX_ASKERS),
            )
        return True


def answered(name: str, gate: GateSettings, row: GateRow | None, now_ns: int) -> dict[str, Any]:
    """What somebody who asks is told: as judged last, or unknown when that is too old."""
    blank = GateState(name)
    found = row or GateRow(blank, 0, "unknown", False, "", ())
    verdict, passes, why = found.verdict, found.passes, found.why
    age_ns = now_ns - found.judged_ns
    if row is None or not -NS <= age_ns <= gate.seconds("stale_after") * NS:
        verdict, passes = "unknown", gate.on_unknown == "open"
        why = "it was never judged; is the server running?" if row is None else (
            f"it was judged {age_ns / NS:.0f} s ago, more than {gate.stale_after}: the server does not evaluate"
        )  # fmt: skip
    return {
        "name": name, "description": gate.description, "verdict": verdict, "passes": passes, "why": why,
        "on_unknown": gate.on_unknown, "judged_ns": found.judged_ns, "since_ns": found.state.since_ns,
        "closing_ns": found.state.closing_ns, "trigger": found.state.trigger_id,
        "triggered_ns": found.state.triggered_ns, "sides": [dict(one) for one in found.sides],
    }  # fmt: skip


def tell(book: GateBook, audit: Audit, who: str, answer: Mapping[str, Any]) -> None:
    """Record what somebody is told, when it is something else than the last time."""
    said = f"{answer['verdict']}{' (passes)' if answer['passes'] else ' (refused)'}"
    if book.asked(answer["name"], who, said):
        audit.record(who, "gate.answer", answer["name"], said, {"why": answer["why"][:1_000]})


@dataclass(slots=True)
class GateKeeper:
    """Judges the gates of a configuration. `look` is called by one job."""

    book: GateBook
    audit: Audit
    gates: Mapping[str, GateSettings]
    kpis: Mapping[str, KpiDefinition]
    calendars: Mapping[str, SloCalendar]
    unrecorded: list[Decision] = field(default_factory=list)

    @property
    def objectives(self) -> frozenset[str]:
        """The objectives that some gate looks at."""
        named = [one for gate in self.gates.values() for one in (*gate.objectives, *(r.split()[0] for r in gate.rules))]
        return frozenset(named)

    def look(self, store: Store, seen: Mapping[str, SeenObjective], now_ns: int) -> list[Decision]:
        """Judge every gate and write what follows; what was decided. Raises StoreError: then nothing was judged."""
        if not self.gates:
            return []
        before = self.book.rows()
        judged, decided = [], []
        for name, gate in self.gates.items():
            verdict = judge_gate(gate, self._sides(store, gate, seen, now_ns), shut=self._shut(gate, now_ns))
            state = before[name].state if name in before else GateState(name)
            state, decisions = step(gate, state, verdict, now_ns)
            judged.append((state, verdict, gate))
            decided += decisions
        for one in decided:  # first, so that no decision takes effect without its record
            self.audit.record("server", f"gate.{one.kind}", one.gate, "ok", {"why": one.why[:1_000], "id": one.trigger})
            _log.info("gate", gate=one.gate, decision=one.kind, why=one.why, trigger=one.trigger)
        self.book.save(judged, decided, now_ns)
        self.unrecorded = [*self.unrecorded, *decided][-MAX_UNRECORDED:]
        self._record(store)
        return decided

    def _sides(
        self, store: Store, gate: GateSettings, seen: Mapping[str, SeenObjective], now_ns: int
    ) -> list[GateSide]:
        sides = rule_sides(gate, seen)
        for rule in gate.kpis:
            found = measure(store, gate, rule, self.kpis, self.calendars, now_ns)
            sides.append(kpi_side(gate, rule, found, now_ns))
        return sides

    def _shut(self, gate: GateSettings, now_ns: int) -> bool:
        return closed_now(gate, self.calendars, now_ns)

    def _record(self, store: Store) -> None:
        """Decisions as rows of `changes`; kept for the next look when the store does not take them now."""
        if not self.unrecorded:
            return
        rows = [
            {
                "ts": one.at_ns, "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"{one.gate} {one.kind} {one.at_ns}")),
                "kind": "rule", "who": "server", "what": f"gate {one.gate}: {_WORDS[one.kind]}. {one.why}"[:1_000],
                "host": "", "service": "", "version": "", "url": "", "labels": json.dumps({"gate": one.gate}),
                "recorded": one.at_ns,
            }
            for one in self.unrecorded
        ]  # fmt: skip
        try:
            store.insert("changes", from_rows(table_types()["changes"], rows), token=f"changes/{rows[0]['id']}/gates")
        except StoreError as error:
            _log.warning("gate_decisions_wait", count=len(rows), error=str(error))
            return
        self.unrecorded = []


_WORDS = {
    "open": "opened", "closed": "closed", "unknown": "cannot be said", "rollback": "rollback triggered",
    "held_back": "rollback held back by the cool-down",
}  # fmt: skip


def hooks_of(gates: Mapping[str, GateSettings]) -> dict[str, frozenset[str]]:
    """The gates whose rollbacks each webhook hears of, by its name in `[notify]`."""
    found: dict[str, frozenset[str]] = {}
    for name, gate in gates.items():
        if gate.hook:
            found[gate.hook] = found.get(gate.hook, frozenset()) | {name}
    return found
