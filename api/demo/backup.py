"""`python -m api.demo.backup`: the nightly-looking job that runs at noon: compresses, writes, syncs, beside the others.

It takes less than half of one CPU, so that it is felt and does not drown what it is felt by.
"""

from __future__ import annotations

import argparse
import os
import time
import zlib
from pathlib import Path

from api.demo.market import SYMBOLS
from api.demo.profile import OPEN_S, PROFILES, profile
from api.demo.stopping import Stop

_CHUNK = 1 << 20
_REST = 1.5  # rests so many times as long as a chunk took
_LOOK_S = 0.2
_MOST = 64  # chunks before the file is begun again


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--control", type=Path, required=True, help="the demo's directory; the backup is written there")
    parser.add_argument("--profile", choices=PROFILES, required=True, help="the day that says when")
    parser.add_argument("--seed", type=int, default=1, help="the day's seed")
    parser.add_argument("--compression", type=float, default=1.0, help="how many times faster the day goes by")
    parser.add_argument("--epoch", type=int, required=True, help="when the day began, CLOCK_REALTIME ns")
    options = parser.parse_args()
    job = profile(options.profile, options.seed, len(SYMBOLS)).backup
    stop = Stop()
    folder: Path = options.control
    folder.mkdir(parents=True, exist_ok=True)
    chunk, written = os.urandom(_CHUNK // 4) * 4, 0
    while not stop:
        at_s = OPEN_S + (time.time_ns() - options.epoch) * 1e-9 * options.compression
        if job is None or not job.covers(at_s % 86_400):
            time.sleep(_LOOK_S)
            continue
        began_s = time.monotonic()
        with (folder / "backup.bin").open("ab" if written % _MOST else "wb") as file:
            file.write(zlib.compress(chunk))
            os.fsync(file.fileno())
        written += 1
        time.sleep(_REST * (time.monotonic() - began_s))


if __name__ == "__main__":
    main()
