"""The collector on real sockets: unicast, multicast, kernel drops, and what it says when it cannot."""

from __future__ import annotations

import re
import socket
import time
import tomllib
from pathlib import Path
from typing import Any

import pytest

from collector.agent.settings import AgentSettings
from collector.clock import HostClock
from collector.feeds.calendar import CalendarSettings
from collector.feeds.settings import ChannelSettings, FeedsSettings
from collector.feeds.source import FeedsSource
from collector.feeds.udp import LineSocket
from collector.keys import hash64
from collector.record import Columns
from collector.settings import ConfigError, section
from tests.collector.decode.test_blocks import SESSION, quotes


def free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def settings(channels: dict[str, Any], **more: Any) -> FeedsSettings:
    body = {"interval": "100ms", "receive_bytes": 65_536, "channels": channels, **more}
    return section(body, FeedsSettings, "agent.feeds")


def two_lines(receive_bytes: int = 65_536, **more: Any) -> tuple[FeedsSettings, int, int]:
    a, b = free_port(), free_port()
    channel = {"protocol": "demo", "lines": {"A": f"127.0.0.1:{a}", "B": f"127.0.0.1:{b}"}, **more}
    return settings(channels={"demo": channel}, receive_bytes=receive_bytes), a, b


def rows(columns: list[Columns], table: str) -> list[dict[str, Any]]:
    out = []
    for one in columns:
        if one.table.name == table:
            texts = {c: one.text(c) for c in one.texts}
            out += [
                {name: texts[name][i] if name in texts else value[i].item() for name, value in one.values.items()}
                for i in range(len(one))
            ]
    return out


def gather(source: FeedsSource, seconds: float = 0.25) -> list[Columns]:
    clock, out = HostClock(), []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        out += source.poll(clock.read()).columns
        time.sleep(0.01)
    return out


def total(columns: list[Columns], line: str, name: str) -> int:
    return sum(r[name] for r in rows(columns, "feeds") if r["line"] == line)


def test_two_lines_on_real_sockets_and_a_stamp_per_message() -> None:
    from api.demo.market_data import feed_key

    wanted, a, b = two_lines(stamps=True)
    source = FeedsSource(wanted, "host-1")
    assert source.start({}).status == "running"
    source.poll(HostClock().read())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for first in range(1, 200, 2):
            payload = quotes(first, 2)
            if first != 51:
                sender.sendto(payload, ("127.0.0.1", a))
            if first not in (21, 51):
                sender.sendto(payload, ("127.0.0.1", b))
    found = gather(source)
    source.close()
    for line, missing in (("A", 2), ("B", 4), ("", 2)):
        assert (
            total(found, line, "skipped") - total(found, line, "out_of_order") - total(found, line, "late") == missing
        )
        assert total(found, line, "messages") == 200 - missing
    assert total(found, "A", "won") + total(found, "B", "won") == 198
    assert total(found, "", "pairs") == 196
    got = rows(found, "stamps")
    assert len(got) == 198 + 196
    assert {r["service"] for r in got} == {"demo-A", "demo-B"}
    assert {r["key"] for r in got} >= {hash64("feed", feed_key(SESSION, n)) for n in (1, 2, 199, 200)}
    assert all(abs(r["ts_ns"] - time.time_ns()) < 60_000_000_000 for r in got)
    gauges = {r["name"] for r in rows(found, "gauges")}
    assert {"feed.missing", "feed.silence_ns", "feed.skew_p99_ns", "feed.won_share"} <= gauges
    for one in found:
        one.check()


def test_what_the_kernel_drops_is_counted_and_the_numbers_are_missing() -> None:
    a = free_port()
    channel = {"protocol": "demo", "lines": {"A": f"127.0.0.1:{a}"}}
    source = FeedsSource(settings(channels={"demo": channel}, receive_bytes=4096), "h")
    source.start({})
    source.poll(HostClock().read())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for first in range(1, 301):
            sender.sendto(quotes(first, 1), ("127.0.0.1", a))
        time.sleep(0.05)
        found = source.poll(HostClock().read()).columns
        sender.sendto(quotes(301, 1), ("127.0.0.1", a))
    found += gather(source)
    source.close()
    dropped = total(found, "A", "kernel_drops")
    assert dropped > 0
    assert total(found, "A", "skipped") == dropped == 301 - total(found, "A", "messages")


