"""The decision desk: a quote waits for its signal, then for its turn, then leads to orders or to none. Pure.

Degraded modes, said with each message: the signal is late and the cached one of its instrument is used (`cached`), or
there is none that is young enough, or the reference data are too old (`fallback`: decide on the price alone, in the
smallest lot).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tailsight_probe import Cache, Mode

from api.demo.cache import AgedCache, Found
from api.demo.market import PRIORITIES, PRIORITY_OF
from api.demo.market_data import Listing, Quote
from api.demo.queues import ClassQueues
from api.demo.signals import Signal
from api.demo.strategy import Intent, Strategy

_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Ready:
    """A quote that need not wait for its signal any more, and what it goes on with."""

    key: int
    quote: Quote
    mode: Mode
    signal: Found[float]
    lean: float
    depth: int = 0  # quotes of its class queued before it


@dataclass(frozen=True, slots=True)
class Decision:
    """What a batch of one instrument's quotes led to: orders, and how degraded the decision was."""

    keys: list[int]
    intents: list[Intent]
    mode: Mode
    cache: Cache
    data_age_ns: int | None


@dataclass(slots=True)
class Desk:
    """Holds what is on its way. Times are nanoseconds of one clock that never steps back."""

    strategy: Strategy
    queue_size: int = 64
    signal_patience_ns: int = 8 * _MS
    signals: AgedCache[float] = field(default_factory=lambda: AgedCache(250 * _MS, 2_000 * _MS))
    listings: AgedCache[Listing] = field(default_factory=lambda: AgedCache(3_000 * _MS, 15_000 * _MS))
    late: int = 0
    _waiting: dict[int, tuple[Quote, int]] = field(default_factory=dict)  # key -> quote, when patience ends
    _queues: ClassQueues[Ready] = field(init=False)

    def __post_init__(self) -> None:
        self._queues = ClassQueues(PRIORITIES, self.queue_size)

    def on_quote(self, key: int, quote: Quote, now_ns: int) -> tuple[int, bool]:
        """(places taken in the quote's class, whether it was admitted); one that is not is shed."""
        depth, admitted = self._queues.admit(PRIORITY_OF[quote.instrument])
        if admitted:
            self._waiting[key] = (quote, now_ns + self.signal_patience_ns)
        return depth, admitted

    def on_listing(self, listing: Listing, now_ns: int) -> None:
        """Keep the instrument's reference data."""
        self.listings.put(listing.instrument, listing, now_ns)

    def on_signal(self, signal: Signal, now_ns: int) -> Ready | None:
        """The quote that has its signal now, None when it has gone on without."""
        self.signals.put(signal.instrument, signal.score, now_ns)
        waiting = self._waiting.pop(signal.key, None)
        if waiting is None:
            self.late += 1
            return None
        return self._queue(Ready(signal.key, waiting[0], Mode.NORMAL, Found(Cache.UNSET), signal.score))

    def due_ns(self) -> int | None:
        """When the next quote's patience ends; they wait in the order in which they came."""
        return next((until for _, until in self._waiting.values()), None)

    def on_time(self, now_ns: int) -> list[Ready]:
        """The quotes whose patience has ended: they go on with a cached signal, or without one."""
        ready = []
        while (due := self.due_ns()) is not None and due <= now_ns:
            key = next(iter(self._waiting))
            quote, _ = self._waiting.pop(key)
            found = self.signals.get(quote.instrument, now_ns)
            mode = Mode.FALLBACK if found.value is None else Mode.CACHED
            ready.append(self._queue(Ready(key, quote, mode, found, found.value or 0.0)))
        return ready

    def take(self) -> list[Ready]:
        """The next quotes to decide on: one instrument's, oldest first; none when nothing is ready."""
        return self._queues.take()

    def decide(self, batch: list[Ready], now_ns: int, *, listing_older_by_ns: int = 0) -> Decision:
        """Decide on a batch: every quote moves the averages, the last one decides."""
        last = batch[-1]
        found = self.listings.get(last.quote.instrument, now_ns, older_by_ns=listing_older_by_ns)
        mode, lot = last.mode, None if found.value is None else found.value.lot
        if lot is None:
            mode = Mode.FALLBACK
        lean = 0.0 if mode is Mode.FALLBACK else last.lean
        for ready in batch[:-1]:
            self.strategy.observe(ready.quote)
        intents = self.strategy.decide(last.quote, lean=lean, lot=lot)
        ages = [age for age in (found.age_ns, last.signal.age_ns) if age is not None]
        keys = [ready.key for ready in batch]
        return Decision(keys, intents, mode, max(found.state, last.signal.state), max(ages, default=None))

    def _queue(self, ready: Ready) -> Ready:
        instrument = ready.quote.instrument
        depth = self._queues.put(PRIORITY_OF[instrument], instrument, ready)
        return Ready(ready.key, ready.quote, ready.mode, ready.signal, ready.lean, depth)
