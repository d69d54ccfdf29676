"""What a request at the SQL door asks: the statement, its parameters, the output format and the time it may take."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from collector.store import StoreError
from collector.store.wall import DATABASE

_FORMAT = re.compile(r"\sFORMAT\s+(\w+)\Z", re.IGNORECASE)
_SECONDS = re.compile(r"\sSETTINGS\s+max_execution_time\s*=\s*(\d{1,6}(?:\.\d{1,6})?)\Z", re.IGNORECASE)
_PARAMETER = "param_"
_OURS = frozenset({"", "default", DATABASE})


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement. `protocol` is the revision that the client says it decodes; 0 when it says nothing."""

    sql: str
    form: str
    params: Mapping[str, str]
    seconds: float | None
    protocol: int
    query_id: str


def statement(query: Mapping[str, str], body: str) -> Statement:
    """The statement of a request: `query` are the parameters of its address, `body` its text.

    Settings other than the time limit are read over, as a read-only user's would be. A trailing FORMAT and
    `SETTINGS max_execution_time = N` are taken out of the text. Raises StoreError with ClickHouse's code.
    """
    if query.get("compress", "0") not in ("", "0"):
        raise StoreError("compress=1 is not offered; ask for gzip with Accept-Encoding", code=36, name="BAD_ARGUMENTS")
    database = query.get("database", "")
    if database not in _OURS:
        raise StoreError(f"there is no database {database[:80]!r}; use {DATABASE}", code=81, name="UNKNOWN_DATABASE")
    sql = "\n".join(part for part in (query.get("query", ""), body) if part.strip())
    form = query.get("default_format", "") or "TabSeparated"
    seconds = _number(query.get("max_execution_time"))
    sql = _bare(sql)
    for _ in range(2):  # either may stand last
        if match := _FORMAT.search(sql):
            sql, form = _bare(sql[: match.start()]), match[1]
        if match := _SECONDS.search(sql):
            asked = _number(match[1])
            sql, seconds = _bare(sql[: match.start()]), asked if asked is not None else seconds
    params = {name[len(_PARAMETER) :]: value for name, value in query.items() if name.startswith(_PARAMETER)}
    protocol = query.get("client_protocol_version", "0")
    return Statement(
        sql=sql,
        form=form,
        params=params,
        seconds=seconds,
        protocol=int(protocol) if protocol.isdecimal() and len(protocol) < 9 else 0,
        query_id=re.sub(r"[^\w-]", "", query.get("query_id", ""))[:64],
    )


def _bare(sql: str) -> str:
    return sql.strip().rstrip(";").rstrip()


def _number(text: str | None) -> float | None:
    """A time limit; None when there is none: 0 is none for ClickHouse too."""
    try:
        value = float(text or 0)
    except ValueError:
        raise StoreError(
            f"max_execution_time must be a number of seconds, got {(text or '')[:40]!r}", code=36, name="BAD_ARGUMENTS"
        ) from None
    return value if 0 < value < 1e9 else None
