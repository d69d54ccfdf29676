"""Two lines of real message bodies with faults by seed: exact on each line and after arbitration."""

from __future__ import annotations

import struct

import numpy as np
import pytest

from collector.decode import registry
from collector.feeds.calendar import CalendarSettings
from collector.feeds.channel import Channel, ChannelReport
from collector.feeds.tracker import Tracker
from tests.collector.decode.test_blocks import one_of as one_line
from tests.collector.feeds.lines import placed, streams

WINDOW_NS = 1_000_000


def channel(lines: tuple[str, ...] = ("A", "B"), protocol: str = "itch", **more: object) -> Channel:
    return Channel("c", lines, registry.make(protocol), tracker=lambda: Tracker(window_ns=WINDOW_NS), **more)  # type: ignore[arg-type]


def summed(reports: list[ChannelReport], line: int) -> dict[str, int]:
    return {name: sum(r.lines[line].counts[name] for r in reports) for name in reports[0].lines[line].counts}


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("pieces", [1, 17])
def test_faults_by_seed_are_counted_exactly(seed: int, pieces: int) -> None:
    sent, truth = streams(seed)
    one = channel()
    reports = []
    for part in np.array_split(np.arange(len(sent)), pieces):
        one.take(*placed([sent[i] for i in part.tolist()]))
        reports.append(one.report(sent[int(part[-1])].at_ns))
    a, b, both = (summed(reports, i) for i in range(3))
    for line, counts in enumerate((a, b)):
        assert counts["skipped"] - counts["out_of_order"] - counts["late"] == truth.missing[line]
        assert counts["messages"] == truth.messages[line]
        assert counts["duplicates"] == truth.duplicates[line]
        assert counts["out_of_order"] + counts["late"] == truth.reordered[line]
        assert counts["won"] == truth.won[line]
        assert counts["sessions"] == 2
        assert counts["old"] == counts["resets"] == counts["errors"] == counts["unknown"] == 0
    assert both["skipped"] - both["out_of_order"] - both["late"] == truth.missing_both
    assert both["messages"] == truth.messages_both == a["won"] + b["won"]
    assert (both["pairs"], both["divergent"]) == (truth.pairs, truth.divergent)
    assert truth.missing_both < min(truth.missing)
    assert truth.divergent > 0
    assert both["gaps"] > 0


def test_the_streams_bring_every_kind_of_fault() -> None:
    _, truth = streams(0)
    assert min(*truth.missing, truth.missing_both, *truth.duplicates, *truth.reordered, truth.divergent) > 0


def mold(low: int, count: int, session: bytes = b"0000000001") -> bytes:
    body = struct.pack(">cHH6sQ", b"D", 7, 0, b"\0" * 6, 5)
    return struct.pack(">10sQH", session, low, count) + count * (struct.pack(">H", len(body)) + body)


def feed(one: Channel, *datagrams: tuple[int, int, bytes]) -> None:
    line, at, payload = zip(*datagrams, strict=True)
    one.take(np.array(line), *one_line(list(payload)), np.array(at, dtype=np.int64))


def test_a_gap_on_one_line_is_filled_by_the_other_and_the_lag_is_known() -> None:
    one = channel()
    feed(one, (0, 100, mold(1, 1)), (1, 150, mold(1, 1)), (0, 200, mold(3, 1)), (1, 230, mold(2, 1)))
    report = one.report(1000)
    a, b, both = report.lines
    assert (a.missing, b.missing, both.missing) == (1, 0, 0)
    assert (both.counts["gaps"], both.counts["recovered_ns"], both.recovered_max_ns) == (1, 30, 30)
    assert [(g.low, g.high, g.start_ns, g.end_ns) for g in both.gaps] == [(2, 3, 200, 230)]
    assert (a.counts["won"], b.counts["won"], b.skew_ns.tolist()) == (2, 1, [50])
    assert (a.silence_ns, b.silence_ns) == (800, 770)


def test_a_gap_that_nobody_fills_is_told_once_its_window_has_passed() -> None:
    one = channel()
    feed(one, (0, 100, mold(1, 1)), (1, 110, mold(1, 1)), (0, 200, mold(3, 1)), (1, 210, mold(3, 1)))
    assert one.report(200 + WINDOW_NS - 1).lines[2].gaps == []
    told = one.report(200 + 2 * WINDOW_NS).lines
    assert [(g.low, g.high, g.start_ns, g.end_ns) for line in told for g in line.gaps] == [
        (2, 3, 200, None),
        (2, 3, 210, None),
        (2, 3, 200, None),
    ]
    assert [line.gaps for line in one.report(200 + 9 * WINDOW_NS).lines] == [[], [], []]
    feed(one, (1, 200 + 9 * WINDOW_NS, mold(2, 1)))
    late = one.report(200 + 10 * WINDOW_NS).lines[2]
    assert [(g.start_ns, g.end_ns) for g in late.gaps] == [(200, 200 + 9 * WINDOW_NS)]
    assert (late.counts["late"], late.missing) == (1, -1)


