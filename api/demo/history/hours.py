"""One hour of history: what a seed, a rate, a profile and the date make of it. The unit that is simulated and shipped.

An hour depends on nothing outside it, so that hours can be made in any order, by several processes, and again: the same
hour of the same history is the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from importlib import resources

import msgspec

from api.demo.delays import parse
from api.demo.faults import Fault
from api.demo.history.beside import Beside, routed
from api.demo.history.calendar import DAY_NS, HOUR_NS, NS, Day, day, timelines
from api.demo.history.feed import Feed, sent
from api.demo.history.simulation import OrderPath
from api.demo.history.tape import Tape
from api.demo.market import SYMBOLS, Market
from api.demo.profile import profile
from api.demo.quantiles import Quantiles

HOST = "demo-history"
REMEMBERED_DAYS = 30  # how far back is looked for what was deployed


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a history is made of. `rate` is quotes per second on average, while the market is open."""

    seed: int = 1
    rate: float = 1.0
    profile: str = "day"
    faults: bool = True  # incidents, deploys, and instances beside the main ones


@lru_cache(maxsize=1)
def measured() -> Mapping[str, Quantiles]:
    """The latency profile measured on the live demo."""
    return parse((resources.files("api.demo.history") / "live.csv").read_text("utf-8"), "live.csv")


@lru_cache(maxsize=4 * REMEMBERED_DAYS)
def day_of(seed: int, at_ns: int) -> Day:
    """The day that a moment lies in."""
    return day(seed, at_ns - at_ns % DAY_NS)


def beside_of(seed: int, begin_ns: int, end_ns: int) -> Beside:
    """What ran beside the programs in [begin_ns, end_ns), and in which versions they were."""
    today = day_of(seed, begin_ns)
    days = [day_of(seed, today.start_ns - back * DAY_NS) for back in range(REMEMBERED_DAYS)]
    there = [one for one in today.beside if one.start_ns < end_ns + 10 * NS and (one.end_ns or 0) > begin_ns]
    return Beside(routed(there), {one.id: today.name_of(one) for one in there}, timelines(days))


def simulate(settings: Settings, begin_ns: int) -> OrderPath:
    """The hour that begins at `begin_ns`. All that begins in it is followed to its end."""
    today = day_of(settings.seed, begin_ns)
    end_ns = begin_ns + HOUR_NS
    faults = [f for f in today.faults if f.start_ns < end_ns + 10 * NS and (f.end_ns or 0) > begin_ns]
    shape = profile(settings.profile, today.seed, len(SYMBOLS))
    market = Market(
        settings.rate * today.rate,
        today.seed + begin_ns // HOUR_NS,
        shape,
        at_s=(begin_ns - today.start_ns) / NS,
    )

    def busy(at_ns: int) -> float:
        return today.rate * shape.factor((at_ns - today.start_ns) / NS)

    return play(
        market,
        begin_ns,
        end_ns,
        faults if settings.faults else [],
        today.seed + begin_ns // HOUR_NS,
        beside=beside_of(settings.seed, begin_ns, end_ns) if settings.faults else None,
        busy=busy if shape.sessions else None,
    )


def play(
    market: Market,
    begin_ns: int,
    end_ns: int,
    faults: Sequence[Fault],
    seed: int,
    delays: Mapping[str, Quantiles] | None = None,
    beside: Beside | None = None,
    busy: Callable[[int], float] | None = None,
) -> OrderPath:
    """A market's datagrams from `begin_ns` to `end_ns` through the order path."""
    tape = Tape(HOST)
    first_order = (begin_ns // 1_000_000 & 0xFFFF_FFFF) << 32 | 1
    path = OrderPath(tape, delays or measured(), faults, seed, first_order, beside, busy)
    feed = Feed(path, path.delay("feed.send"))
    for intended_ns, payload in sent(market, begin_ns, end_ns):
        path.events.run(intended_ns)
        feed.quotes(intended_ns, payload)
    path.events.run()
    return path
