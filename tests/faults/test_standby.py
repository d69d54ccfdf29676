"""Two real servers: kill -9 of the active one, and the other one goes on with the same episode.

Each has an agent and an embedded store of its own with the same readings, in the place of one store on servers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.api.notify.kit import until
from tests.faults.judging import World, beside, world

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]
PAIR = """
[standby]
name = "{name}"
peer = "http://127.0.0.1:{port}"
every = "1s"
lease = "8s"
confirm = "4s"
"""


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[World, World]]:
    with ExitStack() as stack:
        a = stack.enter_context(world(tmp_path))
        b = stack.enter_context(beside(a, "b"))
        a.more, b.more = PAIR.format(name="a", port=b.port), PAIR.format(name="b", port=a.port)
        yield a, b


def role(here: World) -> dict[str, Any]:
    assert here.server is not None
    try:
        found: dict[str, Any] = httpx.get(f"{here.server.url}/v1/control", timeout=10).json()
    except httpx.HTTPError:
        return {"role": "", "acts": False, "epoch": 0, "synced_ns": 0}
    return found


@pytest.mark.parametrize("step", ["", "outbox written", "sent"])
def test_the_standby_goes_on_with_the_episode_and_the_old_one_stays_standby(
    pair: tuple[World, World], step: str
) -> None:
    a, b = pair
    a.begin(step, "firing" if step else "")
    until(lambda: role(a)["acts"], 60)  # it listened for a lease and is alone
    b.begin()
    until(lambda: role(b)["role"] == "standby" and role(b)["synced_ns"], 60)
    a.value = 0.9
    if step:
        a.died()
    else:
        a.wait("firing")
        a.kill()
    until(lambda: role(b)["acts"], 60)
    assert role(b)["epoch"] == 2
    a.wait("firing")
    a.begin()
    until(lambda: role(a)["role"] == "standby", 60)
    time.sleep(15)  # a tick of both at least
    assert (role(a)["acts"], role(b)["acts"]) == (False, True)
    a.value = 0.1
    a.wait("resolved")
    (episode,) = {episode for _, episode in a.told()}
    assert [kind for kind, _ in dict.fromkeys(a.told())] == ["firing", "resolved"]
    assert len(a.told()) <= 3  # one more than needed at most
    assert a.shown() == [("firing", episode), ("resolved", episode)]
