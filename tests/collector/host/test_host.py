from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import ClockReading
from collector.host.compare import (
    MAX_VALUE,
    UNKNOWN,
    Difference,
    condensed,
    differences,
    drift,
    fitted,
    name_of,
    since_last_run,
)
from collector.host.files import cpu_list, file_items
from collector.host.settings import HostSettings
from collector.host.source import HostSource
from collector.record import Columns
from collector.settings import ConfigError
from collector.sources import Poll
from tests.needs import program

ROOT = Path(__file__).resolve().parents[3]
OFFSET = 1_700_000_000_000_000_000
S = 1_000_000_000


def at(seconds: float) -> ClockReading:
    monotonic = round(seconds * 1e9)
    return ClockReading(OFFSET + monotonic, monotonic, OFFSET, 40, None, "test")


def table(poll: Poll, name: str) -> Columns | None:
    found = [c for c in poll.columns if c.table.name == name]
    for columns in found:
        columns.check()
    return found[0] if found else None


class Machine:
    """A tree of files as the kernel lays them out."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.write("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
        self.write("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
        self.write("sys/devices/system/cpu/isolated", "2-3\n")
        for cpu in range(4):
            self.governor(cpu, "performance")
        self.write("proc/sys/net/core/rmem_max", "212992\n")
        self.write("sys/devices/system/cpu/cpu0/cpuidle/state1/name", "C1\n")
        self.write("sys/devices/system/cpu/cpu0/cpuidle/state1/disable", "1\n")
        self.write("proc/irq/30/smp_affinity_list", "0-1\n")
        self.write("sys/kernel/irq/30/actions", "eth0-rx-0\n")
        self.write("proc/self/cgroup", "0::/system.slice/agent\n")
        self.write("sys/fs/cgroup/system.slice/agent/cpu.max", "50000 100000\n")

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def governor(self, cpu: int, text: str) -> None:
        self.write(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", text + "\n")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path / "root")


def source(machine: Machine, settings: HostSettings | None = None) -> HostSource:
    chosen = settings or HostSettings()
    made = HostSource("h1", HostSettings(**{**{f: getattr(chosen, f) for f in chosen.__struct_fields__},
                                            "ignore": (*chosen.ignore, "nic.*")}), machine.root)  # fmt: skip
    made.start({})
    return made


def test_the_items_of_a_machine(machine: Machine) -> None:
    refused: list[str] = []
    items = dict(file_items(machine.root, refused.append))
    assert items == {
        "kernel.release": "6.1.0-18-amd64", "kernel.transparent_hugepage": "madvise", "cpu.isolated": "2-3",
        "cpu.governor": "performance", "sysctl.net.core.rmem_max": "212992", "cpu.idle_states": "C1: disabled (cpu 0)",
        "irq.30.eth0-rx-0": "0-1", "cgroup.cpu.max": "50000 100000",
    }  # fmt: skip
    assert refused == []
    machine.governor(3, "powersave")
    assert dict(file_items(machine.root, refused.append))["cpu.governor"] == (
        "performance (cpu 0-2); powersave (cpu 3)"
    )


def test_the_first_reading_is_no_change_and_every_difference_after_it_is(machine: Machine) -> None:
    one = source(machine)
    first = one.poll(at(0))
    rows = table(first, "hosts")
    assert rows is not None and len(rows) == 8
    assert table(first, "changes") is None
    assert first.positions["cpu.isolated"] == name_of("2-3")
    assert one.poll(at(300)).columns == []
    machine.governor(3, "powersave")
    machine.write("sys/devices/system/cpu/smt/control", "off\n")
    (machine.root / "proc/irq/30/smp_affinity_list").unlink()
    again = one.poll(at(600))
    changes, rows = table(again, "changes"), table(again, "hosts")
    assert changes is not None and rows is not None
    assert changes.text("what") == [
        "cpu.governor: performance -> performance (cpu 0-2); powersave (cpu 3)",
        "cpu.smt is new: off",
        "irq.30.eth0-rx-0 is gone; it was 0-1",
    ]
    assert set(changes.text("kind")) == {"config"} and set(changes.text("host")) == {"h1"}
    assert set(changes.text("who")) == {"agent"}
    assert changes.values["ts_ns"].tolist() == [OFFSET + 600 * S] * 3
    assert list(zip(rows.text("item"), rows.text("state"), strict=True)) == [
        ("cpu.governor", ""), ("cpu.smt", ""), ("irq.30.eth0-rx-0", "gone"),
    ]  # fmt: skip
    assert one.poll(at(900)).columns == []


def test_what_changed_while_the_agent_was_away_is_a_change(machine: Machine) -> None:
    """As a reboot into another kernel is."""
    kept = source(machine).poll(at(0)).positions
    machine.write("proc/sys/kernel/osrelease", "6.1.0-19-amd64\n")
    next_one = source(machine)
    next_one.start(kept)
    poll = next_one.poll(at(1))
    changes = table(poll, "changes")
    assert changes is not None
    assert changes.text("what") == ["kernel.release is 6.1.0-19-amd64; it was different when the agent last ran"]
    again = source(machine)
    again.start({**kept, **poll.positions})
    assert table(again.poll(at(2)), "changes") is None


def test_drift_from_the_profile_is_a_state_and_a_gauge(machine: Machine) -> None:
    profile = {"cpu.governor": "performance", "kernel.release": "6.1.*", "cpu.isolated": "1-3", "cpu.smt": "off"}
    one = source(machine, HostSettings(profile=profile))
    poll = one.poll(at(0))
    rows, gauges = table(poll, "hosts"), table(poll, "gauges")
    assert rows is not None and gauges is not None
    states = dict(zip(rows.text("item"), zip(rows.text("state"), rows.text("expected"), strict=True), strict=True))
    assert states["cpu.governor"] == ("", "performance")
    assert states["kernel.release"] == ("", "6.1.*")
    assert states["cpu.isolated"] == ("drift", "1-3")
    assert states["cpu.smt"] == ("gone", "off")
    assert states["sysctl.net.core.rmem_max"] == ("", "")
    counted = dict(zip(gauges.text("name"), gauges.values["value"].tolist(), strict=True))
    assert counted == {"host_profile_items": 4, "host_profile_drift": 2}


def test_everything_is_shipped_again_now_and_then(machine: Machine) -> None:
    one = source(machine, HostSettings(repeat="1h"))
    one.poll(at(0))
    assert table(one.poll(at(3_000)), "hosts") is None
    rows = table(one.poll(at(3_600)), "hosts")
    assert rows is not None and len(rows) == 8


def test_too_many_items_are_left_out_and_said(machine: Machine) -> None:
    one = source(machine, HostSettings(max_items=3))
    rows = table(one.poll(at(0)), "hosts")
    assert rows is not None and len(rows) == 3
    assert "5 items are left out" in one.state().reason


READ = """
import os, sys
from pathlib import Path
from collector.host.files import file_items
if os.geteuid() == 0:
    os.setuid(65534)  # here, and not before: nobody may not start root's interpreter
