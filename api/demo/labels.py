"""The label sets of the order path, made once: what quotes and orders can be asked by."""

from __future__ import annotations

import functools

import tailsight_probe as probe

from api.demo.market import PRIORITY_OF, SITE_OF, SYMBOLS
from api.demo.wire import OFFERS, Order


@functools.cache
def quote_labels(instrument: int) -> int:
    """Symbol and priority class."""
    return probe.labels(symbol=SYMBOLS[instrument], priority=PRIORITY_OF[instrument])


def order_labels(order: Order) -> int:
    """Symbol, priority class, site and offer; the same set at every stamp of an order."""
    return _order_labels(order.instrument, order.offer)


@functools.cache
def _order_labels(instrument: int, offer: bytes) -> int:
    if not 0 <= instrument < len(SYMBOLS):
        return probe.labels(offer=OFFERS[offer])
    return probe.labels(
        symbol=SYMBOLS[instrument], priority=PRIORITY_OF[instrument], site=SITE_OF[instrument], offer=OFFERS[offer]
    )
