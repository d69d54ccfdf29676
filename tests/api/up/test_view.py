"""The text of the picture that `tailsight up` draws."""

from hypothesis import given
from hypothesis import strategies as st

from api.up.view import wrapped

names = st.from_regex(r"[a-z]{2,9}(-[a-z]{2,6})? [0-9]{2,7}", fullmatch=True)


@given(st.lists(names, min_size=1, max_size=20), st.integers(40, 120))
def test_a_program_stays_beside_its_number_at_any_width(programs: list[str], width: int) -> None:
    lines = wrapped("processes: " + ", ".join(name.replace(" ", "\u00a0") for name in programs), width)
    assert max(map(len, lines)) <= width
    for name in programs:
        assert any(name in line for line in lines), lines


def test_an_empty_line_stays_a_line() -> None:
    assert wrapped("", 80) == [""]
