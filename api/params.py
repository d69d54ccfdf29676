"""Query parameters: times, message keys and cursors, read strictly and with the parameter's name in every error."""

from __future__ import annotations

import base64
import binascii
import re
import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from fastapi import Query
from fastapi.dependencies.models import Dependant
from starlette.datastructures import QueryParams

from api.problems import FieldProblem, ProblemError, bad_parameter
from collector.keys import key_of
from collector.settings import ConfigError, duration_ns

_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?([Zz]|[+-]\d\d:\d\d)")
# DateTime64(9) ends in 2262; times before 1970 are never measured ones.
MAX_NS = (1 << 63) - 1
MAX_SPAN_NS = 400 * 86_400 * 10**9

FROM = Annotated[
    str | None,
    Query(
        alias="from",
        max_length=64,
        description="Start of the time asked for: RFC 3339, epoch nanoseconds, or relative to now such as `-15m`. "
        "The default is `-15m`.",
        examples=["-15m", "2026-11-20T09:00:00Z"],
    ),
]
TO = Annotated[
    str | None,
    Query(
        alias="to",
        max_length=64,
        description="End of the time asked for (exclusive), written like `from`. The default is now.",
        examples=["2026-11-20T10:00:00Z"],
    ),
]


def names_of(dependant: Dependant) -> set[str]:
    """The query parameters that a route and what it depends on take."""
    names = {field.alias for field in dependant.query_params}
    return names.union(*(names_of(inner) for inner in dependant.dependencies))


def check_names(given: QueryParams, taken: set[str]) -> None:
    """Raise a 422 problem for a parameter that the route does not have: a misspelt filter must not be ignored."""
    known = sorted(taken)
    unknown = [name for name in given if name not in taken]
    if unknown:
        hint = f"this route knows {', '.join(known)}" if known else "this route takes no parameters"
        errors = [FieldProblem(name=n[:80], where="query", problem=f"unknown; {hint}") for n in unknown[:20]]
        raise ProblemError(422, "bad-request", f"unknown parameter {unknown[0][:80]!r}: {hint}", errors=errors)
    repeated = [name for name in known if len(given.getlist(name)) > 1]
    if repeated:
        raise bad_parameter(repeated[0], "given more than once")


def time_ns(text: str, name: str, now_ns: int) -> int:
    """A moment as epoch nanoseconds. Raises a 422 problem naming the parameter.

    RFC 3339 keeps all nine digits; a number is epoch nanoseconds; `-15m` is that long before `now_ns`.
    """
    text = text.strip()
    if match := _RFC3339.fullmatch(text.replace("Z", "+00:00").replace("z", "+00:00")):
        try:
            whole = datetime.fromisoformat(f"{match[1]}T{match[2]}{match[4]}")
        except ValueError as error:
            raise bad_parameter(name, f"{text!r} is not a moment: {error}") from None
        result = int(whole.astimezone(UTC).timestamp()) * 10**9 + int((match[3] or "0").ljust(9, "0"))
    elif re.fullmatch(r"[0-9]{1,19}", text):
        result = int(text)
    elif text.startswith("-"):
        try:
            result = now_ns - duration_ns(text[1:], name)
        except ConfigError as error:
            raise bad_parameter(name, error.problem) from None
    else:
        raise bad_parameter(
            name, f"{text[:64]!r} is not a time; write RFC 3339 with an offset, epoch nanoseconds, or e.g. -15m"
        )
    if not 0 <= result <= MAX_NS:
        raise bad_parameter(name, f"{text!r} lies outside 1970..2262")
    return result


def span(from_: str | None, to: str | None, default: str = "-15m") -> tuple[int, int]:
    """`from` and `to` as nanoseconds. Raises a 422 problem when they are not a time in order, or too far apart."""
    now = time.time_ns()
    end = now if to is None else time_ns(to, "to", now)
    start = time_ns(from_ or default, "from", now)
    if start >= end:
        raise bad_parameter("from", "must lie before to")
    if end - start > MAX_SPAN_NS:
        raise bad_parameter("from", f"at most {MAX_SPAN_NS // (86_400 * 10**9)} days may be asked for at once")
    return start, end


def step_s(text: str, start_ns: int, end_ns: int, most: int = 2_000) -> int:
    """A step such as `10s` as whole seconds, a multiple of 10. Raises a 422 problem, also for too many steps."""
    try:
        step_ns = duration_ns(text, "step")
    except ConfigError as error:
        raise bad_parameter("step", error.problem) from None
    if step_ns <= 0 or step_ns % (10 * 10**9):
        raise bad_parameter("step", f"{text!r} is not a multiple of 10s, the length of a window")
    if (end_ns - start_ns) // step_ns > most:
        raise bad_parameter("step", f"gives more than {most} steps; use at least {(end_ns - start_ns) // most} ns")
    return step_ns // 10**9


def step_ns(text: str, start_ns: int, end_ns: int, most: int = 2_000) -> int:
    """A step such as `1s` of what is not counted in windows, in nanoseconds: a multiple of 1 s.

    Raises a 422 problem, also for too many steps.
    """
    try:
        length = duration_ns(text, "step")
    except ConfigError as error:
        raise bad_parameter("step", error.problem) from None
    if length <= 0 or length % 10**9:
        raise bad_parameter("step", f"{text!r} is not a multiple of 1s")
    if (end_ns - start_ns) // length > most:
        raise bad_parameter("step", f"gives more than {most} steps; use at least {(end_ns - start_ns) // most} ns")
    return length


def message_key(text: str) -> int:
    """A message's key: `0x` and hex digits, decimal digits, or `space:id`, where an id of digits is an integer.

    Raises a 422 problem. A text identifier that looks like a number is written `space:'123'`.
    """
    try:
        return key_of(text)
    except ValueError as error:
        raise bad_parameter("key", str(error), "path") from None


def key_text(key: int) -> str:
    """A key as answers write it: JSON numbers do not hold 64 bits everywhere."""
    return f"0x{key:016x}"


def write_cursor(*position: int | str) -> str:
    """An opaque cursor of a page's last row."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).rstrip(b"=").decode()


def read_cursor(text: str, kinds: tuple[type, ...]) -> tuple[int | str, ...]:
    """The position in a cursor of `write_cursor`. Raises a 422 problem."""
    try:
        position = msgspec.json.decode(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=list)
    except (binascii.Error, ValueError, msgspec.DecodeError):
        position = None
    if position is None or [type(p) for p in position] != list(kinds):
        raise bad_parameter("cursor", "is not one that this route gave; leave it out to start from the beginning")
    if any(isinstance(p, int) and not 0 <= p < 1 << 64 for p in position):
        raise bad_parameter("cursor", "is not one that this route gave")
    return tuple(position)
