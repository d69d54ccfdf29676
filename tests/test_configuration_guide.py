"""docs/configuration.md names every setting with its default, and no setting that does not exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics.learned import LearnedSettings
from analytics.money.value import MoneySettings
from analytics.slo.gates import GateSettings
from analytics.slo.settings import SloSettings
from analytics.window_settings import WindowSettings
from api.notify.heartbeat import Watcher
from api.notify.settings import NotifyTarget
from api.reports.settings import ReportSettings
from api.server_settings import ServerSettings
from api.standby.settings import StandbySettings
from collector.agent.settings import AgentSettings
from collector.landing import LandingSettings
from collector.probes.settings import Check
from collector.settings import ConfigError, Section, section
from collector.store.schema import Retention
from collector.store.settings import StoreSettings

GUIDE = Path(__file__).parent.parent / "docs" / "configuration.md"
SECTIONS: dict[str, type[Section]] = {
    "agent": AgentSettings,
    "server": ServerSettings,
    "store": StoreSettings,
    "retention": Retention,
    "landing": LandingSettings,
    "windows": WindowSettings,
    "learned": LearnedSettings,
    "slo": SloSettings,
    "money": MoneySettings,
    "standby": StandbySettings,
}


def documented(name: str) -> dict[str, Any]:
    body = GUIDE.read_text().split(f"\n## [{name}]\n")[1].split("\n## ")[0]
    rows = re.findall(r"^\| `([a-z_.0-9]+)` \| `(.*?)` \|", body, flags=re.M)
    return {key: tomllib.loads(f"x = {default}")["x"] for key, default in rows}


def flattened(document: dict[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in document.items():
        if isinstance(value, dict) and value:
            flat |= flattened(value, f"{before}{key}.")
        else:
            flat[before + key] = list(value) if isinstance(value, tuple) else value
    return flat


def defaults(kind: type[Section]) -> dict[str, Any]:
    return flattened(msgspec.to_builtins(kind()))


@pytest.mark.parametrize("name", SECTIONS)
def test_every_setting_is_documented_with_its_default(name: str) -> None:
    assert documented(name) == defaults(SECTIONS[name])


@pytest.mark.parametrize("name", SECTIONS)
def test_the_documented_defaults_are_accepted(name: str) -> None:
    nested: dict[str, Any] = {}
    for key, value in documented(name).items():
        *heads, tail = key.split(".")
        place = nested
        for head in heads:
            place = place.setdefault(head, {})
        place[tail] = value
    section(nested, SECTIONS[name], name)


@pytest.mark.parametrize("name", SECTIONS)
def test_an_unknown_setting_is_named_with_its_section(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}.*no_such_setting"):
        section({"no_such_setting": 1}, SECTIONS[name], name)


def test_every_setting_of_a_target_of_alerts_is_documented() -> None:
    assert documented("notify.NAME") == defaults(NotifyTarget)
    assert documented("reports.NAME") == defaults(ReportSettings)
    assert documented("heartbeat.NAME") == defaults(Watcher)


def test_every_setting_of_a_gate_is_documented() -> None:
    assert documented("gates.NAME") == defaults(GateSettings)


def test_every_setting_of_a_check_is_documented() -> None:
    check = msgspec.to_builtins(Check(kind="tcp", target="h:1"))
    assert documented("probes.NAME") == flattened({k: v for k, v in check.items() if k not in ("kind", "target")})


def test_a_wrong_value_is_named_with_its_section() -> None:
    with pytest.raises(ConfigError) as caught:
        section({"dscp": 99}, AgentSettings, "agent")
    assert caught.value.field == "agent.dscp"
