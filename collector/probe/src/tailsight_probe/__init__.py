"""Tailsight's probe: which message passed which point of this program, and when.

    import tailsight_probe as probe

    INGRESS = probe.point("app_ingress")
    probe.stamp(INGRESS, order_id, depth=len(queue))

A stamp writes one 64-byte record into a memory-mapped ring of the calling thread: no locks, no system calls, no
exceptions. See `Probe` for every function, `stats()` for what was and was not recorded, and docs/probe.md for the
guarantees. `TAILSIGHT_PROBE=off` makes every call a no-op.
"""

from __future__ import annotations

from typing import Any

from tailsight_probe.hashing import hash64
from tailsight_probe.names import Cache, Mode, Outcome
from tailsight_probe.probe import Probe, Stage

__version__ = "0.1.0"
__all__ = [
    "Cache",
    "Mode",
    "Outcome",
    "Probe",
    "Stage",
    "disable",
    "enable",
    "enabled",
    "hash64",
    "init",
    "labels",
    "link",
    "point",
    "stage",
    "stamp",
    "stamp_at",
    "stats",
    "unwatch_gc",
    "watch_gc",
]

# The process's own probe. Nothing is opened until the first stamp.
_PROBE = Probe()

init = _PROBE.init
point = _PROBE.point
stamp = _PROBE.stamp
stamp_at = _PROBE.stamp_at
link = _PROBE.link
stage = _PROBE.stage
labels = _PROBE.labels
watch_gc = _PROBE.watch_gc
unwatch_gc = _PROBE.unwatch_gc


def enabled() -> bool:
    """Whether calls are recorded."""
    return _PROBE.enabled


def enable() -> None:
    """Record from now on, also when TAILSIGHT_PROBE=off was set."""
    _PROBE.switch(True)


def disable() -> None:
    """Make every call a no-op."""
    _PROBE.switch(False)


def stats() -> dict[str, Any]:
    """What was written, what was not, and why."""
    return _PROBE.stats()
