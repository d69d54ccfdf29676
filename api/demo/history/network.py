"""The links on the virtual clock: a drawn transit, and what the link's faults add; a link keeps the order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from api.demo.faults import LINES, LINKS, Fault
from api.demo.history.virtual import Draws
from api.demo.link_model import LinkModel

HEADERS = 3  # bytes of a frame before its body (`api.demo.wire`)


class Link:
    """One direction of one link."""

    def __init__(self, name: str, faults: Sequence[Fault], draws: Draws, seed: int) -> None:
        link = name.partition(".")[0]
        self._faults = [fault for fault in faults if fault.at == link]
        # The two directions of a stream lose packets of their own.
        self._model = LinkModel(link not in LINES, seed + LINKS.index(link) + (len(LINKS) if link != name else 0))
        self._draw: Callable[[], int] = draws.of(name)
        self._last_ns = 0

    def arrives_ns(self, size: int, at_ns: int) -> int | None:
        """When a packet of `size` bytes arrives that was sent at `at_ns`, None when it is lost."""
        leaves_ns = self._model.leaves_ns(size, at_ns, self._faults, at_ns) if self._faults else at_ns
        if leaves_ns is None:
            return None
        self._last_ns = max(leaves_ns + self._draw(), self._last_ns + 1)
        return self._last_ns
