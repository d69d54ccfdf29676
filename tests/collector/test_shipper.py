"""The shipper against a real server that answers badly: nothing lost, nothing under two names, nobody waits."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.agent.settings import AgentSettings
from collector.settings import ConfigError
from collector.shipper import Shipper
from collector.spool import Spool
from collector.uplink import Outcome, TokenBucket, Uplink
from tests.collector.scripted_server import ScriptedServer
from tests.collector.spool_kit import SMALL, Producer, kill, open_spool


class Clock:
    """Time that passes only when the shipper would wait."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    it = ScriptedServer()
    yield it
    it.close()


def ship(spools: dict[str, Spool], server: ScriptedServer, *, steps: int = 4000, **settings: Any) -> Shipper:
    """Run until all is acknowledged; fails when that takes more turns than `steps`."""
    clock = Clock()
    fields: dict[str, Any] = {"server": server.url, "request_timeout_s": 0.5} | settings
    uplink = Uplink(AgentSettings(**fields))
    shipper = Shipper(spools, uplink, "h", linger_s=0.001, now=clock, jitter=lambda a, b: (a + b) / 2)
    try:
        for _ in range(steps):
            clock.now += shipper.step() + 0.002
            if all(s.produced == s.acked_end for spool in spools.values() for s, _ in spool.boots()):
                return shipper
    finally:
        uplink.close()
    raise AssertionError(f"not delivered in {steps} turns: {shipper.stats}")


def filled(folder: Path, polls: int = 6, n: int = 30) -> Spool:
    spool = open_spool(folder)
    producer = Producer(spool)
    for _ in range(polls):
        producer.poll(n)
    spool.commit()
    return spool


@pytest.mark.parametrize(
    "script",
    [
        [],
        [429, 429, 503],
        [500, 502, 500],
        ["reset", "lost", "reset"],
        ["lost", "lost", "lost", "lost", "lost"],
        ["garbage", 302, 401],
        ["hang", "lost", 429, "garbage", 500, "reset"],
    ],
    ids=str,
)
def test_whatever_the_server_does_everything_arrives_once(
    tmp_path: Path, server: ScriptedServer, script: list[str | int]
) -> None:
    server.script = list(script)
    spool = filled(tmp_path)
    shipper = ship({"probe": spool}, server)
    assert server.books.values == dict.fromkeys(range(180), 1)
    assert not server.books.reasons and shipper.stats.refused_batches == 0
    bodies: dict[str, set[bytes]] = {}
    attempts: dict[str, list[int]] = {}
    for name, attempt, body in server.requests:
        bodies.setdefault(name, set()).add(body)
        attempts.setdefault(name, []).append(attempt)
    assert all(len(b) == 1 for b in bodies.values()), "a batch changed between tries"
    assert all(a == list(range(len(a))) for a in attempts.values()), attempts
    assert sum(shipper.stats.retries.values()) == len(script)
    if not script:
        assert server.connections == 1, "the connection is kept"
    spool.close()


def test_a_killed_shipper_counts_the_attempt_it_may_have_made(tmp_path: Path, server: ScriptedServer) -> None:
    spool = filled(tmp_path, polls=1)
    spool.cut()
    spool.claim(spool.pending()[0])  # on its way when the process dies
    kill(spool)
    again = open_spool(tmp_path)
    ship({"probe": again}, server)
    assert [attempt for _, attempt, _ in server.requests] == [1]
    again.close()


