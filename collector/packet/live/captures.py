"""What is kept around a trigger: a window of the rolling buffer as a pcapng file, and a bounded number of those."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collector.packet.live.epb import PacketBlocks, no_blocks, packet_blocks, section, statistics
from collector.packet.live.recorder import Segment, chunks
from collector.packet.live.tpacket import BlockError, read_block

_LATEST = np.iinfo(np.int64).max


@dataclass(frozen=True, slots=True)
class Window:
    """What a capture holds: packets with `from_ns <= ts_ns < to_ns` and why they were kept."""

    from_ns: int
    to_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Written:
    """What became of a window. `cut` says why it is not whole; empty when it is."""

    path: Path
    packets: int
    bytes: int
    cut: str


def write_capture(
    segments: Sequence[Segment],
    window: Window,
    path: Path,
    interfaces: Sequence[tuple[str, int]],
    snap: int,
    most_bytes: int,
    dropped: Sequence[int],
) -> Written:
    """Write a window as pcapng, packets in order of time over all interfaces. The file appears whole or not at all.

    `interfaces` are (name, link type) by number, `dropped` what their rings lost meanwhile. Raises OSError.
    """
    found = []
    cut = ""
    if not segments or min(s.first_ns for s in segments) > window.from_ns:
        cut = "the buffer does not reach back to the start of the window"
    for segment in segments:
        if segment.last_ns < window.from_ns or segment.first_ns >= window.to_ns:
            continue
        try:
            found += [c for c in chunks(segment) if c.last_ns >= window.from_ns and c.first_ns < window.to_ns]
        except FileNotFoundError:
            cut = "the buffer was overwritten before it was kept"
    found.sort(key=lambda c: c.first_ns)
    part = path.with_suffix(".part")
    packets = 0
    fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        comment = f"{window.reason}; packets from {window.from_ns} to {window.to_ns} ns, at most {snap} bytes of each"
        file.write(section(comment, list(interfaces), snap))
        waiting: PacketBlocks = no_blocks()
        for number, chunk in enumerate(found):
            try:
                live = read_block(chunk.load(), 0, chunk.size, chunk.interface)
            except FileNotFoundError:
                cut = "the buffer was overwritten before it was kept"
                continue
            except BlockError as error:
                cut = f"a recorded block is damaged: {error}"
                continue
            inside = np.flatnonzero((live.block.ts_ns >= window.from_ns) & (live.block.ts_ns < window.to_ns))
            waiting = waiting.with_more(packet_blocks(live, chunk.interface, inside, snap))
            # Blocks of other rings may overlap; nothing before the next block's first packet is still to come.
            following = found[number + 1].first_ns if number + 1 < len(found) else _LATEST
            done, rest = waiting.sorted_before(following)
            if file.tell() + len(done) > most_bytes:
                cut = f"more than {most_bytes} bytes"
                break
            file.write(done)
            packets += len(waiting) - len(rest)
            waiting = rest
        for number, count in enumerate(dropped):
            file.write(statistics(number, window.to_ns, count, f"not whole: {cut}" if cut else ""))
        size = file.tell()
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
    return Written(path, packets, size, cut)


def keep_newest(folder: Path, most_bytes: int, most_files: int) -> list[Path]:
    """Delete the oldest captures beyond the bounds; which ones went. A half-written one of an earlier run goes too."""
    for part in folder.glob("*.part"):
        if part.stat().st_mtime < time.time() - 3600:
            part.unlink(missing_ok=True)
    files = sorted(((p.stat().st_mtime_ns, p) for p in folder.glob("*.pcapng")), reverse=True)
    gone = []
    total = 0
    for number, (_, path) in enumerate(files):
        size = path.stat().st_size
        total += size
        if number and (total > most_bytes or number >= most_files):
            path.unlink(missing_ok=True)
            gone.append(path)
            total -= size
    return gone
