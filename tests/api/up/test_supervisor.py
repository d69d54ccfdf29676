"""The supervisor over real processes: small Python modules that live, die, hang or refuse to end."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from api.up.programs import Program, exit_reason
from api.up.supervisor import Event, Supervisor, pids

LIVES = "import time\nprint('up', flush=True)\nwhile True: time.sleep(0.05)\n"
STUBBORN = "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + LIVES
DIES = "print('no such port')\nraise SystemExit(7)\n"
WRITES_ON_STOP = """
import signal, sys, time
from pathlib import Path
def end(*_):
    with Path(sys.argv[1]).open("a") as f: f.write(sys.argv[2] + "\\n")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("up", flush=True)
while True: time.sleep(0.05)
"""


class Modules:
    """Writes modules into a directory that children can import from."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.logs = folder / "log"

    def program(self, name: str, body: str, *arguments: str, phase: int = 0, stop_s: float = 5.0) -> Program:
        (self.folder / f"child_{name}.py").write_text(body)
        path = os.pathsep.join([str(self.folder), str(Path.cwd()), os.environ.get("PYTHONPATH", "")])
        log = self.logs / f"{name}.log"
        return Program(name, f"child_{name}", arguments, phase, log, {"PYTHONPATH": path}, stop_s)

    def up(self, *names: str) -> bool:
        return all("up" in (self.logs / f"{name}.log").read_text() for name in names)


@pytest.fixture
def modules(tmp_path: Path) -> Modules:
    return Modules(tmp_path)


@pytest.fixture
def supervise() -> Iterator[list[Supervisor]]:
    running: list[Supervisor] = []
    yield running
    for supervisor in running:
        supervisor.stop(hurry=lambda: True)


