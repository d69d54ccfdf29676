"""What the kernel keeps in files: the per-CPU receive backlog, and byte queue limits of the driver's rings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

_MOST_QUEUES = 256


@dataclass(frozen=True, slots=True)
class Softnet:
    """Packets one CPU took from the network; dropped: its backlog was full; squeezed: it ran out of its budget."""

    processed: int
    dropped: int
    squeezed: int


def parse_softnet(text: str) -> dict[int, Softnet]:
    """/proc/net/softnet_stat by CPU. The CPU's number is the 13th column since Linux 5.10; before, the line's."""
    found = {}
    for line, row in enumerate(text.splitlines()):
        fields = row.split()
        if len(fields) >= 3:
            cpu = int(fields[12], 16) if len(fields) > 12 else line
            found[cpu] = Softnet(*(int(field, 16) for field in fields[:3]))
    return found


def limited_queues(interface: str, root: Path = Path("/sys/class/net")) -> list[Path]:
    """The folders of an interface's transmit queues that have byte limits; none for some drivers (veth).

    sysfs shows the network namespace it was mounted in: an agent inside another sees nothing here.
    """
    folders = sorted((root / interface / "queues").glob("tx-*/byte_queue_limits"))
    return folders[:_MOST_QUEUES]


def byte_queue_limits(folders: Iterable[Path]) -> Iterator[tuple[str, int, int]]:
    """(queue, bytes in flight, limit) of each transmit queue."""
    for folder in folders:
        try:
            values = [int((folder / name).read_text()) for name in ("inflight", "limit")]
        except (OSError, ValueError):
            continue
        yield folder.parent.name, values[0], values[1]
