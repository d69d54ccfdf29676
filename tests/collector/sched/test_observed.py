from __future__ import annotations

import os
import threading
from pathlib import Path

from collector.sched.observed import BusyThreads, Groups, threads_of, threads_of_cgroup


def test_the_threads_of_a_process_are_found_and_a_dead_one_is_left_out() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    try:
        found = threads_of([os.getpid(), 2**30])
        assert {thread.native_id, threading.get_native_id()} <= set(found)
    finally:
        done.set()
        thread.join()


def test_a_cgroup_is_read_in_both_versions_with_those_below(tmp_path: Path) -> None:
    (tmp_path / "cgroup.threads").write_text("1\n2\n")
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "tasks").write_text("7\n")
    assert sorted(threads_of_cgroup(tmp_path)) == [1, 2, 7]


def test_groups_that_do_not_fit_share_the_last() -> None:
    groups = Groups(4)
    assert [groups.number(name) for name in ("a", "b", "a", "c", "d", "b")] == [1, 2, 1, 3, 3, 2]
    assert groups.names == ["(not observed)", "a", "b", Groups.REST]


def test_only_a_thread_that_ran_all_the_time_without_a_switch_is_busy(tmp_path: Path) -> None:
    def write(tid: int, run_ns: int, runs: int) -> None:
        (tmp_path / str(tid)).mkdir(exist_ok=True)
        (tmp_path / str(tid) / "schedstat").write_text(f"{run_ns} 0 {runs}\n")

    busy = BusyThreads(tmp_path)
    for tid in (1, 2, 3):
        write(tid, 1000, 5)
    assert busy.update([1, 2, 3, 4], now_ns=0) == []  # nothing to compare with yet
    write(1, 1000 + 95, 5)  # polls
    write(2, 1000 + 95, 6)  # ran, but was switched
    write(3, 1000 + 10, 5)  # sleeps
    assert busy.update([1, 2, 3, 4], now_ns=100) == [1]
