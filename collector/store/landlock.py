"""Landlock: from here on this process can open what is listed and nothing else, whatever SQL makes it try.

Needs no privilege, only Linux 5.13 and no_new_privs. Rights and numbers: include/uapi/linux/landlock.h. The kernel
exempts what no path leads to (pipes, sockets, memfds), which inserts need.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
import sysconfig
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446  # one number on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_FIRST_ABI = (1 << 13) - 1
_OF_A_FILE = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_READ = _EXECUTE | _READ_FILE | _READ_DIR

# What the engine and the interpreter read beside the data and their own files: libraries, time zones, the machine's
# size and load. Of /proc only this process: another's environment may hold secrets.
_SYSTEM = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/share/zoneinfo", "/etc/ld.so.cache", "/etc/localtime",
    "/etc/timezone", "/proc/self", "/proc/meminfo", "/proc/cpuinfo", "/proc/stat", "/proc/loadavg", "/proc/sys",
    "/proc/uptime", "/proc/filesystems", "/sys/devices/system", "/sys/fs/cgroup", "/sys/kernel/mm", "/sys/block",
)  # fmt: skip
_DEVICES = ("/dev/null", "/dev/urandom", "/dev/random", "/dev/zero")
# Rules hold on to the file that a path meant. Of /proc/self the kernel would make a new one once it forgets it.
_kept: list[int] = []


def see_only(data: Path) -> str:
    """Confine this thread and all it starts to `data`, the program's own files and the system's libraries.

    Returns "applied" or why not. Call it before there are threads, after no_new_privs.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    abi = libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG)
    if abi < 1:
        return f"not permitted: no Landlock in this kernel ({os.strerror(ctypes.get_errno())})"
    all_rights = _FIRST_ABI | (_REFER if abi >= 2 else 0) | (_TRUNCATE if abi >= 3 else 0)
    all_rights |= _IOCTL_DEV if abi >= 5 else 0
    attributes = struct.pack("<Q", all_rights)
    ruleset = libc.syscall(_CREATE, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return f"not permitted: {os.strerror(ctypes.get_errno())}"
    try:
        allowed = [(path, _READ) for path in (*_own_files(), *_SYSTEM)]
        allowed += [(path, _READ | _WRITE_FILE) for path in _DEVICES]
        for path, rights in (*allowed, (str(data), all_rights)):
            problem = _allow(libc, ruleset, path, rights & all_rights)
            if problem:
                return f"not permitted: {path}: {problem}"
        if libc.syscall(_RESTRICT, ruleset, 0) != 0:
            return f"not permitted: {os.strerror(ctypes.get_errno())}"
    finally:
        os.close(ruleset)
    return "applied"


def _own_files() -> Iterable[str]:
    """Where this program and its libraries lie."""
    places = {sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *(path for path in sys.path if path)}
    root = Path(__file__).resolve().parents[2]  # a checkout is not always on sys.path as it is written
    return sorted({*places, str(root / "collector"), str(root / "analytics")} - {"", "/"})


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> str:
    """Add one rule; returns what went wrong. A path that is not there needs none."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return ""
    _kept.append(descriptor)
    if not Path(f"/proc/self/fd/{descriptor}").is_dir():
        rights &= _OF_A_FILE
    rule = struct.pack("<Qi", rights, descriptor)
    if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0) != 0:
        return os.strerror(ctypes.get_errno())
    return ""
