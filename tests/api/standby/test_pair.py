"""Two servers of a pair: who is active, what the standby has, and that nobody acts without having looked."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.audit import Audit
from api.control import Control, StandbyError
from api.maintenance import Maintenance
from api.notify.deliveries import Deliveries
from api.slo_book import SloBook
from api.standby import journal
from api.standby.follower import Standby
from api.standby.journal import FollowError
from api.standby.role import Role, Said, decide
from api.standby.settings import StandbySettings
from collector.settings import ConfigError
from tests.api.notify.kit import fire, resolve, webhook

S = 1_000_000_000
ROLES: tuple[Role, ...] = ("candidate", "standby", "active")


class Pair:
    """Two control states whose standbys ask each other without a network, on a clock that the test moves."""

    def __init__(self, folder: Path) -> None:
        self.now = 0
        self.cut = False
        self.controls = {name: Control(folder / name / "control.sqlite") for name in "ab"}
        self.half: dict[str, Standby] = {}
        for name in "ab":
            self.begin(name)

    def begin(self, name: str) -> Standby:
        """A process of this name begins."""
        peer = "b" if name == "a" else "a"
        settings = StandbySettings(name=name, peer=f"http://{peer}", every="1s", lease="5s", confirm="2s")
        made = Standby(settings, self.controls[name], lambda: self.now)

        def ask() -> dict[str, Any]:
            other = self.half.get(peer)
            if other is None or self.cut:
                raise httpx.ConnectError("gone")
            begun = made._seen is not None or made._peer_log
            return other.asked(
                name, made.me.role, made.me.epoch, made._peer_log if begun else "", max(0, made._peer_seq)
            )

        made._ask = ask  # type: ignore[method-assign]
        self.half[name] = made
        return made

    def run(self, seconds: int = 1) -> None:
        for _ in range(seconds):
            self.now += S
            for half in list(self.half.values()):
                half.run()

    def active(self) -> list[str]:
        return [name for name, half in self.half.items() if half.active()]

    def dump(self, name: str) -> dict[str, list[tuple[Any, ...]]]:
        rows = {t: self.controls[name].rows(f"SELECT * FROM {t}") for t in journal.FOLLOWED}  # noqa: S608 - names of ours
        return {table: sorted(tuple(row) for row in some) for table, some in rows.items()}


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    made = Pair(tmp_path)
    yield made
    for control in made.controls.values():
        control.close()


def test_of_two_that_begin_one_is_active_and_the_other_has_its_episodes(pair: Pair) -> None:
    pair.run()
    assert pair.active() == ["a"]
    book = SloBook(pair.controls["a"])
    alert = fire(book)
    fire(book, "e2", "quotes")
    resolve(book, alert)
    out = Deliveries(pair.controls["a"], {"hook": webhook("http://127.0.0.1:1/")})
    out.take_in("hook", alert.fired_ns)
    pair.run()
    assert pair.dump("a") == pair.dump("b")
    assert len(pair.dump("b")["slo_outbox"]) == 3
    with pair.controls["a"].transaction() as db:
        db.execute("DELETE FROM slo_outbox WHERE episode = 'e2'")
    pair.run()
    assert pair.dump("a") == pair.dump("b")
    assert pair.half["b"].synced_ns


def test_a_standby_takes_over_after_the_lease_and_the_old_one_stays_standby(pair: Pair) -> None:
    pair.run()
    fire(SloBook(pair.controls["a"]))
    pair.run()
    del pair.half["a"]
    taken: list[int] = []
    pair.half["b"].on_active = lambda: taken.append(pair.now)
    pair.run(5)
    assert pair.active() == []
    pair.run(2)
    assert (pair.active(), pair.half["b"].me.epoch, len(taken)) == (["b"], 2, 1)
    # The old one comes back with an episode that nobody has: it belongs to nobody's account any more.
    with pair.controls["a"].transaction() as db:
        db.execute("UPDATE slo_alerts SET episode = 'lost', since_ns = 1")
    fire(SloBook(pair.controls["b"]), "e9", "other")
    pair.begin("a")
    pair.run(2)
    assert pair.active() == ["b"]
    assert pair.half["a"].me.role == "standby"
    assert pair.dump("a") == pair.dump("b")
    # And back again: what changed on the way is copied anew, whatever was known of each other.
    del pair.half["b"]
    pair.run(7)
    assert (pair.active(), pair.half["a"].me.epoch) == (["a"], 3)
    resolve(SloBook(pair.controls["a"]), SloBook(pair.controls["a"]).alerts()[0])
    pair.begin("b")
    pair.run(2)
    assert pair.dump("a") == pair.dump("b")


def test_a_server_that_was_stopped_looks_before_it_acts(pair: Pair) -> None:
    pair.run()
    stopped = pair.half.pop("a")
    pair.run(7)
    assert pair.active() == ["b"]
    assert stopped.me.role == "active"  # it does not know yet, and still may not act
    assert not stopped.active()
    pair.half["a"] = stopped
    stopped.run()
    assert not stopped.active()
    assert stopped.me.role == "standby"
    with pytest.raises(StandbyError, match="the standby of http://b"):
        fire(SloBook(pair.controls["a"]))


def test_a_cut_between_the_two_heals_to_the_one_that_took_over(pair: Pair) -> None:
    pair.run(2)
    pair.cut = True
    pair.run(7)
    assert pair.active() == ["a", "b"]  # both reach the receivers: the same episodes keep their ids
    pair.cut = False
    pair.run(2)
    assert pair.active() == ["b"]


def test_a_notification_waits_for_the_standby_to_have_it_but_not_for_long(pair: Pair) -> None:
    pair.run(2)
    control = pair.controls["a"]
    out = Deliveries(control, {"hook": webhook("http://127.0.0.1:1/")})
    out.unconfirmed = pair.half["a"].unconfirmed
    alert = fire(SloBook(control))
    assert out.take_in("hook", alert.fired_ns + 1) == 0
    assert out.waiting("hook")[0] == 1
    pair.run(2)  # the standby asks, and by asking again says that it has it
    assert out.take_in("hook", alert.fired_ns + 1) == 1
    other = fire(SloBook(control), "e2", "quotes", alert.fired_ns)
    assert out.take_in("hook", other.fired_ns + 1) == 0
    assert out.take_in("hook", other.fired_ns + 2 * S + 1) == 1  # `confirm` has passed
    third = fire(SloBook(control), "e3", "third", alert.fired_ns)
    del pair.half["b"]
    pair.run(7)
    assert pair.half["a"].unconfirmed() is None  # nobody follows
    assert out.take_in("hook", third.fired_ns + 1) == 1


def test_what_a_command_changes_is_refused_on_the_standby(pair: Pair) -> None:
    pair.run()
    control = pair.controls["b"]
    with pytest.raises(StandbyError, match="do it there"):
        SloBook(control).apply([], "ann")
    from analytics.slo.maintenance import Window

    with pytest.raises(StandbyError):
        Maintenance(control).add(Window("w", 1 << 62, (1 << 62) + S, "ann", "x", ("*",)), "ann")
    journal.remove(control)  # [standby] was taken out of the configuration
    SloBook(control).apply([], "ann")


def test_a_large_state_comes_in_pages_and_one_that_breaks_off_begins_anew(pair: Pair) -> None:
    pair.run()
    with pair.controls["a"].transaction() as db:
        db.executemany(
            "INSERT INTO slo_outbox (episode, kind, objective, rule, at_ns, body) VALUES (?, 'firing', 'o', 'r', 1, '{}')",  # noqa: E501 - one statement
            [(f"e{i}",) for i in range(4_500)],
        )
    pages = [journal.changes(pair.controls["a"], "", 0)]
    while pages[-1]["more"]:
        pages.append(journal.changes(pair.controls["a"], pages[-1]["log"], pages[-1]["seq"]))
    assert [len(page["rows"]) for page in pages] == [2_000, 2_000, 500]
    assert [page["reset"] for page in pages] == [True, False, False]
    ask, answers = pair.half["b"]._ask, itertools.count()

    def broken() -> dict[str, Any]:
        if next(answers) == 1:
            raise httpx.ReadError("cut")
        return ask()

    pair.half["b"]._ask = broken  # type: ignore[method-assign]
    pair.run(3)
    assert pair.dump("a") == pair.dump("b")


def test_old_entries_of_rows_that_are_gone_are_forgotten(pair: Pair) -> None:
    pair.run()
    control = pair.controls["a"]
    for _ in range(11):
        with control.transaction() as db:
            db.executemany("INSERT INTO notify_deliveries (notification, target, due_ns) VALUES (?, 'x', 1)",
                           [(i,) for i in range(2_000)])  # fmt: skip
            db.execute("DELETE FROM notify_deliveries")
    journal.tidy(control)
    assert control.rows("SELECT count(*) AS n FROM follow_changes")[0]["n"] <= 2_000
    assert journal.changes(control, control.rows("SELECT id FROM follow_log")[0]["id"], 1)["reset"]
    pair.run(2)
    assert pair.dump("a") == pair.dump("b")


@pytest.mark.parametrize(
    "row",
    [
        {"table": "tokens", "key": ["x"], "row": None},
        {"table": "slo_alerts", "key": ["x"], "row": None},
        {"table": "slo_outbox", "key": [1], "row": {"id": 1}},
        {"table": "maintenance", "key": [[]], "row": {name: [] for name in
            ("name", "start_ns", "end_ns", "who", "why", "objectives", "services", "send", "budget_burns",
             "declared_ns", "declared_by", "ended_ns", "ended_by")}},
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_are_refused_and_change_nothing(pair: Pair, row: dict[str, Any]) -> None:
    before = pair.dump("b")
    with pytest.raises(FollowError), pair.controls["b"].transaction() as db:
        journal.take_over(db, [row])
    assert pair.dump("b") == before


def test_a_peer_of_the_same_name_is_refused(pair: Pair) -> None:
    with pytest.raises(FollowError, match="a name of its own"):
        pair.half["a"].heard("a", "active", 9)
    with pytest.raises(FollowError):
        pair.half["a"].heard("b", "king", 9)


SAID = st.builds(Said, st.sampled_from("ab"), st.sampled_from(ROLES), st.integers(0, 5))


@given(SAID, SAID, st.integers(1, 6))
def test_two_that_hear_each_other_come_to_one_active(a: Said, b: Said, rounds: int) -> None:
    a, b = Said("a", a.role, a.epoch), Said("b", b.role, b.epoch)
    for _ in range(2 + rounds):
        a = decide(a, b, silent=False)
        b = decide(b, a, silent=False)
    assert sorted((a.role, b.role)) == ["active", "standby"]


@given(SAID, SAID, st.booleans())
def test_an_epoch_never_falls_and_a_take_over_raises_it_above_both(me: Said, peer: Said, silent: bool) -> None:
    after = decide(me, peer, silent=silent)
    assert after.epoch >= me.epoch
    if after.role == "active" and me.role != "active":
        assert after.epoch > max(me.epoch, peer.epoch)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"peer": "other:8472"}, "must be http"),
        ({"name": ""}, "this server's name"),
        ({"lease": "3s"}, "four times every"),
        ({"confirm": "1s"}, "must be at least every"),
        ({"every": "1ms"}, "200ms to 30s"),
    ],
)
def test_a_pair_that_makes_no_sense_is_refused(fields: dict[str, str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        StandbySettings(**{"name": "a", "peer": "https://other:8472", **fields}).validate()


@contextmanager
def _store(folder: Path) -> Iterator[Any]:
    from collector.store.embedded import open_embedded
    from collector.store.schema import Retention, migrate

    store = open_embedded(folder)
    migrate(store, Retention())
    yield store
    store.close()


def test_each_server_of_a_pair_has_an_audit_log_of_its_own_in_the_shared_store(pair: Pair, tmp_path: Path) -> None:
    with _store(tmp_path / "store") as store:
        for name in "ab":
            audit = Audit(pair.controls[name])
            audit.name(name)
            for i in range(3):
                audit.record(name, "drill", str(i))
            assert audit.flush(store) == 3
        for name in "ab":
            verdict = Audit(pair.controls[name]).verify(store)
            assert (verdict.leaves, verdict.first_bad) == (3, None)
        Audit(pair.controls["a"]).name("other")  # a log that has begun keeps its name
        assert Audit(pair.controls["a"]).chain == "a"
