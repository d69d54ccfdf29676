from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.params import key_text, message_key, read_cursor, span, step_s, time_ns, write_cursor
from api.problems import ProblemError
from collector.keys import hash64

NOW = 1_795_168_800_000_000_000


@pytest.mark.parametrize(
    ("text", "ns"),
    [
        ("2026-11-20T10:00:00Z", 1_795_168_800_000_000_000),
        ("2026-11-20T10:00:00.123456789Z", 1_795_168_800_123_456_789),
        ("2026-11-20T11:00:00.5+01:00", 1_795_168_800_500_000_000),
        ("2026-11-20t10:00:00z", 1_795_168_800_000_000_000),
        ("1795168800000000001", 1_795_168_800_000_000_001),
        ("0", 0),
        ("-15m", NOW - 900_000_000_000),
        ("-250us", NOW - 250_000),
    ],
)
def test_times_are_read_to_the_nanosecond(text: str, ns: int) -> None:
    assert time_ns(text, "from", NOW) == ns


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        "2026-11-20",
        "2026-11-20T10:00:00",
        "2026-13-20T10:00:00Z",
        "1e9",
        "-15",
        "-m",
        "99999999999999999999",
        "2026-11-20T10:00:00+99:00",
        "-99999999d",
        "\u0661\u0662",
    ],
)
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    with pytest.raises(ProblemError) as caught:
        time_ns(text, "from", NOW)
    assert caught.value.status_code == 422
    assert caught.value.errors[0].name == "from"


@settings(max_examples=50)
@given(st.integers(0, (1 << 63) - 1))
def test_every_nanosecond_survives(ns: int) -> None:
    assert time_ns(str(ns), "to", NOW) == ns


def test_spans_must_run_forward_and_end_somewhere() -> None:
    start, end = span("-15m", None)
    assert end - start == 900_000_000_000
    for from_, to in (("5", "5"), ("6", "5"), ("0", "2026-11-20T10:00:00Z")):
        with pytest.raises(ProblemError, match="from"):
            span(from_, to)


def test_steps_are_whole_windows_and_not_too_many() -> None:
    assert step_s("10s", 0, 10**12) == 10
    assert step_s("1h", 0, 10**12) == 3600
    for text in ("15s", "0s", "1", "5ms"):
        with pytest.raises(ProblemError, match="step"):
            step_s(text, 0, 10**12)
    with pytest.raises(ProblemError, match="2000 steps"):
        step_s("10s", 0, 10**15)


def test_keys_are_hex_decimal_or_hashed_from_an_identifier() -> None:
    assert message_key("0xff") == 255
    assert message_key("255") == 255
    assert message_key(str((1 << 64) - 1)) == (1 << 64) - 1
    assert message_key("order:17") == hash64("order", 17)
    assert message_key("order:'17'") == hash64("order", "17")
    assert message_key("order:A:B") == hash64("order", "A:B")
    for bad in ("", "0x", "0x" + "f" * 17, "abc", str(1 << 64), ":1", "order:", "o\0:1", "o:\udcff"):
        with pytest.raises(ProblemError, match="key"):
            message_key(bad)


@settings(max_examples=50)
@given(st.integers(0, (1 << 64) - 1))
def test_a_key_reads_back_as_written(key: int) -> None:
    assert message_key(key_text(key)) == key


@settings(max_examples=50)
@given(st.integers(0, (1 << 64) - 1), st.text())
def test_a_cursor_reads_back_as_written(at: int, name: str) -> None:
    assert read_cursor(write_cursor(at, name), (int, str)) == (at, name)


@settings(max_examples=50)
@given(st.text())
def test_a_foreign_cursor_is_refused(text: str) -> None:
    try:
        position = read_cursor(text, (int, str))
    except ProblemError as error:
        assert error.errors[0].name == "cursor"
    else:
        assert write_cursor(*position) == text.rstrip("=")
