"""Drop copies into settled orders, and the file they are kept in."""

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo import truth
from api.demo.blotter import MOST_OPEN, SETTLE_NS, UNREPORTED_NS, Blotter, Settled
from api.demo.business import FILE, KPIS, ORDERS, Business, columns, read
from api.demo.drop_copy import Copy, Filled, Reported, Sent, decode
from api.demo.outcome_rule import LoadMeter, draw_rule
from api.demo.wire import IMMEDIATE, LIMIT, Fill, Order, Reason, Report, WireError

MS = 1_000_000
NOW = 1_800_000_000_000_000_000
MONO = 7_000_000_000
MINUTE = 60_000_000_000


def blotter() -> Blotter:
    return Blotter(draw_rule(4), LoadMeter(10.0), lambda at_ns: at_ns * 1e-9 % 86_400)


def sent(number: int = 1, at_ns: int = NOW, **order: object) -> Sent:
    fields = {"instrument": 2, "side": b"B", "quantity": 300, "price": 10_000, "offer": LIMIT, **order}
    return Sent(Order(number, **fields), at_ns, MONO, MONO - 4 * MS, 5 * MS)  # type: ignore[arg-type]


def reported(number: int = 1, reason: Reason = Reason.ACCEPTED, at_ns: int = NOW + 2 * MS) -> Reported:
    return Reported(Report(number, reason, 10_000), at_ns, MONO + 2 * MS)


def settle(*copies: Copy, now_ns: int = NOW + 2 * MS + SETTLE_NS) -> list[Settled]:
    books = blotter()
    for copy in copies:
        books.take(copy)
    return books.settle(now_ns)


@pytest.mark.parametrize("copy", [sent(), replace(sent(offer=IMMEDIATE, side=b"S"), data_age_ns=None), reported(),
                                  Filled(Fill(1, 100, 9_999))], ids=str)  # fmt: skip
def test_a_copy_is_what_was_copied(copy: Copy) -> None:
    assert decode(copy.encode()) == copy


@given(st.binary(max_size=80))
@settings(max_examples=200, derandomize=True)
def test_bytes_that_are_no_copy_are_refused(payload: bytes) -> None:
    for data in (payload, *(kind + payload for kind in (b"S", b"R", b"F"))):
        try:
            copy = decode(data)
        except WireError:
            continue
        assert decode(copy.encode()) == copy


def test_an_order_is_settled_with_what_really_happened_to_it() -> None:
    copies = (sent(), reported(), Filled(Fill(1, 100, 9_998)), Filled(Fill(1, 50, 9_995)))
    assert settle(*copies, now_ns=NOW + SETTLE_NS) == []
    (row,) = settle(*copies)
    assert (row.order_id, row.symbol, row.site, row.offer_type, row.side) == ("1", "GAMA", "east", "limit", "buy")
    assert (row.status, row.reason, row.success) == ("accepted", "accepted", 1)
    assert (row.sent_ns, row.reported_ns, row.filled_quantity) == (NOW, NOW + 2 * MS, 150)
    assert row.average_price_ticks == pytest.approx(9_997)
    assert row.slippage_ticks == pytest.approx(-3)  # the book gave a better price
    assert row.revenue_cents >= 75  # half a basis point of 150 at 99.97


def test_slippage_of_a_sale_has_the_other_sign() -> None:
    (row,) = settle(sent(side=b"S"), reported(), Filled(Fill(1, 100, 9_998)))
    assert row.slippage_ticks == pytest.approx(2)


@pytest.mark.parametrize(
    ("reason", "status"),
    [(Reason.PRICE_OUT_OF_BAND, "rejected"), (Reason.TOO_FAST, "rejected"), (Reason.VENUE_DOWN, "error")],
)
def test_a_refused_order_brings_nothing(reason: Reason, status: str) -> None:
    (row,) = settle(sent(), reported(reason=reason))
    assert (row.status, row.reason, row.success) == (status, reason.name.lower(), 0)
    assert (row.converted, row.revenue_cents, row.slippage_ticks) == (0, 0, None)


def test_an_order_that_nobody_reports_on_is_settled_too() -> None:
    assert settle(sent(), now_ns=NOW + UNREPORTED_NS - 1) == []
    (row,) = settle(sent(), now_ns=NOW + UNREPORTED_NS)
    assert (row.status, row.reported_ns, row.success, row.converted) == ("unreported", None, 0, 0)


