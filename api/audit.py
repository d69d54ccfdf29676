"""The audit log: who did what, append-only, each leaf hashed over the one before it.

    hash[n] = SHA-256(0x00 || hash[n-1] || canonical JSON of leaf n),   hash[-1] = 32 zero bytes

A leaf is first on disk in the control state (in the transaction that numbers it), then copied to the `audit` table and
removed from the staging only after it has been read back. The head (number of leaves and last hash) stays in the
control state, so that a shortened table is noticed too. Someone who can write both can still rewrite history: keep the
head elsewhere to notice that.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from api.control import Control
from collector.log import redact
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

GENESIS = bytes(32)
_CHUNK = 100
_STORED = """
SELECT leaf, toUnixTimestamp64Nano(ts) AS ts_ns, actor, action, target, outcome, detail, lower(hex(hash)) AS hash
FROM audit WHERE chain = {chain:String} ORDER BY leaf
"""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One audited action. `detail` is canonical JSON without secrets."""

    leaf: int
    ts_ns: int
    actor: str
    action: str
    target: str
    outcome: str
    detail: str

    def hash_after(self, previous: bytes) -> bytes:
        """This leaf's hash when `previous` is the hash of the leaf before it."""
        text = _canonical(
            [self.leaf, self.ts_ns, self.actor, self.action, self.target, self.outcome, self.detail],
        )
        return hashlib.sha256(b"\x00" + previous + text.encode()).digest()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check of the log found: how many leaves hold, and the first that does not."""

    leaves: int
    first_bad: int | None
    problem: str = ""


class Audit:
    """The writer: numbers, hashes and stages leaves, and copies them to the store."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def name(self, chain: str) -> None:
        """Give the log a name of its own, where several servers share a store; one that has leaves keeps its name."""
        with self._control.transaction() as db:
            if db.execute("SELECT 1 FROM audit_head").fetchone() is None:
                db.execute("INSERT OR IGNORE INTO audit_chain VALUES (1, ?)", (chain,))

    @property
    def chain(self) -> str:
        """The log's name in the store; empty for a server alone."""
        rows = self._control.rows("SELECT name FROM audit_chain")
        return str(rows[0]["name"]) if rows else ""

    def record(
        self,
        actor: str,
        action: str,
        target: str = "",
        outcome: str = "ok",
        detail: Mapping[str, Any] | None = None,
    ) -> Leaf:
        """Append one leaf; it is on disk when this returns."""
        text = _canonical(redact(dict(detail or {})))
        with self._control.transaction() as db:
            head = db.execute("SELECT leaves, hash FROM audit_head").fetchone()
            number, previous = (head["leaves"], head["hash"]) if head else (0, GENESIS)
            leaf = Leaf(number, time.time_ns(), redact(actor), action, redact(target), outcome, text)
            digest = leaf.hash_after(previous)
            db.execute(
                "INSERT INTO audit_staging (leaf, ts_ns, actor, action, target, outcome, detail, hash) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (number, leaf.ts_ns, leaf.actor, action, leaf.target, outcome, text, digest),
            )
            db.execute(
                "INSERT INTO audit_head VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE SET leaves = excluded.leaves, "
                "hash = excluded.hash",
                (number + 1, digest),
            )
        return leaf

    def head(self) -> tuple[int, bytes]:
        """How many leaves there are and the hash of the last."""
        rows = self._control.rows("SELECT leaves, hash FROM audit_head")
        return (rows[0]["leaves"], rows[0]["hash"]) if rows else (0, GENESIS)

    def flush(self, store: Store) -> int:
        """Copy staged leaves to the store and drop from the staging what reads back the same; how many were dropped.

        Safe to repeat after any failure: what the table already has is not inserted again.
        """
        staged = self._control.rows("SELECT * FROM audit_staging ORDER BY leaf LIMIT ?", (_CHUNK,))
        if not staged:
            return 0
        chain = self.chain
        span: dict[str, Any] = {"chain": chain, "first": staged[0]["leaf"], "last": staged[-1]["leaf"]}
        token = f"audit/{chain and chain + '/'}{span['first']}-{span['last']}"
        store.settle(token)  # an earlier insert of the same leaves, whose answer was lost, may still be under way
        stored = _stored_hashes(store, span)
        missing = [row for row in staged if row["leaf"] not in stored]
        if missing:
            block = from_rows(table_types()["audit"], [{"chain": chain, **_as_row(row)} for row in missing])
            # A fresh token each time: what was read back decides, a token of a lost insert must not swallow this one.
            store.insert("audit", block, token=f"{token}#{time.time_ns()}")
            stored = _stored_hashes(store, span)
        same = [row["leaf"] for row in staged if stored.get(row["leaf"]) == row["hash"]]
        with self._control.transaction() as db:
            db.executemany("DELETE FROM audit_staging WHERE leaf = ?", [(leaf,) for leaf in same])
        return len(same)

    def staged(self) -> int:
        """Leaves that the store does not have yet."""
        return int(self._control.rows("SELECT count(*) AS n FROM audit_staging")[0]["n"])

    def verify(self, store: Store | None) -> Verdict:
        """Check every leaf of the table and of the staging against the chain and the head; without a table, None.

        Leaves that are recorded meanwhile are left for the next check.
        """
        with self._control.transaction():  # nobody records or drops a leaf between these two
            leaves, head = self.head()
            rows = self._control.rows("SELECT * FROM audit_staging")
        staged = {row["leaf"]: (Leaf(*tuple(row)[:7]), bytes(row["hash"])) for row in rows}
        table = store.query(_STORED, {"chain": self.chain}).iter_rows() if store else ()
        found = [(Leaf(*row[:7]), bytes.fromhex(row[7])) for row in table]
        later = self.head()[0]
        found = [row for row in found if not leaves <= row[0].leaf < later]
        stored = {row[0].leaf: row for row in found}
        found += [row for number, row in staged.items() if number not in stored]
        verdict = verify_chain(sorted(found, key=lambda row: row[0].leaf), leaves, head)
        torn = min((number for number, row in staged.items() if stored.get(number, row) != row), default=None)
        if torn is not None and (verdict.first_bad is None or torn < verdict.first_bad):
            return Verdict(torn, torn, f"leaf {torn} is not the same in the control state and in the store")
        return verdict


