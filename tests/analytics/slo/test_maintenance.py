"""Maintenance windows as plain values: what they are about, what is refused, which hours they close."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from analytics.slo.calendars import SloCalendar, Stretch, closed_windows
from analytics.slo.compiled import compiled
from analytics.slo.maintenance import LONGEST_NS, Window, covering, ended, paused, windows_from
from analytics.slo.openslo_read import read
from collector.settings import ConfigError

S = 1_000_000_000
AT = 1_800_000_000 * S
WINDOW = Window("w", AT, AT + 3600 * S, "ann", "upgrade", ("order-*",))
FIELDS = {"start": "2026-11-28T20:00:00Z", "end": "2026-11-28T22:00:00Z", "who": "ann", "why": "x", "objectives": ["*"]}


def test_a_window_is_about_what_its_patterns_name_while_it_lasts() -> None:
    assert covering([WINDOW], "order-latency", "trading", AT) == WINDOW
    assert covering([WINDOW], "order-latency", "trading", AT + 3600 * S) is None
    assert covering([WINDOW], "quotes", "trading", AT) is None
    by_service = replace(WINDOW, objectives=(), services=("trad*",))
    assert covering([by_service], "quotes", "trading", AT) == by_service
    longer = replace(WINDOW, name="longer", end_ns=AT + 7200 * S)
    loud = replace(longer, name="loud", send="annotate", end_ns=AT + 9000 * S)
    assert covering([WINDOW, longer, loud], "order-latency", "", AT) == longer


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"end": "2026-11-28T20:00:00Z"}, "maintenance.up.end: must be after start"),
        ({"end": "2026-12-05T20:00:01Z"}, "at most 7 d"),
        ({"start": "yesterday"}, "'yesterday' is no time"),
        ({"why": " "}, "maintenance.up.why: must say it"),
        ({"objectives": []}, "names patterns of objectives"),
        ({"send": "never"}, "maintenance.up.send: Invalid enum value 'never'"),
        ({"forever": True}, "forever"),
    ],
)
def test_a_window_that_makes_no_sense_is_refused_by_name(fields: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        windows_from({"maintenance": {"up": {**FIELDS, **fields}}})


def test_declared_windows_are_read() -> None:
    (one,) = windows_from({"maintenance": {"up": {**FIELDS, "budget": "pauses"}}})
    assert (one.name, one.end_ns - one.start_ns, one.send, one.budget_burns) == ("up", 7200 * S, "hold", False)
    assert one.end_ns - one.start_ns < LONGEST_NS
    with pytest.raises(ConfigError, match="sections"):
        windows_from({"maintenance": []})


def test_a_window_that_pauses_closes_the_hours_of_its_objectives_and_keeps_their_counts() -> None:
    text = (Path(__file__).parent / "cases" / "orders.yaml").read_text()
    objectives = compiled(read(text, "t").objects).objectives
    one = next(o for o in objectives if o.name == "order-latency")
    pauses = replace(WINDOW, budget_burns=False, objectives=("order-latency",))
    own = {
        "": SloCalendar(),
        "day": SloCalendar(halts=(Stretch(start="2027-01-15T07:00:00Z", end="2027-01-15T07:10:00Z"),)),
    }
    names, calendars = paused([*objectives, replace(one, name="x", calendar="day")], own, [WINDOW, pauses])
    assert set(names) == {"order-latency"}
    quiet = replace(one, paused_in=names["order-latency"])
    assert quiet.version == one.version
    at = AT // S
    assert closed_windows(calendars, quiet.hours, at - 20, at + 20) == [at, at + 10]
    assert closed_windows(calendars, quiet.hours, at + 3590, at + 3610) == [at + 3590]
    names, calendars = paused([replace(one, calendar="day")], own, [pauses])
    assert len(calendars[names["order-latency"]].halts) == 2  # its own halts stay


def test_a_window_ends_once() -> None:
    assert ended(WINDOW, AT + 5).end_ns == AT + 5
    assert ended(WINDOW, AT - 5 * S).end_ns == AT + 1  # planned: it never is in force for anybody
    with pytest.raises(ValueError, match="ended at"):
        ended(WINDOW, AT + 3600 * S)
