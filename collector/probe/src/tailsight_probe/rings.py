"""Ring files of one process: one per thread that stamps, handed on when a thread ends.

Nothing here runs on the hot path. What goes wrong is told in `reason`, never raised: a thread without a ring gets a
scratch ring that records nothing and counts.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import stat
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Protocol

from tailsight_probe import layout
from tailsight_probe.dictionary import Dictionary


class Ring(Protocol):
    """Slots in memory and the sequence that numbers them; the pure and the compiled form have this surface."""

    def put(self, *fields: Any) -> None:
        """Write one record: the normalised fields of a slot in order of `layout.FIELDS`, see `pure.PureRing.put`."""

    def written(self) -> int:
        """How many records were begun."""


MakeRing = Callable[[memoryview], Ring]


class _RingFile:
    """A mapped ring and the writer over its slots. The map lives as long as the process: see `Rings`."""

    __slots__ = ("map", "name", "owner", "ring")

    def __init__(self, name: str, mapped: mmap.mmap, ring: Ring, owner: int) -> None:
        self.name = name
        self.map = mapped
        self.ring = ring
        self.owner = owner


class Lease:
    """A thread's hold on its ring, kept in thread-local storage: when the thread ends, the ring is free again."""

    __slots__ = ("_file", "_rings", "ring")

    def __init__(self, rings: Rings, file: _RingFile | None, ring: Ring) -> None:
        self._rings = rings
        self._file = file
        self.ring = ring

    def __del__(self) -> None:
        file = getattr(self, "_file", None)  # absent when a signal handler raised while this was made
        if file is not None:
            self._rings.free.append(file)


class Rings:
    """The rings of one process in one directory.

    Files are never deleted here: the agent does that, once the process is dead and everything read is durable. The
    number of files is bounded: a new thread takes the ring that has been free for longest once `spare` rings are
    free, and at most `most` rings are made. After a fork the child makes an object of its own, and keeps the parent's
    maps untouched: unmapping would close descriptors that may be somebody else's by then.
    """

    def __init__(
        self, directory: str, dictionary: Dictionary, make: MakeRing, *, capacity: int, most: int, spare: int
    ) -> None:
        self.directory = directory
        self.capacity = capacity
        self.reason = ""
        self.free: deque[_RingFile] = deque()
        self.files: list[_RingFile] = []
        self.handed_on = 0
        self._most = most
        self._spare = spare
        self._dictionary = dictionary
        self._make = make
        self._numbers = itertools.count()
        self._lock = threading.RLock()
        self._ready = False
        self._pid = os.getpid()
        self._ticks = start_ticks()
        self.scratch = make(memoryview(bytearray(layout.SLOT_BYTES)))

    def lease(self) -> Lease:
        """A ring for the calling thread; the scratch ring when none can be had (then `reason` says why)."""
        tid = threading.get_native_id()
        try:
            with self._lock:
                file = self._take_over(tid) or self._create(tid)
        except OSError as error:
            reraise_foreign(error)
            self.reason = f"{self.directory}: {error.strerror or error}"
            return Lease(self, None, self.scratch)
        if file is None:
            self.reason = f"{self._most} rings are in use, the most there may be; raise max_rings"
            return Lease(self, None, self.scratch)
        return Lease(self, file, file.ring)

    def _take_over(self, tid: int) -> _RingFile | None:
        if not self.free or (len(self.free) <= self._spare and len(self.files) < self._most):
            return None
        file = self.free.popleft()
        file.ring.put(None, tid, file.owner, layout.NO_ERROR, layout.NO_DEPTH, 0, 0, 0, 0, 0, 0, layout.FLAG_THREAD, 0)
        file.map[layout.OWNER_OFFSET : layout.OWNER_OFFSET + 4] = layout.pack_owner(tid)
        file.owner = tid
        self.handed_on += 1
        return file

    def _create(self, tid: int) -> _RingFile | None:
        if len(self.files) >= self._most:
            return None
        self._prepare()
        size = layout.HEADER_BYTES + self.capacity * layout.SLOT_BYTES
        name = self._free_name()
        path = f"{self.directory}/{name}"
        fd = os.open(f"{path}.tmp", os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            # Real blocks now, or ENOSPC now: a sparse file would end the program with SIGBUS when the disk is full.
            os.posix_fallocate(fd, 0, size)
            # Populated, so that the first round through the ring takes no page faults either.
            mapped = mmap.mmap(
                fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=mmap.PROT_READ | mmap.PROT_WRITE
            )
            header = layout.pack_header(
                layout.Header(
                    layout.VERSION,
                    self.capacity,
                    self._pid,
                    tid,
                    self._ticks,
                    time.time_ns(),
                    time.monotonic_ns(),
                    boot_id(),
                    tid,
                )
            )
            mapped[: len(header)] = header
            os.rename(f"{path}.tmp", path)  # noqa: PTH104 # readers see whole headers only
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(f"{path}.tmp")  # noqa: PTH108
            raise
        finally:
            os.close(fd)
        ring = self._make(memoryview(mapped)[layout.HEADER_BYTES :])
        file = _RingFile(name, mapped, ring, tid)
        self.files.append(file)
        return file

    def _free_name(self) -> str:
        while True:
            # Another container may have the same PID and share the directory.
            name = f"{self._pid}.{self._ticks}.{next(self._numbers)}.ring"
            try:
                os.lstat(f"{self.directory}/{name}")
            except FileNotFoundError:
                return name

    def _prepare(self) -> None:
        if self._ready:
            return
        # Not makedirs and not os.path: they drop any OSError, also a TimeoutError of the program's signal handler.
        try:
            os.mkdir(self.directory, 0o700)  # noqa: PTH102
        except FileExistsError:
            pass
        except FileNotFoundError:
            os.makedirs(self.directory, mode=0o700, exist_ok=True)  # noqa: PTH103
        if self.directory == default_directory():
            # /dev/shm is open to everybody: somebody else may have made this directory to read or break our rings.
            found = os.lstat(self.directory)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise PermissionError(1, "is not a directory that belongs to this user alone; set TAILSIGHT_PROBE_DIR")
        self._dictionary.open(f"{self.directory}/{self._pid}.{self._ticks}.dict")
        self._ready = True


def default_directory() -> str:
    """`/dev/shm/tailsight-<uid>`."""
    return f"/dev/shm/tailsight-{os.geteuid()}"  # noqa: S108 # checked for its owner before use


def start_ticks() -> int:
    """Field 22 of /proc/self/stat: when this process started, in clock ticks since boot; 0 without /proc."""
    try:
        with open("/proc/self/stat", "rb") as file:  # noqa: PTH123
            return int(file.read().rpartition(b")")[2].split()[19])
    except (OSError, ValueError, IndexError) as error:
        reraise_foreign(error)
        return 0


def boot_id() -> bytes:
    """The kernel's boot id, 16 bytes; zeros where it cannot be read."""
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb") as file:  # noqa: PTH123
            return bytes.fromhex(file.read().strip().replace(b"-", b"").decode())
    except (OSError, ValueError) as error:
        reraise_foreign(error)
        return bytes(16)


def reraise_foreign(error: Exception) -> None:
    """Raise a TimeoutError (an OSError) without errno again: a signal handler of the program raised it, not a file."""
    if isinstance(error, OSError) and error.errno is None:
        raise error
