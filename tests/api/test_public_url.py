"""`[server] public_url`: what a link may begin with, for the server and for commands alike."""

from __future__ import annotations

import pytest

from api.public_url import public_url_of
from api.server_settings import ServerSettings
from collector.settings import ConfigError, section

GOOD = ["", "https://tailsight.example", "http://10.1.2.3:8472/", "https://[2001:db8::1]:443/tailsight"]
BAD = [
    "tailsight.example", "javascript:alert(1)", "https://", "https://a b", "https://u:p@h", "https://h/?x=1",
    "https://h/#x", "https://h:99999", "https://[", "https://h/\n", "https://\u00fc.example", "https://h/" + "x" * 500,
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD)
def test_an_address_is_taken(text: str) -> None:
    assert public_url_of({"server": {"public_url": text}}) == text
    assert section({"public_url": text}, ServerSettings, "server", "").public_url == text


@pytest.mark.parametrize("text", BAD)
def test_what_no_link_can_begin_with_is_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^x\.toml: server\.public_url: "):
        public_url_of({"server": {"public_url": text}}, "x.toml")
    with pytest.raises(ConfigError, match=r"^x\.toml: server\.public_url: "):
        section({"public_url": text}, ServerSettings, "server", "x.toml")


def test_a_command_needs_no_other_setting() -> None:
    assert public_url_of({}) == public_url_of({"server": {}}) == public_url_of({"server": {"port": "x"}}) == ""
    with pytest.raises(ConfigError, match="must be a text"):
        public_url_of({"server": {"public_url": 7}})
