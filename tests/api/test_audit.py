from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.audit import GENESIS, Audit, Leaf, verify_chain
from api.control import Control
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import migrate


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    store = open_embedded(tmp_path_factory.mktemp("audit-store"))
    migrate(store)
    yield store
    store.close()


def chain(n: int) -> list[tuple[Leaf, bytes]]:
    rows, previous = [], GENESIS
    for i in range(n):
        leaf = Leaf(i, 1_000 + i, "ada", "token.create", f"t{i}", "ok", "{}")
        previous = leaf.hash_after(previous)
        rows.append((leaf, previous))
    return rows


def test_a_whole_chain_holds() -> None:
    rows = chain(5)
    assert verify_chain(rows, 5, rows[-1][1]).first_bad is None
    assert verify_chain([], 0, GENESIS).first_bad is None


@settings(max_examples=50, deadline=None)
@given(
    n=st.integers(2, 8),
    data=st.data(),
    how=st.sampled_from(["edit", "delete", "insert", "swap", "truncate", "flip", "repeat"]),
)
def test_every_tampering_is_noticed_at_its_first_leaf(n: int, data: st.DataObject, how: str) -> None:
    rows = chain(n)
    head = rows[-1][1]
    i = data.draw(st.integers(0, n - (2 if how == "swap" else 1)))
    leaf, digest = rows[i]
    if how == "edit":
        rows[i] = (Leaf(leaf.leaf, leaf.ts_ns, "eve", leaf.action, leaf.target, leaf.outcome, leaf.detail), digest)
    elif how == "delete":
        del rows[i]
    elif how == "insert":
        extra = Leaf(i, 1, "eve", "x", "", "ok", "{}")
        rows.insert(i, (extra, extra.hash_after(rows[i - 1][1] if i else GENESIS)))
    elif how == "swap":
        rows[i], rows[i + 1] = rows[i + 1], rows[i]
    elif how == "truncate":
        rows = rows[:i]
    elif how == "repeat":
        rows.insert(i + 1, rows[i])
    else:
        bit = data.draw(st.integers(0, 255))
        rows[i] = (leaf, (int.from_bytes(digest) ^ (1 << bit)).to_bytes(32))
    verdict = verify_chain(rows, n, head)
    assert verdict.first_bad is not None
    assert verdict.first_bad in (i, i + 1)
    assert verdict.problem


def test_a_chain_rewritten_from_a_leaf_on_is_noticed_by_the_head() -> None:
    rows = chain(4)
    forged = chain(3)
    last = Leaf(3, 9, "eve", "x", "", "ok", "{}")
    forged.append((last, last.hash_after(forged[-1][1])))
    assert verify_chain(forged, 4, rows[-1][1]).first_bad == 3


def test_leaves_reach_the_store_once_and_still_verify(store: Store, control: Control) -> None:
    audit = Audit(control)
    hostile = "it's \\ \t \n \x00 \x1b[31m ';DROP TABLE audit;-- \u2028 \U0001f600"
    audit.record("ada", "token.create", hostile, "ok", {"note": hostile, "password": "hunter2"})
    audit.record("ada", "auth.refused", "x", "refused", {"authorization": "Bearer ts_ab12_" + "s" * 43})
    audit.record("ada", "config.load", "ts_ab12_" + "s" * 43)
    assert audit.staged() == 3
    assert audit.verify(store).first_bad is None
    assert audit.flush(store) == 3
    assert audit.flush(store) == 0
    assert audit.staged() == 0
    assert audit.verify(store).leaves == 3
    frame = store.query("SELECT * FROM audit ORDER BY leaf")
    assert "hunter2" not in str(frame.to_dicts())
    assert "ssss" not in str(frame.to_dicts())

    # A crash between the insert and the clean-up of the staging leaves the same leaves in both: nothing doubles.
    audit.record("ada", "token.revoke", "t")
    staged = [tuple(row) for row in control.rows("SELECT * FROM audit_staging")]
    audit.flush(store)
    with control.transaction() as db:
        db.executemany("INSERT INTO audit_staging VALUES (?, ?, ?, ?, ?, ?, ?, ?)", staged)
        db.execute("UPDATE audit_staging SET actor = 'eve'")
    assert audit.verify(store).first_bad == 3
    assert audit.verify(None).first_bad == 0  # what is in the store is needed to check
    with control.transaction() as db:
        db.execute("UPDATE audit_staging SET actor = 'ada'")
    assert audit.flush(store) == 1
    assert store.query("SELECT count() AS n FROM audit").item() == 4
    assert audit.verify(store).leaves == 4

    store.execute("ALTER TABLE audit UPDATE actor = 'eve' WHERE leaf = 1 SETTINGS mutations_sync = 2")
    assert audit.verify(store).first_bad == 1
    store.execute("ALTER TABLE audit UPDATE actor = 'ada' WHERE leaf = 1 SETTINGS mutations_sync = 2")
    assert audit.verify(store).first_bad is None
    store.execute("ALTER TABLE audit DELETE WHERE leaf = 3 SETTINGS mutations_sync = 2")
    assert audit.verify(store).first_bad == 3