def test_only_the_first_report_counts_and_strangers_are_counted() -> None:
    books = blotter()
    for copy in (reported(9), Filled(Fill(9, 1, 1)), sent(), reported(), reported(reason=Reason.VENUE_DOWN)):
        books.take(copy)
    assert [row.status for row in books.settle(NOW + 2 * UNREPORTED_NS)] == ["accepted"]
    assert books.settle(NOW + 3 * UNREPORTED_NS) == []
    assert books.unknown == 2


def test_too_many_open_orders_are_settled_early() -> None:
    books = blotter()
    for number in range(MOST_OPEN + 7):
        books.take(sent(number, NOW + number))
    assert len(books.settle(NOW)) == 7 == books.pushed_out
    assert len(books.close()) == MOST_OPEN
    assert books.close() == []


def rows(count: int, first: int = 0, step_ns: int = MS) -> list[Settled]:
    (one,) = settle(sent(), reported(), Filled(Fill(1, 100, 9_998)))
    return [replace(one, order_id=str(first + n), sent_ns=NOW + (first + n) * step_ns) for n in range(count)]


def test_the_file_keeps_the_newest_and_each_order_once(tmp_path: Path) -> None:
    business = Business(tmp_path, keep_rows=50)
    for first in range(0, 200, 20):
        business.add(rows(40, first))
    business.add([])
    business.close()
    kept = [dict(zip(ORDERS, row, strict=True)) for row in read(tmp_path / FILE, "orders")]
    assert [int(row["order_id"]) for row in kept] == list(range(170, 220))
    assert len(list(read(tmp_path / FILE, "orders", NOW + 180 * MS, NOW + 190 * MS))) == 10
    assert len(list(read(tmp_path / FILE, "orders", limit=3))) == 3
    again = Business(tmp_path)
    again.close()
    assert len(list(read(tmp_path / FILE, "orders"))) == 50


def test_kpis_are_sums_per_minute_and_kind_of_customer(tmp_path: Path) -> None:
    business = Business(tmp_path)
    start = NOW - NOW % MINUTE
    books = blotter()
    for number in range(3_000):
        at_ns = start + number * 60 * MS
        books.take(sent(number, at_ns))
        reason = Reason.PRICE_OUT_OF_BAND if number % 10 == 0 else Reason.ACCEPTED
        books.take(reported(number, reason, at_ns + MS))
        if number % 4 == 1:
            books.take(Filled(Fill(number, 100, 9_999)))
    settled = books.close()
    business.add(settled)
    kpis = [dict(zip(KPIS, row, strict=True)) for row in read(tmp_path / FILE, "kpis")]
    assert columns("kpis") == KPIS
    assert {row["minute_ns"] for row in kpis} == {start, start + MINUTE, start + 2 * MINUTE}
    total = {name: [sum(r[part] for r in kpis if r["name"] == name) for part in ("numerator", "denominator")]
             for name in {row["name"] for row in kpis}}  # fmt: skip
    assert total["order_success"] == [2_700, 3_000]
    assert total["conversion"] == [sum(row.converted for row in settled), 3_000]
    assert total["revenue"] == [sum(row.revenue_cents for row in settled), 3_000]
    assert total["fill"] == [75_000, 900_000]
    assert total["slippage"] == [-75_000, 75_000]
    retail = [row for row in settled if row.cohort == "retail" and row.sent_ns < start + MINUTE]
    found = sum(
        row["denominator"] for row in kpis
        if row["name"] == "conversion" and row["cohort"] == "retail" and row["minute_ns"] == start
    )  # fmt: skip
    assert found == len(retail) > 0
    # A minute is told whole, wherever in it the question begins.
    part = list(read(tmp_path / FILE, "kpis", start + MINUTE + 30_000 * MS))
    assert part == [tuple(row.values()) for row in kpis if row["minute_ns"] > start]
    business.close()


def test_another_versions_file_is_left_alone(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / FILE)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ValueError, match="version 99, want 1"):
        Business(tmp_path)


def test_the_truth_is_kept_for_a_run_and_read_by_nobody_else(tmp_path: Path) -> None:
    first = truth.settled(tmp_path, 1_000, None, 30.0)
    assert truth.settled(tmp_path, 1_000, None, 30.0) == first  # a back office that was started again
    second = truth.settled(tmp_path, 2_000, None, 30.0)
    assert second.rule != first.rule
    assert truth.settled(tmp_path, 3_000, 17, 30.0).rule == draw_rule(17)
    assert [one.run for one in truth.read_all(tmp_path)] == [1_000, 2_000, 3_000]
    folder = tmp_path / truth.FOLDER
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in folder.iterdir()} == {0o600}
