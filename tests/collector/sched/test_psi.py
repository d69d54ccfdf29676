from __future__ import annotations

import os
from pathlib import Path

from collector.sched import psi


def test_totals_are_read_in_nanoseconds(tmp_path: Path) -> None:
    (tmp_path / "pressure").mkdir()
    (tmp_path / "pressure" / "cpu").write_text(
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=7\n"
    )
    (tmp_path / "stat").write_text("cpu  1 2 3 4 5 6 7 540 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    found = psi.read(tmp_path)
    assert found.stalled_ns == {"cpu some": 123_000, "cpu full": 7_000}
    assert found.steal_ns == 540 * 1_000_000_000 // os.sysconf("SC_CLK_TCK")


def test_what_the_kernel_does_not_say_is_absent_not_zero(tmp_path: Path) -> None:
    assert psi.read(tmp_path) == psi.Pressure({}, None)
