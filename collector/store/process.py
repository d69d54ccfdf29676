"""The store process: chDB on DIR/store behind the unix socket DIR/store.sock.

    python -m collector.store.process --data DIR

A crash of the engine takes nothing else down, and the process that runs SQL has no network and no control state. It
is started with exec, never forked: a forked engine hangs. One process per directory, held by a lock.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import select
import signal
import sys
import threading
import time
import uuid
from pathlib import Path

import structlog

from collector.store import StoreError
from collector.store.confine import confine, isolate
from collector.store.engine import Engine, load_engine
from collector.store.messages import SOCKET, dial
from collector.store.service import Service

log = structlog.get_logger()

LOCK = "store.lock"
# A predecessor that is shutting down lets go of the lock within this time.
HANDOVER_S = 20.0


class HeldError(StoreError):
    """Another process holds the data directory."""


def main(argv: list[str] | None = None) -> int:
    """Run until SIGTERM, SIGINT, or until the owner and the last client are gone. Returns the exit status."""
    options = _parser().parse_args(argv)
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    try:
        data = Path(options.data).resolve(strict=True)
        lock = hold(data)
    except (OSError, HeldError) as error:
        print(f"tailsight store: {error}", file=sys.stderr)  # noqa: T201 - the one line a starter shows
        return 3
    wake_r, wake_w = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: None)
    report = {"network": "not asked for" if options.keep_network else isolate()}
    load_engine()
    report |= confine(data)
    # Relative names from here on: socket addresses and connection strings have no room for long paths.
    os.chdir(data)
    os.umask(0o077)
    try:
        engine = Engine(memory_bytes=options.memory_mib << 20, pool=options.background)
        service = Service(engine, boot_id=uuid.uuid4().hex, readers=options.readers, confinement=report)
        service.listen(Path(SOCKET))
    except (StoreError, OSError, RuntimeError) as error:
        print(f"tailsight store: cannot open {data / 'store'}: {error}", file=sys.stderr)  # noqa: T201
        return 4
    log.info("store ready", data=str(data), version=engine.version, boot_id=service.boot_id, confinement=report)
    if options.ready_fd is not None:
        os.write(options.ready_fd, b"ready\n")
        os.close(options.ready_fd)
    reason = _wait(wake_r, options.owner_fd, service)
    log.info("store stops", reason=reason)
    clean = service.close(options.shutdown_s)
    os.close(lock)
    if not clean:
        # Threads inside the engine cannot be ended; what they had not committed is as after a crash, read back.
        log.warning("store stopped with statements still running")
        sys.stderr.flush()
        os._exit(5)
    engine.close()
    return 0


def hold(data: Path) -> int:
    """Lock DATA for this process and return the lock's descriptor.

    Waits for a predecessor that no longer answers to finish. Raises HeldError when one answers.
    """
    descriptor = os.open(data / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    until = time.monotonic() + HANDOVER_S
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            if time.monotonic() > until or _answers(data):
                os.close(descriptor)
                raise HeldError(
                    f"{data} is held by the store process {pid}; use its socket, stop it, or choose another --data"
                ) from None
            time.sleep(0.05)
            continue
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        return descriptor


def _answers(data: Path) -> bool:
    try:
        dial(data, 1.0).close()
    except OSError:
        return False
    return True


def _wait(wake: int, owner: int | None, service: Service) -> str:
    """Block until it is time to stop; returns why."""
    watched = [wake] if owner is None else [wake, owner]
    while True:
        readable, _, _ = select.select(watched, [], [], 0.5)
        if wake in readable:
            return "signal"
        if owner in readable and not os.read(owner or 0, 64):
            watched.remove(owner)
        if len(watched) == 1 and owner is not None and service.idle():
            return "owner and clients are gone"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m collector.store.process", description="The embedded store.")
    parser.add_argument("--data", required=True, help="data directory; it must exist")
    parser.add_argument("--readers", type=int, default=4, help="how many queries run at once (default 4)")
    parser.add_argument("--memory-mib", type=int, default=_memory_mib(), help="engine memory limit (default half)")
    parser.add_argument("--background", type=int, default=4, help="threads for merges (default 4)")
    parser.add_argument("--shutdown-s", type=float, default=10.0, help="patience for running statements")
    parser.add_argument("--owner-fd", type=int, help="exit when this pipe closes and no client is left")
    parser.add_argument("--ready-fd", type=int, help="write a line here when ready")
    parser.add_argument("--keep-network", action="store_true", help="do not leave the network namespace")
    return parser


def _memory_mib() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // (2 << 20)


if __name__ == "__main__":
    threading.current_thread().name = "store"
    sys.exit(main())
