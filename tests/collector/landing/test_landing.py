from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.frames import Stream, encode
from collector.keys import hash64
from collector.landing import Landed, Landing, LandingSettings, RejectedError, record_heartbeats
from collector.points import BUILT_IN, Point
from collector.record import (
    CHANGES,
    CLOCK,
    DELAY_COUNTS,
    GAUGES,
    INTERVALS,
    LABEL_SETS,
    LINKS,
    STAMPS,
    Columns,
    DropReason,
    Table,
)
from collector.settings import ConfigError, section
from collector.store import OutcomeUnknownError, StoreError
from collector.store.embedded import EmbeddedStore, open_embedded
from collector.store.native import Block
from collector.store.schema import Retention, migrate

NOW = 1_795_000_000_000_000_000
S = 1_000_000_000
ROOT = Path(__file__).parents[3]


def stamp(n: int, **changed: Any) -> dict[str, Any]:
    return {"ts_ns": NOW - S + n, "key": n, "point": "tap", "host": "a", "service": "s", "outcome": 1, **changed}


def changed(**other: Any) -> dict[str, Any]:
    told = {"id": str(uuid.uuid4()), "kind": "config", "who": "agent", "what": "governor: powersave", "labels": "{}"}
    return {"ts_ns": NOW, **told, **other}


class Sender:
    """Cuts batches as an agent does."""

    def __init__(self) -> None:
        self.stream = Stream(uuid.uuid4(), 7)
        self.seq = 0

    def batch(
        self, *parts: tuple[Table, list[dict[str, Any]]] | tuple[DropReason, int], cut_ns: int = NOW
    ) -> tuple[str, bytes]:
        name, frames = f"{self.stream.collector}/{self.stream.boot}/{self.seq}", []
        for kind, what in parts:
            content = Columns.from_rows(kind, what) if isinstance(kind, Table) else (kind, what)  # type: ignore[arg-type]
            frames.append(encode(content, stream=self.stream, seq_first=self.seq, created_ns=cut_ns))  # type: ignore[arg-type]
            self.seq += what if isinstance(what, int) else len(what)
        return name, b"".join(frames)


@pytest.fixture
def sender() -> Sender:
    return Sender()


@pytest.fixture(scope="module")
def landing(store: EmbeddedStore) -> Landing:
    return Landing(store, BUILT_IN)


def land(landing: Landing, batch: tuple[str, bytes], attempt: int = 0, received: int = NOW) -> Landed:
    return landing.land(batch[0], "probe", "host-1", attempt, batch[1], received)


def rows(store: EmbeddedStore, batch: tuple[str, bytes], table: str = "stamps") -> list[int]:
    sql = f"SELECT seq FROM {table} WHERE batch = {{b:UInt64}} ORDER BY seq"  # noqa: S608 - our own names
    return store.query(sql, {"b": hash64("batch", batch[0])})["seq"].to_list()


def quarantine(store: EmbeddedStore, batch: tuple[str, bytes]) -> dict[int, tuple[str, str, dict[str, Any]]]:
    frame = store.query(
        "SELECT seq, reason, error, row FROM quarantine WHERE batch = {b:UInt64}", {"b": hash64("batch", batch[0])}
    )
    return {seq: (reason, error, msgspec.json.decode(row)) for seq, reason, error, row in frame.iter_rows()}


