from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo.arbitration import Arbiter
from api.demo.market_data import Datagram

MS = 1_000_000


def fresh(follow: Arbiter, first: int, count: int, *, session: bytes = b"a", now_ns: int = 0) -> list[int]:
    return [number for number, _ in follow.receive(Datagram(session, first, [b""] * count), now_ns)]


def test_the_first_copy_counts() -> None:
    follow = Arbiter()
    assert fresh(follow, 5, 3) == [5, 6, 7]
    assert fresh(follow, 5, 3) == []
    assert fresh(follow, 6, 4) == [8, 9]
    assert (follow.missed, follow.repeated) == (0, 5)


def test_a_copy_that_will_not_go_on_is_known() -> None:
    follow = Arbiter()
    assert not follow.knows(b"b", 5)
    fresh(follow, 5, 1, session=b"b")
    fresh(follow, 7, 1, session=b"b")
    known = {number: follow.knows(b"b", number) for number in (4, 5, 6, 7, 8)}
    assert known == {4: True, 5: True, 6: False, 7: True, 8: False}
    assert follow.knows(b"a", 900)  # of the session before
    assert not follow.knows(b"c", 1)


def test_what_one_line_loses_the_other_brings_in_order() -> None:
    follow = Arbiter()
    assert fresh(follow, 1, 2) == [1, 2]
    assert fresh(follow, 5, 1) == []  # 3 and 4 are missing: wait
    assert fresh(follow, 3, 2) == [3, 4, 5]
    assert follow.missed == 0
    assert follow.due_ns() is None


def test_what_both_lines_lose_is_waited_for_and_given_up() -> None:
    follow = Arbiter(patience_ns=3 * MS)
    fresh(follow, 1, 2)
    assert fresh(follow, 5, 1, now_ns=10 * MS) == []
    assert follow.due_ns() == 13 * MS
    assert follow.expire(13 * MS - 1) == []
    assert [n for n, _ in follow.expire(13 * MS)] == [5]
    assert follow.missed == 2
    assert fresh(follow, 3, 2) == []  # too late


def test_a_heartbeat_tells_of_a_gap_at_the_end() -> None:
    follow = Arbiter(patience_ns=3 * MS)
    fresh(follow, 1, 2)
    assert fresh(follow, 4, 0, now_ns=MS) == []  # the next number will be 4: 3 is missing
    assert follow.due_ns() == 4 * MS
    follow.expire(4 * MS)
    assert (follow.missed, follow.expected) == (1, 4)


def test_a_new_session_takes_over_and_stragglers_do_not_bring_the_old_one_back() -> None:
    follow = Arbiter()
    fresh(follow, 100, 2, session=b"a")
    assert fresh(follow, 1, 2, session=b"b") == [1, 2]
    assert fresh(follow, 102, 1, session=b"a") == []
    assert fresh(follow, 3, 1, session=b"b") == [3]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=40))
@settings(max_examples=50, derandomize=True)
def test_numbers_go_on_once_in_order_whatever_the_lines_lose(fates: list[tuple[bool, int]]) -> None:
    """Each number is lost on neither, one or both lines; copies come late by up to three places."""
    copies = []
    for number, (lost_a, late_b) in enumerate(fates, 1):
        if not lost_a:
            copies.append((number, number))
        if late_b < 3:
            copies.append((number + late_b, number))
    follow = Arbiter(session=b"a", expected=1)
    got = []
    for at, number in sorted(copies):
        got += fresh(follow, number, 1, now_ns=at * MS)
        got += [n for n, _ in follow.expire(at * MS)]
    while (due := follow.due_ns()) is not None:
        got += [n for n, _ in follow.expire(due)]
    assert got == sorted(set(got))
    assert set(got) <= {number for _, number in copies}
    assert len(got) + follow.missed == follow.expected - 1
