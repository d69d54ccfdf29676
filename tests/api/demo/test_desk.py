from tailsight_probe import Cache, Mode

from api.demo.cache import AgedCache
from api.demo.desk import Desk
from api.demo.market import PAIRS, PRIORITY_OF
from api.demo.market_data import Listing, Quote
from api.demo.queues import ClassQueues
from api.demo.signals import Signal
from api.demo.strategy import Strategy

MS = 1_000_000
HIGH, NORMAL, LOW = (PRIORITY_OF.index(name) for name in ("high", "normal", "low"))


def quote(instrument: int, mid: int = 10_000) -> Quote:
    return Quote(instrument, 0, mid - 1, 100, mid + 1, 100)


def desk(**options: int) -> Desk:
    made = Desk(Strategy(pairs=PAIRS), **options)
    for instrument in range(len(PRIORITY_OF)):
        made.on_listing(Listing(instrument, 100, 1), 0)
    return made


def test_a_cache_says_how_old_its_answer_is() -> None:
    cache: AgedCache[str] = AgedCache(fresh_ns=10, usable_ns=100)
    assert cache.get(1, 0).state is Cache.MISS
    cache.put(1, "x", 1_000)
    for now, state, age in ((1_010, Cache.HIT, 10), (1_011, Cache.STALE, 11), (1_100, Cache.STALE, 100)):
        found = cache.get(1, now)
        assert (found.state, found.age_ns, found.value) == (state, age, "x")
    assert cache.get(1, 1_101).state is Cache.MISS
    assert cache.get(1, 1_000, older_by_ns=50).age_ns == 50


def test_queues_are_bounded_per_class_urgent_first_and_conflate() -> None:
    queues: ClassQueues[str] = ClassQueues(("high", "low"), 2)
    assert [queues.admit("low") for _ in range(3)] == [(0, True), (1, True), (2, False)]
    assert queues.admit("high") == (0, True)  # another class has places of its own
    assert [queues.put("low", 7, "a"), queues.put("low", 7, "b"), queues.put("high", 1, "c")] == [0, 1, 0]
    assert [queues.take(), queues.take(), queues.take()] == [["c"], ["a", "b"], []]
    assert queues.admit("low") == (0, True)  # taken means the place is free


def test_a_quote_with_its_signal_goes_on_as_normal() -> None:
    d = desk()
    assert d.on_quote(1, quote(HIGH), 0) == (0, True)
    ready = d.on_signal(Signal(1, HIGH, 0.5), MS)
    assert ready is not None
    assert (ready.mode, ready.signal.state) == (Mode.NORMAL, Cache.UNSET)
    decision = d.decide(d.take(), 2 * MS)
    assert (decision.keys, decision.mode, decision.cache, decision.data_age_ns) == ([1], Mode.NORMAL, Cache.HIT, 2 * MS)


def test_a_late_signal_is_replaced_by_the_cached_one_and_then_by_none() -> None:
    d = desk(signal_patience_ns=8 * MS)
    d.on_quote(1, quote(HIGH), 0)
    assert d.on_time(8 * MS - 1) == []
    (ready,) = d.on_time(8 * MS)
    assert (ready.mode, ready.signal.state) == (Mode.FALLBACK, Cache.MISS)
    assert d.on_signal(Signal(1, HIGH, 3.0), 20 * MS) is None  # late, but remembered
    assert d.late == 1
    modes = []
    for key, at_ms in ((2, 30), (3, 500), (4, 5_000)):
        d.on_quote(key, quote(HIGH), at_ms * MS)
        modes += [(r.mode, r.signal.state, r.signal.age_ns) for r in d.on_time((at_ms + 8) * MS)]
    assert modes == [
        (Mode.CACHED, Cache.HIT, 18 * MS),
        (Mode.CACHED, Cache.STALE, 488 * MS),
        (Mode.FALLBACK, Cache.MISS, None),
    ]


def test_old_reference_data_degrade_the_decision() -> None:
    d = desk()
    found = []
    for key, behind_ms in ((1, 0), (2, 5_000), (3, 20_000)):
        d.on_quote(key, quote(NORMAL), 0)
        d.on_signal(Signal(key, NORMAL, 0.0), 0)
        decision = d.decide(d.take(), 0, listing_older_by_ns=behind_ms * MS)
        found.append((decision.mode, decision.cache, decision.data_age_ns))
    assert found == [
        (Mode.NORMAL, Cache.HIT, 0),
        (Mode.NORMAL, Cache.STALE, 5_000 * MS),
        (Mode.FALLBACK, Cache.MISS, None),
    ]


def test_urgent_instruments_overtake_and_each_class_sheds_for_itself() -> None:
    d = desk(queue_size=2)
    for key, instrument in enumerate((LOW, LOW, LOW, HIGH), 1):
        d.on_quote(key, quote(instrument), 0)
    assert d.on_quote(9, quote(LOW), 0) == (2, False)
    assert len(d.on_time(100 * MS)) == 3  # the third of its class was shed
    assert [[r.key for r in d.take()] for _ in range(3)] == [[4], [1, 2], []]


def test_conflated_quotes_are_all_parents_of_the_order() -> None:
    d = desk()
    d.on_quote(1, quote(HIGH, 10_000), 0)
    d.on_time(100 * MS)
    d.decide(d.take(), 0)
    for key, mid in ((2, 10_010), (3, 10_020)):
        d.on_quote(key, quote(HIGH, mid), 0)
    d.on_time(100 * MS)
    decision = d.decide(d.take(), 0)
    assert decision.keys == [2, 3]
    assert [intent.price for intent in decision.intents] == [10_021]
