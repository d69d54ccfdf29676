"""Fault 14: the wall clock of agent, server and store steps by +1 h, -1 h and +1 s while an objective is judged."""

from __future__ import annotations

import mmap
import struct
import subprocess
import time
from pathlib import Path

import pytest

from api.control import Control
from api.slo_book import SloBook
from collector.store.embedded import open_embedded
from tests.api.notify.kit import until
from tests.faults.judging import World, world
from tests.needs import program

pytestmark = [pytest.mark.fault, pytest.mark.timeout(900)]
S = 1_000_000_000


class Clock:
    """The wall clock of the processes of a test, as far ahead as the test says."""

    def __init__(self, folder: Path) -> None:
        library = folder / "clock_shim.so"
        source = Path(__file__).with_name("clock_shim.c")
        subprocess.run([program("gcc", "gcc"), "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
        self._file = folder / "ahead"
        self._file.write_bytes(bytes(8))
        self.environment = {"LD_PRELOAD": str(library), "CLOCK_STEP_FILE": str(self._file)}
        self.ahead_ns = 0

    def step(self, ns: int) -> None:
        self.ahead_ns += ns
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as page:
            page[:] = struct.pack("<q", self.ahead_ns)


def states(here: World) -> list[str]:
    control = Control(here.data / "control.sqlite")
    found = [one.state for one in SloBook(control).alerts() if one.rule == "page-1m"]
    control.close()
    return found


@pytest.mark.parametrize("step_ns", [3_600 * S, -3_600 * S, S])
def test_burn_windows_are_right_after_a_step_and_the_step_is_one_event(tmp_path: Path, step_ns: int) -> None:
    clock = Clock(tmp_path)
    with world(tmp_path, clock.environment) as here:
        if step_ns < 0:
            clock.step(0)
        here.begin()
        here.value = 0.9
        here.wait("firing")
        here.value = 0.1
        here.wait("resolved")
        clock.step(step_ns)
        time.sleep(30)  # three ticks: the step alone begins no episode
        assert len(here.told()) == 2
        here.value = 0.9
        stepped = time.monotonic()
        # The Alertmanager's clock does not step here, and it judges times by its own: the webhook tells.
        here.wait("firing", 2, pager=False)
        assert time.monotonic() - stepped < 90  # as without a step: a minute's window, a tick, and arrival
        here.value = 0.1
        here.wait("resolved", 2, pager=False)
        assert len(here.told()) == 4

        def steps() -> list[int]:
            with open_embedded(here.data) as store:
                rows = store.query("SELECT step_ns FROM clock WHERE event = 'step' ORDER BY ts")
            return [int(one) for one in rows["step_ns"]]

        until(steps, 30)
        (seen,) = steps()
        assert abs(seen - step_ns) < 50_000_000
        assert set(states(here)) == {"resolved"}
        assert here.server is not None
        with here.server.client() as client:
            ledger = client.get("/v1/ledger").json()
            assert {row["difference"] for row in ledger["ledger"]} == {0}
