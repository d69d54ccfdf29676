"""Settings are refused with the field's name, and the guide's examples are accepted."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from analytics.paths import paths_from
from collector.agent.settings import AgentSettings
from collector.points import BUILT_IN
from collector.settings import ConfigError, section

GUIDE = Path(__file__).parents[4] / "docs" / "packets.md"
RULE = {"space": "order", "ports": [5]}


@pytest.mark.parametrize(
    ("packet", "field"),
    [
        ({"interfaces": ["a/b"]}, "interfaces"),
        ({"interfaces": ["a", "a"]}, "interfaces"),
        ({"taps": {"eth9": "x"}}, "taps"),
        ({"snap": 10}, "snap"),
        ({"rings": 0}, "rings"),
        ({"report": "1ms"}, "report"),
        ({"report": "soon"}, "report"),
        ({"filter": "udp prot 3"}, "filter"),
        ({"program": "1\n6 0 0"}, "program"),
        ({"filter": "udp", "program": "1\n6 0 0 1"}, "program"),
        ({"timestamps": "atomic"}, "timestamps"),
        ({"keys": [{"ports": [5]}]}, "keys[0].space"),
        ({"keys": [RULE, {**RULE, "ports": []}]}, "keys[1].ports"),
        ({"keys": [{**RULE, "ports": [70_000]}]}, "keys[0].ports"),
        ({"keys": [{**RULE, "width": 9}]}, "keys[0].width"),
        ({"keys": [{**RULE, "kind": "bytes", "width": 65}]}, "keys[0].width"),
        ({"keys": [{**RULE, "offset": -1}]}, "keys[0].offset"),
        ({"keys": [{"decoder": "itch", "protocol": "tcp", "ports": [5]}]}, "keys[0].decoder"),
        ({"bursts": {"share": 1.5}}, "bursts.share"),
        ({"bursts": {"bytes_1ms": -1}}, "bursts.bytes_1ms"),
        ({"buffer": {"bytes": 1_000}}, "buffer.bytes"),
        ({"buffer": {"files": 1}}, "buffer.files"),
        ({"buffer": {"longest": "x"}}, "buffer.longest"),
    ],
)
def test_a_wrong_setting_is_named(packet: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section({"packet": packet}, AgentSettings, "agent")
    assert caught.value.field == f"agent.packet.{field}"


def test_the_examples_of_the_guide_are_accepted() -> None:
    agents = paths = 0
    for text in re.findall(r"```toml\n(.*?)```", GUIDE.read_text(), flags=re.S):
        document = tomllib.loads(text)
        if "agent" in document:
            agents += len(section(document["agent"], AgentSettings, "agent").packet.keys)
        elif "paths" in document:
            paths += len(paths_from(document, BUILT_IN)["wire"].stages)
        else:
            section({"packet": document}, AgentSettings, "agent")
    assert (agents, paths) == (2, 1)