def test_a_multicast_group_is_joined_on_the_interface_that_is_named() -> None:
    port = free_port()
    group = f"239.255.77.{1 + port % 250}"
    try:
        line = LineSocket(group, port, interface="127.0.0.1")
    except OSError as error:
        pytest.skip(f"the loopback interface does not join groups here: {error}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        sender.sendto(b"hello", (group, port))
    time.sleep(0.05)
    got = line.receive()
    line.close()
    assert got is not None
    assert got.data[: got.lengths[0]].tobytes() == b"hello"
    assert abs(int(got.time_ns[0]) - time.time_ns()) < 10_000_000_000


def test_a_datagram_longer_than_the_slot_is_left_and_counted() -> None:
    line = LineSocket("127.0.0.1", free_port(), datagram_bytes=64)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for size in (64, 65, 0, 10):
            sender.sendto(b"x" * size, ("127.0.0.1", line.port))
    time.sleep(0.02)
    got = line.receive()
    line.close()
    assert got is not None
    assert (got.lengths.tolist(), got.cut) == ([64, 0, 10], 1)


def test_a_datagram_that_is_too_long_is_an_error_and_its_numbers_are_missing() -> None:
    wanted, a, _ = two_lines()
    source = FeedsSource(wanted, "h")
    source.start({})
    source.poll(HostClock().read())
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for payload in (quotes(1, 1), quotes(2, 200), quotes(202, 1)):
            sender.sendto(payload, ("127.0.0.1", a))
    found = gather(source)
    source.close()
    assert (total(found, "A", "errors"), total(found, "A", "skipped"), total(found, "A", "datagrams")) == (1, 200, 3)


def test_without_channels_it_says_what_to_add() -> None:
    status = FeedsSource(settings({}), "h").start({})
    assert (status.status, "agent.feeds.channels" in status.reason) == ("unavailable", True)


def test_a_line_that_cannot_be_bound_is_named_and_the_other_runs() -> None:
    wanted, a, _ = two_lines()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", a))
        source = FeedsSource(wanted, "h")
        status = source.start({})
        source.close()
    assert status.status == "degraded"
    assert "line A" in status.reason
    assert "line B" not in status.reason


def test_an_unknown_protocol_is_named_at_the_start() -> None:
    channel = {"protocol": "pitch", "lines": {"A": f"127.0.0.1:{free_port()}"}}
    status = FeedsSource(settings(channels={"c": channel}), "h").start({})
    assert status.status == "unavailable"
    assert "no decoder 'pitch'" in status.reason


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"channels": {"c": {"protocol": "itch", "lines": {}}}}, "channels.c.lines"),
        ({"channels": {"c": {"protocol": "itch", "lines": {"A": "localhost:1"}}}}, "channels.c.lines.A"),
        ({"channels": {"c": {"protocol": "itch", "lines": {"A": "1.2.3.4:0"}}}}, "channels.c.lines.A"),
        ({"channels": {"c": {"protocol": "itch", "lines": {"A": "1.2.3.4:5", "B": "1.2.3.4:5"}}}}, "channels.c.lines"),
        ({"channels": {"c": {"protocol": "itch", "lines": {"A": "1.2.3.4:5"}, "calendar": "us"}}}, "c.calendar"),
        ({"calendars": {"us": {"zone": "Mars"}}}, "calendars.us.zone"),
        ({"interval": "1ms"}, "interval"),
        ({"stale_factor": 0.5}, "stale_factor"),
    ],
)
def test_what_is_wrong_in_the_settings_is_named(body: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        section(body, FeedsSettings, "agent.feeds")


def test_the_guides_example_is_accepted() -> None:
    guide = (Path(__file__).resolve().parents[3] / "docs" / "feeds.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", guide, re.DOTALL)
    agent = section(tomllib.loads(example)["agent"], AgentSettings, "agent")
    assert agent.feeds.calendars["nyse"].calendar.opened_ns(0) is None  # a night
    for kind in (ChannelSettings, CalendarSettings):
        for name in kind.__struct_fields__:
            assert f"| `{name}` |" in guide, name
