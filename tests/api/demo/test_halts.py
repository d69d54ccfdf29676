"""Halts are said on the wire by the feed's own process, and recorded as events in a history."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from api.demo.history.calendar import DAY_NS, HOUR_NS, NS, day
from api.demo.history.hours import Settings, simulate
from api.demo.history.making import pack
from api.demo.market import SYMBOLS
from api.demo.market_data import Datagram, Quote, TradingAction
from api.demo.profile import trading_day
from tests.api.demo.test_history_simulation import BEGIN

COMPRESSION = 3_600


@pytest.mark.skipif(sys.platform != "linux", reason="the demo's programs are Linux programs")
def test_the_feed_says_halts_on_both_lines_and_quotes_nobody_who_is_halted(tmp_path: Path) -> None:
    seed = 3
    receivers = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
    for one in receivers:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        one.bind(("127.0.0.1", 0))
        one.settimeout(30)
    halts = sorted(trading_day(seed, len(SYMBOLS)).halts, key=lambda halt: halt.begin_s)
    ends_s = max(halt.end_s for halt in halts) / COMPRESSION
    began_s = (min(halt.begin_s for halt in halts) - 1_800) / COMPRESSION - 8.0  # the day begins at eight
    lines = [word for one in receivers for word in ("--line", str(one.getsockname()[1]))]
    epoch = time.time_ns() - round(began_s * NS)
    argv = [sys.executable, "-m", "api.demo.feed", *lines, "--control", str(tmp_path), "--rate", "500", "--seed"]
    argv += [str(seed), "--profile", "day", "--compression", str(COMPRESSION), "--epoch", str(epoch)]
    env = {**os.environ, "TAILSIGHT_PROBE_DIR": str(tmp_path)}
    program = subprocess.Popen(argv, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    messages: list[list[bytes]] = [[], []]
    try:
        deadline = time.monotonic() + 60
        told = 0
        while told < 2 * len(halts) and time.monotonic() < deadline:
            for number, one in enumerate(receivers):
                fresh = Datagram.decode(one.recv(65_536)).messages
                messages[number] += fresh
                told += number == 1 and any(message[:1] == b"H" for message in fresh)
    finally:
        program.terminate()
        program.wait(30)
        for one in receivers:
            one.close()
    assert ends_s > began_s
    for line in messages:
        actions = [TradingAction.decode(message) for message in line if message[:1] == b"H"]
        assert [(one.instrument, one.halted) for one in actions][:2] in (
            [(halts[0].instrument, True), (halts[0].instrument, False)],
            [(halts[0].instrument, True), (halts[1].instrument, True)],
        )
        halted: set[int] = set()
        quotes = 0
        for message in line:
            if message[:1] == b"H":
                action = TradingAction.decode(message)
                assert (action.instrument in halted) != action.halted
                halted ^= {action.instrument}
            elif message[:1] == b"Q":
                quotes += 1
                assert Quote.decode(message).instrument not in halted
        assert quotes > 100
        assert halted == set()


def test_a_history_records_its_halts_and_no_quote_of_the_halted() -> None:
    midnight = BEGIN - BEGIN % DAY_NS
    settings = Settings(rate=0.3, profile="day")
    halts = trading_day(day(settings.seed, midnight).seed, len(SYMBOLS)).halts
    hours = sorted({int(at_s // 3_600) for halt in halts for at_s in (halt.begin_s, halt.end_s)})
    found = []
    for hour in hours:
        path = simulate(settings, midnight + hour * HOUR_NS)
        columns = {one.table.name: one for one in path.tape.columns()}
        events = columns["events"]
        for at_ns, kind, attributes in zip(
            events.values["ts_ns"].tolist(), events.text("kind"), events.text("attributes"), strict=True
        ):
            found.append((at_ns, kind, json.loads(attributes)))
        made = pack(path, midnight + hour * HOUR_NS, midnight + (hour + 1) * HOUR_NS)
        assert made.events == made.stamps + made.links + len(events) + len(columns["label_sets"])
    expected = sorted(
        (midnight + round(at_s * NS), kind, SYMBOLS[halt.instrument])
        for halt in halts
        for at_s, kind in ((halt.begin_s, "halt"), (halt.end_s, "resume"))
    )
    assert [(kind, about["instrument"]) for _, kind, about in found] == [(k, symbol) for _, k, symbol in expected]
    assert all(abs(at - wanted) < 1_000 for (at, _, _), (wanted, _, _) in zip(found, expected, strict=True))
    lasted = [int(about["halted_ns"]) for _, kind, about in found if kind == "resume"]
    assert all(300 * NS <= ns <= 900 * NS for ns in lasted), "over the end of an hour too"
    assert len(lasted) == len(halts)
