"""Take away what the store process does not need before it runs SQL, as far as this host permits.

Every step is best effort and says what it did: an ordinary user cannot do all of it, and a store that runs with less
confinement is better than none. Call it early: a user namespace can only be entered by a single-threaded process.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import struct
from pathlib import Path

from collector.store.landlock import see_only

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_NO_NEW_PRIVS = 38
_SYS_CAPSET = {"x86_64": 126, "aarch64": 91}
_CAPABILITY_VERSION_3 = 0x20080522


def isolate() -> str:
    """Enter an empty network namespace; returns "applied" or why not. The first thing to do."""
    return _leave_network(ctypes.CDLL(None, use_errno=True))


def confine(data: Path) -> dict[str, str]:
    """Apply every other step that works; returns step -> "applied" or why not.

    Steps: `user` (root steps down to the owner of `data`), `privileges` (no new ones, and no capabilities left),
    `paths` (its directory, the program and the system's libraries), `core` (no core dumps), `files` (as many
    descriptors as allowed). Import what is needed before: the lower user may not be able to read the installation.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    report = {"user": _step_down(data), "privileges": _drop_privileges(libc)}
    report["paths"] = see_only(data)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    report["core"] = "applied"
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    report["files"] = "applied"
    return report


def _leave_network(libc: ctypes.CDLL) -> str:
    if libc.unshare(_CLONE_NEWNET) == 0:
        return "applied"
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return f"not permitted: {os.strerror(ctypes.get_errno())}"
    # The same ids inside as outside, so that files keep their owner's name.
    with contextlib.suppress(OSError):
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")
    return "applied"


def _step_down(data: Path) -> str:
    if os.geteuid() != 0:
        return "applied"
    owner = data.stat()
    if owner.st_uid == 0:
        return f"runs as root, because root owns {data}"
    try:
        os.setgroups([])
        os.setresgid(owner.st_gid, owner.st_gid, owner.st_gid)
        os.setresuid(owner.st_uid, owner.st_uid, owner.st_uid)
    except OSError as error:
        return f"not permitted: {error.strerror}"
    return "applied"


def _drop_privileges(libc: ctypes.CDLL) -> str:
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return f"not permitted: {os.strerror(ctypes.get_errno())}"
    number = _SYS_CAPSET.get(os.uname().machine)
    if number is None:
        return f"capabilities stay: no system call number known for {os.uname().machine}"
    header = ctypes.create_string_buffer(struct.pack("<Ii", _CAPABILITY_VERSION_3, 0))
    nothing = ctypes.create_string_buffer(bytes(24))
    if libc.syscall(number, header, nothing) != 0:
        return f"capabilities stay: {os.strerror(ctypes.get_errno())}"
    return "applied"
