"""The source as the agent uses it, with every mechanism the machine grants."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tailsight_probe import Probe

from collector.agent.registry import Services
from collector.record import Columns, DropReason
from collector.sched.culprits import Intervals, LabelSets
from collector.sched.layout import RECORD, UNKNOWN_PID, RecordKind
from collector.sched.settings import SchedulerSettings
from collector.sched.source import SchedulerSource
from collector.sources import Poll
from tests.collector.sched.workloads import SPIN, clock_now, go, line, script


@pytest.fixture(params=["ebpf", "perf", "switch"])
def mechanism(request: pytest.FixtureRequest) -> Iterator[str]:
    name: str = request.param
    source = SchedulerSource("probe", dict, SchedulerSettings(mechanism=name))  # type: ignore[arg-type]
    available = source.start({})
    works = "PSI" not in available.reason and available.status != "unavailable"
    source.close()
    if not works:
        pytest.skip(available.reason)
    yield name


def tables(polls: list[Poll], name: str) -> list[Columns]:
    """All columns of one table, checked against the contract."""
    found = [columns for poll in polls for columns in poll.columns if columns.table.name == name]
    for columns in found:
        columns.check()
    return found


def fight(settings: SchedulerSettings, seconds: float = 0.8) -> tuple[list[Poll], int]:
    """Two programs on one CPU, the first of them observed as service `engine`; the polls, and its thread."""
    with script(SPIN, "victim", seconds) as victim, script(SPIN, "thief", seconds) as thief:
        assert line(victim) == line(thief) == "ready\n"
        source = SchedulerSource("here", lambda: {victim.pid: "engine"}, settings)
        assert source.start({}).status in ("running", "degraded")
        try:
            polls = [source.poll(clock_now())]
            go(victim)
            go(thief)
            while victim.poll() is None or thief.poll() is None:
                time.sleep(0.05)
                polls.append(source.poll(clock_now()))
            polls.append(source.poll(clock_now()))
        finally:
            source.close()
        return polls, victim.pid


def test_a_preemption_becomes_an_interval_of_the_thread_it_hit(mechanism: str) -> None:
    begin = time.time_ns()
    polls, victim = fight(SchedulerSettings(mechanism=mechanism, threshold="200us", report="200ms"))  # type: ignore[arg-type]
    end = time.time_ns()
    intervals = tables(polls, "intervals")
    rows = [
        (kind, thread, culprit, ts, duration)
        for c in intervals
        for kind, thread, culprit, ts, duration in zip(
            c.text("kind"),
            c.values["thread"].tolist(),
            c.text("culprit"),
            c.values["ts_ns"].tolist(),
            c.values["duration_ns"].tolist(),
            strict=True,
        )
    ]
    preempted = [row for row in rows if row[0] == "preempted"]
    assert preempted
    assert {row[1] for row in rows} == {victim}
    assert all(begin <= row[3] and row[3] + row[4] <= end and row[4] >= 200_000 for row in preempted)
    assert ("unknown" if mechanism == "switch" else "thief") in {row[2] for row in preempted}


def test_gauges_carry_the_service_and_only_what_the_mechanism_sees(mechanism: str) -> None:
    polls, _ = fight(SchedulerSettings(mechanism=mechanism, report="200ms"))  # type: ignore[arg-type]
    gauges = tables(polls, "gauges")
    rows = {(name, service) for c in gauges for name, service in zip(c.text("name"), c.text("service"), strict=True)}
    assert ("scheduler_delays", "engine") in rows
    assert ("scheduler_delay_max_ns", "engine") in rows
    assert (("scheduler_delays", "") in rows) == (mechanism != "switch")  # the machine as a whole
    assert (("scheduler_migrations", "engine") in rows) == (mechanism == "ebpf")
    assert (("scheduler_coverage", "") in rows) == (mechanism != "switch")


def test_label_sets_come_once_and_name_every_label_that_is_used() -> None:
    polls, _ = fight(SchedulerSettings(report="200ms"))
    sets = [n for c in tables(polls, "label_sets") for n in c.values["label_set"].tolist()]
    used = {n for name in ("gauges", "intervals") for c in tables(polls, name) for n in c.values["label_set"].tolist()}
    assert len(sets) == len(set(sets))
    assert used - {0} <= set(sets)


# Polls at real-time priority, so that nobody takes the CPU from it, for so many seconds.
POLLER = """
import os, sys, time
os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
try: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(20))
except OSError as error: print(error, flush=True); sys.exit()
print("ready", flush=True)
sys.stdin.readline()
end = time.monotonic() + float(sys.argv[1])
while time.monotonic() < end: pass
"""


def test_a_thread_that_polls_without_a_switch_is_reported_not_called_idle() -> None:
    settings = SchedulerSettings(report="100ms")
    with script(POLLER, 0.9) as poller:
        if (said := line(poller)) != "ready\n":
            pytest.skip(f"nobody may poll undisturbed here: {said}")
        source = SchedulerSource("here", lambda: {poller.pid: "engine"}, settings)
        source.start({})
        polls = [source.poll(clock_now())]
        go(poller)
        while poller.poll() is None:
            time.sleep(0.02)
            polls.append(source.poll(clock_now()))
        source.close()
    found = [
        (service, int(labels))
        for c in tables(polls, "gauges")
        for name, service, labels in zip(c.text("name"), c.text("service"), c.values["label_set"], strict=True)
        if name == "scheduler_not_observable"
    ]
    sets = {
        int(number): text
        for c in tables(polls, "label_sets")
        for number, text in zip(c.values["label_set"], c.text("labels"), strict=True)
    }
    assert found
    assert {(service, sets[labels]) for service, labels in found} == {("engine", f'{{"thread":"{poller.pid}"}}')}


def test_records_that_found_the_ring_full_are_drops(kernel_pairs: object) -> None:
    del kernel_pairs  # only its skip is wanted: the ring of this test belongs to the source
    settings = SchedulerSettings(
        mechanism="ebpf",
        observe="all",
        threshold="0ns",
        irq_threshold="0ns",
        ring_mib=1,
        report="10ms",
        intervals_per_second=10_000_000,
    )
    source = SchedulerSource("here", dict, settings)
    if source.start({}).status != "running":
        pytest.skip("no eBPF here")
    wake, answer = os.pipe(), os.pipe()

    def echo() -> None:
        while os.read(wake[0], 1) == b"x":
            os.write(answer[1], b"x")

    try:
        source.poll(clock_now())
        partner = threading.Thread(target=echo)
        partner.start()
        for _ in range(10_000):  # at least 20,000 delays; 14,500 fit
            os.write(wake[1], b"x")
            os.read(answer[0], 1)
        os.write(wake[1], b"q")
        partner.join()
        poll = source.poll(clock_now())
    finally:
        source.close()
        for fd in (*wake, *answer):
            os.close(fd)
    assert poll.drops[DropReason.SOURCE_LOST] > 0
    assert sum(len(c) for c in tables([poll], "intervals")) >= 14_000


def test_of_too_many_intervals_the_longest_are_kept_and_the_others_counted() -> None:
    source = SchedulerSource("here", dict, SchedulerSettings(mechanism="psi", intervals_per_second=1000))
    records = np.zeros(500, dtype=RECORD)
    records["duration_ns"] = np.random.default_rng(1).permutation(500)
    records["end_ns"] = np.arange(500)
    source._polled_ns = 10**9
    poll = Poll()
    kept = source._longest(records, 10**9 + 100_000_000, poll)
    assert sorted(kept["duration_ns"].tolist()) == list(range(400, 500))
    assert (np.diff(kept["end_ns"].astype(np.int64)) > 0).all()
    assert poll.drops == {DropReason.SOURCE_LOST: 400}
    assert len(source._longest(records[:50], 10**9 + 200_000_000, poll)) == 50
    assert len(source._longest(records, 10**12, poll)) == 500  # after a pause more fit, but not for all of it


def test_without_any_privilege_pressure_is_left() -> None:
    source = SchedulerSource("here", dict, SchedulerSettings(mechanism="psi", report="1ms"))
    available = source.start({})
    source.poll(clock_now())
    time.sleep(0.002)
    gauges = tables([source.poll(clock_now())], "gauges")
    source.close()
    assert available.status in ("degraded", "unavailable")
    if not Path("/proc/pressure/cpu").exists():
        pytest.skip("this kernel keeps no pressure stall information")
    assert "scheduler_pressure_ns" in gauges[0].text("name")
    assert "PSI" in available.reason


def test_programs_go_by_the_name_they_gave_themselves(tmp_path: Path) -> None:
    services = Services(tmp_path)
    assert services() == {}
    probe = Probe("engine", tmp_path, 1024, compiled=False)
    probe.stamp("app_ingress", 1)
    assert services() == {os.getpid(): "engine"}
    assert services() == {os.getpid(): "engine"}
    for path in tmp_path.iterdir():
        path.unlink()
    assert services() == {}


def test_a_culprit_that_is_observed_goes_by_its_service() -> None:
    records = np.zeros(3, dtype=RECORD)
    records["kind"], records["by_pid"], records["by_comm"] = RecordKind.PREEMPTED, [7, 8, 0], b"python"
    made = Intervals("h", LabelSets(), {}, str).columns(records, 0, ["(not observed)", "engine"], {7: 1})
    assert made.text("culprit") == ["engine", "python", "limit"]
    assert made.text("kind") == ["preempted", "preempted", "throttled"]


def test_a_limit_goes_by_the_group_of_the_thread_that_it_stopped() -> None:
    records = np.zeros(4, dtype=RECORD)
    records["kind"], records["pid"] = RecordKind.PREEMPTED, [7, 8, 9, 7]
    made = Intervals("h", LabelSets(), {}, str).columns(records, 0, ["x"], {}, {7: "/cg/engine", 8: "/cg/feed"})
    assert made.text("culprit") == ["limit:/cg/engine", "limit:/cg/feed", "limit", "limit:/cg/engine"]


def test_what_was_not_seen_is_unknown() -> None:
    records = np.zeros(2, dtype=RECORD)
    records["kind"], records["by_pid"] = [RecordKind.BLOCKED_LOCK, RecordKind.BLOCKED_IO], [UNKNOWN_PID, 0]
    made = Intervals("h", LabelSets(), {}, str).columns(records, 0, ["x"])
    assert made.text("culprit") == ["unknown", "interrupt"]


@pytest.mark.parametrize("observe", ["pids", "cgroup", "all"])
def test_observed_are_those_that_the_settings_name(observe: str, tmp_path: Path) -> None:
    with script(SPIN, "victim", 0.4) as victim, script(SPIN, "thief", 0.4) as thief:
        assert line(victim) == line(thief) == "ready\n"
        (tmp_path / "tasks").write_text(f"{victim.pid}\n")
        named = {"pids": {"pids": (victim.pid,)}, "cgroup": {"cgroup": str(tmp_path)}, "all": {}}[observe]
        settings = SchedulerSettings(observe=observe, threshold="100us", report="100ms", **named)  # type: ignore[arg-type]
        source = SchedulerSource("here", dict, settings)
        available = source.start({})
        if "machine" not in (source._mechanism.sees if source._mechanism else ()):
            source.close()
            pytest.skip(available.reason)
        polls = [source.poll(clock_now())]
        go(victim)
        go(thief)
        for process in (victim, thief):
            process.wait(timeout=60)
        polls.append(source.poll(clock_now()))
        assert source.problem == ""
        source.close()
    threads = {tid for c in tables(polls, "intervals") for tid in c.values["thread"].tolist()}
    assert victim.pid in threads
    assert (threads == {victim.pid}) == (observe != "all")


def test_a_group_or_process_that_is_not_there_is_said_and_waited_for(tmp_path: Path) -> None:
    folder = tmp_path / "later"
    source = SchedulerSource("here", dict, SchedulerSettings(mechanism="psi", observe="cgroup", cgroup=str(folder)))
    source.start({})
    source.poll(clock_now())
    assert source.problem == f"{folder}: No such file or directory; see [agent.scheduler] cgroup"
    folder.mkdir()
    (folder / "tasks").write_text(f"{os.getpid()}\n")
    source._refreshed_ns = 0
    source.poll(clock_now())
    assert source.problem == ""
    assert source._threads == {os.getpid(): 1}
    source.close()
    gone = SchedulerSource("here", dict, SchedulerSettings(mechanism="psi", observe="pids", pids=(2**22 - 1,)))
    gone.start({})
    gone.poll(clock_now())
    assert "none of the processes" in gone.problem
    gone.close()