refused = []
items = dict(file_items(Path(sys.argv[1]), refused.append))
print(sorted(items), refused)
"""


def test_what_may_not_be_read_is_named() -> None:
    """As an ordinary user: root may read everything."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        root.chmod(0o755)
        machine = Machine(root)
        machine.write("proc/cmdline", "quiet")
        (root / "proc/cmdline").chmod(0)
        (root / "sys/devices/system/cpu/isolated").unlink()
        (root / "sys/devices/system/cpu/isolated").symlink_to("/nowhere")
        done = subprocess.run(
            [sys.executable, "-c", READ, folder], capture_output=True, text=True, timeout=60,
            env={"PYTHONPATH": f"{ROOT}:{ROOT / 'collector/probe/src'}"}
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    items, _, refused = done.stdout.strip().partition("] ")
    assert refused == "['kernel.cmdline']"
    assert "cpu.isolated" not in items and "cpu.governor" in items


values = st.dictionaries(st.sampled_from("abcde"), st.text(max_size=5), max_size=5)


@given(before=values, now=values)
def test_differences_are_exactly_what_differs(before: dict[str, str], now: dict[str, str]) -> None:
    found = differences(before, now)
    rebuilt = dict(before)
    for d in found:
        assert before.get(d.item) == d.was != d.now == now.get(d.item)
        if d.now is None:
            del rebuilt[d.item]
        else:
            rebuilt[d.item] = d.now
    assert rebuilt == now
    hashes = {item: name_of(value) for item, value in before.items()}
    if hashes:
        assert {d.item for d in since_last_run(hashes, now)} == {d.item for d in found}


def test_an_interface_that_comes_or_goes_is_one_change() -> None:
    before = {"nic.eth0.mtu": "1500", "nic.veth1.mtu": "1500", "nic.veth1.driver": "veth", "cpu.smt": "on"}
    now = {"nic.eth0.mtu": "9000", "nic.veth2.mtu": "1500", "nic.veth2.driver": "veth", "cpu.smt": "on"}
    told = condensed(differences(before, now), before, now)
    assert [d.sentence for d in told] == [
        "nic.eth0.mtu: 1500 -> 9000",
        "nic.veth1 is gone; it was a network interface",
        "nic.veth2 is new: a network interface",
    ]


@given(st.text(max_size=3_000))
def test_values_fit_the_store_and_differ_where_they_differed(text: str) -> None:
    assert len(fitted(text)) <= MAX_VALUE
    assert fitted("x" * 2_000) != fitted("x" * 1_999 + "y")


def test_words() -> None:
    assert Difference("a", UNKNOWN, None).sentence == "a is gone; it was unknown"
    assert Difference("a", "", "1").sentence == "a: (empty) -> 1"
    assert cpu_list([3, 0, 1, 2, 8]) == "0-3,8"
    assert drift({"a": "1"}, {"a": "?", "b": "*"}) == ["b"]


@pytest.mark.parametrize(
    ("wrong", "field"),
    [({"period": "1ms"}, "period"), ({"max_items": 0}, "max_items"), ({"profile": {"x": "y" * 1_001}}, "profile.x")],
)
def test_settings_say_what_is_wrong(wrong: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        HostSettings(**wrong).validate()  # type: ignore[arg-type]
    assert caught.value.field == field


@pytest.fixture
def real() -> Iterator[dict[str, str]]:
    one = HostSource("h")
    one.start({})
    rows = table(one.poll(at(0)), "hosts")
    assert rows is not None
    yield dict(zip(rows.text("item"), rows.text("value"), strict=True))
    one.close()


def test_this_machine_against_the_tools(real: dict[str, str]) -> None:
    assert real["kernel.release"] == os.uname().release
    assert real["kernel.clocksource"]
    tool = program("sysctl", "procps")
    for item in ("net.core.rmem_max", "vm.swappiness", "kernel.sched_rt_runtime_us"):
        want = subprocess.run([tool, "-n", item], capture_output=True, text=True, check=True).stdout.strip()
        assert real[f"sysctl.{item}"] == want
    assert sum(item.startswith("mitigation.") for item in real) == len(
        list(Path("/sys/devices/system/cpu/vulnerabilities").glob("*"))
    )
    assert any(item.endswith(".mtu") for item in real)
