"""tshark as the independent reader."""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.needs import program


def fields(file: Path, *names: str, options: tuple[str, ...] = ()) -> list[list[str]]:
    """One row per packet with the first value of each field, "" where it is absent."""
    command = [program("tshark", "tshark"), "-n", "-r", str(file), *options, "-T", "fields", "-E", "occurrence=f"]
    for name in names:
        command += ["-e", name]
    run = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
    assert run.stdout or not run.returncode, run.stderr
    return [line.split("\t") for line in run.stdout.splitlines()]


def ns(text: str) -> int:
    """Seconds with a decimal point, as tshark prints them, in ns; exact."""
    whole, _, part = text.lstrip("-").partition(".")
    value = int(whole) * 1_000_000_000 + int(part.ljust(9, "0")[:9] or 0)
    return -value if text.startswith("-") else value
