"""One check from its intended start to its end: which phase ended when, and how it went.

Blocking sockets with what is left of the timeout as their limit. Times are MONOTONIC. Nothing here raises for what a
target does.
"""

from __future__ import annotations

import functools
import ipaddress
import os
import socket
import ssl
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from collector.probes import fix
from collector.probes.settings import ENDS, LAST, START, Check
from collector.record import Outcome

_MAX_REPLY = 65_536
Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(slots=True)
class Result:
    """What became of one check. `ends` has (point, MONOTONIC ns) in order, the intended start first."""

    name: str
    intended_ns: int
    ends: list[tuple[str, int]] = field(default_factory=list)
    outcome: Outcome = Outcome.OK
    why: str = ""


class _RefusedError(Exception):
    """The target answered, and said no."""


def run(name: str, check: Check, intended_ns: int, allow: Sequence[Network] = ()) -> Result:
    """Do one check. Its time counts from `intended_ns`: a check that began late was slow for its user, too."""
    result = Result(name, intended_ns, [(START, intended_ns)])
    try:
        _Run(check, result, intended_ns + check.ns("timeout"), allow).go()
    except TimeoutError:
        result.outcome, result.why = Outcome.TIMEOUT, f"nothing within {check.timeout}"
    except _RefusedError as error:
        result.outcome, result.why = Outcome.REJECTED, str(error)
    except (OSError, ValueError) as error:
        result.outcome, result.why = Outcome.ERROR, f"{type(error).__name__}: {error}"
    if result.outcome is not Outcome.OK:
        # Whatever phases ended: a check that failed has no end, it is censored.
        result.ends = [(point, at) for point, at in result.ends if point != LAST]
    result.why = result.why[:300]
    return result


class _Run:
    def __init__(self, check: Check, result: Result, deadline_ns: int, allow: Sequence[Network]) -> None:
        self.check, self.result, self.deadline_ns, self.allow = check, result, deadline_ns, allow

    def go(self) -> None:
        family, address = self._resolve()
        kind = socket.SOCK_DGRAM if self.check.kind == "udp" else socket.SOCK_STREAM
        with socket.socket(family, kind) as plain:
            self._leave_by(plain)
            self._limit(plain)
            plain.connect(address)
            if kind == socket.SOCK_DGRAM:
                self._ask(plain)
                return
            self._ended("connect")
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if not self.check.secured:
                self._talk(plain)
                return
            with context_of(self.check).wrap_socket(
                plain, server_hostname=self.check.server_name or self.check.place[0], do_handshake_on_connect=False
            ) as secure:
                self._limit(secure)
                secure.do_handshake()
                self._ended("tls")
                self._talk(secure)

    def _resolve(self) -> tuple[int, tuple[str, int]]:
        host, port = self.check.place
        kind = socket.SOCK_DGRAM if self.check.kind == "udp" else socket.SOCK_STREAM
        found = socket.getaddrinfo(self.check.at or host, port, type=kind)
        family, _, _, _, address = found[0]
        ip = ipaddress.ip_address(str(address[0]).partition("%")[0])
        if not allowed(ip, self.allow):
            raise ValueError(f"{ip} is none of the addresses that checks may lead to ([agent.probes] allow)")
        self._ended("resolve")
        return family, address  # type: ignore[return-value] # IPv6 has two more parts, which connect takes

    def _leave_by(self, plain: socket.socket) -> None:
        via = self.check.via
        if not via:
            return
        try:
            ipaddress.ip_address(via)
        except ValueError:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, via.encode() + b"\0")
        else:
            plain.bind((via, 0))

    def _talk(self, link: socket.socket) -> None:
        if self.check.kind == "http":
            self._http(link)
        elif self.check.kind == "fix":
            self._fix(link)

    def _ask(self, link: socket.socket) -> None:
        link.send(self.check.send.encode())
        self._limit(link)
        answer = link.recv(_MAX_REPLY)
        if not answer.startswith(self.check.expect.encode()):
            raise _RefusedError(f"the answer begins with {answer[:40]!r}, not {self.check.expect!r}")
        self._ended("reply")

    def _http(self, link: socket.socket) -> None:
        parts = urlsplit(self.check.target)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = f"{self.check.method} {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nUser-Agent: tailsight-probe\r\n"
        link.sendall(f"{lines}Accept: */*\r\nConnection: close\r\n\r\n".encode())
        got = self._some(link)
        self._ended("first_byte")
        while b"\r\n" not in got[:4096] and len(got) < 4096 and (more := self._some(link)):
            got += more
        words = got.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit() or len(words[1]) != 3:
            raise ValueError(f"no HTTP answer: {got[:60]!r}")
        status, size = int(words[1]), len(got)
        while size < _MAX_REPLY and (more := self._some(link)):
            size += len(more)
        if status not in self.check.statuses if self.check.statuses else not 200 <= status < 400:
            raise _RefusedError(f"status {status}")
        self._ended("body")

    def _fix(self, link: socket.socket) -> None:
        secret = os.environ.get(self.check.password_env, "") if self.check.password_env else ""
        if self.check.password_env and not secret:
            raise ValueError(f"the environment variable {self.check.password_env} is not set")
        link.sendall(fix.logon(self.check, secret, time.time_ns()))
        got = b""
        while (kind := fix.message_type(got)) is None:
            if len(got) > _MAX_REPLY:
                raise ValueError("more than 64 KiB and no FIX message")
            more = self._some(link)
            if not more:
                raise _RefusedError("the session was closed without an answer to the logon")
            got += more
        if kind != b"A":
            raise _RefusedError(f"the answer to the logon is of type {kind.decode('ascii', 'replace')}{fix.text(got)}")
        self._ended("logon")
        link.sendall(fix.logout(self.check, time.time_ns()))

    def _some(self, link: socket.socket) -> bytes:
        self._limit(link)
        return link.recv(16_384)

    def _limit(self, link: socket.socket) -> None:
        left = self.deadline_ns - time.monotonic_ns()
        if left <= 0:
            raise TimeoutError
        link.settimeout(left / 1e9)

    def _ended(self, phase: str) -> None:
        now = time.monotonic_ns()
        if now > self.deadline_ns:
            raise TimeoutError
        # The last phase ends at the point where the path ends, whatever it is.
        last = phase == self.check.phases[-1]
        self.result.ends.append((LAST if last else ENDS[phase], now))


def context_of(check: Check) -> ssl.SSLContext:
    """What a check's certificate is checked against. Reading the system's takes some 30 ms: once, and before a check.

    Raises OSError, also for a file that holds no certificate.
    """
    return _context(check.ca_file, Path(check.ca_file).stat().st_mtime_ns if check.ca_file else 0, check.verify)


@functools.lru_cache(maxsize=256)
def _context(ca_file: str, _changed_ns: int, verify: bool) -> ssl.SSLContext:
    if not verify:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context
    return ssl.create_default_context(cafile=ca_file or None)


def allowed(address: ipaddress.IPv4Address | ipaddress.IPv6Address, allow: Sequence[Network]) -> bool:
    """Whether a check may lead to an address."""
    real = getattr(address, "ipv4_mapped", None) or address
    if allow:
        return any(real in network for network in allow if network.version == real.version)
    return not (real.is_link_local or real.is_multicast or real.is_unspecified)
