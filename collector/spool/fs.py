"""Every file-system call of the spool, in one place, so that a test can fail the Nth one or lose unsynced writes.

Files are 0600, folders 0700. A write is whole or raises; a replaced file is the old or the new one, never a mixture.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class LockedError(RuntimeError):
    """Another process writes this folder; two agents must not share one."""


class SpoolFS:
    """The real file system. A test subclasses it; nothing else in the spool calls the operating system."""

    def make_dir(self, path: Path) -> None:
        """Create a folder and what leads to it, readable by the owner alone."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def names(self, path: Path) -> list[str]:
        """The names in a folder, sorted."""
        return sorted(entry.name for entry in path.iterdir())

    def create(self, path: Path) -> int:
        """A new file for appending; it must not exist."""
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def open_read(self, path: Path) -> int:
        """An existing file for reading."""
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def close(self, fd: int) -> None:
        """Close a descriptor."""
        os.close(fd)

    def size(self, path: Path) -> int:
        """Bytes in a file."""
        return path.stat().st_size

    def write(self, fd: int, data: bytes) -> None:
        """Append all of `data`, or raise with an unknown part of it written."""
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Up to `size` bytes from `offset`."""
        return os.pread(fd, size, offset)

    def truncate(self, path: Path, size: int) -> None:
        """Cut a file back to `size` bytes."""
        os.truncate(path, size)

    def sync(self, fd: int) -> None:
        """Force a file's data and size to the disk."""
        os.fdatasync(fd)

    def sync_dir(self, path: Path) -> None:
        """Force a folder's entries to the disk: creations, renames and removals."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def rename(self, old: Path, new: Path) -> None:
        """Put `old` in the place of `new`, atomically."""
        old.replace(new)

    def unlink(self, path: Path) -> None:
        """Remove a file; it may be gone already."""
        path.unlink(missing_ok=True)

    def allocate(self, path: Path, size: int) -> None:
        """Create a file that really occupies `size` bytes."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(fd, 0, size)
        finally:
            os.close(fd)

    def free_bytes(self, path: Path) -> int:
        """Bytes that this user may still write."""
        state = os.statvfs(path)
        return state.f_bavail * state.f_frsize

    def lock(self, path: Path) -> int:
        """Hold `path` until the descriptor is closed. Raises LockedError when another process does."""
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            raise LockedError(f"{path.parent} is in use by another agent; stop it or use another data folder") from None
        return fd

    def replace(self, path: Path, data: bytes) -> None:
        """Write a whole file durably: temporary file, fsync, rename, fsync of the folder."""
        temporary = path.with_name(path.name + ".tmp")
        self.unlink(temporary)
        fd = self.create(temporary)
        try:
            self.write(fd, data)
            self.sync(fd)
        except OSError:
            self.unlink(temporary)  # a full disk must get these bytes back
            raise
        finally:
            self.close(fd)
        self.rename(temporary, path)
        self.sync_dir(path.parent)

    def read_all(self, path: Path) -> bytes:
        """A small file's content."""
        fd = self.open_read(path)
        try:
            parts, offset = [], 0
            while part := self.read(fd, 1 << 20, offset):
                parts.append(part)
                offset += len(part)
            return b"".join(parts)
        finally:
            self.close(fd)
