"""Against real daemons: chronyd follows chronyd, ptp4l follows ptp4l, over veth between two network namespaces.

Both hosts are one machine, so the true offset is 0 and every stated bound must hold it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from collector.clock import Adjtimex, Bound, HostClock
from collector.clocks.authorities import Authorities, authorities
from collector.clocks.chrony import Chrony
from collector.clocks.ptp import Ptp, query
from collector.clocks.settings import ClockSettings
from tests.collector.clocks.daemons import chronyd, ptp4l, stop, until
from tests.namespaces import Namespace, namespaces

COMMAND_PORT = 3327
TRUE_OFFSET_NS = 0


@pytest.fixture(scope="module")
def host() -> Iterator[Namespace]:
    with namespaces(1, 40) as (one,):
        yield one


@pytest.fixture(scope="module")
def followed(host: Namespace, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A chronyd in the root namespace that follows one in another; the pid of the follower."""
    pytest.importorskip("pychrony", reason="needs pychrony (the extra `clock`)")
    folder = tmp_path_factory.mktemp("chrony")
    follow = f"server {host.address} minpoll -4 maxpoll 0 xleave"
    with ExitStack() as stack:
        stack.enter_context(chronyd(folder / "a", ["local stratum 1", "allow", "cmdport 0"], host.command))
        here = ["port 0", f"cmdport {COMMAND_PORT}", "bindcmdaddress 127.0.0.1", follow]
        yield stack.enter_context(chronyd(folder / "b", here))


@pytest.mark.usefixtures("followed")
def test_chronyd_states_a_bound_that_holds_the_truth() -> None:
    asked = Chrony(f"127.0.0.1:{COMMAND_PORT}")
    # The first bounds are wide: chronyd does not know its own frequency yet.
    until(lambda: (asked.ask().error_ns or 10**12) < 50_000_000, 30, "a bound below 50 ms")
    for _ in range(10):
        bound = asked.ask()
        assert bound.source == "chrony"
        assert bound.error_ns is not None and abs(TRUE_OFFSET_NS) <= bound.error_ns < 50_000_000
        assert bound.correction_ns is not None and abs(bound.correction_ns) <= bound.error_ns


@pytest.mark.usefixtures("followed")
def test_its_bound_is_the_one_that_stamps_get() -> None:
    bounds = authorities(ClockSettings(chrony=f"127.0.0.1:{COMMAND_PORT}", ptp="off", ask_s=0.1))
    until(lambda: Chrony(f"127.0.0.1:{COMMAND_PORT}").ask().error_ns is not None, 30, "synchronisation")
    bounds.start(2.0)
    clock = HostClock(bounds)
    reading = clock.read()
    bounds.close()
    stated = {b.source: b.error_ns for b in bounds.all_bounds()}
    assert set(stated) == {"adjtimex", "chrony"}
    # -x: the kernel's own clock is not disciplined, so chrony is alone, unless the machine is disciplined otherwise.
    assert reading.source == ("chrony" if Adjtimex().bound().error_ns is None else reading.source)
    assert reading.error_ns is not None


def test_a_hung_chronyd_is_a_loss_of_synchronisation_and_its_return_a_gain(followed: int) -> None:
    asked = Chrony(f"127.0.0.1:{COMMAND_PORT}")
    until(lambda: asked.ask().error_ns is not None, 30, "synchronisation")
    both = Authorities([asked], kernel=NoKernel())
    both.ask_once()
    clock = HostClock(both)
    clock.read()
    clock.events()
    stop(followed)
    try:
        both.ask_once()  # ends by itself after a second
    finally:
        os.kill(followed, 18)
    assert clock.read().error_ns is None
    both.ask_once()
    clock.read()
    assert [(e.event, e.reading.source) for e in clock.events()] == [("sync_lost", "chrony"), ("sync_gained", "chrony")]


class NoKernel:
    def bound(self) -> Bound:
        return Bound(None, "adjtimex")


def test_a_chronyd_without_a_reference_states_no_bound(tmp_path: Path) -> None:
    pytest.importorskip("pychrony", reason="needs pychrony (the extra `clock`)")
    asked = Chrony("127.0.0.1:3328")
    with chronyd(tmp_path, ["port 0", "cmdport 3328", "bindcmdaddress 127.0.0.1"]):
        until(lambda: asked.ask().reason == "not synchronised", 10, "an answer")
    gone = asked.ask()
    assert gone.error_ns is None
    assert "3328" in gone.reason


def test_its_own_clock_as_reference_bounds_nothing(tmp_path: Path) -> None:
    pytest.importorskip("pychrony", reason="needs pychrony (the extra `clock`)")
    asked = Chrony("127.0.0.1:3329")
    with chronyd(tmp_path, ["port 0", "cmdport 3329", "bindcmdaddress 127.0.0.1", "local stratum 1"]):
        until(lambda: "local" in asked.ask().reason, 10, "an answer")


def test_ptp4l_states_a_bound_that_holds_the_truth(host: Namespace, tmp_path: Path) -> None:
    """Software stamps, free running. A hardware clock (PHC) is not here: that part is held on plain values only."""
    outside = host.device.replace("ti", "to", 1)
    fast = ["logAnnounceInterval -2", "logSyncInterval -3", "logMinDelayReqInterval -3", "announceReceiptTimeout 3"]
    master = ["priority1 1", "clockAccuracy 0x22", "clockClass 6", *fast]
    with (
        ptp4l(tmp_path / "master", host.device, master, host.command),
        ptp4l(tmp_path / "slave", outside, ["slaveOnly 1", *fast], lambda *argv: list(argv)) as uds,
    ):
        asked = Ptp(str(uds), phc="off")
        until(lambda: asked.ask().error_ns is not None, 30, f"a bound ({asked.ask().reason})")
        state, bound = query(str(uds)), asked.ask()
    assert (state.steps, state.accuracy) == (1, 0x22)
    assert state.path_delay_ns > 0
    assert bound.source == "ptp"
    assert bound.error_ns is not None and 250 < bound.error_ns < 50_000_000
