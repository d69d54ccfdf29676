"""Microbursts: bytes per 100 us and per 1 ms on the time the kernel or the NIC took, per tap and direction.

A bin is `[k * width, (k + 1) * width)` of the epoch, so both widths nest and hosts agree on them. A burst is a run of
neighbouring bins at or above the threshold. Bytes are those of the frames as captured, without preamble, gap and
checksum (24 bytes a frame); segments that the NIC has yet to cut count as one frame.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

WIDTHS_NS = {"100us": 100_000, "1ms": 1_000_000}
_TOP = 3
_MOST_HELD = 4_000_000  # packets of the open time; 25 bytes each


@dataclass(slots=True)
class Burst:
    """A run of bins over the threshold.

    Attributes:
        window: the width of a bin, "100us" or "1ms".
        start_ns, duration_ns: the run.
        bytes: of the whole run; `peak_bytes` of its fullest bin.
        top: up to three (row of LiveFlows, share of the bytes), the largest first; -1 is traffic of no known flow.
        dscp: the class with the most bytes, and its share.
    """

    window: str
    outgoing: bool
    start_ns: int
    duration_ns: int
    bytes: int
    packets: int
    peak_bytes: int
    threshold_bytes: int
    top: list[tuple[int, float]]
    dscp: tuple[int, float]


@dataclass(slots=True)
class Peak:
    """The fullest bin since the last report, and how many bursts there were."""

    bytes: int = 0
    bursts: int = 0


def bins(ts_ns: Ints, size: Ints, width_ns: int) -> tuple[Ints, Ints]:
    """Bytes per bin of packets in order of time: the numbers of the bins that have any, and their bytes."""
    number = ts_ns // width_ns
    starts = np.flatnonzero(np.append(True, number[1:] != number[:-1]))
    return number[starts], np.add.reduceat(size, starts)


class BurstWatch:
    """Bins the packets of one tap. `threshold_bytes` by window; a window without one is measured, not judged."""

    def __init__(self, threshold_bytes: dict[str, int]) -> None:
        self._thresholds = threshold_bytes
        self._held: list[tuple[Ints, Ints, NDArray[np.int32], NDArray[np.bool_], NDArray[np.uint8]]] = []
        self._count = 0
        self.late = 0  # packets that came after their bin was closed
        self._closed_ns = 0
        self.peaks: dict[tuple[str, bool], Peak] = {}

    def add(self, ts_ns: Ints, size: Ints, row: Ints, outgoing: NDArray[np.bool_], dscp: Ints) -> None:
        """Packets with their bytes, their flow's row and DSCP."""
        if self._count + len(ts_ns) > _MOST_HELD:
            self.late += len(ts_ns)  # the clock stands still or steps back: nothing is held without bound
            return
        self._held.append((ts_ns, size, row.astype(np.int32), outgoing.copy(), dscp.astype(np.uint8)))
        self._count += len(ts_ns)

    def close(self, before_ns: int) -> list[Burst]:
        """The bursts among what was added with times before `before_ns`; what is later stays open.

        The cut falls on a whole millisecond, so that no bin is judged by halves; a burst across it is two.
        """
        cut = before_ns // 1_000_000 * 1_000_000
        if not self._held or cut <= self._closed_ns:
            return []
        joined = [np.concatenate(columns) for columns in zip(*self._held, strict=True)]
        self._held = []
        self._count = 0
        if int(joined[0].max()) >= cut:
            ready = joined[0] < cut
            rest = tuple(column[~ready] for column in joined)
            self._held = [rest]  # type: ignore[list-item] # the dtypes stay
            self._count = len(rest[0])
            joined = [column[ready] for column in joined]
        if len(joined[0]) and int(joined[0].min()) < self._closed_ns:
            late = joined[0] < self._closed_ns
            self.late += int(np.count_nonzero(late))
            joined = [column[~late] for column in joined]
        self._closed_ns = cut
        found: list[Burst] = []
        ts_ns, size, row, outgoing, dscp = joined
        out = int(np.count_nonzero(outgoing))
        if len(outgoing) and out in (0, len(outgoing)):  # one direction: nothing to part
            return self._judge(bool(out), ts_ns, size, row, dscp)
        for side in (False, True):
            mine = np.flatnonzero(outgoing == side)
            if len(mine):
                found += self._judge(side, ts_ns[mine], size[mine], row[mine], dscp[mine])
        return found

    def move(self, moved: Ints) -> None:
        """Rows of LiveFlows have new numbers: `moved[old]`, -1 for those that are gone."""
        for number, (ts_ns, size, row, outgoing, dscp) in enumerate(self._held):
            renamed = np.where(row >= 0, moved[np.maximum(row, 0)], -1).astype(np.int32)
            self._held[number] = (ts_ns, size, renamed, outgoing, dscp)

    def take_peaks(self) -> dict[tuple[str, bool], Peak]:
        """The peaks by window and direction since the last call."""
        peaks, self.peaks = self.peaks, {}
        return peaks

    def _judge(self, outgoing: bool, ts_ns: Ints, size: Ints, row: Ints, dscp: Ints) -> list[Burst]:
        found = []
        if (ts_ns[1:] < ts_ns[:-1]).any():
            order = np.argsort(ts_ns, kind="stable")
            ts_ns, size, row, dscp = ts_ns[order], size[order], row[order], dscp[order]
        numbers, totals = ts_ns, size
        finer_ns = 1
        for window, width_ns in WIDTHS_NS.items():
            numbers, totals = bins(numbers, totals, width_ns // finer_ns)  # the widths nest
            finer_ns = width_ns
            peak = self.peaks.setdefault((window, outgoing), Peak())
            peak.bytes = max(peak.bytes, int(totals.max()))
            threshold = self._thresholds.get(window, 0)
            if not threshold:
                continue
            high = np.flatnonzero(totals >= threshold)
            if not len(high):
                continue
            breaks = np.flatnonzero(np.diff(numbers[high]) != 1) + 1
            for run in np.split(high, breaks):
                low, last = int(run[0]), int(run[-1])
                begin, end = int(numbers[low]) * width_ns, (int(numbers[last]) + 1) * width_ns
                inside = slice(*np.searchsorted(ts_ns, [begin, end]).tolist())
                total = int(totals[run].sum())
                found.append(
                    Burst(
                        window=window,
                        outgoing=outgoing,
                        start_ns=int(numbers[low]) * width_ns,
                        duration_ns=len(run) * width_ns,
                        bytes=total,
                        packets=len(row[inside]),
                        peak_bytes=int(totals[run].max()),
                        threshold_bytes=threshold,
                        top=_largest(row[inside], size[inside], total, _TOP),
                        dscp=_largest(dscp[inside], size[inside], total, 1)[0],
                    )
                )
                peak.bursts += 1
        return found


def _largest(what: Ints, size: Ints, total: int, most: int) -> list[tuple[int, float]]:
    values, place = np.unique(what, return_inverse=True)
    sums = np.bincount(place, weights=size)
    best = np.argsort(-sums, kind="stable")[:most]
    return [(int(values[b]), float(sums[b] / total) if total else 0.0) for b in best]
