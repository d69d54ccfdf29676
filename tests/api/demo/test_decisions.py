import itertools
from collections import Counter

from api.demo.book import Books
from api.demo.market import PAIRS, SYMBOLS, Market
from api.demo.market_data import Quote
from api.demo.risk import RiskGate
from api.demo.strategy import Intent, Strategy
from api.demo.wire import Order, Reason


def quotes(rate: float, seed: int, sends: int) -> list[Quote]:
    return [q for _, batch in itertools.islice(Market(rate, seed).sends(), sends) for q in batch]


def test_the_same_seed_gives_the_same_market() -> None:
    assert quotes(200, 7, 500) == quotes(200, 7, 500)
    assert quotes(200, 7, 500) != quotes(200, 8, 500)


def test_the_market_keeps_its_rate_and_its_order() -> None:
    sends = list(itertools.islice(Market(200, 3).sends(), 20_000))
    times = [at for at, _ in sends]
    assert times == sorted(times)
    count = sum(len(batch) for _, batch in sends)
    assert 190 < count / (times[-1] * 1e-9) < 210
    assert max(len(batch) for _, batch in sends) > 1  # bursts
    assert {q.instrument for _, batch in sends for q in batch} == set(range(len(SYMBOLS)))
    assert all(q.bid < q.ask for _, batch in sends for q in batch)


def test_some_quotes_lead_to_no_order_some_to_one_some_to_two() -> None:
    strategy = Strategy(pairs=PAIRS)
    counts = Counter(len(strategy.decide(q)) for q in quotes(200, 1, 5_000))
    total = counts.total()
    assert set(counts) == {0, 1, 2}
    assert counts[0] > 0.4 * total
    assert counts[1] > 0.2 * total
    assert counts[2] > 0.03 * total


def test_a_steady_price_leads_to_nothing_and_a_jump_buys_at_the_ask() -> None:
    strategy = Strategy(threshold=4, pairs={0: 1})
    steady = Quote(0, 0, 99, 1, 101, 1)
    assert [strategy.decide(steady) for _ in range(50)] == [[]] * 50
    assert strategy.decide(Quote(0, 0, 109, 1, 111, 1)) == [Intent(0, b"B", 100 * (1 + 4), 111)]


def test_a_big_move_is_hedged_in_the_paired_instrument() -> None:
    strategy = Strategy(threshold=4, pairs={0: 1})
    strategy.decide(Quote(1, 0, 199, 1, 201, 1))
    strategy.decide(Quote(0, 0, 99, 1, 101, 1))
    own, hedge = strategy.decide(Quote(0, 0, 79, 1, 81, 1))
    assert own.side == b"S"
    assert own.price == 79
    assert hedge == Intent(1, b"B", 100, 201)


def test_the_risk_gate_names_the_first_limit_broken() -> None:
    gate = RiskGate(max_quantity=100, max_value=1_000, rate_per_s=1, burst=2)
    assert gate.check(Order(1, 0, b"B", 101, 1), 0) is Reason.TOO_LARGE
    assert gate.check(Order(2, 0, b"B", 100, 11), 0) is Reason.TOO_COSTLY
    assert [gate.check(Order(n, 0, b"B", 1, 1), 0) for n in (3, 4, 5)] == [
        Reason.ACCEPTED,
        Reason.ACCEPTED,
        Reason.TOO_FAST,
    ]
    assert gate.check(Order(6, 1, b"B", 1, 1), 0) is Reason.ACCEPTED  # another instrument's bucket
    assert gate.check(Order(7, 0, b"B", 1, 1), 1_000_000_000) is Reason.ACCEPTED  # refilled


def test_the_book_trades_at_the_resting_price_best_price_first() -> None:
    books = Books(1, band=100)
    books.submit(Order(1, 0, b"S", 10, 102))
    books.submit(Order(2, 0, b"S", 10, 101))
    assert books.submit(Order(3, 0, b"B", 10, 105)).price == 101
    assert books.submit(Order(4, 0, b"B", 10, 105)).price == 102
    assert books.submit(Order(5, 0, b"B", 10, 105)).price == 105  # nothing left: rests at its limit
    assert books.submit(Order(6, 0, b"S", 4, 90)).price == 105
    assert books.submit(Order(7, 0, b"S", 6, 90)).price == 105  # the rest of order 5


def test_the_venue_rejects_what_it_does_not_know_and_what_is_far_away() -> None:
    books = Books(1, band=5, follow=0.5)
    assert books.submit(Order(1, 1, b"B", 1, 100)).reason is Reason.UNKNOWN_INSTRUMENT
    assert books.submit(Order(2, 0, b"B", 1, 100)).reason is Reason.ACCEPTED
    assert books.submit(Order(3, 0, b"B", 1, 110)).reason is Reason.PRICE_OUT_OF_BAND
    assert books.submit(Order(4, 0, b"B", 1, 110)).reason is Reason.ACCEPTED  # the reference has followed


def test_the_book_stays_bounded() -> None:
    books = Books(1, band=1e9, depth=100)
    for number in range(1_000):
        books.submit(Order(number, 0, b"B", 1, 10_000 + number % 50))
    resting = books._books[0].bids
    assert len(resting) <= 100
    assert -min(resting)[0] == 10_049  # the best are kept
