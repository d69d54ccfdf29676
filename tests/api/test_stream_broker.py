from __future__ import annotations

import asyncio

from api.stream import Broker, Reader


def reader(*kinds: str, path: str | None = None) -> Reader:
    return Reader(frozenset(kinds or ("window", "change")), path, asyncio.get_running_loop())


def broker(buffer: int = 4, history: int = 8, readers: int = 2) -> Broker:
    return Broker(buffer=buffer, history=history, readers=readers)


async def _each_reader_gets_what_it_wants() -> None:
    b = broker()
    both, orders = reader(), reader("window", path="order")
    assert b.subscribe(both, None) == (True, True)
    assert b.subscribe(orders, None) == (True, True)
    assert b.subscribe(reader(), None)[0] is False  # two are enough
    first = b.publish("window", {"n": 1}, "order")
    second = b.publish("window", {"n": 2}, "feed")
    third = b.publish("change", {"n": 3})
    assert [e.id for e in b.take(both)] == [first.id, second.id, third.id]
    assert [e.data["n"] for e in b.take(orders)] == [1]
    assert first.id < second.id < third.id


def test_each_reader_gets_what_it_wants() -> None:
    asyncio.run(_each_reader_gets_what_it_wants())


async def _resume() -> None:
    b = broker()
    ids = [b.publish("change", {"n": n}).id for n in range(4)]
    again = reader()
    assert b.subscribe(again, ids[1]) == (True, True)
    assert [e.data["n"] for e in b.take(again)] == [2, 3]
    b.unsubscribe(again)
    # Older than this process: what came before it started is only in the store.
    assert b.subscribe(reader(), b.started_ns - 1) == (True, False)


def test_a_reader_resumes_after_its_last_event() -> None:
    asyncio.run(_resume())


async def _history_is_bounded() -> None:
    b = broker()
    ids = [b.publish("change", {"n": n}).id for n in range(20)]
    late = reader()
    assert b.subscribe(late, ids[0]) == (True, False)
    assert b.subscribe(reader(), ids[15])[1] is True


def test_what_has_left_the_history_is_said_to_be_missing() -> None:
    asyncio.run(_history_is_bounded())


async def _slow() -> None:
    b = broker(buffer=4)
    slow, quick = reader(), reader()
    b.subscribe(slow, None)
    b.subscribe(quick, None)
    for n in range(10):
        b.publish("change", {"n": n})
        b.take(quick)
    assert slow.missed
    assert not quick.missed
    assert b.dropped_readers == 1
    assert b.readers == 1
    assert [e.data["n"] for e in b.take(slow)] == [0, 1, 2, 3]  # an unbroken beginning, then nothing


def test_a_slow_reader_is_dropped_and_counted_and_costs_the_others_nothing() -> None:
    asyncio.run(_slow())


async def _close() -> None:
    b = broker()
    open_one = reader()
    b.subscribe(open_one, None)
    b.close()
    await asyncio.wait_for(open_one.wake.wait(), 5)
    assert open_one.closed
    assert b.subscribe(reader(), None)[0] is False


def test_closing_wakes_every_reader() -> None:
    asyncio.run(_close())
