import pytest

from api.cli.times import format_time, parse_time
from collector.settings import ConfigError

NOW = 1_795_000_000_123_456_789


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("now", NOW),
        ("-15m", NOW - 900 * 10**9),
        ("now-15m", NOW - 900 * 10**9),
        ("+90d", NOW + 90 * 86_400 * 10**9),
        ("1795000000123456789", NOW),
        ("1970-01-01T00:00:01Z", 10**9),
        ("1970-01-01 00:00:01", 10**9),
        ("1970-01-01T01:00:01+01:00", 10**9),
        ("1970-01-01T00:00:01.000000001Z", 10**9 + 1),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, want: int) -> None:
    assert parse_time(text, "--from", NOW) == want


@pytest.mark.parametrize("text", ["yesterday", "-15", "15m", "2026-13-01", "", "-m"])
def test_what_is_no_time_names_the_option(text: str) -> None:
    with pytest.raises(ConfigError, match="--from"):
        parse_time(text, "--from", NOW)


def test_a_time_written_is_a_time_read() -> None:
    assert parse_time(format_time(NOW), "t", 0) == NOW
