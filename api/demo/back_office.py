"""`python -m api.demo.back_office`: keeps the order blotter from the engine's drop copies, once a second on disk.

It is no part of the order path and stamps nothing: it is the customer's own system, which knows orders and customers
and nothing of latency but what its customers felt.
"""

from __future__ import annotations

import argparse
import logging
import socket
import sqlite3
import time
from pathlib import Path

from api.demo.blotter import Blotter, Settled
from api.demo.business import KEEP_ROWS, Business
from api.demo.drop_copy import decode
from api.demo.outcome_rule import LoadMeter
from api.demo.profile import DAY_S, OPEN_S
from api.demo.stopping import Stop
from api.demo.truth import settled
from api.demo.wire import WireError

ORDERS_PER_QUOTE = 0.3  # about what the strategy leads to; only the zero of the load depends on it
_POLL_S = 0.2
_WRITE_S = 1.0
_MOST_UNWRITTEN = 100_000

log = logging.getLogger(__name__)


class BackOffice:
    """Copies in over UDP, settled orders out to the file."""

    def __init__(self, listen: int, blotter: Blotter, business: Business) -> None:
        self._blotter, self._business = blotter, business
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self._socket.bind(("127.0.0.1", listen))
        self._socket.settimeout(_POLL_S)
        self._unwritten: list[Settled] = []

    def run(self, stop: Stop) -> None:
        """Keep the blotter until `stop`, then settle what is open."""
        written_s = time.monotonic()
        while not stop:
            try:
                self._blotter.take(decode(self._socket.recv(65_536)))
            except TimeoutError:
                pass
            except WireError as error:
                log.warning("drop copy refused: %s", error)
            if time.monotonic() - written_s >= _WRITE_S:
                written_s = time.monotonic()
                self._write(self._blotter.settle(time.time_ns()))
        self._write(self._blotter.close())
        self._business.close()
        log.info("%d copies of unknown orders, %d settled early", self._blotter.unknown, self._blotter.pushed_out)

    def _write(self, rows: list[Settled]) -> None:
        self._unwritten += rows
        try:
            self._business.add(self._unwritten)
        except sqlite3.Error as error:  # a full disk, a reader that holds the file: tried again in a second
            log.warning("%d orders are not written yet: %s", len(self._unwritten), error)
            del self._unwritten[:-_MOST_UNWRITTEN]
            return
        self._unwritten.clear()


def main() -> None:
    """Read the arguments and run until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--listen", type=int, required=True, help="UDP port for drop copies on 127.0.0.1")
    parser.add_argument("--control", type=Path, required=True, help="the demo's directory; the blotter is kept there")
    parser.add_argument("--rate", type=float, required=True, help="quotes per second on average: what load is usual")
    parser.add_argument("--outcomes", type=int, default=None, help="seed of the customers' rule (default: secret)")
    parser.add_argument("--compression", type=float, default=1.0, help="how many times faster the day goes by")
    parser.add_argument("--epoch", type=int, required=True, help="when the day began, CLOCK_REALTIME ns; names the run")
    parser.add_argument("--keep", type=int, default=KEEP_ROWS, help="how many orders the blotter keeps")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")

    epoch_ns: int = options.epoch
    compression: float = options.compression

    def day_s(at_ns: int) -> float:
        return (OPEN_S + (at_ns - epoch_ns) * 1e-9 * compression) % DAY_S

    truth = settled(options.control, options.epoch, options.outcomes, ORDERS_PER_QUOTE * options.rate)
    blotter = Blotter(truth.rule, LoadMeter(truth.usual_per_s), day_s)
    BackOffice(options.listen, blotter, Business(options.control, options.keep)).run(Stop())


if __name__ == "__main__":
    main()
