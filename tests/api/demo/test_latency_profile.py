"""Latency profiles as files: what is written is read, what is wrong is named with its line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.demo.delays import HEADER, MAGIC, NAMES, ProfileError, draws, parse, quantiles_of, read, write
from api.demo.faults import Fault, FaultError, checked
from api.demo.history.hours import measured
from api.demo.link_model import LinkModel
from api.demo.quantiles import value_at

GOOD = f"{MAGIC}\n# a remark\n{HEADER}\nline-a,0,10\nline-a,0.5,100\nline-a,1,1000\nvenue.match,0,5\nvenue.match,1,5\n"


def test_the_shipped_profile_has_every_name() -> None:
    assert set(measured()) == set(NAMES)
    assert parse(write(measured())) == measured()


def test_a_good_file_is_read() -> None:
    assert parse(GOOD) == {
        "line-a": ((0.0, 10), (0.5, 100), (1.0, 1000)), "venue.match": ((0.0, 5), (1.0, 5)),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (MAGIC, "# something else", "line 1: a latency profile begins with"),
        (HEADER, "name;quantile;ns", "line 3: expected the header"),
        ("line-a,0,10", "line-a,0", "line 4: 2 fields, want 3"),
        ("line-a,0,10", "line-z,0,10", "line 4: there is no link or step 'line-z'"),
        ("line-a,0,10", "line-a,0.1,10", "line 4: the first row of 'line-a' must be quantile 0"),
        ("line-a,0,10", "line-a,0,ten", "line 4: quantile and ns must be numbers"),
        ("line-a,0.5,100", "line-a,0,100", "line 5: quantiles must ascend"),
        ("line-a,0.5,100", "line-a,nan,100", "line 5: quantiles must ascend"),
        ("line-a,0.5,100", "line-a,0.5,9", "line 5: 9 ns is less than the 10 ns"),
        ("line-a,0.5,100", "line-a,0.5,-1", "line 5: -1 ns is not between 0 and one hour"),
        ("line-a,1,1000\n", "", "'line-a' ends with quantile 0.5"),
        ("venue.match,1,5\n", "venue.match,1,5\nline-a,1,5\n", "line 9: the rows of 'line-a' must stand together"),
        (GOOD[GOOD.index("line-a,0") :], "", "there is no row"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ProfileError, match=message):
        parse(GOOD.replace(old, new, 1))


def test_files_that_cannot_be_a_profile_are_refused(tmp_path: Path) -> None:
    for content in (b"\xff\xfe", b"x" * (1 << 20) + b"y", b""):
        (tmp_path / "p.csv").write_bytes(content)
        with pytest.raises(ProfileError, match=r"p\.csv"):
            read(tmp_path / "p.csv")
    with pytest.raises(ProfileError, match="cannot be read"):
        read(tmp_path / "absent.csv")


@given(st.text())
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = parse(f"{MAGIC}\n{HEADER}\n{text}")
    except ProfileError:
        return
    assert parse(write(found)) == found


@given(st.lists(st.integers(-10, 10**12), min_size=2, max_size=200), st.integers(0, 2**32))
def test_measured_quantiles_make_a_profile_whose_draws_stay_inside(samples: list[int], seed: int) -> None:
    quantiles = quantiles_of(np.array(samples, np.int64))
    assert parse(write({"line-a": quantiles}))["line-a"] == quantiles
    drawn = draws(quantiles, np.random.default_rng(seed), 50)
    assert all(quantiles[0][1] <= ns <= quantiles[-1][1] for ns in drawn)
    assert [value_at(quantiles, q) for q, _ in quantiles] == [ns for _, ns in quantiles]


def test_a_link_draws_its_delay_from_the_profile() -> None:
    fault = Fault(
        id="", kind="link", at="line-a", size=1.0, amount_ns=0, start_ns=0,
        delays=((0.0, 1_000), (0.9, 2_000), (1.0, 50_000)),
    )  # fmt: skip
    leaves = [LinkModel(False, seed).leaves_ns(100, 0, [checked(fault)], 1) or 0 for seed in range(400)]
    assert 1_000 <= min(leaves) < max(leaves) <= 50_000
    assert 0.03 < np.mean(np.array(leaves) > 2_000) < 0.2
    with pytest.raises(FaultError, match="or a profile"):
        checked(Fault(id="", kind="link", at="line-a", size=1.0, amount_ns=0, start_ns=0))
