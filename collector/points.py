"""Points: the named places where timestamps are taken.

A stamp at an undeclared point is quarantined, not guessed at.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from collector.settings import ConfigError, Section, section

Layer = Literal["packet", "nic", "scheduler", "application"]

_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")


class Point(Section, frozen=True, kw_only=True):
    """One place where a timestamp is taken, and the layer it belongs to."""

    name: str
    layer: Layer
    description: str = ""

    def validate(self) -> None:
        """Raise ConfigError when the name is not lower_snake_case."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError("name", f"{self.name!r} must be lower case letters, digits, '_' and '.', at most 64")


# Points of spans, each followed by the span's name: on the span's own key, and on the key of its parent.
SPAN_START, SPAN_END = "otel.start:", "otel.end:"
CHILD_START, CHILD_END = "otel.child_start:", "otel.child_end:"
_SPAN_POINTS = (SPAN_START, SPAN_END, CHILD_START, CHILD_END)

# The vocabulary of the product (docs/glossary.md); users add their own under [points.NAME].
BUILT_IN: Mapping[str, Point] = {
    point.name: point
    for point in (
        Point(name="tap", layer="packet", description="the packet passes a capture"),
        Point(name="nic_rx", layer="nic", description="the NIC receives the packet"),
        Point(name="kernel_rx", layer="nic", description="the kernel takes the packet from the driver"),
        Point(name="app_ingress", layer="application", description="the program has the message in hand"),
        Point(name="app_transform", layer="application", description="the message is parsed and normalised"),
        Point(name="app_decision", layer="application", description="the program has decided"),
        Point(name="app_egress", layer="application", description="the program hands the answer to the kernel"),
        Point(name="qdisc_tx", layer="nic", description="the packet enters the queueing discipline"),
        Point(name="driver_tx", layer="nic", description="the driver is given the packet"),
        Point(name="nic_tx", layer="nic", description="the NIC sends the packet"),
        Point(name="acked", layer="nic", description="the peer acknowledged the last byte"),
        Point(name="wakeup", layer="scheduler", description="the thread becomes runnable"),
        Point(name="probe_start", layer="application", description="the time at which a synthetic check was to begin"),
        Point(name="probe_resolved", layer="application", description="the check has the target's address"),
        Point(name="probe_connected", layer="application", description="the check's connection is open"),
        Point(name="probe_secured", layer="application", description="the check's TLS handshake is over"),
        Point(name="probe_first_byte", layer="application", description="the first byte of the answer to a check"),
        Point(name="probe_done", layer="application", description="the check has succeeded"),
        Point(name="on_cpu", layer="scheduler", description="the thread is given a CPU"),
    )
}


def points_from(document: Mapping[str, Any], source: str = "") -> dict[str, Point]:
    """The built-in points and those of the `[points.NAME]` tables of a configuration document.

    Raises ConfigError when a user's point redefines a built-in one's layer or is malformed.
    """
    points = dict(BUILT_IN)
    declared = document.get("points", {})
    if not isinstance(declared, Mapping):
        raise ConfigError("points", "must be tables like [points.model_done]", source)
    for name, body in declared.items():
        if not isinstance(body, Mapping):
            raise ConfigError(f"points.{name}", f"must be a table, got {body!r}", source)
        point = section({"name": name, **body}, Point, f"points.{name}", source)
        built_in = BUILT_IN.get(name)
        if built_in and built_in.layer != point.layer:
            raise ConfigError(
                f"points.{name}.layer",
                f"{name} is built in with layer {built_in.layer!r}; choose another name",
                source,
            )
        points[name] = point
    return points


def is_point(name: str, points: Mapping[str, Point]) -> bool:
    """Whether stamps may be taken at `name`: it is declared, or made from the name of a span."""
    return name in points or name.startswith(_SPAN_POINTS)
