"""What the terminal says about the scheduler, and that it hides neither refusals nor what nobody saw."""

from __future__ import annotations

import io
from typing import Any

from rich.console import Console

from dashboards.scheduler_view import budget_view, scheduler_view


def drawn(parts: Any) -> str:
    console = Console(file=io.StringIO(), width=160)
    for part in parts:
        console.print(part)
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


JVM = {
    "host": "h", "service": "quotes", "mechanism": "jvm.gc.duration", "pauses": 7, "total_ns": 31_000_000,
    "max_ns": None, "placed": False,
}  # fmt: skip
PYTHON = {**JVM, "service": "", "mechanism": "gc.callbacks", "pauses": None, "max_ns": 9_000_000, "placed": True}


def test_a_budget_shows_parts_remainder_and_what_is_unknown() -> None:
    stage = {
        "stage": "decide", "messages": 3, "unknown": 2, "total_ns": 10_000, "kinds": {"preempted": 4_000},
        "remaining_ns": 6_000, "share": 0.4, "culprits": [{"kind": "preempted", "culprit": "hog", "ns": 4_000}],
    }  # fmt: skip
    about = {"path": "order", "pick": "slowest", "messages": 5, "unmatched": 1, "threshold_ns": 10_000}
    text = drawn(budget_view({**about, "intervals_lost": 7, "not_placed": [JVM], "stages": [stage]}))
    for words in (
        "shorter than 10.0 us, and 7 that were lost",
        "decide",
        "40.0 %",
        "preempted by hog",
        "6.00 us",
        "2 stages lie on hosts",
        "1 stages are left out",
        "no stage is charged with",
        "jvm.gc.duration",
    ):
        assert words in text


def test_threads_that_poll_are_named_as_not_observable() -> None:
    nothing: dict[str, Any] = {
        "per": "service", "delays": [], "culprits": [], "counters": [], "mechanisms": [], "collections": [JVM, PYTHON],
    }  # fmt: skip
    unseen = {"host": "h", "service": "engine", "thread": 77, "periods": 1}
    text = drawn(scheduler_view({**nothing, "not_observable": [unseen]}))
    assert "Nobody measured" in text
    assert "thread 77 of engine polls" in text
    assert "not a delay of zero" in text
    for words in ("31.0 ms", "sums of periods, in no budget", "(unknown)", "each, in budgets", "9.00 ms"):
        assert words in text
