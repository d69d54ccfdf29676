from __future__ import annotations

from pathlib import Path

import pytest

from collector.sched.tracefs import TracefsError, parse_format, tracepoint

# As Linux 6.18 prints it.
SOFTIRQ = """name: softirq_exit
ID: 222
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:unsigned int vec;\toffset:8;\tsize:4;\tsigned:0;
\tfield:char comm[16];\toffset:12;\tsize:16;\tsigned:0;
\tfield:__data_loc char[] name;\toffset:28;\tsize:4;\tsigned:0;

print fmt: "vec=%u [action=%s]", REC->vec, __print_symbolic(REC->vec, { 0, "HI" }, { 1, "TIMER" }, { 9, "RCU" })
"""


def test_a_format_gives_id_fields_and_symbols() -> None:
    point = parse_format(SOFTIRQ)
    assert (point.name, point.id) == ("softirq_exit", 222)
    assert point.offset("vec", 4) == 8
    assert point.offset("comm", 16) == 12
    assert point.offset("name", 4) == 28
    assert point.symbols == {0: "HI", 1: "TIMER", 9: "RCU"}


def test_a_field_of_another_size_is_refused_with_what_the_kernel_has() -> None:
    with pytest.raises(TracefsError, match=r"softirq_exit.vec: wanted 8 bytes, this kernel has 4"):
        parse_format(SOFTIRQ).offset("vec", 8)
    with pytest.raises(TracefsError, match="no such field"):
        parse_format(SOFTIRQ).offset("absent", 8)


def test_what_is_no_format_is_refused() -> None:
    with pytest.raises(TracefsError, match="not a tracepoint format: 'hello'"):
        parse_format("hello")


def test_the_error_says_whether_tracefs_or_the_tracepoint_is_missing(tmp_path: Path) -> None:
    with pytest.raises(TracefsError, match="not mounted; run `mount -t tracefs"):
        tracepoint("irq", "softirq_exit", roots=(tmp_path,))
    (tmp_path / "events").mkdir()
    with pytest.raises(TracefsError, match="no tracepoint irq:softirq_exit"):
        tracepoint("irq", "softirq_exit", roots=(tmp_path,))
    (tmp_path / "events/irq/softirq_exit").mkdir(parents=True)
    (tmp_path / "events/irq/softirq_exit/format").write_text(SOFTIRQ)
    assert tracepoint("irq", "softirq_exit", roots=(tmp_path / "absent", tmp_path)).id == 222