def test_every_table_lands_once(store: EmbeddedStore, landing: Landing, sender: Sender) -> None:
    labels = '{"symbol":"X"}'
    batch = sender.batch(
        (STAMPS, [stamp(1), stamp(2, point="acked", depth=4)]),
        (LINKS, [{"ts_ns": NOW, "parent": 1, "child": 2}]),
        (GAUGES, [{"ts_ns": NOW, "name": "backlog", "value": 1.5}]),
        (DropReason.RING_OVERWRITTEN, 1_000_000),
        (INTERVALS, [{"ts_ns": NOW, "duration_ns": 5, "kind": "run_queue"}]),
        (CLOCK, [{"ts_ns": NOW, "clock": "MONOTONIC", "event": "sample", "frequency_ppb": 0.5}]),
        (DELAY_COUNTS, [{"ts_ns": NOW, "duration_ns": 9, "scope": "cpu", "cpu": 1, "cells": "300:2"}]),
        (LABEL_SETS, [{"label_set": hash64("labels", labels), "labels": labels}]),
        (CHANGES, [changed()]),
        (STAMPS, [stamp(3, host="b", service="other")]),
    )
    landed = land(landing, batch)
    assert (landed.status, landed.events, landed.stored, landed.quarantined, landed.dropped) == (
        "stored", 1_000_010, 10, 0, 1_000_000,
    )  # fmt: skip
    assert landed.boot_id == store.boot_id()
    assert rows(store, batch) == [0, 1, 1_000_009]
    got = store.query(
        "SELECT host, service, point FROM stamps WHERE batch = {b:UInt64} ORDER BY seq",
        {"b": hash64("batch", batch[0])},
    )
    assert got.rows() == [("a", "s", "tap"), ("a", "s", "acked"), ("b", "other", "tap")]
    row = landing.find(batch[0])
    assert row is not None
    assert dict(zip(row["tables"], row["table_rows"], strict=True)) == {
        "stamps": 3, "links": 1, "gauges": 1, "intervals": 1, "clock": 1, "label_sets": 1, "changes": 1,
        "delay_counts": 1,
    }  # fmt: skip
    assert (row["reasons"], row["reason_counts"]) == (["ring_overwritten"], [1_000_000])
    assert (row["first_ns"], row["last_ns"], row["cut_ns"]) == (NOW - S + 1, NOW, NOW)

    again = land(landing, batch, attempt=3)
    assert (again.status, again.stored, again.dropped) == ("duplicate", 10, 1_000_000)
    assert rows(store, batch) == [0, 1, 1_000_009]
    assert (
        store.query("SELECT count() FROM batches WHERE collector = {c:UUID}", {"c": sender.stream.collector}).item()
        == 1
    )


POISON: list[tuple[str, Table, dict[str, Any]]] = [
    ("unknown_point", STAMPS, stamp(1, point="nowhere")),
    ("negative_time", STAMPS, stamp(1, ts_ns=-1)),
    ("time_out_of_range", STAMPS, stamp(1, ts_ns=NOW + 61 * S)),
    ("time_out_of_range", STAMPS, stamp(1, ts_ns=NOW - 11 * 86_400 * S)),
    ("time_out_of_range", STAMPS, stamp(1, ts_ns=2**63 - 1)),
    ("bad_enum", STAMPS, stamp(1, outcome=6)),
    ("bad_enum", STAMPS, stamp(1, mode=255)),
    ("bad_enum", STAMPS, stamp(1, cache=4)),
    ("text_too_long", STAMPS, stamp(1, service="x" * 1_025)),
    ("not_finite", GAUGES, {"ts_ns": NOW, "value": float("nan")}),
    ("not_finite", GAUGES, {"ts_ns": NOW, "value": float("-inf")}),
    ("not_finite", CLOCK, {"ts_ns": NOW, "frequency_ppb": float("inf")}),
    ("negative_duration", INTERVALS, {"ts_ns": NOW, "duration_ns": -1}),
    ("negative_time", LINKS, {"ts_ns": -5, "parent": 1, "child": 2}),
    ("bad_label_set", LABEL_SETS, {"label_set": 1, "labels": '{"a":"b"}'}),
    ("bad_label_set", LABEL_SETS, {"label_set": hash64("labels", '{"b":"1","a":"2"}'), "labels": '{"b":"1","a":"2"}'}),
    ("bad_label_set", LABEL_SETS, {"label_set": hash64("labels", "["), "labels": "["}),
    ("bad_change", CHANGES, changed(id="7")),
    ("bad_change", CHANGES, changed(kind="gossip")),
    ("bad_change", CHANGES, changed(url="javascript:alert(1)")),
    ("bad_change", CHANGES, changed(labels='{"a":1}')),
    ("time_out_of_range", CHANGES, changed(ts_ns=NOW + 61 * S)),
]


