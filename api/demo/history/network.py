"""The links on the virtual clock: a drawn transit, what the link's faults add, and the receiver's NIC; a link keeps the
order."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from api.demo.faults import LINES, LINKS, Fault
from api.demo.history.virtual import Draws
from api.demo.link_model import LinkModel
from api.demo.nic import Queue, striking

HEADERS = 3  # bytes of a frame before its body (`api.demo.wire`)


_SWITCHES = 6
_SERVICE_NS = 120_000  # how long each packet takes that a packet waits behind, at each
_USED = 0.5  # of a link's capacity, by others, at the market's mean rate
_MOST_USED = 0.8


class CrossTraffic:
    """Waiting behind the rest of the market's traffic on a link, which a history has thinned out.

    M/M/1 queues in a row (Kleinrock, Queueing Systems 1, 1975, 5.2): at each, P(wait > t) = r exp(-(1 - r) t / S) with
    utilisation r. `busy` gives the load at a time, in units of the mean rate.
    """

    def __init__(self, busy: Callable[[int], float], seed: str) -> None:
        self._busy = busy
        self._random = random.Random(seed)  # noqa: S311 - the same seed gives the same hour

    def wait_ns(self, at_ns: int) -> int:
        """How long a packet waits that comes then."""
        used = min(_MOST_USED, _USED * self._busy(at_ns))
        rng = self._random
        met = sum(rng.random() < used for _ in range(_SWITCHES))
        return round(rng.gammavariate(met, _SERVICE_NS / (1 - used))) if met else 0


class Link:
    """One direction of one link."""

    def __init__(
        self, name: str, faults: Sequence[Fault], draws: Draws, seed: int, others: CrossTraffic | None = None
    ) -> None:
        self._others = others
        link = name.partition(".")[0]
        self._faults = [fault for fault in faults if fault.at == link]
        # The two directions of a stream lose packets of their own.
        self._model = LinkModel(link not in LINES, seed + LINKS.index(link) + (len(LINKS) if link != name else 0))
        self._stream = link not in LINES
        self._queue, self._queue_faults = Queue(name, seed), striking(faults, name)
        self._draw: Callable[[], int] = draws.of(name)
        self._last_ns = 0

    def arrives_ns(self, size: int, at_ns: int) -> int | None:
        """When a packet of `size` bytes arrives that was sent at `at_ns`, None when it is lost."""
        if self._others is not None:
            at_ns += self._others.wait_ns(at_ns)
        leaves_ns = self._model.leaves_ns(size, at_ns, self._faults, at_ns) if self._faults else at_ns
        if leaves_ns is None:
            return None
        arrives_ns = self._received_ns(leaves_ns + self._draw())
        if arrives_ns is None:
            return None
        self._last_ns = max(arrives_ns, self._last_ns + 1)
        return self._last_ns

    def _received_ns(self, at_ns: int) -> int | None:
        """When the receiver's NIC hands on what arrives at `at_ns`."""
        if not self._queue_faults:
            return at_ns
        if self._stream:
            return self._queue.stream_takes_ns(self._queue_faults, at_ns)
        return at_ns if self._queue.takes(self._queue_faults, at_ns) else None
