"""The kernel's type information, against a second reader of it, and damaged."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.sched import btf
from tests.needs import program

NAMES = ("sched_switch", "sched_wakeup")


def made() -> bytes:
    """A small BTF: btf_trace_probe -> pointer -> function of (void *, task *, int); task {pid; flag : 1 at bit 35}."""
    texts = b"\0int\0task\0pid\0flag\0btf_trace_probe\0"
    at = {
        name: texts.index(b"\0" + name.encode() + b"\0") + 1
        for name in ("int", "task", "pid", "flag", "btf_trace_probe")
    }
    types = struct.pack("<IIII", at["int"], 1 << 24, 4, 32)  # 1
    types += struct.pack("<III", at["task"], 1 << 31 | 4 << 24 | 2, 8)  # 2
    types += struct.pack("<III", at["pid"], 1, 0) + struct.pack("<III", at["flag"], 1, 1 << 24 | 35)
    types += struct.pack("<III", 0, 2 << 24, 2)  # 3: pointer to task
    types += struct.pack("<III", 0, 13 << 24 | 3, 0) + struct.pack("<II", 0, 0) + struct.pack("<II", 0, 3)  # 4
    types += struct.pack("<II", 0, 1)
    types += struct.pack("<III", 0, 2 << 24, 4)  # 5: pointer to function
    types += struct.pack("<III", at["btf_trace_probe"], 8 << 24, 5)  # 6
    header = struct.pack("<HBBIIIII", 0xEB9F, 1, 0, 24, 0, len(types), len(types), len(texts))
    return header + types + texts


def test_members_bit_fields_and_arguments_are_found() -> None:
    found = btf.parse(made(), {"btf_trace_probe"}, {"task"})
    assert found.member("task", "pid") == btf.Member(0, 0)
    flag = found.member("task", "flag")
    assert (flag.bit, flag.bits, flag.offset) == (35, 1, 4)
    assert found.tracepoint("probe", 2) == 6
    with pytest.raises(btf.BtfError, match="passes 2 values here, not 3"):
        found.tracepoint("probe", 3)
    with pytest.raises(btf.BtfError, match="no tracepoint other"):
        found.tracepoint("other", 1)
    with pytest.raises(btf.BtfError, match="task has no field comm"):
        found.member("task", "comm")


@given(st.data())
@settings(max_examples=200)
def test_damaged_type_information_is_refused_or_read_never_a_crash(data: st.DataObject) -> None:
    raw = bytearray(made())
    for _ in range(data.draw(st.integers(0, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(raw[: data.draw(st.integers(0, len(raw)))])
    try:
        btf.parse(cut, {"btf_trace_probe"}, {"task"})
    except btf.BtfError as error:
        assert str(error)


def test_a_kernel_without_it_is_said(tmp_path: Path) -> None:
    with pytest.raises(btf.BtfError, match="built without type information"):
        btf.read(NAMES, (), tmp_path / "none")


def test_the_running_kernels_offsets_are_those_that_bpftrace_reads() -> None:
    bpftrace = program("bpftrace", "bpftrace")
    try:
        found = btf.read(NAMES, ("task_struct",))
    except btf.BtfError as error:
        pytest.skip(str(error))
    listed = subprocess.run(
        [bpftrace, "-lv", "struct task_struct"], capture_output=True, text=True, timeout=60, check=False
    )
    names = {
        text.split(";")[0].split(":")[0].split()[-1].split("[")[0].lstrip("*")
        for text in listed.stdout.splitlines()
        if ";" in text
    }
    if "pid" not in names:
        pytest.skip(f"bpftrace does not list it: {(listed.stdout + listed.stderr)[-200:]}")
    assert {"pid", "comm", "in_iowait"} <= names
    assert {"pid", "comm", "in_iowait"} <= set(found.structs["task_struct"])
    assert found.arguments["btf_trace_sched_wakeup"] == 1