@pytest.mark.parametrize(("reason", "table", "row"), POISON, ids=[f"{r}-{n}" for n, (r, _, _) in enumerate(POISON)])
def test_one_bad_row_is_quarantined_as_it_came_and_the_rest_is_stored(
    store: EmbeddedStore, landing: Landing, sender: Sender, reason: str, table: Table, row: dict[str, Any]
) -> None:
    batch = sender.batch((STAMPS, [stamp(n) for n in range(5)]), (table, [row]), (STAMPS, [stamp(9)]))
    landed = land(landing, batch)
    assert (landed.events, landed.stored, landed.quarantined) == (7, 6, 1)
    assert rows(store, batch) == [0, 1, 2, 3, 4, 6]
    (seq, (why, error, kept)) = next(iter(quarantine(store, batch).items()))
    assert (seq, why) == (5, reason)
    assert error
    for name, value in row.items():
        assert kept[name] == value or kept[name] == repr(value)
    ledger = landing.find(batch[0])
    assert ledger is not None and ledger["reasons"] == [reason]


def test_text_that_a_table_cannot_break_on(store: EmbeddedStore, landing: Landing, sender: Sender) -> None:
    """NUL, quotes and the widest numbers are data."""
    odd = stamp(1, service="a\0'\"\\\n\t\u2028", key=2**64 - 1, thread=2**32 - 1, depth=-(2**31), data_age_ns=2**63 - 1)
    batch = sender.batch((STAMPS, [odd]))
    assert land(landing, batch).stored == 1
    sql = "SELECT service, key, thread, depth, data_age_ns FROM stamps WHERE batch = {b:UInt64}"
    got = store.query(sql, {"b": hash64("batch", batch[0])}).row(0)
    assert got == (odd["service"], odd["key"], odd["thread"], odd["depth"], odd["data_age_ns"])


def test_declared_points_are_known(store: EmbeddedStore, sender: Sender) -> None:
    own = Landing(store, {**BUILT_IN, "model_done": Point(name="model_done", layer="application")})
    assert land(own, sender.batch((STAMPS, [stamp(1, point="model_done")]))).stored == 1


def change(body: bytes, at: int) -> bytes:
    return body[:at] + bytes([body[at] ^ 0x40]) + body[at + 1 :]


@pytest.mark.parametrize(
    ("status", "reason", "spoil"),
    [
        (400, "empty_batch", lambda _, b: (b[0], b"")),
        (400, "bad_frame", lambda _, b: (b[0], b[1][:-1])),
        (400, "bad_frame", lambda _, b: (b[0], change(b[1], 30))),
        (400, "bad_frame", lambda _, b: (b[0], change(b[1], len(b[1]) - 3))),
        (400, "bad_frame", lambda _, b: (b[0], b"\0" * 500)),
        (400, "bad_batch_id", lambda _, b: ("../../etc", b[1])),
        (400, "bad_batch_id", lambda _, b: (b[0].upper(), b[1])),
        (400, "bad_batch_id", lambda _, b: (b[0] + "1'", b[1])),
        (413, "batch_too_large", lambda _, b: (b[0], b"\0" * ((16 << 20) + 1))),
        (422, "sequence_gap", lambda _, b: (b[0], b[1] + b[1])),
        (422, "sequence_gap", lambda _, b: (b[0][:-1] + "1", b[1])),
        (422, "wrong_stream", lambda _, b: (b[0], b[1] + Sender().batch((STAMPS, [stamp(1)]))[1])),
        (422, "several_days", lambda s, b: (b[0], b[1] + s.batch((STAMPS, [stamp(1)]), cut_ns=NOW + 86_400 * S)[1])),
        (422, "bad_cut_time", lambda *_: Sender().batch((STAMPS, [stamp(1)]), cut_ns=-1)),
    ],
)  # fmt: skip
def test_what_can_never_be_stored_is_rejected_whole(
    store: EmbeddedStore, landing: Landing, sender: Sender, status: int, reason: str, spoil: Any
) -> None:
    batch = spoil(sender, sender.batch((STAMPS, [stamp(n) for n in range(3)])))
    with pytest.raises(RejectedError) as caught:
        land(landing, batch)
    assert (caught.value.status, caught.value.reason) == (status, reason)
    assert caught.value.detail
    assert rows(store, batch) == []


