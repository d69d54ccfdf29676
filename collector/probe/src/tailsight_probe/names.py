"""The words a stamp may carry, with the numbers they have in a slot and in the store."""

from __future__ import annotations

from enum import IntEnum


class Outcome(IntEnum):
    """How a message ended, as the application says it."""

    UNSET = 0
    OK = 1
    ERROR = 2
    REJECTED = 3
    SHED = 4
    TIMEOUT = 5


class Mode(IntEnum):
    """How a message was served. Shadow and synthetic messages never mix with users' numbers."""

    UNSET = 0
    NORMAL = 1
    CACHED = 2
    FALLBACK = 3
    SHADOW = 4
    SYNTHETIC = 5


class Cache(IntEnum):
    """What the cache answered, where there is one."""

    UNSET = 0
    HIT = 1
    STALE = 2
    MISS = 3
