"""Scheduler events through perf_event_open rings: the fallback where eBPF is not permitted.

Question and end points as in `runq_program`. One ring per CPU and record size makes a ring an array of structures.
Cost: 15-66 ns per event to read, 210-630 ns to pair, and 310-380 ns on the workload per switch and wakeup: about twice
the eBPF way. Some kernels count wakeups raised while a CPU idles and never write them, without reporting a loss:
so the counts of the events themselves are read too, and a coverage below 99 % refuses percentiles.
"""

from __future__ import annotations

import mmap
import os
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.sched import perf_event, runq
from collector.sched.bpf_syscall import BpfError
from collector.sched.tracefs import Tracepoint, tracepoint

MIN_COVERAGE = 0.99
RECORD_SAMPLE = 9
_RECORD_LOST = 2
_HEAD_AT, _TAIL_AT, _DATA_AT = 1024, 1032, 1040
_LOST_AT = 16  # struct perf_record_lost: header, id, lost


@dataclass(slots=True)
class Ring:
    """One mapped perf ring of an event fd: the samples as rows of `dtype`, and how many the kernel reported as lost."""

    fd: int
    dtype: np.dtype[np.void]
    _memory: mmap.mmap
    _words: NDArray[np.uint64]
    kind: int
    lost: int = 0
    was_full: bool = False  # at the last drain: what followed the last sample may be missing

    @classmethod
    def open(cls, fd: int, dtype: np.dtype[np.void], pages: int, kind: int = RECORD_SAMPLE) -> Ring:
        """Map 1 + `pages` (a power of two) pages for records of type `kind`.

        Raises BpfError when locked memory does not suffice, saying what would.
        """
        size = (1 + pages) * mmap.PAGESIZE
        try:
            memory = mmap.mmap(fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        except OSError as error:
            raise BpfError(error.errno or 0, f"mapping a perf ring of {pages} pages: {error.strerror}") from error
        return cls(fd, dtype, memory, np.frombuffer(memory, dtype=np.uint64, count=mmap.PAGESIZE // 8), kind)

    def drain(self) -> NDArray[np.void]:
        """Copy out and release every sample, oldest first."""
        head, tail = int(self._words[_HEAD_AT // 8]), int(self._words[_TAIL_AT // 8])
        start, size = int(self._words[_DATA_AT // 8]), int(self._words[_DATA_AT // 8 + 1])
        first, length = tail % size, head - tail
        data = self._memory[start + first : start + min(first + length, size)]
        if first + length > size:
            data += self._memory[start : start + first + length - size]
        self.was_full = size - length < self.dtype.itemsize
        self._words[_TAIL_AT // 8] = head
        if length % self.dtype.itemsize == 0:
            samples: NDArray[np.void] = np.frombuffer(data, dtype=self.dtype)
            if (samples["type"] == self.kind).all() and (samples["size"] == self.dtype.itemsize).all():
                return samples
        return self._walk(data)

    def _walk(self, data: bytes) -> NDArray[np.void]:
        """The slow way, for a stretch that holds other records too."""
        at, kept = 0, []
        while at < len(data):
            kind = int.from_bytes(data[at : at + 4], "little")
            size = int.from_bytes(data[at + 6 : at + 8], "little")
            if kind == self.kind and size == self.dtype.itemsize:
                kept.append(data[at : at + size])
            elif kind == _RECORD_LOST:
                self.lost += int.from_bytes(data[at + _LOST_AT : at + _LOST_AT + 8], "little")
            at += max(size, 8)
        return np.frombuffer(b"".join(kept), dtype=self.dtype)


def record_dtype(point: Tracepoint, fields: dict[str, str]) -> np.dtype[np.void]:
    """The layout of a raw sample: header, time, raw size, and `fields` (name -> numpy code) where `format` says."""
    names, codes, offsets = ["type", "misc", "size", "t_ns"], ["<u4", "<u2", "<u2", "<i8"], [0, 4, 6, 8]
    raw_at = 20
    for name, code in fields.items():
        names.append(name)
        codes.append(code)
        offsets.append(raw_at + point.offset(name, np.dtype(code).itemsize))
    end = raw_at + max(f.offset + f.size for f in point.fields.values())
    return np.dtype({"names": names, "formats": codes, "offsets": offsets, "itemsize": -(-end // 8) * 8})


class PerfRings:
    """Rings of sched_switch and sched_wakeup(_new) on every CPU. Raises TracefsError or BpfError on opening."""

    def __init__(self, pages: int = 1024) -> None:
        switch, wakeup = tracepoint("sched", "sched_switch"), tracepoint("sched", "sched_wakeup")
        new = tracepoint("sched", "sched_wakeup_new")
        self._switch_type = record_dtype(
            switch,
            {
                "prev_comm": "S16",
                "prev_pid": "<i4",
                "prev_state": "<i8",
                "next_comm": "S16",
                "next_pid": "<i4",
            },
        )
        self._wakeup_type = record_dtype(wakeup, {"pid": "<i4"})
        if record_dtype(new, {"pid": "<i4"}) != self._wakeup_type:
            raise ValueError("sched_wakeup and sched_wakeup_new differ in layout on this kernel")
        self._fds: list[int] = []
        self._rings: list[tuple[int, Ring, Ring]] = []
        self._counted_fds: dict[str, list[int]] = {"switch": [], "wakeup": []}
        self._counted = {"switch": 0, "wakeup": 0}
        self._written = {"switch": 0, "wakeup": 0}
        self._held: NDArray[np.void] = np.zeros(0, dtype=runq.EVENT)
        self._open: NDArray[np.void] = np.zeros(0, dtype=runq.EVENT)
        self._gaps: list[tuple[int, int]] = []
        self._drained_ns = 0
        try:
            for cpu in perf_event.cpus("online"):
                switch_fd = self._event(switch, cpu, "switch")
                wakeup_fd = self._event(wakeup, cpu, "wakeup")
                switches = Ring.open(switch_fd, self._switch_type, pages)
                wakeups = Ring.open(wakeup_fd, self._wakeup_type, pages)
                perf_event.set_output(self._event(new, cpu, "wakeup"), wakeup_fd)
                self._rings.append((cpu, switches, wakeups))
            for fd in self._fds:
                perf_event.enable(fd)
        except BaseException:
            self.close()
            raise

    def _event(self, point: Tracepoint, cpu: int, what: str) -> int:
        fd = perf_event.open_event(
            perf_event.Event(point.id), pid=-1, cpu=cpu, doing=f"opening {point.name} on CPU {cpu}"
        )
        self._fds.append(fd)
        self._counted_fds[what].append(fd)
        return fd

    def events(self) -> NDArray[np.void]:
        """Every event since the last call that is certainly complete; losses become gaps.

        Rings are drained one after the other, so events younger than the first drain wait for the next call.
        """
        until = time.monotonic_ns()
        parts = [self._held]
        self._gaps = [gap for gap in self._gaps if gap[1] >= self._drained_ns]
        self._drained_ns = until
        for what, fds in self._counted_fds.items():
            # Read before the records, so that what happens in between cannot look like a loss.
            self._counted[what] = sum(perf_event.read_count(fd)[0] for fd in fds)
        for cpu, switches, wakeups in self._rings:
            s, w = switches.drain(), wakeups.drain()
            self._written["switch"] += len(s)
            self._written["wakeup"] += len(w)
            parts.append(
                runq.switch_events(
                    s["t_ns"], (s["prev_pid"], s["prev_comm"]), s["prev_state"], (s["next_pid"], s["next_comm"]), cpu
                )
            )
            parts.append(runq.wakeup_events(w["t_ns"], w["pid"]))
            for ring, samples in ((switches, s), (wakeups, w)):
                if ring.was_full:
                    self._gaps.append((int(samples["t_ns"][-1]), time.monotonic_ns()))
        merged = np.concatenate(parts)
        late = merged["t_ns"] >= until
        self._held = merged[late]
        return merged[~late]

    def delays(self) -> runq.Pairing:
        """The waits that ended since the last call."""
        events = self.events()
        pairing = runq.pair(np.concatenate([self._open, events]), self._gaps)
        self._open = pairing.open
        return pairing

    def events_seen(self) -> dict[str, tuple[int, int]]:
        """By event, at the last drain: how many records came, and how often the kernel itself counted the event."""
        return {what: (self._written[what], counted) for what, counted in self._counted.items()}

    @property
    def lost(self) -> int:
        """Records the kernel reported as lost so far."""
        return sum(ring.lost for _, switches, wakeups in self._rings for ring in (switches, wakeups))

    def stop(self) -> None:
        """Stop counting and recording, so that what is in the rings can be compared with the counts."""
        for fd in self._fds:
            perf_event.disable(fd)

    def close(self) -> None:
        """Close every event; the rings go with them."""
        for fd in self._fds:
            os.close(fd)
        self._fds, self._rings = [], []
