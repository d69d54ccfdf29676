"""As much FIX as a logon takes: the messages Logon and Logout, and the type of the first message of an answer.

Tag=value encoding of FIX 4.x (FIX Trading Community, "FIX TagValue Encoding"): BodyLength counts from after its own
field to before CheckSum, CheckSum is the sum of all bytes before it modulo 256.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Protocol

SOH = b"\x01"
_HEAD = re.compile(rb"8=FIX[^\x01]{1,20}\x019=(\d{1,6})\x01")
_TYPE = re.compile(rb"35=([^\x01]{1,3})\x01")
_TEXT = re.compile(rb"\x0158=([^\x01]{1,200})\x01")


class Session(Protocol):
    """The two ends of a session."""

    @property
    def fix_version(self) -> str:
        """BeginString."""

    @property
    def sender(self) -> str:
        """SenderCompID."""

    @property
    def receiver(self) -> str:
        """TargetCompID."""

    @property
    def username(self) -> str:
        """Username, or empty."""


def logon(session: Session, password: str, now_ns: int) -> bytes:
    """A Logon that resets both sequence numbers: a check must not disturb the numbering of anybody's session."""
    fields = ["98=0", "108=30", "141=Y"]
    if session.username:
        fields.append(f"553={session.username}")
    if password:
        fields.append(f"554={password}")
    return _message(session, "A", 1, now_ns, fields)


def logout(session: Session, now_ns: int) -> bytes:
    """A Logout, after which the link is closed."""
    return _message(session, "5", 2, now_ns, [])


def message_type(data: bytes) -> bytes | None:
    """MsgType of the first message; None while it is not whole. Raises ValueError for what is no FIX."""
    head = _HEAD.match(data)
    if head is None:
        if len(data) > 40 or not b"8=FIX".startswith(data[:5]):
            raise ValueError(f"no FIX message: {data[:40]!r}")
        return None
    end = head.end() + int(head[1])
    if len(data) < end + 7:
        return None
    trailer = data[end : end + 7]
    if trailer[:3] != b"10=" or not trailer[3:6].isdigit() or int(trailer[3:6]) != sum(data[:end]) % 256:
        raise ValueError("a FIX message with a wrong length or checksum")
    found = _TYPE.match(data, head.end())
    if found is None:
        raise ValueError("a FIX message without a type")
    return found[1]


def text(data: bytes) -> str:
    """What an answer says in Text, for people."""
    found = _TEXT.search(data)
    return f": {found[1].decode('ascii', 'replace')}" if found else ""


def _message(session: Session, kind: str, number: int, now_ns: int, fields: list[str]) -> bytes:
    at = datetime.fromtimestamp(now_ns // 10**9, UTC).strftime("%Y%m%d-%H:%M:%S") + f".{now_ns % 10**9 // 10**6:03d}"
    head = [f"35={kind}", f"49={session.sender}", f"56={session.receiver}", f"34={number}", f"52={at}"]
    body = b"".join(one.encode("ascii") + SOH for one in (*head, *fields))
    whole = f"8={session.fix_version}".encode("ascii") + SOH + f"9={len(body)}".encode("ascii") + SOH + body
    return whole + f"10={sum(whole) % 256:03d}".encode("ascii") + SOH
