"""Checks against real servers: phases are stamped, failures have an outcome, and nothing lasts beyond its time."""

from __future__ import annotations

import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.probes import fix
from collector.probes.check import Result, run
from collector.probes.settings import Check, ProbesSettings, checks_from
from collector.record import Outcome
from collector.settings import ConfigError
from tests.api.notify.kit import until
from tests.api.notify.test_post import certificate
from tests.namespaces import namespaces
from tests.namespaces import run as run_text

Talk = Callable[[socket.socket], None]
SESSION = {"sender": "PROBE", "receiver": "VENUE"}


@contextmanager
def serving(talk: Talk | None = None, tls: Path | None = None, host: str = "127.0.0.1") -> Iterator[int]:
    """A TCP server that gives each connection to `talk`; without it, connections are taken and nothing is said."""
    ended = threading.Event()
    kept = []
    with socket.create_server((host, 0)) as door:
        door.settimeout(0.05)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if tls is not None:
            context.load_cert_chain(tls)

        def take() -> None:
            while not ended.is_set():
                try:
                    link, _ = door.accept()
                    link.settimeout(2)
                    if tls is not None:
                        link = context.wrap_socket(link, server_side=True)
                    kept.append(link)
                    if talk is not None:
                        talk(link)
                        link.close()
                except OSError:
                    continue

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield door.getsockname()[1]
        finally:
            ended.set()
            thread.join()
            for link in kept:
                link.close()