def test_the_same_id_with_other_bytes_is_rejected(store: EmbeddedStore, landing: Landing, sender: Sender) -> None:
    batch = sender.batch((STAMPS, [stamp(1)]))
    land(landing, batch)
    twin = Sender()
    twin.stream = sender.stream
    with pytest.raises(RejectedError, match="different_bytes"):
        land(landing, twin.batch((STAMPS, [stamp(2)])))
    assert rows(store, batch) == [0]


class Failing:
    """The real store, except that chosen inserts fail in a chosen way, before or after they took effect."""

    def __init__(self, store: EmbeddedStore, plan: Mapping[str, str]) -> None:
        self._store = store
        self.plan = dict(plan)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def insert(self, table: str, block: Block, *, token: str) -> None:
        what = self.plan.pop(table, "")
        if what == "refused":
            raise StoreError("no space", code=243, name="NOT_ENOUGH_SPACE", retryable=True)
        if what != "lost":
            self._store.insert(table, block, token=token)
        if what:
            raise OutcomeUnknownError(f"connection lost, {what}")


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    faults=st.lists(
        st.dictionaries(
            st.sampled_from(["stamps", "links", "gauges", "changes", "quarantine", "batches"]),
            st.sampled_from(["refused", "lost", "done"]),
            min_size=1,
            max_size=3,
        ),
        max_size=4,
    ),
    restart=st.booleans(),
    counting=st.booleans(),
)
def test_whatever_fails_between_each_row_is_there_once(
    store: EmbeddedStore, faults: list[dict[str, str]], restart: bool, counting: bool
) -> None:
    """Failures before and after effect at any insert, door restarts, attempts counted or not: the law holds."""
    failing = Failing(store, {})
    points = dict(BUILT_IN)
    landing = Landing(failing, points)  # type: ignore[arg-type]
    batch = Sender().batch(
        (STAMPS, [stamp(n) for n in range(6)] + [stamp(7, point="later"), stamp(8, ts_ns=-1)]),
        (LINKS, [{"ts_ns": NOW, "parent": 1, "child": 2}]),
        (GAUGES, [{"ts_ns": NOW - 10 * 86_400 * S + S, "value": 1.0}]),
        (CHANGES, [changed(), changed(kind="gossip")]),
        (DropReason.TORN, 2),
    )
    landed = None
    for number, plan in enumerate([*faults, {}, {}]):
        failing.plan = dict(plan)
        try:
            landed = land(landing, batch, number if counting else 0, NOW + number * 2 * S)
        except StoreError:
            points["later"] = Point(name="later", layer="application")  # configuration moves between attempts
            if restart:
                landing = Landing(failing, points)  # type: ignore[arg-type]
    assert landed is not None
    stored = rows(store, batch) + rows(store, batch, "links") + rows(store, batch, "gauges")
    stored += rows(store, batch, "changes")
    refused = list(quarantine(store, batch))
    assert sorted(stored + refused) == list(range(12))
    assert (landed.stored, landed.quarantined, landed.dropped) == (len(stored), len(refused), 2)
    assert landed.status == "duplicate"
    ledger = store.query(
        "SELECT events, stored + quarantined + dropped AS sum, arraySum(reason_counts) AS r FROM batches "
        "WHERE batch = {b:UInt64}",
        {"b": hash64("batch", batch[0])},
    )
    assert ledger.rows() == [(14, 14, 2 + len(refused))]


