"""Two hosts' clocks from the messages between them: whatever the truth is, it lies inside the bound."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.clock_history import clock_incidents, clock_pairs, clock_states
from analytics.clock_pairs import PairBound, bound_pair, lower_hull, verdict
from analytics.paths import End, Path, Stage
from collector.keys import hash64
from collector.record import CLOCK, STAMPS, Columns
from collector.store import Store
from collector.store.blocks import BlockColumn, constant, from_columns
from collector.store.schema import table_types
from tests.analytics.conftest import T0

S = 1e9


def exchange(
    seed: int, n: int, offset: float, ppm: float, span_s: float = 60.0, least: float = 20_000.0
) -> tuple[np.ndarray, np.ndarray]:
    """Delays both ways between clocks that are `offset` + `ppm` * t apart: exponential queues above `least`."""
    rng = np.random.default_rng(seed)

    def way(sign: int) -> np.ndarray:
        t = np.sort(rng.uniform(-span_s / 2, span_s / 2, n)) * S
        return np.column_stack((t, least + rng.exponential(50_000, n) + sign * (offset + ppm * 1e-6 * t)))

    return way(1), way(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1), n=st.integers(1, 300),
    offset=st.floats(-1e10, 1e10), ppm=st.floats(-200, 200), least=st.floats(0, 20_000),
)  # fmt: skip
def test_the_truth_is_always_inside(seed: int, n: int, offset: float, ppm: float, least: float) -> None:
    forth, back = exchange(seed, n, offset, ppm)
    at = 30 * S
    bound = bound_pair(forth, back, at, least)
    truth = offset + ppm * 1e-6 * at
    assert bound.linear
    assert bound.low_ns is not None and bound.high_ns is not None
    assert bound.low_ns - 1 <= truth <= bound.high_ns + 1
    if bound.drift_low_ppb is not None and bound.drift_high_ppb is not None:
        assert bound.drift_low_ppb - 1e-3 <= ppm * 1e3 <= bound.drift_high_ppb + 1e-3


def test_many_messages_make_it_tight() -> None:
    forth, back = exchange(1, 20_000, 3_000_000, 12)
    bound = bound_pair(forth, back, 0.0)
    assert bound.offset_ns == pytest.approx(3_000_000, abs=25_000)
    assert bound.high_ns is not None and bound.low_ns is not None
    assert bound.high_ns - bound.low_ns < 2 * 21_000  # half of the fastest round trip on each side
    assert bound.drift_low_ppb is not None and bound.drift_high_ppb is not None
    assert 11_000 < bound.drift_low_ppb < 12_000 < bound.drift_high_ppb < 13_000
    # Knowing that nothing is faster than 20 us leaves only the queues.
    known = bound_pair(forth, back, 0.0, 20_000)
    assert known.high_ns is not None and known.low_ns is not None
    assert known.high_ns - known.low_ns < 2_000


def test_one_way_says_nothing() -> None:
    forth, _ = exchange(1, 50, 1e6, 0)
    assert bound_pair(forth, np.zeros((0, 2)), 0.0) == PairBound(None, None, None, None, 50, 0)


def test_messages_that_do_not_interleave_bound_the_offset_by_the_largest_slew() -> None:
    forth, back = np.array([[0.0, 30_000.0]]), np.array([[S, 10_000.0]])
    bound = bound_pair(forth, back, S)
    assert (bound.low_ns, bound.high_ns) == (-10_000, 30_000 + 500_000)
    assert bound.drift_low_ppb is None


def test_a_step_in_the_window_fits_no_line() -> None:
    forth, back = exchange(3, 500, 0, 0)
    later = forth[:, 0] > 0
    forth[later, 1] += 5e6
    back[back[:, 0] > 0, 1] -= 5e6
    bound = bound_pair(forth, back, 30 * S)
    assert not bound.linear
    assert verdict(bound, 10**9) == "contradiction"


@pytest.mark.parametrize(
    ("low", "high", "claim", "want"),
    [
        (-5.0, 5.0, 0, "consistent"),
        (10.0, 20.0, 10, "consistent"),
        (10.0, 20.0, 9, "contradiction"),
        (-20.0, -10.0, 9, "contradiction"),
        (10.0, 20.0, None, "unknown"),
        (None, None, 9, "unknown"),
    ],
)
def test_verdicts(low: float | None, high: float | None, claim: int | None, want: str) -> None:
    assert verdict(PairBound(low, high, None, None, 1, 1), claim) == want


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=1, max_size=40))
def test_the_hull_is_below_every_point_and_convex(points: list[tuple[int, int]]) -> None:
    array = np.array(points, np.float64)
    hull = lower_hull(array)
    assert (np.diff(hull[:, 0]) > 0).all()
    for x, y in points:
        assert np.interp(x, hull[:, 0], hull[:, 1]) <= y + 1e-9
    slopes = np.diff(hull[:, 1]) / np.diff(hull[:, 0]) if len(hull) > 1 else np.zeros(1)
    assert (np.diff(slopes) > 0).all()


# --- from the store

PATH = Path(
    name="order", max_age="1s",
    stages=[
        Stage(name="out", start=End(point="app_egress"), end=End(point="app_ingress"), kind="network"),
        Stage(name="home", start=End(point="sent"), end=End(point="acked"), kind="network"),
    ],
)  # fmt: skip
MS = 1_000_000


def put(store: Store, table, rows) -> None:  # type: ignore[no-untyped-def]
    columns, types = Columns.from_rows(table, rows), table_types()[table.name]
    n = len(columns)
    extra = (
        constant("batch", types["batch"], 1, n),
        BlockColumn("seq", types["seq"], np.arange(n, dtype=np.uint64)),
        constant("cut_day", types["cut_day"], T0 // 86_400_000_000_000, n),
    )
    store.insert(table.name, from_columns(types, columns, extra), token=f"{table.name}-{rows[0]['ts_ns']}-{n}")


def talk(store: Store, offset_ns: int) -> None:
    """100 orders from h1 to h2 and back; the clock of h2 is `offset_ns` ahead."""
    rows = []
    for n in range(100):
        t = T0 + n * 10 * MS
        key = hash64("order", n)
        delay = 30_000 + n * 137 % 90_000
        for point, host, at in (
            ("app_egress", "h1", t), ("app_ingress", "h2", t + delay + offset_ns),
            ("sent", "h2", t + MS + offset_ns), ("acked", "h1", t + MS + delay),
        ):  # fmt: skip
            rows.append({"ts_ns": at, "key": key, "point": point, "host": host, "service": "s", "clock": "monotonic"})
    put(store, STAMPS, rows)


def claim(store: Store, **errors: int | None) -> None:
    rows = [
        {"ts_ns": T0 + i, "host": host, "clock": "realtime", "source": "chrony", "event": "sample", "error_ns": error}
        for i, (host, error) in enumerate(errors.items())
    ]
    put(store, CLOCK, rows)


@pytest.mark.parametrize(
    ("offset_ns", "claims", "want"),
    [
        (0, (20_000, 20_000), "consistent"),
        (3 * MS, (20_000, 20_000), "contradiction"),
        (-7 * MS, (20_000, None), "unknown"),
    ],
)
def test_messages_of_two_hosts_against_their_claims(
    store: Store, offset_ns: int, claims: tuple[int, int | None], want: str
) -> None:
    talk(store, offset_ns)
    claim(store, h1=claims[0], h2=claims[1])
    (pair,) = clock_pairs(store, [PATH], T0 - 60 * 10**9, T0 + 60 * 10**9)
    assert (pair.a, pair.b, pair.forth, pair.back, pair.verdict) == ("h1", "h2", 100, 100, want)
    assert pair.low_ns is not None and pair.high_ns is not None
    assert pair.low_ns <= offset_ns <= pair.high_ns
    assert pair.high_ns - pair.low_ns < 200_000
    assert pair.claims == ["chrony"]


def test_one_host_has_no_pairs(store: Store) -> None:
    claim(store, h1=5)
    assert clock_pairs(store, [PATH], T0 - 10**9, T0 + 10**9) == []


def test_states_and_incidents_of_a_time(store: Store) -> None:
    base = {"host": "h1", "clock": "realtime"}
    put(
        store, CLOCK,
        [
            {**base, "ts_ns": T0, "source": "chrony", "event": "sample", "error_ns": 900, "offset_ns": 5},
            {**base, "ts_ns": T0, "source": "adjtimex", "event": "stated"},
            {**base, "ts_ns": T0 + 1, "source": "chrony", "event": "step", "error_ns": 900, "step_ns": -77},
            {**base, "ts_ns": T0 + 2, "source": "chrony", "event": "sync_lost"},
            {**base, "ts_ns": T0 + 3, "source": "chrony", "event": "stated"},
            {**base, "ts_ns": T0 + 3, "source": "adjtimex", "event": "sample", "error_ns": 4_000},
        ],
    )  # fmt: skip
    kernel, chrony = clock_states(store, T0, T0 + 10)
    assert (kernel.source, kernel.in_use, kernel.error_ns, kernel.max_error_ns) == ("adjtimex", True, 4_000, 4_000)
    assert (chrony.in_use, chrony.error_ns, chrony.max_error_ns) == (False, None, 900)
    assert (chrony.samples, chrony.without_bound, chrony.steps, chrony.losses) == (2, 1, 1, 1)
    assert [(e.event, e.step_ns) for e in clock_incidents(store, T0, T0 + 10)] == [("sync_lost", None), ("step", -77)]
    assert clock_states(store, T0 + 10, T0 + 20) == []
