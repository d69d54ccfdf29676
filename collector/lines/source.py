"""The collector `lines`: follows files of JSON lines and hands over each line once, as an event.

An event is dated by what its line says, or by the reading. How far a file was read becomes durable together with the
events read from it, so that an agent that was killed goes on behind the last durable line. A full spool stops the
reading, and the files wait.

Cost: one fstat per file and poll; about 8 us of one core per line.
"""

from __future__ import annotations

import glob
import itertools
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import structlog

from collector.clock import ClockReading
from collector.lines.followed import Followed, NotAFileError, Reading
from collector.lines.settings import Files, LinesSettings
from collector.otlp.ndjson import Said, event_rows
from collector.otlp.rows import Times
from collector.record import DropReason
from collector.settings import duration_ns
from collector.sources import Availability, Poll

_BUSY_S, _IDLE_S, _SCAN_S, _SAY_EVERY_S = 0.01, 0.25, 1.0, 60.0
_READ = 262_144  # bytes per poll: some 10 ms of the agent's time
_LISTED = 16_384  # names looked at per pattern or folder
_COMPRESSED = (".gz", ".bz2", ".xz", ".zst", ".lz4")

log = structlog.get_logger("agent")


@dataclass(slots=True)
class _Entry:
    """A followed file, what is said of its lines, and since when no pattern matches its name."""

    file: Followed
    files: Files
    said: Said
    left_s: float | None = None


