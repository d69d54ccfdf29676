"""Sends UDP datagrams as fast as sendmmsg takes them: `python -m tests.bench.blast ADDRESS COUNT SIZE[,SIZE...]`.

Prints how many the kernel took and the seconds it needed.
"""

from __future__ import annotations

import ctypes
import json
import random
import socket
import sys
import time

BATCH = 512


class _IoVec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("len", ctypes.c_size_t))


class _MsgHdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_uint32),
        ("iov", ctypes.POINTER(_IoVec)),
        ("iovlen", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("controllen", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _MMsgHdr(ctypes.Structure):
    _fields_ = (("hdr", _MsgHdr), ("len", ctypes.c_uint))


def blast(address: str, port: int, count: int, sizes: list[int]) -> tuple[int, float]:
    """How many were taken, and the seconds."""
    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sender.connect((address, port))
    dice = random.Random(1)  # noqa: S311 - traffic, no secret
    buffers = [ctypes.create_string_buffer(dice.choice(sizes)) for _ in range(BATCH)]
    vectors = [_IoVec(ctypes.addressof(b), len(b)) for b in buffers]
    messages = (_MMsgHdr * BATCH)()
    for message, vector in zip(messages, vectors, strict=True):
        message.hdr.iov, message.hdr.iovlen = ctypes.pointer(vector), 1
    send = ctypes.CDLL(None, use_errno=True).sendmmsg
    taken = 0
    started = time.monotonic()
    while taken < count:
        sent = send(sender.fileno(), messages, min(BATCH, count - taken), 0)
        if sent < 0:
            raise OSError(ctypes.get_errno(), "sendmmsg")
        taken += sent
    return taken, time.monotonic() - started


if __name__ == "__main__":
    host, number, lengths = sys.argv[1:]
    print(json.dumps(blast(host, 5_555, int(number), [int(x) for x in lengths.split(",")])))  # noqa: T201
