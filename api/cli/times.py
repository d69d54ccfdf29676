"""Times on the command line: RFC 3339, nanoseconds since the epoch, `now`, or relative to now (`-15m`)."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from collector.settings import ConfigError, duration_ns

_RELATIVE = re.compile(r"(?:now)?\s*([+-])\s*(\S+)")
_FRACTION = re.compile(r"([.,])(\d+)")


def parse_time(text: str, name: str, now_ns: int) -> int:
    """A point in time in nanoseconds since the epoch; a time without a zone is UTC.

    Raises ConfigError naming the option.
    """
    text = text.strip()
    if text == "now":
        return now_ns
    if text.isdigit():
        return int(text)
    if match := _RELATIVE.fullmatch(text):
        offset = duration_ns(match[2], name)
        return now_ns - offset if match[1] == "-" else now_ns + offset
    # datetime keeps microseconds: the fraction is taken off and added as nanoseconds.
    nanoseconds = 0
    whole = text
    if fraction := _FRACTION.search(text):
        nanoseconds = int(fraction[2][:9].ljust(9, "0"))
        whole = text[: fraction.start()] + text[fraction.end() :]
    try:
        moment = datetime.fromisoformat(whole)
    except ValueError:
        raise ConfigError(
            name, f"{text!r} is not a time; write 2026-11-21T09:30:00Z, nanoseconds since 1970, now, or -15m"
        ) from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp()) * 1_000_000_000 + nanoseconds


def format_time(ns: int) -> str:
    """RFC 3339 in UTC with nanoseconds."""
    seconds, rest = divmod(ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
