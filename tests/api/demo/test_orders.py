import pytest

from api.demo.book import Books
from api.demo.risk import RiskGate
from api.demo.routing import Router
from api.demo.wire import IMMEDIATE, Fill, Order, Reason, Report


def test_a_trade_fills_both_sides_at_the_resting_price() -> None:
    books = Books(1, band=100)
    books.submit(Order(1, 0, b"S", 10, 102))
    books.submit(Order(2, 0, b"S", 10, 101))
    report, fills = books.execute(Order(3, 0, b"B", 15, 105))
    assert report == Report(3, Reason.ACCEPTED, 102)
    assert fills == [Fill(3, 10, 101), Fill(2, 10, 101), Fill(3, 5, 102), Fill(1, 5, 102)]


@pytest.mark.parametrize(("offer", "rests"), [(b"L", True), (IMMEDIATE, False)])
def test_only_a_limit_order_rests(offer: bytes, rests: bool) -> None:
    books = Books(1, band=100)
    books.submit(Order(1, 0, b"S", 10, 100, offer))
    assert bool(books.execute(Order(2, 0, b"B", 10, 100))[1]) is rests


def test_answers_find_the_engine_that_sent_the_order() -> None:
    router: Router[str] = Router()
    assert router.on_order(Order(1, 0, b"B", 1, 1), "one", 0) is None
    assert router.on_order(Order(2, 0, b"B", 1, 1), "two", 0) is None
    assert router.on_report(Report(1, Reason.ACCEPTED)) == "one"
    assert router.on_report(Report(1, Reason.ACCEPTED)) is None  # once
    assert router.on_fill(Fill(1, 1, 1)) == "one"
    assert router.on_fill(Fill(2, 1, 1)) is None  # not accepted yet
    assert router.on_venue_lost() == [("two", Report(2, Reason.VENUE_DOWN))]
    assert router.on_venue_lost() == []


def test_a_refused_order_is_not_remembered() -> None:
    router: Router[str] = Router(RiskGate(max_quantity=10))
    assert router.on_order(Order(1, 0, b"B", 11, 1), "one", 0) == Report(1, Reason.TOO_LARGE)
    assert router.on_report(Report(1, Reason.ACCEPTED)) is None


def test_filled_orders_are_remembered_up_to_a_number() -> None:
    router: Router[str] = Router(RiskGate(rate_per_s=1e9, burst=1e9), remembered=2)
    for number in (1, 2, 3):
        router.on_order(Order(number, 0, b"B", 1, 1), "one", 0)
        router.on_report(Report(number, Reason.ACCEPTED))
    assert [router.on_fill(Fill(number, 1, 1)) for number in (1, 2, 3)] == [None, "one", "one"]
