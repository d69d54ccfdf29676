"""docs/configuration.md names every setting with its default, and no setting that does not exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics.learned import LearnedSettings
from analytics.window_settings import WindowSettings
from api.server_settings import ServerSettings
from collector.agent.settings import AgentSettings
from collector.landing import LandingSettings
from collector.settings import ConfigError, Section, section
from collector.store.connect import StoreSettings
from collector.store.schema import Retention

GUIDE = Path(__file__).parent.parent / "docs" / "configuration.md"
SECTIONS: dict[str, type[Section]] = {
    "agent": AgentSettings,
    "server": ServerSettings,
    "store": StoreSettings,
    "retention": Retention,
    "landing": LandingSettings,
    "windows": WindowSettings,
    "learned": LearnedSettings,
}


def documented(name: str) -> dict[str, Any]:
    body = GUIDE.read_text().split(f"\n## [{name}]\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.0-9]+)` \| `(.*?)` \|", body, flags=re.M)
    return {key: tomllib.loads(f"x = {default}")["x"] for key, default in rows}


def defaults(kind: type[Section]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in msgspec.to_builtins(kind()).items():
        if isinstance(value, dict):
            flat |= {f"{key}.{inner}": list(v) if isinstance(v, tuple) else v for inner, v in value.items()}
        else:
            flat[key] = list(value) if isinstance(value, tuple) else value
    return flat


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    assert documented(name) == defaults(SECTIONS[name])


@pytest.mark.parametrize("name", SECTIONS)
def test_the_documented_defaults_are_accepted(name: str) -> None:
    nested: dict[str, Any] = {}
    for key, value in documented(name).items():
        head, _, tail = key.partition(".")
        if tail:
            nested.setdefault(head, {})[tail] = value
        else:
            nested[head] = value
    section(nested, SECTIONS[name], name)


@pytest.mark.parametrize("name", SECTIONS)
def test_an_unknown_setting_is_named_with_its_section(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*no_such_setting"):
        section({"no_such_setting": 1}, SECTIONS[name], name)


def test_a_wrong_value_is_named_with_its_section() -> None:
    with pytest.raises(ConfigError) as caught:
        section({"dscp": 99}, AgentSettings, "agent")
    assert caught.value.field == "agent.dscp"