def saying(text: bytes) -> Talk:
    def talk(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(text)

    return talk


def checked(kind: str, port: int, **fields: Any) -> Result:
    target = fields.pop("target", f"127.0.0.1:{port}")
    check = Check(kind=kind, target=target, **{"timeout": "2s", **fields})  # type: ignore[arg-type]
    check.validate()
    return run("c", check, time.monotonic_ns())


def points(result: Result) -> list[str]:
    assert [at for _, at in result.ends] == sorted(at for _, at in result.ends)
    return [point.removeprefix("probe_") for point, _ in result.ends]


def test_a_tcp_check_ends_when_it_is_connected_and_an_error_has_no_end() -> None:
    with serving() as port:
        found = checked("tcp", port)
        assert (points(found), found.outcome) == (["start", "resolved", "done"], Outcome.OK)
    refused = checked("tcp", port)
    assert (points(refused), refused.outcome) == (["start", "resolved"], Outcome.ERROR)
    assert "ConnectionRefused" in refused.why
    nowhere = checked("tcp", 1, target="no-such-host.invalid:1")
    assert (points(nowhere), nowhere.outcome) == (["start"], Outcome.ERROR)


def test_tls_is_checked_against_the_name_and_its_authority(tmp_path: Path) -> None:
    file = certificate(tmp_path, "venue.example")
    with serving(tls=file) as port:
        good = checked("tls", port, ca_file=str(file), server_name="venue.example")
        assert (points(good), good.outcome) == (["start", "resolved", "connected", "done"], Outcome.OK)
        unknown = checked("tls", port, server_name="venue.example")
        assert (points(unknown)[-1], unknown.outcome) == ("connected", Outcome.ERROR)
        assert "self-signed" in unknown.why
        assert "mismatch" in checked("tls", port, ca_file=str(file), server_name="other.example").why
        assert checked("tls", port, verify=False).outcome is Outcome.OK


def test_http_stamps_first_byte_and_end_and_judges_the_status(tmp_path: Path) -> None:
    def slowly(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        time.sleep(0.1)
        link.sendall(b"body")

    with serving(slowly) as port:
        found = checked("http", port, target=f"http://127.0.0.1:{port}/health?x=1")
        assert points(found) == ["start", "resolved", "connected", "first_byte", "done"]
        assert found.ends[-1][1] - found.ends[-2][1] > 50_000_000
    with serving(saying(b"HTTP/1.1 503 No\r\n\r\n")) as port:
        url = f"http://127.0.0.1:{port}"
        bad = checked("http", port, target=url)
        assert (points(bad)[-1], bad.outcome, bad.why) == ("first_byte", Outcome.REJECTED, "status 503")
        assert checked("http", port, target=url, statuses=(503,)).outcome is Outcome.OK
    with serving(saying(b"SSH-2.0-x\r\n")) as port:
        assert "no HTTP answer" in checked("http", port, target=f"http://127.0.0.1:{port}").why
    file = certificate(tmp_path, "localhost")
    with serving(saying(b"HTTP/1.1 204 OK\r\n\r\n"), tls=file) as port:
        found = checked("http", port, target=f"https://localhost:{port}/", at="127.0.0.1", ca_file=str(file))
        assert points(found) == ["start", "resolved", "connected", "secured", "first_byte", "done"]


@pytest.mark.parametrize("kind", ["tls", "http", "fix"])
def test_what_says_nothing_is_left_in_time_and_is_a_timeout(kind: str) -> None:
    more = {"target": "http://127.0.0.1:{}/"} if kind == "http" else SESSION if kind == "fix" else {}
    with serving() as port:
        fields = {name: text.format(port) for name, text in more.items()}
        begun = time.monotonic()
        found = checked(kind, port, timeout="200ms", **fields)
        assert (found.outcome, found.why) == (Outcome.TIMEOUT, "nothing within 200ms")
        assert "done" not in points(found)
        assert time.monotonic() - begun < 5


def test_an_endless_or_trickling_answer_is_bounded() -> None:
    def endless(link: socket.socket) -> None:
        link.recv(4096)
        link.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1_000_000)

    def trickle(link: socket.socket) -> None:
        for _ in range(40):
            link.sendall(b"H")
            time.sleep(0.02)

    with serving(endless) as port:
        assert checked("http", port, target=f"http://127.0.0.1:{port}/").outcome is Outcome.OK
    with serving(trickle) as port:
        found = checked("http", port, target=f"http://127.0.0.1:{port}/", timeout="200ms")
        assert found.outcome is Outcome.TIMEOUT


def test_udp_waits_for_an_answer_that_begins_as_expected() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
        echo.bind(("127.0.0.1", 0))
        echo.settimeout(5)
        port = echo.getsockname()[1]

        def answer() -> None:
            for _ in range(2):
                data, address = echo.recvfrom(2048)
                echo.sendto(b"pong " + data, address)

        thread = threading.Thread(target=answer)
        thread.start()
        found = checked("udp", port, expect="pong ping")
        assert (points(found), found.outcome) == (["start", "resolved", "done"], Outcome.OK)
        assert checked("udp", port, expect="other").outcome is Outcome.REJECTED
        thread.join()
        assert checked("udp", port, timeout="100ms").outcome is Outcome.TIMEOUT


def test_a_fix_logon_is_answered_by_a_logon_or_rejected_with_its_text() -> None:
    got: list[bytes] = []
    venue = Check(kind="fix", target="x:1", sender="VENUE", receiver="PROBE")

    def takes(link: socket.socket) -> None:
        got.append(link.recv(4096))
        answer = fix.logon(venue, "", time.time_ns())
        link.sendall(answer[:20])
        time.sleep(0.02)
        link.sendall(answer[20:])
        got.append(link.recv(4096))

    with serving(takes) as port:
        found = checked("fix", port, **SESSION)
        assert (points(found), found.outcome) == (["start", "resolved", "connected", "done"], Outcome.OK)
        while len(got) < 2:
            time.sleep(0.01)
    assert fix.message_type(got[0]) == b"A"
    assert b"\x01141=Y\x01" in got[0]
    assert b"\x0149=PROBE\x0156=VENUE\x01" in got[0]
    assert fix.message_type(got[1]) == b"5"
    with serving(lambda link: (link.recv(4096), link.sendall(fix.logout(venue, 0)))[1]) as port:  # type: ignore[func-returns-value]
        no = checked("fix", port, **SESSION)
        assert (no.outcome, no.why) == (Outcome.REJECTED, "the answer to the logon is of type 5")
    with serving(saying(b"")) as port:
        assert "closed without an answer" in checked("fix", port, **SESSION).why
    with serving(saying(b"220 smtp.example ESMTP\r\n")) as port:
        assert checked("fix", port, **SESSION).outcome is Outcome.ERROR


@given(st.binary(max_size=200))
def test_no_bytes_from_a_venue_crash_the_reader(data: bytes) -> None:
    for body in (data, b"8=FIX.4.4\x019=5\x01" + data):
        try:
            fix.message_type(body)
        except ValueError:
            continue


def test_the_time_counts_from_the_intended_start() -> None:
    with serving() as port:
        check = Check(kind="tcp", target=f"127.0.0.1:{port}", timeout="2s")
        late = run("c", check, time.monotonic_ns() - 500_000_000)
        assert late.ends[-1][1] - late.ends[0][1] >= 500_000_000
        assert run("c", check, time.monotonic_ns() - 3_000_000_000).outcome is Outcome.TIMEOUT


def test_where_checks_may_lead_and_by_which_address_they_leave() -> None:
    import ipaddress

    peers: list[str] = []
    with serving(lambda link: peers.append(link.getpeername()[0])) as port:
        assert checked("tcp", port, via="127.0.0.9").outcome is Outcome.OK
        assert checked("tcp", port, via="lo").outcome is Outcome.OK
        assert checked("tcp", port, via="no-such-nic").outcome is Outcome.ERROR
        by_name = checked("tcp", port, target=f"standby.invalid:{port}", at="127.0.0.1")
        assert by_name.outcome is Outcome.OK  # the name is not asked for: the standby's address is
        only = [ipaddress.ip_network("10.0.0.0/8")]
        out = run("c", Check(kind="tcp", target=f"127.0.0.1:{port}"), time.monotonic_ns(), only)
        assert "allow" in out.why
        deadline = time.monotonic() + 5
        while len(peers) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert peers[0] == "127.0.0.9"
    assert "169.254.169.254" in checked("tcp", 80, target="169.254.169.254:80").why


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"kind": "icmp"}, "probes.c.kind"),
        ({"target": "nowhere"}, "probes.c.target: 'nowhere' must be HOST:PORT"),
        ({"target": "u:p@h:1"}, "probes.c.target"),
        ({"every": "1ms"}, "probes.c.every"),
        ({"timeout": "2m"}, "probes.c.timeout"),
        ({"at": "standby"}, "probes.c.at"),
        ({"kind": "fix"}, "probes.c.sender"),
        ({"kind": "http", "target": "ftp://x/"}, "http://HOST"),
        ({"tls": True}, "probes.c.tls"),
    ],
)
def test_a_check_that_makes_no_sense_is_named(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        checks_from({"probes": {"c": {"kind": "tcp", "target": "h:1", **fields}}})


def test_checks_that_cost_more_than_is_allowed_are_refused() -> None:
    one = Check(kind="tcp", target="h:1", every="100ms", timeout="10s")
    with pytest.raises(ConfigError, match="101 checks are under way at once"):
        ProbesSettings(checks={"c": one}).validate()
    fast = {f"c{i}": Check(kind="tcp", target="h:1", every="100ms", timeout="100ms") for i in range(11)}
    with pytest.raises(ConfigError, match="110 per second"):
        ProbesSettings(checks=fast).validate()
    with pytest.raises(ConfigError, match="a name is of lower case"):
        checks_from({"probes": {"Bad Name": {"kind": "tcp", "target": "h:1"}}})


def test_each_of_two_lines_is_exercised_and_the_one_that_is_cut_fails() -> None:
    """Two hosts as network namespaces, each behind a line of its own; a check leaves by the interface it names."""
    with namespaces(2, 190) as spaces, ExitStack() as stack:
        lines = [run_text("ip", "-o", "route", "get", one.address).split(" dev ")[1].split()[0] for one in spaces]
        for one in spaces:
            serve = one.command(sys.executable, "-m", "http.server", "8000", "--bind", one.address)
            process = subprocess.Popen(serve, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            stack.callback(process.wait)
            stack.callback(process.kill)

        def over(line: int, timeout: str = "500ms") -> Outcome:
            address = spaces[line].address
            check = Check(
                kind="http", target="http://venue.invalid:8000/", at=address, via=lines[line], timeout=timeout
            )
            return run("c", check, time.monotonic_ns()).outcome

        until(lambda: over(0) is over(1) is Outcome.OK, 30)
        run_text("ip", "link", "set", lines[0], "down")
        assert over(0) in (Outcome.TIMEOUT, Outcome.ERROR)
        assert over(1, "5s") is Outcome.OK