def until(supervisor: Supervisor, condition: object, seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, "it did not happen"
        supervisor.tick()
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_killed_program_is_started_again_within_a_second(modules: Modules, supervise: list[Supervisor]) -> None:
    events: list[Event] = []
    supervisor = Supervisor([modules.program("a", LIVES), modules.program("b", LIVES)], events.append)
    supervise.append(supervisor)
    supervisor.start()
    before = pids(supervisor.slots)
    os.kill(before["a"], signal.SIGKILL)
    until(supervisor, lambda: pids(supervisor.slots).get("a", before["a"]) != before["a"], 1.0)
    assert pids(supervisor.slots)["b"] == before["b"]
    assert [slot.restarts for slot in supervisor.slots] == [1, 0]
    died = next(event for event in events if event.kind == "exited")
    assert died.pid == before["a"]
    assert "killed by SIGKILL; starting again in 0.1 s" in died.detail


def test_a_program_that_keeps_dying_is_started_later_and_later(modules: Modules, supervise: list[Supervisor]) -> None:
    events: list[Event] = []
    supervisor = Supervisor([modules.program("a", DIES)], events.append)
    supervise.append(supervisor)
    supervisor.start()
    until(supervisor, lambda: sum(event.kind == "exited" for event in events) >= 3)
    delays = [event.detail.partition(" in ")[2].partition(";")[0] for event in events if event.kind == "exited"]
    assert delays[:3] == ["0.1 s", "0.2 s", "0.4 s"]
    for event in events:
        if event.kind == "exited":
            assert event.detail.startswith("exit code 7")
            assert event.detail.endswith("it said: no such port")


def test_programs_stop_phase_by_phase(modules: Modules, tmp_path: Path) -> None:
    order = tmp_path / "order"
    names = (("server", 0), ("agent", 5), ("feed", 10))
    plan = [modules.program(name, WRITES_ON_STOP, str(order), name, phase=phase) for name, phase in names]
    supervisor = Supervisor(plan)
    supervisor.start()
    running = pids(supervisor.slots)
    until(supervisor, lambda: modules.up("server", "agent", "feed"))
    assert supervisor.stop() == []
    assert order.read_text().split() == ["feed", "agent", "server"]
    assert not any(alive(pid) for pid in running.values())


def test_a_program_that_will_not_end_is_killed_after_its_time(modules: Modules) -> None:
    supervisor = Supervisor([modules.program("a", STUBBORN, stop_s=0.3)])
    supervisor.start()
    pid = pids(supervisor.slots)["a"]
    until(supervisor, lambda: modules.up("a"))
    assert supervisor.stop() == ["a"]
    assert not alive(pid)


def test_children_of_a_program_end_with_it(modules: Modules) -> None:
    body = (
        "import subprocess, sys\nchild = subprocess.Popen(['sleep', '60'])\nprint('up', child.pid, flush=True)\n"
        + LIVES
    )
    supervisor = Supervisor([modules.program("a", body, stop_s=0.5)])
    supervisor.start()
    until(supervisor, lambda: modules.up("a"))
    grandchild = int((modules.logs / "a.log").read_text().split()[1])
    supervisor.stop()
    deadline = time.monotonic() + 5
    while alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(grandchild)


def test_programs_end_when_the_supervisor_is_killed(modules: Modules) -> None:
    program = modules.program("a", LIVES)
    script = (
        "import sys, time\nfrom pathlib import Path\n"
        "from api.up.programs import Program\nfrom api.up.supervisor import Supervisor, pids\n"
        f"s = Supervisor([Program('a', 'child_a', (), 0, Path({str(program.log)!r}))])\n"
        "s.start()\nprint(pids(s.slots)['a'], flush=True)\ntime.sleep(60)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env={**os.environ, **program.environment}
    )
    assert owner.stdout is not None
    child = int(owner.stdout.readline())
    deadline = time.monotonic() + 10
    while "up" not in program.log.read_text() and time.monotonic() < deadline:
        time.sleep(0.02)
    owner.kill()
    owner.wait()
    while alive(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not alive(child)


def test_exit_reasons_are_words() -> None:
    assert exit_reason(0) == "exit code 0"
    assert exit_reason(-9) == "killed by SIGKILL"
    assert exit_reason(-15) == "killed by SIGTERM"
    assert exit_reason(-250) == "killed by signal 250"


def test_what_is_to_run_may_change(modules: Modules, tmp_path: Path, supervise: list[Supervisor]) -> None:
    said = tmp_path / "said"
    events: list[Event] = []
    old = {name: modules.program(name, WRITES_ON_STOP, str(said), f"{name}1") for name in ("a", "b", "c")}
    supervisor = Supervisor(list(old.values()), events.append)
    supervise.append(supervisor)
    supervisor.start()
    until(supervisor, lambda: modules.up("a", "b", "c"))
    before = pids(supervisor.slots)
    new = modules.program("b", WRITES_ON_STOP, str(said), "b2")
    supervisor.replace([old["a"], new, modules.program("d", LIVES)])
    until(supervisor, lambda: set(pids(supervisor.slots)) == {"a", "b", "d"} and modules.up("d"))
    until(supervisor, lambda: pids(supervisor.slots)["b"] != before["b"])
    after = pids(supervisor.slots)
    assert after["a"] == before["a"]
    assert sorted(said.read_text().split()) == ["b1", "c1"]
    assert not alive(before["c"])
    assert [slot.restarts for slot in supervisor.slots] == [0, 0, 0]
    assert "exited" not in {event.kind for event in events}
    until(supervisor, lambda: (modules.logs / "b.log").read_text().count("up") == 2)
    supervisor.stop()
    assert sorted(said.read_text().split()) == ["a1", "b1", "b2", "c1"]


def test_a_change_of_mind_before_the_old_program_has_ended_counts(
    modules: Modules, supervise: list[Supervisor]
) -> None:
    first = modules.program("a", STUBBORN, stop_s=0.4)
    second, third = (modules.program("a", STUBBORN, word, stop_s=0.4) for word in ("second", "third"))
    supervisor = Supervisor([first])
    supervise.append(supervisor)
    supervisor.start()
    until(supervisor, lambda: modules.up("a"))
    pid = pids(supervisor.slots)["a"]
    for program in (second, third, third):
        supervisor.replace([program])
    assert pids(supervisor.slots)["a"] == pid
    until(supervisor, lambda: pids(supervisor.slots).get("a", pid) != pid)  # it had to be killed
    assert [slot.program for slot in supervisor.slots] == [third]
