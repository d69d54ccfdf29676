"""Paths: what the configuration says, and errors that name the field. One file per error lies in bad/."""

from __future__ import annotations

import tomllib
from pathlib import Path as File

import pytest

from analytics.paths import paths_from
from collector.points import BUILT_IN
from collector.settings import ConfigError
from tests.analytics.world import ORDER, path

BAD = sorted((File(__file__).parent / "bad").glob("*.toml"))


def test_a_path_says_between_which_events_its_stages_lie() -> None:
    order = path()
    assert order.stage_names == ["decide", "send", "end_to_end", "unattributed"]
    assert order.sentence("send") == "from the first app_decision to the last app_egress"
    assert order.sentence("end_to_end") == "from the first app_ingress to the last app_egress"
    assert (order.max_age_ns, order.stages[0].budget_ns, order.stages[1].budget_ns) == (10**9, 150_000, None)


def test_the_ends_can_be_set_apart_from_the_stages() -> None:
    order = path('first = {point = "tap"}\nlast = {point = "acked", which = "last"}\n' + ORDER)
    assert order.sentence("end_to_end") == "from the first tap to the last acked"


@pytest.mark.parametrize("file", BAD, ids=[f.stem for f in BAD])
def test_every_error_names_its_field(file: File) -> None:
    text = file.read_text()
    field = text.splitlines()[0].removeprefix("# ")
    with pytest.raises(ConfigError) as caught:
        paths_from(tomllib.loads(text), BUILT_IN, str(file))
    assert caught.value.field == field
    assert str(file) in str(caught.value)


def test_there_is_a_file_for_every_error() -> None:
    assert len(BAD) >= 15