def test_one_bad_frame_goes_to_quarantine_and_the_others_arrive(tmp_path: Path, server: ScriptedServer) -> None:
    spool = open_spool(tmp_path, msgspec.structs.replace(SMALL, segment_bytes=1 << 19, batch_events=1000))
    producer = Producer(spool)
    for _ in range(9):
        producer.poll(4)
    spool.cut()
    (batch,) = spool.pending()
    body = spool.read(batch)
    server.poison = body[len(body) // 2 : len(body) // 2 + 40]  # lies inside one frame
    shipper = ship({"probe": spool}, server)
    assert shipper.stats.refused_batches == 1
    assert server.books.reasons == {"rejected": 4} and sum(server.books.values.values()) == 32
    assert server.books.difference(spool) == {1: 0}
    assert len(list((tmp_path / "quarantine").glob("*.frames"))) == 1
    spool.close()


def test_a_strange_answer_is_believed_after_ten_tries(tmp_path: Path, server: ScriptedServer) -> None:
    server.script = [302] * 10
    spool = filled(tmp_path, polls=1)
    shipper = ship({"probe": spool}, server)
    assert shipper.stats.refused_batches == 1 and server.books.reasons == {"rejected": 30}
    spool.close()


def test_a_failing_batch_does_not_hold_up_other_collectors(tmp_path: Path, server: ScriptedServer) -> None:
    bad, good = filled(tmp_path / "bad", polls=1), filled(tmp_path / "good", polls=8)
    server.script = [500]
    shipper = ship({"bad": bad, "good": good}, server)
    order = [name.split("/")[0] for name, _, _ in server.requests]
    assert order[0] == str(bad.stream.collector)
    assert order[1] == str(good.stream.collector), "the others go on while one waits"
    assert shipper.stats.retries == {"failed": 1}
    bad.close()
    good.close()


def test_live_data_and_backlog_take_turns(tmp_path: Path, server: ScriptedServer) -> None:
    spool = filled(tmp_path, polls=20, n=60)  # one batch per poll
    ship({"probe": spool}, server)
    firsts = [int(name.split("/")[2]) // 60 for name, _, _ in server.requests]
    assert firsts[:4] == [0, 19, 1, 18] or firsts[:4] == [19, 0, 18, 1], firsts
    spool.close()


def test_a_server_that_is_away_keeps_small_batches_together(tmp_path: Path, server: ScriptedServer) -> None:
    spool = open_spool(tmp_path, msgspec.structs.replace(SMALL, segment_bytes=1 << 19, batch_events=100_000))
    producer, clock = Producer(spool), Clock()
    uplink = Uplink(AgentSettings(server="http://127.0.0.1:9", request_timeout_s=0.5))
    shipper = Shipper({"probe": spool}, uplink, "h", linger_s=0.001, now=clock)
    for _ in range(50):
        producer.poll(2)
        shipper.step()
        clock.now += 0.01
    assert len(spool.pending()) <= 2
    uplink.close()
    ship({"probe": spool}, server)
    assert server.books.values == dict.fromkeys(range(100), 1) and len(server.requests) <= 3
    spool.close()


def test_token_file_must_be_private_and_is_sent(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("lo_secret\n")
    token.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        Uplink(AgentSettings(token_file=str(token)))
    token.chmod(0o600)
    uplink = Uplink(AgentSettings(token_file=str(token)))
    assert uplink._headers() == {"Authorization": "Bearer lo_secret"}
    uplink.close()


def test_dscp_source_address_and_unix_sockets_reach_the_socket(tmp_path: Path) -> None:
    heard: dict[str, Any] = {}
    for family, place in ((socket.AF_INET, None), (socket.AF_UNIX, str(tmp_path / "s"))):
        listener = socket.socket(family)
        listener.bind(place or ("127.0.0.1", 0))
        listener.listen()
        listener.settimeout(5)
        url = f"unix:{place}" if place else f"http://127.0.0.1:{listener.getsockname()[1]}"
        source = {} if place else {"source_address": "127.0.0.2", "dscp": 8}
        uplink = Uplink(AgentSettings(server=url, request_timeout_s=0.2, **source))
        assert uplink.post("/x", b"body", {}).outcome is Outcome.UNREACHABLE  # nobody answers
        peer, address = listener.accept()
        heard[url[:4]] = (address, peer.recv(4096))
        if not place:
            assert address[0] == "127.0.0.2"
        for sock in (peer, listener):
            sock.close()
        uplink.close()
    assert heard["unix"][1].endswith(b"body") and b"Content-Length: 4" in heard["unix"][1].title()


def test_the_rate_cap_holds_over_many_chunks() -> None:
    waits: list[float] = []
    bucket = TokenBucket(1_000_000)
    import collector.uplink as module

    real, now = module.time, [0.0]

    class Time:
        @staticmethod
        def monotonic() -> float:
            return now[0]

        @staticmethod
        def sleep(seconds: float) -> None:
            waits.append(seconds)
            now[0] += seconds

    try:
        module.time = Time  # type: ignore[assignment]
        for _ in range(100):
            bucket.wait(50_000)
    finally:
        module.time = real
    assert abs(now[0] - 5.0) < 0.051


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"server": "localhost:1"}, "server"),
        ({"dscp": 64}, "dscp"),
        ({"rate_bytes_s": 5}, "rate_bytes_s"),
        ({"source_address": "eth0"}, "source_address"),
        ({"when_full": "drop"}, "when_full"),
        ({"durability": "maybe"}, "durability"),
        ({"collectors": ("probe", "probe")}, "collectors"),
        ({"linger_s": 0.0}, "linger_s"),
    ],
)
def test_bad_settings_name_the_field(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        AgentSettings(**fields).validate()
    assert caught.value.field == named
