from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator

import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from collector import log

SECRET = "ts_3fa85f64c0de_" + "s" * 43


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    stream = io.StringIO()
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    log.configure("info", stream)
    yield stream
    structlog.reset_defaults()
    logging.getLogger().handlers, logging.getLogger().level = handlers, level


def test_secrets_are_removed_by_name_and_by_form(written: io.StringIO) -> None:
    logger = log.logger("test")
    logger.info("one", authorization=SECRET, path=f"/v1/{SECRET}", nested={"password": "hunter2", "list": [SECRET]})
    logger.info(f"Bearer {SECRET}", api_key="abc", header="Basic dXNlcjpwYXNz")
    logging.getLogger("other").warning("with %s", SECRET)
    try:
        int(SECRET)
    except ValueError:
        logger.error("failed", exc_info=sys.exc_info())
    text = written.getvalue()
    for hidden in ("sssss", "hunter2", "abc", "dXNlcjpwYXNz"):
        assert hidden not in text
    assert "ts_3fa85f64c0de_[redacted]" in text  # which token it was may be known
    assert len([json.loads(line) for line in text.splitlines()]) == 4


def test_every_line_says_when_how_bad_and_from_where(written: io.StringIO) -> None:
    log.logger("server").warning("server_stops", seconds=1)
    line = json.loads(written.getvalue())
    assert (line["event"], line["level"], line["part"], line["seconds"]) == ("server_stops", "warning", "server", 1)
    assert line["ts"].endswith("Z")


@settings(max_examples=50)
@given(st.text())
def test_no_text_breaks_out_of_its_line(text: str) -> None:
    stream = io.StringIO()
    log.configure("info", stream)
    try:
        log.logger("test").info("event", text=text)
    finally:
        structlog.reset_defaults()
    lines = stream.getvalue().split("\n")
    assert len(lines) == 2
    assert not any(ord(character) < 32 for character in lines[0])
    json.loads(lines[0])
