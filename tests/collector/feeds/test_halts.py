"""Trading halts: read from what scapy makes of the protocols' own messages, and kept out of staleness."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.decode import cme, demo, iex, itch, registry
from collector.decode.halts import HaltReader
from collector.decode.layout import LayoutError
from collector.decode.protocol import HaltRule, derive
from collector.feeds.channel import Channel, ChannelReport
from collector.feeds.rhythm import Rhythm
from collector.feeds.rows import Rows
from collector.feeds.settings import FeedsSettings
from collector.record import Columns

MS = 1_000_000
S = 1_000 * MS
START = 1_700_000_000 * S


def itch_message(kind: bytes, **fields: Any) -> itch.MoldBlock:
    return itch.MoldBlock(body=itch.BODIES[kind](**fields))


def mold(sequence: int, *messages: itch.MoldBlock, session: bytes = b"0000000001") -> bytes:
    return bytes(itch.Mold(session=session, sequence=sequence, messages=list(messages)))


def order(locate: int) -> itch.MoldBlock:
    return itch_message(b"A", locate=locate, reference=1, side=b"B", shares=100, stock=b"AAPL    ", price=1)


def action(locate: int, state: bytes) -> itch.MoldBlock:
    return itch_message(b"H", locate=locate, stock=b"AAPL    ", state=state, reason=b"T1  ")


def take(one: Channel, at_ns: int, *datagrams: bytes, line: int = 0) -> None:
    data = np.frombuffer(b"".join(datagrams), dtype=np.uint8)
    lengths = np.array([len(d) for d in datagrams], dtype=np.int64)
    times = np.full(len(datagrams), at_ns, dtype=np.int64)
    one.take(np.full(len(datagrams), line, dtype=np.int64), data, np.cumsum(lengths) - lengths, lengths, times)


def followed(protocol: str = "itch", lines: tuple[str, ...] = ("A",)) -> Channel:
    return Channel("c", lines, registry.make(protocol), rhythm=Rhythm(updates=20))


def names(report: ChannelReport) -> tuple[list[str], list[str]]:
    return [name for name, _, _ in report.stale], [halt.instrument for halt in report.halted]


def beating(one: Channel, first: int, count: int, at_ns: int, locate: int = 7) -> int:
    """`count` updates, one each ms; when the last one came."""
    for i in range(count):
        take(one, at_ns + i * MS, mold(first + i, order(locate)))
    return at_ns + (count - 1) * MS


def test_a_halted_instrument_is_not_stale_and_is_again_when_it_trades() -> None:
    one = followed()
    last = beating(one, 1, 100, START)
    assert names(one.report(last + S)) == (["AAPL"], [])
    take(one, last + MS, mold(101, action(7, b"H")))
    report = one.report(last + 60 * S)
    assert names(report) == ([], ["AAPL"])
    assert [(h.start_ns, h.end_ns) for h in report.halts] == [(last + MS, None)]
    assert one.report(last + 61 * S).halts == []
    resumed = last + 100 * S
    take(one, resumed, mold(102, action(7, b"T")))
    report = one.report(resumed + S)
    assert names(report) == ([], [])  # until it has been heard again, nothing is expected
    assert [(h.start_ns, h.end_ns) for h in report.halts] == [(last + MS, resumed)]
    # The halt has not become the instrument's rhythm.
    last = beating(one, 103, 5, resumed + 2 * S)
    assert names(one.report(last + S)) == (["AAPL"], [])


def test_what_comes_in_a_halt_is_no_rhythm() -> None:
    one = followed()
    last = beating(one, 1, 50, START)
    take(one, last, mold(51, action(7, b"Q")))  # quoted only
    for i in range(200):
        take(one, last + (i + 1) * S, mold(52 + i, order(7)))
    assert names(one.report(last + 1_000 * S)) == ([], ["AAPL"])
    take(one, last + 1_000 * S, mold(252, action(7, b"T"), order(7)))
    last = beating(one, 254, 2, last + 1_001 * S)
    assert one.rhythm.usual_ns().tolist() == [pytest.approx(MS, rel=0.2)]
    assert names(one.report(last + S)) == (["AAPL"], [])


def test_an_instrument_is_halted_while_any_reason_holds() -> None:
    one = followed()
    operational = {
        state: itch_message(b"h", locate=7, stock=b"AAPL    ", market=b"Q", action=state) for state in (b"H", b"T")
    }
    steps = [
        (action(7, b"P"), 1),
        (operational[b"H"], 1),
        (action(7, b"T"), 1),
        (operational[b"T"], 0),
        (action(8, b"T"), 0),
    ]
    for number, (message, halted) in enumerate(steps, 1):
        take(one, START + number, mold(number, message))
        assert len(one.report(START + number).halted) == halted


def test_the_second_line_and_repetitions_change_nothing() -> None:
    one = followed(lines=("A", "B"))
    halt, resume = mold(1, action(7, b"H")), mold(2, action(7, b"T"))
    take(one, START, halt, resume)
    take(one, START + MS, halt, line=1)  # a late copy
    report = one.report(START + S)
    assert report.halted == []
    assert [(h.instrument, h.end_ns) for h in report.halts] == [("AAPL", None), ("AAPL", START)]


def test_a_new_session_says_anew_what_is_halted() -> None:
    one = followed()
    take(one, START, mold(1, action(7, b"H")))
    take(one, START + S, mold(1, order(9), session=b"0000000002"))
    report = one.report(START + 2 * S)
    assert (report.halted, [h.end_ns for h in report.halts]) == ([], [None, START + S])


def test_iex_and_cme_say_it_in_their_own_way() -> None:
    def iex_frame(kind: bytes, status: bytes, first: int) -> bytes:
        body = iex.BODIES[kind](status=status[0], symbol=b"ZIEXT   ")
        return bytes(iex.IexTp(session=1, sequence=first, messages=[iex.Block(body=body)]))

    one = followed("iex")
    for first, (kind, status, halted) in enumerate(
        ((b"H", b"H", True), (b"H", b"T", False), (b"O", b"O", True), (b"H", b"O", True), (b"O", b"N", True)), 1
    ):
        take(one, START + first, iex_frame(kind, status, first))
        assert [h.instrument for h in one.report(START + first).halted] == ["ZIEXT"] * halted

    def cme_frame(first: int, security: int, status: int) -> bytes:
        body = cme.BODIES[30](group=b"ES", status_security=security, trading_status=status)
        message = cme.SbeMessage(block_length=30, template=30, body=body)
        return bytes(cme.Mdp3(sequence=first, sending_time=START, messages=[message]))

    assert len(cme_frame(1, 5, 2)) == 12 + 10 + 30  # the schema's block length
    one = followed("cme")
    for first, (security, status, halted) in enumerate(
        ((5, 2, True), (5, 103, True), (0x7FFF_FFFF, 2, True), (5, 17, False)), 1
    ):
        take(one, START + first, cme_frame(first, security, status))
        report = one.report(START + first)
        assert [h.instrument for h in report.halted] == ["5"] * halted
        assert report.lines[0].counts["unknown"] == report.lines[0].counts["errors"] == 0


def test_numbers_are_told_by_the_symbols_that_the_session_gives_them() -> None:
    one = followed()
    take(one, START, mold(1, action(7, b"H"), itch_message(b"D", locate=8, reference=1)))
    other = itch_message(b"H", locate=8, stock=b"MSFT    ", state=b"H", reason=b"    ")
    take(one, START, mold(3, other))
    assert [h.instrument for h in one.report(START).halted] == ["AAPL", "MSFT"]
    again = itch_message(b"H", locate=7, stock=b"MSFT    ", state=b"H", reason=b"    ")
    take(one, START, mold(1, again, session=b"0000000002"))
    assert [h.instrument for h in one.report(START).halted] == ["MSFT"]
    assert one.decoder.describe(8) == "8"  # of the session before


def test_names_may_be_given() -> None:
    one = Channel("c", ["A"], registry.make("demo"), names={"3": "XYZ"})
    body = demo.TradingAction(concerned=3, state=b"H")
    take(one, START, bytes(demo.Datagram(session=b"abc", sequence=1, messages=[demo.Block(body=body)])))
    assert [h.instrument for h in one.report(START).halted] == ["XYZ"]


def test_the_demos_feed_says_it_too() -> None:
    one = followed("demo")
    for first, (state, halted) in enumerate(((b"H", True), (b"T", False)), 1):
        body = demo.TradingAction(concerned=3, state=state)
        take(one, START + first, bytes(demo.Datagram(session=b"abc", sequence=first, messages=[demo.Block(body=body)])))
        report = one.report(START + first)
        assert [h.instrument for h in report.halted] == ["3"] * halted
        assert report.lines[0].counts["unknown"] == 0


def test_halts_are_gauges_intervals_and_events() -> None:
    one, rows = followed(), Rows("h")
    take(one, START + MS, mold(1, action(7, b"H"), action(8, b"P")))
    rows.add("c", "itch", one.report(START + S), (START, START + S), {}, None)
    take(one, START + 3 * S // 2, mold(3, action(7, b"T")))
    rows.add("c", "itch", one.report(START + 2 * S), (START + S, START + 2 * S), {}, None)
    found: dict[str, list[Columns]] = {}
    for part in rows.take():
        part.check()
        found.setdefault(part.table.name, []).append(part)
    (gauges,), (intervals,), (events,) = found["gauges"], found["intervals"], found["events"]
    levels = [v for n, v in zip(gauges.text("name"), gauges.values["value"].tolist(), strict=True) if "halted" in n]
    assert levels == [2, 1]
    assert set(intervals.text("kind")) == {"trading_halt"}
    spans = sorted(zip(intervals.values["ts_ns"].tolist(), intervals.values["duration_ns"].tolist(), strict=True))
    assert spans == [(START + MS, S - MS), (START + MS, S - MS), (START + S, S // 2), (START + S, S)]
    assert events.text("kind") == ["halt", "halt", "resume"]
    assert json.loads(events.text("attributes")[2]) == {
        "channel": "c", "instrument": "AAPL", "halted_ns": str(3 * S // 2 - MS),
    }  # fmt: skip


def test_a_rule_that_cannot_be_followed_is_refused() -> None:
    import dataclasses

    for rule, says in (
        (HaltRule(b"~", "state", (1,), (2,)), "names no declared body"),
        (HaltRule(b"H", "mood", (1,), (2,)), "has no field 'mood'"),
    ):
        wrong = dataclasses.replace(itch.PROTOCOL, halts=(rule,))
        with pytest.raises(LayoutError, match=says):
            HaltReader(wrong, derive(wrong).bodies)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 1), st.booleans()), min_size=1, max_size=40),
    st.integers(1, 5),
)
def test_halts_are_those_that_a_dictionary_says(said: list[tuple[int, int, bool]], pieces: int) -> None:
    """One message at a time in a dictionary, against any cutting into blocks."""
    rhythm, reasons, expected = Rhythm(), dict[int, set[int]](), list[tuple[int, bool, int]]()
    for at, (name, reason, halted) in enumerate(said):
        mine = reasons.setdefault(name, set())
        before = bool(mine)
        (mine.add if halted else mine.discard)(reason)
        if bool(mine) != before:
            expected.append((name, not mine, at))
    got = []
    for part in np.array_split(np.arange(len(said)), pieces):
        some = [said[i] for i in part.tolist()]
        got += rhythm.halts(
            np.array([s[0] for s in some], dtype=np.uint64), np.array([s[1] for s in some], dtype=np.uint8),
            np.array([s[2] for s in some], dtype=np.bool_), part.astype(np.int64),
        )  # fmt: skip
    assert [(h.instrument, h.end_ns is not None, h.start_ns if h.end_ns is None else h.end_ns) for h in got] == expected
    assert {h.instrument for h in rhythm.halted()} == {name for name, mine in reasons.items() if mine}


def test_settings_follow_many_instruments() -> None:
    """More instruments than are followed: their halts are counted as untracked, nothing grows."""
    rhythm = Rhythm(instruments=4)
    many = np.arange(100, dtype=np.uint64)
    rhythm.halts(many, np.zeros(100, dtype=np.uint8), np.ones(100, dtype=np.bool_), np.arange(100, dtype=np.int64))
    assert (len(rhythm.halted()), rhythm.untracked) == (4, 96)
    assert FeedsSettings().instruments == 65_536
