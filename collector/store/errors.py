"""ClickHouse's error texts as `StoreError`: code, name, whether it had an effect, whether trying again makes sense."""

from __future__ import annotations

import re

from collector.store import OutcomeUnknownError, StoreError

_TEXT = re.compile(r"Code: (\d+)\. DB::Exception: (.*)\(([A-Z0-9_]+)\)", re.DOTALL)

# The state of the store, not the statement, is the cause.
_TRANSIENT = frozenset(
    {
        "TOO_MANY_SIMULTANEOUS_QUERIES", "MEMORY_LIMIT_EXCEEDED", "NOT_ENOUGH_SPACE", "TOO_MANY_PARTS", "NETWORK_ERROR",
        "SOCKET_TIMEOUT", "TABLE_IS_READ_ONLY", "NO_ZOOKEEPER", "KEEPER_EXCEPTION", "DEADLOCK_AVOIDED",
        "TOO_FEW_LIVE_REPLICAS", "UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE", "ALL_CONNECTION_TRIES_FAILED", "ABORTED",
        "CANNOT_ALLOCATE_MEMORY", "CANNOT_SCHEDULE_TASK",
    }
)  # fmt: skip
# Raised after a part may have been committed, or while nobody can say.
_UNKNOWN = frozenset(
    {
        "UNKNOWN_STATUS_OF_INSERT", "QUERY_WAS_CANCELLED", "TIMEOUT_EXCEEDED", "CANNOT_FSYNC", "CANNOT_CLOSE_FILE",
        "SOCKET_TIMEOUT", "NETWORK_ERROR", "KEEPER_EXCEPTION", "UNEXPECTED_END_OF_FILE", "LOGICAL_ERROR",
        "STD_EXCEPTION", "UNKNOWN_EXCEPTION",
    }
)  # fmt: skip


def store_error(text: str, *, writing: bool) -> StoreError:
    """The error that an engine's text stands for; `writing` says whether the statement could have had an effect."""
    match = _TEXT.search(text)
    if match is None:
        message = text.strip() or "the engine failed without a message"
        return OutcomeUnknownError(message) if writing else StoreError(message)
    code, sentence, name = int(match[1]), match[2].strip(), match[3]
    return from_code(code, name, sentence, writing=writing)


def from_code(code: int, name: str, sentence: str, *, writing: bool) -> StoreError:
    """The error of a code and its name, as a server or the store process reports it."""
    message = f"{sentence} (ClickHouse {code} {name})"
    if writing and name in _UNKNOWN:
        error: StoreError = OutcomeUnknownError(message)
        error.code, error.name = code, name
        return error
    return StoreError(message, code=code, name=name, retryable=name in _TRANSIENT)
