import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo.market_data import Datagram, Listing, Quote, TradingAction, feed_key, session_name
from api.demo.signals import Question, Signal
from api.demo.wire import (
    FILL,
    HEARTBEAT,
    IMMEDIATE,
    ORDER,
    REPORT,
    Fill,
    Frames,
    Order,
    Reason,
    Report,
    WireError,
    frame,
)

QUOTE = Quote(3, 123_456_789, 9_999, 100, 10_001, 200)


def test_a_quote_comes_back_as_it_was_sent() -> None:
    assert Quote.decode(QUOTE.encode()) == QUOTE
    for action in (TradingAction(3, True, 1_000), TradingAction(3, False, 2_000, b"T1  ")):
        assert TradingAction.decode(action.encode()) == action
    for body in (QUOTE.encode(), TradingAction(3, True, 1).encode()[:-1], TradingAction(3, True, 1).encode() + b"x"):
        with pytest.raises(WireError, match="not a trading action"):
            TradingAction.decode(body)
    with pytest.raises(WireError, match="H or T"):
        TradingAction.decode(TradingAction(3, True, 1).encode().replace(b"\3H", b"\3X"))


def test_listings_questions_and_signals_come_back() -> None:
    for message in (Listing(3, 100, 7), Question(2**64 - 1, QUOTE), Signal(5, 3, -1.5)):
        assert type(message).decode(message.encode()) == message
        with pytest.raises(WireError, match=r"\d+"):
            type(message).decode(message.encode()[:-1])


def test_moldudp64_header_has_the_published_layout() -> None:
    payload = Datagram(b"mwpwucsp", 7, [b"ab", b"c"]).encode()
    assert payload[:10] == b"  mwpwucsp"
    assert payload[10:18] == (7).to_bytes(8, "big")
    assert payload[18:20] == (2).to_bytes(2, "big")
    assert payload[20:] == b"\x00\x02ab\x00\x01c"


@given(st.lists(st.binary(max_size=60), max_size=16), st.integers(1, 2**64 - 1))
@settings(max_examples=50)
def test_any_datagram_comes_back(messages: list[bytes], sequence: int) -> None:
    assert Datagram.decode(Datagram(b"s", sequence, messages).encode()) == Datagram(b"s", sequence, messages)


@given(st.binary(max_size=80))
@settings(max_examples=50)
def test_any_bytes_are_a_datagram_or_refused(payload: bytes) -> None:
    try:
        datagram = Datagram.decode(payload)
    except WireError:
        return
    assert datagram.end or len(datagram.encode()) == len(payload)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"short", "shorter than its header"),
        (Datagram(b"s", 1, [b"ab"]).encode()[:-1], "runs past the datagram"),
        (Datagram(b"s", 1, [b"ab"]).encode() + b"x", "follow the last message"),
        (Datagram(b"s", 1, [b"ab", b"c"]).encode()[:24], "message 1 of 2 is missing"),
    ],
)
def test_a_broken_datagram_says_where(payload: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        Datagram.decode(payload)


@given(st.lists(st.integers(1, 40), max_size=8), st.data())
@settings(max_examples=50)
def test_frames_do_not_care_how_the_stream_is_cut(sizes: list[int], data: st.DataObject) -> None:
    sent = [(ORDER, bytes(size)) for size in sizes]
    stream = b"".join(frame(kind, body) for kind, body in sent)
    frames, got, at = Frames(), [], 0
    while at < len(stream):
        step = data.draw(st.integers(1, len(stream) - at))
        got += list(frames.feed(stream[at : at + step]))
        at += step
    assert got == sent


def test_an_impossible_frame_length_is_refused() -> None:
    with pytest.raises(WireError, match="frame length 0"):
        list(Frames().feed(b"\x00\x00O"))
    with pytest.raises(WireError, match="frame length 65535"):
        list(Frames().feed(b"\xff\xffO"))


def test_orders_and_reports_come_back() -> None:
    order = Order(2**63 + 5, 1, b"S", 100, 10_000, IMMEDIATE)
    report = Report(order.id, Reason.TOO_FAST, 9)
    fill = Fill(order.id, 30, 10_001)
    got = list(Frames().feed(order.frame() + frame(HEARTBEAT) + report.frame() + fill.frame()))
    assert [kind for kind, _ in got] == [ORDER, HEARTBEAT, REPORT, FILL]
    assert Fill.decode(got[3][1]) == fill
    assert Order.decode(got[0][1]) == order
    assert Report.decode(got[2][1]) == report


def test_a_bad_order_or_report_is_refused() -> None:
    with pytest.raises(WireError, match="side b'X'"):
        Order.decode(Order(1, 1, b"X", 1, 1).frame()[3:])
    with pytest.raises(WireError, match="unknown reason 200"):
        Report.decode(Report(1, Reason.ACCEPTED).frame()[3:11] + b"\xc8" + bytes(8))


def test_keys_of_two_sessions_do_not_meet() -> None:
    first, second = session_name(1_795_000_000_000), session_name(1_795_000_000_001)
    assert len(first) <= 10
    assert int(first, 36) == 1_795_000_000_000
    assert feed_key(first, 1) != feed_key(second, 1)
    assert feed_key(first, 2) - feed_key(first, 1) == 1
    assert 0 <= feed_key(first, 2**40) < 2**64