class LinesSource:
    """A `collector.sources.Source`. Its positions: a file's identity, and the byte behind its last whole line."""

    name = "lines"
    when_full = "block"

    def __init__(self, host: str, settings: LinesSettings | None = None) -> None:
        self.period_s = _IDLE_S
        self._host = host
        self._settings = settings or LinesSettings()
        self._settle_s = duration_ns(self._settings.settle, "settle") / 1e9
        self._times = Times(self._settings)
        self._entries: dict[tuple[int, int], _Entry] = {}  # by device and inode
        self._positions: dict[str, int] = {}
        self._finished: dict[str, int] = {}  # read to the end, and no name that is followed
        self._problems: dict[str, str] = {}
        self._counts = dict.fromkeys(("lines", "rejected", "too_long", "cut", "truncated", "finished"), 0)
        self._turn = 0
        self._scan_s = self._said_s = 0.0

    def start(self, positions: Mapping[str, int]) -> Availability:
        """Open what the patterns match, and what was renamed while nobody looked; degraded without patterns."""
        self._positions = dict(positions)
        if not self._settings.files:
            return Availability("degraded", "no files: name some in [agent.lines] files")
        self._scan(time.monotonic())
        self._find_renamed(time.monotonic())
        return Availability("running")

    def poll(self, clock: ClockReading) -> Poll:
        """The lines written since the last poll, as many as one poll may take."""
        poll = Poll()
        now = time.monotonic()
        if now - self._scan_s >= _SCAN_S:
            self._scan(now)
        more = False
        room = _READ
        self._turn += 1
        entries = list(self._entries.values())
        turn = self._turn % len(entries) if entries else 0  # so that no file is always the last
        for entry in entries[turn:] + entries[:turn]:
            if room <= 0:
                more = True
                break
            taken = self._read(entry, room, poll, clock.realtime_ns)
            room -= len(taken.lines)
            more = more or taken.more
        self._let_go(now, poll, clock.realtime_ns)
        self.period_s = _BUSY_S if more else _IDLE_S
        return poll

    def durable(self, positions: Mapping[str, int]) -> list[str]:
        """Returns the files that were read to their end and need not be remembered any more."""
        gone = [name for name, end in self._finished.items() if positions.get(name, end) >= end]
        for name in gone:
            del self._finished[name]
            self._positions.pop(name, None)
        return gone

    @property
    def problem(self) -> str:
        """Files that cannot be read, and why; patterns that match nothing."""
        bad = [f"{what}: {why}" for what, why in sorted(self._problems.items())]
        return "; ".join([*bad[:3], *([f"and {len(bad) - 3} more"] if len(bad) > 3 else [])])

    def figures(self) -> dict[str, int]:
        """Lines taken, rejected, too long and cut; files truncated and finished, since the start."""
        return dict(self._counts)

    def close(self) -> None:
        """Close the files."""
        for entry in self._entries.values():
            entry.file.close()
        self._entries.clear()

    def _scan(self, now_s: float) -> None:
        """Open files that are new, and see which of the open ones no pattern matches any more."""
        self._scan_s = now_s
        self._problems = {}
        matched: dict[tuple[int, int], tuple[Path, Files, int]] = {}
        for files in self._settings.files:
            found = False
            for path in _matching(files.path):
                found = True
                try:
                    status = path.stat()
                except OSError as error:
                    self._refuse(str(path), error)
                    continue
                matched.setdefault((status.st_dev, status.st_ino), (path, files, status.st_mtime_ns))
            if not found:
                self._problems[files.path] = "matches no file; create it, or mend [agent.lines] files"
        if len(matched) > self._settings.max_files:
            newest = sorted(matched, key=lambda place: -matched[place][2])
            left_out = newest[self._settings.max_files :]
            self._problems["max_files"] = f"{len(left_out)} files are not followed: raise it, or match fewer"
            for place in left_out:
                del matched[place]
                self._drop(place)
        left = []
        for place, entry in self._entries.items():
            if place in matched:
                entry.left_s = None
            elif entry.left_s is None:
                entry.left_s = now_s
                left.append(entry)
        for place, (path, files, _) in matched.items():
            if place in self._entries:
                continue
            if len(self._entries) >= 2 * self._settings.max_files:  # so many were rotated away and still grow
                self._problems["max_files"] = "too many rotated files are still written to: new ones wait"
                break
            self._open(path, files, None)
        for entry in left:
            self._find_between(entry, now_s)

    def _open(self, path: Path, files: Files, left_s: float | None) -> None:
        try:
            file = Followed(path)
        except OSError as error:
            self._refuse(str(path), error)
            return
        if file.place in self._entries:  # it was renamed while we looked
            file.close()
            return
        if file.identity is not None:
            file.offset = self._positions.get(file.identity, 0)
            self._finished.pop(file.identity, None)
        said = Said(self._host, files.service, files.kind, self._settings.attributes)
        self._entries[file.place] = _Entry(file, files, said, left_s)

    def _find_renamed(self, now_s: float) -> None:
        """Open files that were followed, are not at their end, and have a name now that no pattern matches."""
        open_now = {entry.file.identity for entry in self._entries.values()}
        wanted = {int(name.partition(".")[0], 16): name for name in self._positions if name not in open_now}
        everywhere = True
        for files in self._settings.files:
            folders = list(_matching(str(Path(files.path).parent)))
            everywhere = everywhere and bool(folders)  # else it may only be away for now
            for folder in folders:
                try:
                    for path, inode in _rotated(folder, files):
                        if inode in wanted:
                            self._open(path, files, now_s)
                except OSError as error:
                    everywhere = False
                    self._refuse(str(folder), error)
        for entry in [entry for entry in self._entries.values() if entry.left_s is not None]:
            self._find_between(entry, now_s)
        open_now = {entry.file.identity for entry in self._entries.values()}
        lost = [name for name in wanted.values() if name not in open_now]
        if lost and everywhere:
            # Removed, or compressed: whether all of them had been read nobody can say.
            log.warning("followed files are gone", n=len(lost), files=lost[:5])
            self._finished |= {name: self._positions[name] for name in lost}

    def _find_between(self, left: _Entry, now_s: float) -> None:
        """Open files that were made and rotated away unseen: written after `left` was, and not the present one."""
        known = {place[1] for place in self._entries}
        try:
            for path, inode in _rotated(left.file.path.parent, left.files):
                if inode not in known and path.stat().st_mtime_ns >= left.file.mtime_ns:
                    self._open(path, left.files, now_s)
        except OSError as error:
            self._refuse(str(left.file.path.parent), error)

    def _read(self, entry: _Entry, room: int, poll: Poll, now_ns: int, *, ended: bool = False) -> Reading:
        file = entry.file
        before = file.identity
        try:
            reading = file.read(max(room, self._settings.max_line_bytes + 1), self._settings.max_line_bytes,
                                ended=ended)  # fmt: skip
        except OSError as error:
            self._refuse(str(file.path), error)
            return Reading()
        if reading.truncated:
            self._counts["truncated"] += 1
            log.info("followed file was truncated", file=str(file.path), cut=reading.cut)
            if before is not None and before != file.identity:
                self._finished[before] = 0
        self._count(poll, DropReason.OVERSIZE, "too_long", reading.too_long)
        self._count(poll, DropReason.SOURCE_LOST, "cut", reading.cut)
        if reading.lines:
            rows = event_rows(reading.lines, entry.said, self._times, now_ns)
            made = rows.columns()
            self._counts["lines"] += sum(map(len, made))
            self._count(poll, DropReason.REJECTED, "rejected", rows.rejected)
            if rows.rejected and time.monotonic() - self._said_s >= _SAY_EVERY_S:
                self._said_s = time.monotonic()
                log.warning("lines rejected", file=str(file.path), n=rows.rejected, why=rows.message)
            poll.columns += made
        if file.identity is not None and self._positions.get(file.identity) != file.offset:
            poll.positions[file.identity] = self._positions[file.identity] = file.offset
        return reading

    def _let_go(self, now_s: float, poll: Poll, now_ns: int) -> None:
        """Close what was rotated away, once it has been still for a while and all of it was read."""
        for place, entry in list(self._entries.items()):
            if entry.left_s is None:
                continue
            if not entry.file.at_end or time.time() - entry.file.mtime_ns / 1e9 < self._settle_s:
                entry.left_s = now_s
            elif now_s - entry.left_s >= self._settle_s:
                self._read(entry, _READ, poll, now_ns, ended=True)
                if entry.file.identity is not None:
                    self._finished[entry.file.identity] = entry.file.offset
                self._counts["finished"] += 1
                self._drop(place)

    def _drop(self, place: tuple[int, int]) -> None:
        entry = self._entries.pop(place, None)
        if entry is not None:
            entry.file.close()

    def _count(self, poll: Poll, reason: DropReason, what: str, n: int) -> None:
        if n:
            self._counts[what] += n
            poll.drops[reason] = poll.drops.get(reason, 0) + n

    def _refuse(self, name: str, error: OSError) -> None:
        why = error.strerror or str(error)
        if isinstance(error, PermissionError):
            why += f"; grant it with: setfacl -m u:{os.geteuid()}:r {name}"
        elif isinstance(error, NotAFileError):
            why += "; only files can be followed"
        self._problems[name] = why


def _matching(pattern: str) -> Iterator[Path]:
    # Not Path.glob: a pattern without a dot does not mean hidden files.
    return map(Path, itertools.islice(glob.iglob(pattern), _LISTED))  # noqa: PTH207


def _rotated(folder: Path, files: Files) -> Iterator[tuple[Path, int]]:
    """Files that were matched once, with their inodes: rotation adds to the end of names."""
    pattern = Path(files.path).name + "*"
    with os.scandir(folder) as entries:
        for entry in itertools.islice(entries, _LISTED):
            if fnmatchcase(entry.name, pattern) and not entry.name.endswith(_COMPRESSED):
                yield Path(entry.path), entry.inode()
