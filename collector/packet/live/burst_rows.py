"""Bursts as INTERVALS rows: when, how full, which flows, whose process, which class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from collector.packet.live.bursts import WIDTHS_NS, Burst
from collector.packet.live.flows import FlowEnds
from collector.packet.live.holders import Holder, Holders
from collector.packet.live.tap import Tap
from collector.sched.culprits import LabelSets

# Names of the classes in use (RFC 4594); others by number.
_CLASSES = {0: "CS0", 46: "EF", 44: "VA", **{8 * n: f"CS{n}" for n in range(1, 8)}}
_CLASSES |= {8 * c + 2 * d: f"AF{c}{d}" for c in range(1, 5) for d in range(1, 4)}
_NS = 1_000_000_000


class BurstRows:
    """Writes at most `rows_s` bursts a second, window and direction of a tap, the largest first."""

    def __init__(self, host: str, holders: Holders, rows_s: int) -> None:
        self._host = host
        self._holders = holders
        self._rows_s = rows_s

    def rows(
        self, tap: Tap, bursts: Sequence[Burst], bits_s: int | None, label_sets: LabelSets
    ) -> list[dict[str, Any]]:
        """Rows for INTERVALS.from_rows. `culprit` is the flow with the most bytes, `thread` the process at its end."""
        groups: dict[tuple[str, bool, int], list[Burst]] = {}
        for burst in bursts:
            groups.setdefault((burst.window, burst.outgoing, burst.start_ns // _NS), []).append(burst)
        chosen = [b for group in groups.values() for b in sorted(group, key=lambda b: -b.peak_bytes)[: self._rows_s]]
        return [self._row(tap, burst, bits_s, label_sets) for burst in chosen]

    def _row(self, tap: Tap, burst: Burst, bits_s: int | None, label_sets: LabelSets) -> dict[str, Any]:
        ends = [(tap.flows.ends(row) if row >= 0 else None, share) for row, share in burst.top]
        held = [self._holder(end) for end, _ in ends]
        code, part = burst.dscp
        labels = {
            "tap": tap.name,
            "direction": "out" if burst.outgoing else "in",
            "window": burst.window,
            "threshold_bytes": str(burst.threshold_bytes),
            "peak_bytes": str(burst.peak_bytes),
            "bytes": str(burst.bytes),
            "packets": str(burst.packets),
            "flows": "; ".join(f"{_text(end)} {share:.0%}" for end, share in ends),
            "dscp": f"{_CLASSES.get(code, str(code))} {part:.0%}",
        }
        processes = [f"{h.command}[{h.pid}]" for h in dict.fromkeys(held) if h is not None]
        if processes:
            labels["processes"] = "; ".join(processes)
        if bits_s:
            labels["utilisation"] = f"{burst.peak_bytes * 8e9 / (bits_s * WIDTHS_NS[burst.window]):.2f}"
        first = held[0] if held else None
        return {
            "ts_ns": burst.start_ns,
            "duration_ns": burst.duration_ns,
            "kind": f"microburst_{burst.window}",
            "host": self._host,
            "thread": first.pid if first else 0,
            "culprit": _text(ends[0][0]) if ends else "",
            "label_set": label_sets.intern(labels),
        }

    def _holder(self, end: FlowEnds | None) -> Holder | None:
        if end is None:
            return None
        return self._holders.find(end.protocol, (end.source, end.source_port), (end.target, end.target_port))


def _text(end: FlowEnds | None) -> str:
    return str(end) if end else "other traffic"
