"""What kind of time a stage is: within a program, on the way between two, or waiting for a thread."""

from __future__ import annotations

from typing import Literal

from analytics.paths import UNATTRIBUTED, Path, Stage
from analytics.tail.tailset import UNFINISHED

Layer = Literal["packet", "nic", "scheduler", "application", "unknown"]
# The layer that a stage's class speaks of, as long as nothing that was measured inside it says otherwise.
_LAYER: dict[str, Layer] = {
    "network": "packet", "compute": "application", "store": "application", "queue": "application",
    "scheduler": "scheduler",
}  # fmt: skip
# The layer of what was measured inside a stage.
_INSIDE: dict[str, Layer] = {
    **dict.fromkeys(("run_queue", "preempted", "throttled", "irq", "softirq", "steal", "page_fault"), "scheduler"),
    **dict.fromkeys(("blocked_lock", "blocked_io", "blocked_kernel", "gc"), "application"),
    **dict.fromkeys(("nic_queue", "qdisc", "driver"), "nic"),
    **dict.fromkeys(("socket_queue", "network"), "packet"),
}


def between(stage: Stage) -> tuple[str, str] | None:
    """The two services that a transit lies between; None for a stage inside one."""
    services = stage.start.service, stage.end.service
    return services if all(services) and services[0] != services[1] else None


def kind_of(path: Path, name: str) -> str:
    """The class of a part: a transit is network, whatever it was declared as; what is no stage is its own."""
    if name in (UNATTRIBUTED, UNFINISHED):
        return name
    stage = next(stage for stage in path.stages if stage.name == name)
    return "network" if between(stage) else stage.kind


def named(path: Path, name: str) -> str:
    """The part in words: a transit says between which services it lies."""
    stage = next((stage for stage in path.stages if stage.name == name), None)
    pair = None if stage is None else between(stage)
    return name if pair is None else f"{name} ({pair[0]} to {pair[1]})"


def layer_of(kind: str, inside: str = "") -> Layer:
    """The layer of a stage's class, or of what most of its time was inside it where that is known."""
    return _INSIDE.get(inside) or _LAYER.get(kind, "unknown")
