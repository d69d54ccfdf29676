"""The label sets of the order path, made once: what quotes and orders can be asked by.

Every set carries `version`, that of the program that stamps. What answers a message got on its way adds theirs:
`inference` where a quote is decided, `gateway` and `venue` where an order is reported on.
"""

from __future__ import annotations

import functools

import tailsight_probe as probe

from api.demo.market import PRIORITY_OF, SITE_OF, SYMBOLS
from api.demo.wire import OFFERS, Order

_own = {"version": "1"}


def stamped_by(version: int) -> None:
    """Say which version of its program this process is."""
    _own["version"] = str(version)
    quote_labels.cache_clear()
    _order_labels.cache_clear()


@functools.lru_cache(4096)
def quote_labels(instrument: int, inference: int = 0) -> int:
    """Symbol and priority class; the version of the inference step that answered, 0: none did."""
    more = {"inference": str(inference)} if inference else {}
    return probe.labels(symbol=SYMBOLS[instrument], priority=PRIORITY_OF[instrument], **more, **_own)


def order_labels(order: Order, gateway: int = 0, venue: int = 0) -> int:
    """Symbol, priority class, site and offer; the versions of the gateway and the venue that reported on it."""
    return _order_labels(order.instrument, order.offer, gateway, venue)


@functools.lru_cache(4096)
def _order_labels(instrument: int, offer: bytes, gateway: int, venue: int) -> int:
    more = {name: str(version) for name, version in (("gateway", gateway), ("venue", venue)) if version} | _own
    if not 0 <= instrument < len(SYMBOLS):
        return probe.labels(offer=OFFERS[offer], **more)
    site, priority = SITE_OF[instrument], PRIORITY_OF[instrument]
    return probe.labels(symbol=SYMBOLS[instrument], priority=priority, site=site, offer=OFFERS[offer], **more)