def verify_chain(rows: Iterable[tuple[Leaf, bytes]], leaves: int, head: bytes) -> Verdict:
    """Check leaves in order with their stored hashes against a head; pure.

    Notices an edited, inserted, removed, repeated or moved leaf, and a log that is shorter or longer than its head.
    """
    previous, expected = GENESIS, 0
    for leaf, digest in rows:
        if leaf.leaf != expected:
            return Verdict(expected, expected, f"leaf {expected} is missing or out of order (found {leaf.leaf})")
        if leaf.hash_after(previous) != digest:
            return Verdict(expected, expected, f"leaf {expected} does not have the hash that its content gives")
        previous, expected = digest, expected + 1
    if expected != leaves:
        return Verdict(expected, min(expected, leaves), f"the head says {leaves} leaves, there are {expected}")
    if previous != head:
        return Verdict(expected, max(0, expected - 1), "the last hash is not the head's")
    return Verdict(expected, None)


def _stored_hashes(store: Store, span: Mapping[str, Any]) -> dict[int, bytes]:
    frame = store.query(
        "SELECT leaf, lower(hex(hash)) AS hash FROM audit "
        "WHERE chain = {chain:String} AND leaf BETWEEN {first:UInt64} AND {last:UInt64}",
        span,
    )
    return {leaf: bytes.fromhex(text) for leaf, text in frame.iter_rows()}


def _as_row(row: Any) -> dict[str, Any]:
    names = ("leaf", "actor", "action", "target", "outcome", "detail", "hash")
    return {"ts": row["ts_ns"], **{name: row[name] for name in names}}


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), default=str)
