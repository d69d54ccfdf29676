"""Records of the kernel as `intervals`: when, how long, whom it hit, and who had the CPU."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from collector.keys import hash64
from collector.record import INTERVALS, LABEL_SETS, Columns
from collector.sched.irq_program import LOCAL_TIMER
from collector.sched.layout import UNKNOWN_PID, RecordKind

KIND_TEXTS = {
    RecordKind.WOKEN: "run_queue",
    RecordKind.PREEMPTED: "preempted",
    RecordKind.BLOCKED_UNINTERRUPTIBLE: "blocked_kernel",
    RecordKind.BLOCKED_IO: "blocked_io",
    RecordKind.BLOCKED_LOCK: "blocked_lock",
    RecordKind.PAGE_FAULT: "page_fault",
    RecordKind.IRQ: "irq",
    RecordKind.SOFTIRQ: "softirq",
}
THROTTLED = "throttled"
# By pid 0: the CPU was free; a limit took it away; the wakeup came from an interrupt.
_NOBODY = {RecordKind.WOKEN: "idle", RecordKind.PREEMPTED: "limit"}
_KIND_BITS = 5


class LabelSets:
    """Interns label sets: each is handed over once, the first time it is used."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._new: list[tuple[int, str]] = []

    def intern(self, labels: dict[str, str]) -> int:
        """The 64-bit name of `labels`, 0 for none."""
        if not labels:
            return 0
        text = json.dumps(labels, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        if text not in self._known:
            self._known[text] = hash64("labels", text)
            self._new.append((self._known[text], text))
        return self._known[text]

    def take(self) -> Columns | None:
        """The sets first used since the last call."""
        if not self._new:
            return None
        rows = [{"label_set": number, "labels": text} for number, text in self._new]
        self._new = []
        return Columns.from_rows(LABEL_SETS, rows)


class Intervals:
    """Turns layout.RECORD rows into INTERVALS columns of `host`; `softirqs` names the vectors.

    The culprit of a wait after a wakeup is the thread that had the CPU last before: over a long wait there may have
    been others. `idle` means the CPU was free and the wait was waking it. A runnable thread that was taken off
    by nobody is `throttled`: a bandwidth limit did it. The culprit of a blocked time is who ended it, the
    holder of a lock mostly; `interrupt` where a device or a timer did, `unknown` where that was not seen.
    """

    def __init__(self, host: str, labels: LabelSets, softirqs: dict[int, str], irq_name: Callable[[int], str]) -> None:
        self._host = host
        self._labels = labels
        self._softirqs = softirqs
        self._irq_name = irq_name

    def columns(
        self,
        records: NDArray[np.void],
        offset_ns: int,
        groups: Sequence[str],
        observed: Mapping[int, int] = MappingProxyType({}),
        limited: Mapping[int, str] = MappingProxyType({}),
    ) -> Columns:
        """The intervals; `offset_ns` takes MONOTONIC to UTC, `groups` names the records' groups.

        A culprit that is observed itself (thread -> group) goes by the name of its group: `python` says little.
        `limited` are the control groups whose limits bear on threads.
        """
        culprit, texts = self._culprits(records, {tid: groups[group] for tid, group in observed.items()}, limited)
        place = records["group"].astype(np.int64) << 16 | records["cpu"]
        used, label_code = np.unique(place, return_inverse=True)
        sets = np.array([self._label_set(int(p) >> 16, int(p) & 0xFFFF, groups) for p in used], dtype=np.uint64)
        kinds = np.zeros(max(RecordKind) + 1, dtype="<u2")
        for code, kind in enumerate(KIND_TEXTS):
            kinds[kind] = code
        kind_code = kinds[records["kind"]]
        kind_code[(records["kind"] == RecordKind.PREEMPTED) & (records["by_pid"] == 0)] = len(KIND_TEXTS)
        duration = records["duration_ns"].astype("<i8")
        n = len(records)
        return Columns(
            INTERVALS,
            {
                "ts_ns": records["end_ns"].astype("<i8") - duration + offset_ns,
                "duration_ns": duration,
                "kind": kind_code,
                "host": np.zeros(n, dtype="<u2"),
                "thread": records["pid"].astype("<u4"),
                "culprit": culprit,
                "label_set": sets[label_code] if n else np.zeros(0, dtype="<u8"),
            },
            {"kind": [*KIND_TEXTS.values(), THROTTLED], "host": [self._host], "culprit": texts},
        )

    def _label_set(self, group: int, cpu: int, groups: Sequence[str]) -> int:
        labels = {"cpu": str(cpu)}
        if group:
            labels["service"] = groups[group]
        return self._labels.intern(labels)

    def _culprits(
        self, records: NDArray[np.void], services: Mapping[int, str], limited: Mapping[int, str]
    ) -> tuple[NDArray[np.uint16], list[str]]:
        """Codes and texts. One look at a text per distinct (kind, culprit); a pid keeps its name within a batch."""
        keys = records["by_pid"].astype(np.int64) << _KIND_BITS | records["kind"]
        throttled = (records["by_pid"] == 0) & (records["kind"] == RecordKind.PREEMPTED)
        keys[throttled] = -1 - records["pid"][throttled].astype(np.int64)  # whose limit it was depends on the victim
        _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
        texts: dict[str, int] = {}
        codes = np.zeros(len(first), dtype="<u2")
        for n, row in enumerate(records[first]):
            codes[n] = texts.setdefault(self._name(row, services, limited), len(texts))
        return codes[inverse], list(texts)

    def _name(self, row: np.void, services: Mapping[int, str], limited: Mapping[int, str]) -> str:
        kind, by = RecordKind(int(row["kind"])), int(row["by_pid"])
        if kind is RecordKind.IRQ:
            return "irq:timer" if by == LOCAL_TIMER else f"irq:{self._irq_name(by)}"
        if kind is RecordKind.SOFTIRQ:
            return f"softirq:{self._softirqs.get(by, by)}"
        if by == UNKNOWN_PID:
            return "unknown"
        if by == 0 and kind is RecordKind.PREEMPTED and int(row["pid"]) in limited:
            return f"limit:{limited[int(row['pid'])]}"
        if by == 0:
            return _NOBODY.get(kind, "interrupt")
        return services.get(by) or bytes(row["by_comm"]).decode(errors="replace")


def irq_name(number: int, root: Path = Path("/sys/kernel/irq")) -> str:
    """The device names of an interrupt, its number where the kernel does not say."""
    try:
        return (root / str(number) / "actions").read_text().strip() or str(number)
    except OSError:
        return str(number)