def test_completeness_is_by_second_of_cutting(store: EmbeddedStore, landing: Landing, sender: Sender) -> None:
    first = sender.batch((STAMPS, [stamp(1), stamp(2, point="nowhere")]), (DropReason.TORN, 5), cut_ns=NOW)
    second = sender.batch((STAMPS, [stamp(3)]), cut_ns=NOW + 2 * S)
    land(landing, (first[0], first[1] + second[1]))
    sql = "SELECT seconds, produced_by_second, missing_by_second FROM batches WHERE batch = {b:UInt64}"
    got = store.query(sql, {"b": hash64("batch", first[0])}).row(0)
    assert got == ([NOW // S, NOW // S + 2], [7, 1], [6, 0])


def test_a_label_set_announced_twice_is_kept_once(store: EmbeddedStore, landing: Landing, sender: Sender) -> None:
    labels = '{"venue":"Y"}'
    row = {"label_set": hash64("labels", labels), "labels": labels}
    for _ in range(2):
        assert land(landing, sender.batch((LABEL_SETS, [row]))).stored == 1
    sql = "SELECT count() FROM label_sets FINAL WHERE label_set = {l:UInt64}"
    assert store.query(sql, {"l": row["label_set"]}).item() == 1


def test_heartbeats_are_written(store: EmbeddedStore) -> None:
    beat = SimpleNamespace(
        collector=uuid.uuid4(), boot=1, name="probe", host="h", status="degraded", reason="no rings", ts_ns=NOW,
        watermark_ns=NOW - S, produced=10, acked=4, in_flight=2, spool_bytes=99,
    )  # fmt: skip
    record_heartbeats(store, [beat, beat])
    record_heartbeats(store, [])
    sql = "SELECT status, reason, produced, acked, in_flight, spool_bytes FROM heartbeats WHERE collector = {c:UUID}"
    assert store.query(sql, {"c": beat.collector}).rows() == [("degraded", "no rings", 10, 4, 2, 99)] * 2


def test_settings_name_the_field() -> None:
    with pytest.raises(ConfigError, match=r"max_past.*not a duration"):
        section({"max_past": "long"}, LandingSettings, "landing")


def test_a_store_killed_between_batches_is_met_again(tmp_path: Path, sender: Sender, forever: Retention) -> None:
    with open_embedded(tmp_path) as store:
        migrate(store, forever)
        landing = Landing(store, BUILT_IN)
        boots, batches = set(), []
        for number in range(3):
            batches.append(sender.batch((STAMPS, [stamp(number)])))
            boots.add(land(landing, batches[-1]).boot_id)
            os.kill(store.health().extra["pid"], signal.SIGKILL)
            until = time.monotonic() + 20
            while not store.health().ok and time.monotonic() < until:
                time.sleep(0.01)
        assert len(boots) == 3
        assert [rows(store, batch) for batch in batches] == [[0], [1], [2]]


@pytest.mark.fault
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs the package strace")
def test_killed_between_the_deduplication_log_and_the_rename(
    tmp_path: Path, sender: Sender, forever: Retention
) -> None:
    """The kill after which a retry with the same token answers OK and stores nothing: ours stores every row."""
    with open_embedded(tmp_path) as store:
        migrate(store, forever)
    trace = tmp_path / "trace"
    command = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=rename,renameat,renameat2"]
    lost = landed = 0
    for number in range(1, 8):
        process = subprocess.Popen(
            [*command, "-e", f"inject=rename,renameat,renameat2:signal=KILL:when={number}",
             sys.executable, "-m", "collector.store.process", "--data", str(tmp_path), "--keep-network"],
            cwd=ROOT, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        batch = sender.batch((STAMPS, [stamp(n) for n in range(50)]))
        end = time.monotonic() + 30
        store = None
        while store is None and process.poll() is None and time.monotonic() < end:
            try:
                store = EmbeddedStore(tmp_path)
            except OSError:
                time.sleep(0.02)
        if store is not None:
            try:
                land(Landing(store, BUILT_IN), batch)
                landed += 1
            except StoreError:
                lost += 1
            store.close()
        with contextlib.suppress(ProcessLookupError):
            # Killing strace would only let go of the store.
            os.kill(int((tmp_path / "store.lock").read_text()), signal.SIGKILL)
        process.wait()
        with open_embedded(tmp_path) as again:
            land(Landing(again, BUILT_IN), batch, attempt=1)
            assert rows(again, batch) == list(range(50 * (number - 1), 50 * number)), f"killed at rename {number}"
    # strace counts per thread, and the insert thread renames twice: the part of the stamps and that of the ledger.
    assert lost >= 2, "the kills missed the inserts: the test proved nothing"
    assert landed > 0, "the last renames must lie behind the whole batch"
