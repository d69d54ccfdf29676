import io

import pytest
from rich.console import Console

from dashboards.terminal import bar, count, duration, notes, percentile, percentiles_table, share, sparkline


@pytest.mark.parametrize(
    ("ns", "text"),
    [
        (None, "-"),
        (0, "0 ns"),
        (7, "7 ns"),
        (874, "874 ns"),
        (1_000, "1.00 us"),
        (12_345, "12.3 us"),
        (999_400, "999 us"),
        (1_050_000, "1.05 ms"),
        (98_040_000_000, "98.0 s"),
        (-1_500, "-1.50 us"),
    ],
)
def test_durations_have_three_digits_and_a_unit_that_fits(ns: float | None, text: str) -> None:
    assert duration(ns) == text


def test_a_share_never_rounds_a_loss_away() -> None:
    assert share(1.0) == "100 %"
    assert share(0.9999999) == "99.999 %"
    assert share(0.5) == "50.000 %"
    assert share(None) == "unknown"


def test_a_refused_percentile_shows_how_many_messages_it_needs() -> None:
    assert percentile(None, "needs at least 3,688 samples for p99.9") == "n<3,688"
    assert percentile(1_000, None) == "1.00 us"
    assert percentile(None, None) == "-"


def test_bars_and_sparklines_scale_to_the_largest() -> None:
    assert bar(10, 10, 4) == "████"
    assert bar(5, 10, 4) == "██"
    assert bar(None, 10) == ""
    assert len(sparkline([1, None, 4])) == 3
    assert sparkline([1, None, 8])[1:] == " █"


def test_the_table_shows_counts_refusals_unfinished_and_completeness() -> None:
    stage = {
        "stage": "decide",
        "count": 1_234,
        "unfinished": 5,
        "headless": 4_321,
        "mean_ns": 1_500.0,
        "min_ns": 900,
        "p50_ns": 1_400,
        "p90_ns": 2_000,
        "p99_ns": 9_000,
        "p999_ns": None,
        "p9999_ns": None,
        "max_ns": 12_000,
        "completeness": 0.99,
        "refused": {"p999_ns": "needs at least 3,688 samples for p99.9"},
        "negative": 2,
    }
    out = io.StringIO()
    Console(file=out, width=200).print(percentiles_table("order", [stage]))
    text = out.getvalue()
    for part in ("decide", "1,234", "5", "9.00 us", "n<3,688", "12.0 us", "99.000 %"):
        assert part in text
    lines = notes([stage])
    assert any("decide: 2 are negative" in line for line in lines)
    assert lines[0].startswith("4,321 more without a start")
    assert any("3,688" in line for line in lines)
    assert count(None) == "-"
