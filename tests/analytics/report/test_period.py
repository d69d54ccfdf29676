from __future__ import annotations

from datetime import UTC, datetime

import pytest

from analytics.report.period import HOUR_NS, NS, period
from collector.settings import ConfigError

NOW = int(datetime(2026, 11, 21, 17, 45, tzinfo=UTC).timestamp()) * NS


def at(*parts: int) -> int:
    return int(datetime(*parts, tzinfo=UTC).timestamp()) * NS  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "begin", "end"),
    [
        ("7d", at(2026, 11, 14, 17), at(2026, 11, 21, 17)),
        ("2026-W46", at(2026, 11, 9), at(2026, 11, 16)),
        ("2026-11", at(2026, 11, 1), at(2026, 12, 1)),
        ("2025-12", at(2025, 12, 1), at(2026, 1, 1)),
        ("2026-11-02/2026-11-09", at(2026, 11, 2), at(2026, 11, 9)),
        ("2026-11-02T09:30+01:00/2026-11-02T12:00Z", at(2026, 11, 2, 8), at(2026, 11, 2, 12)),
    ],
)
def test_periods_as_people_write_them(text: str, begin: int, end: int) -> None:
    found = period(text, NOW)
    assert (found.from_ns, found.to_ns) == (begin, end)
    assert (found.before.from_ns, found.before.to_ns) == (begin - (end - begin), begin)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fortnight", "2026-W46"), ("2026-W60", "no week"), ("2026-13", "no month"),
        ("2026-11-09/2026-11-02", "shorter"),
        ("x/y", "no date or time"), ("5m", "shorter than an hour"), ("400d", "longer than 200 days"),
        ("2027-W02", "not begun"),
        ("0000-11", "no month"),
    ],
)  # fmt: skip
def test_what_is_no_period_is_told_how_to_write_one(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        period(text, NOW)


def test_days_are_drawn_of_a_week_and_hours_of_less() -> None:
    assert period("7d", NOW).step_s == 86_400
    assert period("6d", NOW).step_s == 3_600
    assert period("7d", NOW).length_ns == 168 * HOUR_NS
