"""A file system that fails on demand and forgets what was not synced, over real files."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from pathlib import Path

from collector.spool.fs import SpoolFS


class FaultyFS(SpoolFS):
    """`fail(call, path)` may return an errno; `power_cut` leaves what a disk may leave of unsynced changes.

    Model: data is safe after `sync`, a name after `sync_dir`; a removed or replaced file may come back until then.
    """

    def __init__(self, fail: Callable[[str, Path], int | None] | None = None) -> None:
        self.fail = fail or (lambda _call, _path: None)
        self.calls: list[str] = []
        self._paths: dict[int, Path] = {}
        self._synced: dict[Path, int] = {}
        self._unlinked: dict[Path, bytes] = {}  # may come back
        self._fresh: set[Path] = set()  # may vanish

    def _call(self, name: str, path: Path) -> None:
        self.calls.append(name)
        code = self.fail(name, path)
        if code:
            raise OSError(code, f"injected into {name}", str(path))

    def create(self, path: Path) -> int:
        self._call("create", path)
        fd = super().create(path)
        self._paths[fd] = path
        self._synced[path] = 0
        self._fresh.add(path)
        return fd

    def write(self, fd: int, data: bytes) -> None:
        try:
            self._call("write", self._paths[fd])
        except OSError:
            super().write(fd, data[: len(data) // 2])  # a full disk takes a part
            raise
        super().write(fd, data)

    def sync(self, fd: int) -> None:
        path = self._paths[fd]
        self._call("sync", path)
        self._synced[path] = path.stat().st_size

    def sync_dir(self, path: Path) -> None:
        self._call("sync_dir", path)
        self._unlinked.clear()
        self._fresh.clear()

    def rename(self, old: Path, new: Path) -> None:
        self._call("rename", new)
        if new.exists():
            self._unlinked[new] = new.read_bytes()
        else:
            self._fresh.add(new)
        self._fresh.discard(old)
        self._synced[new] = self._synced.pop(old, 0)
        super().rename(old, new)

    def unlink(self, path: Path) -> None:
        self._call("unlink", path)
        if path.exists() and path not in self._fresh:
            self._unlinked[path] = path.read_bytes()
        self._fresh.discard(path)
        super().unlink(path)

    def truncate(self, path: Path, size: int) -> None:
        self._call("truncate", path)
        self._synced[path] = min(size, self._synced.get(path, size))
        super().truncate(path, size)

    def power_cut(self, rng: random.Random) -> None:
        """What is on the disk when the power comes back. The spool over it must not be used again."""
        for path, size in self._synced.items():
            if path.exists() and path.stat().st_size > size and path.suffix == ".seg":
                keep = rng.randint(size, path.stat().st_size)
                super().truncate(path, keep)
                if keep > size and rng.random() < 0.3:  # pages reach the disk in any order
                    raw = bytearray(path.read_bytes())
                    raw[rng.randrange(size, keep)] ^= 0xFF
                    path.write_bytes(raw)
        for path in self._fresh:
            if rng.random() < 0.5:
                path.unlink(missing_ok=True)
        for path, data in self._unlinked.items():
            if rng.random() < 0.5:
                path.write_bytes(data)


def nth(call: str, number: int, code: int = errno.EIO, suffix: str = "") -> Callable[[str, Path], int | None]:
    """Fail the `number`-th use of one call (from 0), on files that end in `suffix`."""
    seen = [0]

    def fail(name: str, path: Path) -> int | None:
        if name != call or not path.name.endswith(suffix):
            return None
        seen[0] += 1
        return code if seen[0] == number + 1 else None

    return fail