def test_a_straggler_of_the_session_before_is_old_and_does_not_start_it_again() -> None:
    one = channel()
    feed(one, (0, 1, mold(50, 1)), (0, 2, mold(1, 1, b"0000000002")), (1, 3, mold(50, 1)), (1, 4, mold(51, 1)))
    feed(one, (1, 5, mold(1, 1, b"0000000002")), (0, 6, mold(2, 1, b"0000000002")))
    report = one.report(10)
    assert [line.counts["sessions"] for line in report.lines] == [1, 1, 1]
    assert report.lines[2].counts["old"] == 2
    assert report.lines[2].counts["messages"] == 3
    assert report.session == "0000000002"


def cme(number: int, sent_ns: int) -> bytes:
    return struct.pack("<IQ", number, sent_ns) + struct.pack("<HHHHH", 10, 0, 12, 1, 9)


def test_without_sessions_number_one_sent_later_starts_over_and_its_copy_does_not() -> None:
    one = channel(protocol="cme")
    feed(one, (0, 10, cme(1, 5)), (1, 11, cme(1, 5)), (0, 20, cme(2, 15)), (1, 21, cme(2, 15)))
    feed(one, (0, 30, cme(1, 25)), (1, 31, cme(1, 25)), (0, 40, cme(2, 35)), (1, 41, cme(2, 35)))
    report = one.report(50)
    assert [line.counts["resets"] for line in report.lines] == [1, 1, 1]
    assert [line.counts["messages"] for line in report.lines] == [4, 4, 4]
    assert [line.missing for line in report.lines] == [0, 0, 0]
    assert report.lines[2].counts["pairs"] == 4
    assert (report.lines[0].delay_min_ns, report.lines[0].delay_max_ns, report.lines[0].counts["delays"]) == (5, 5, 4)
    assert report.version == 9


def test_a_32_bit_number_wraps_around_without_a_gap() -> None:
    one = channel(("A",), protocol="cme")
    top = 1 << 32
    feed(one, *((0, i, cme((top - 3 + i) % top, 100 + i)) for i in range(6) if i != 4))
    report = one.report(50)
    assert (report.lines[0].counts["wraps"], report.lines[0].counts["resets"], report.lines[0].missing) == (1, 0, 1)


def test_a_datagram_that_does_not_follow_the_protocol_is_an_error_and_its_numbers_are_missing() -> None:
    one = channel(("A",))
    feed(one, (0, 1, mold(1, 1)), (0, 2, mold(2, 3)[:-1]), (0, 3, b"x"), (0, 4, mold(5, 1)))
    report = one.report(50)
    assert (report.lines[0].counts["errors"], report.lines[0].missing) == (2, 3)


def test_an_instrument_that_falls_silent_is_stale_while_the_market_is_open() -> None:
    hours = CalendarSettings(sessions=("09:00-17:00",)).calendar
    one = channel(("A",), calendar=hours)
    start = 1_700_000_000_000_000_000 // 86_400_000_000_000 * 86_400_000_000_000 + 10 * 3_600_000_000_000
    times = start + np.arange(1, 301) * 1_000_000
    feed(one, *((0, int(t), mold(i + 1, 1)) for i, t in enumerate(times)))
    assert one.report(int(times[-1]) + 2_000_000).stale == []
    report = one.report(int(times[-1]) + 100_000_000)
    assert [(name, since) for name, since, _ in report.stale] == [("7", int(times[-1]))]
    assert report.open
    assert one.report(int(times[-1]) + 100_000_000, error_ns=99_000_000).stale == []
    report = one.report(start + 8 * 3_600_000_000_000)
    assert (report.open, report.stale) == (False, [])


def test_only_what_is_new_is_an_update_of_its_instrument() -> None:
    def named(low: int, *instruments: int) -> bytes:
        bodies = [struct.pack(">cHH6sQ", b"D", one, 0, b"\0" * 6, 5) for one in instruments]
        blocks = b"".join(struct.pack(">H", len(body)) + body for body in bodies)
        return struct.pack(">10sQH", b"0000000001", low, len(bodies)) + blocks

    one = channel()
    # 1 and 2 come again with 3, and all of it on the other line: instrument 3 is new, 1 and 2 are not.
    feed(one, (0, 10, named(1, 1, 2)), (0, 1010, named(1, 1, 2, 3)), (1, 5010, named(1, 1, 2, 3)))
    assert dict(zip(one.rhythm._names.tolist(), one.rhythm._last.tolist(), strict=True)) == {1: 10, 2: 10, 3: 1010}


def test_itch_times_are_placed_on_their_day() -> None:
    one = channel(("A",))
    sent = 1_692_711_000_007_495_351  # 09:30:00.007 in New York on that day
    body = struct.pack(">cHH", b"D", 7, 0) + (34_200_007_495_351).to_bytes(6, "big") + b"\0" * 8
    payload = struct.pack(">10sQHH", b"0000000001", 1, 1, len(body)) + body
    feed(one, (0, sent + 166_604, payload))
    assert one.report(sent).lines[0].delay_max_ns == 166_604


def test_a_sender_that_changes_its_session_every_time_is_followed_within_bounds() -> None:
    one = channel()
    count = 3000
    payloads = [mold(1, 1, b"%010d" % n) for n in range(count)]
    feed(one, *((n % 2, n, payload) for n, payload in enumerate(payloads)))
    report = one.report(count)
    assert report.lines[2].counts["sessions"] == count - 1
    assert report.lines[2].counts["messages"] == count
