"""Several questions to the store at once: an answer that needs five costs about as much as the longest of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")

# The threads wait for sockets; the store itself bounds how many queries run at once.
_POOL = ThreadPoolExecutor(8, thread_name_prefix="ask")


def begin(question: Callable[[], T]) -> Future[T]:
    """Ask, without waiting; `result()` waits and raises what the question raises.

    A question must not begin others: waiting inside the pool could wait for ever.
    """
    return _POOL.submit(question)
