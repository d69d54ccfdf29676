"""Latency profiles: how long links and steps of the order path take, as quantiles in a file. Pure but for its file.

A profile is CSV: the line `# tailsight latency profile 1`, the line `name,quantile,ns`, then one row per quantile.
Lines that begin with # are remarks. Names are the links (`line-a`; `orders-east` and `orders-east.back`, its way back)
and the steps (`venue.match`); `NAMES` has all. Of each name the rows stand together, quantiles (0 to 1) and nanoseconds
both ascending, at least two rows, the first for quantile 0 and the last for 1. In between is drawn by linear
interpolation.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from api.demo.faults import LINKS
from api.demo.quantiles import Quantiles

MAGIC = "# tailsight latency profile 1"
HEADER = "name,quantile,ns"
STREAMS = tuple(name for name in LINKS if not name.startswith("line-"))
STEPS = (
    "feed.send", "engine.arbitrate", "engine.transform", "question", "inference.ingest", "inference.feature",
    "inference.model", "inference.delivery", "signal", "engine.ready", "engine.wake", "engine.decide", "engine.send",
    "gateway.check", "venue.match", "venue.trade",
)  # fmt: skip
NAMES = (*LINKS, *(f"{name}.back" for name in STREAMS), *STEPS)
GRID = (0.0, 0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 1.0)
MAX_NS = 3_600_000_000_000
_MAX_BYTES = 1 << 20
_MAX_ROWS = 1_000  # of one name


class ProfileError(ValueError):
    """A file that is no latency profile; the message names the line and what would be right."""


def parse(text: str, source: str = "profile") -> dict[str, Quantiles]:
    """The quantiles of each name in a profile. Raises ProfileError naming the line."""
    found: dict[str, list[tuple[float, int]]] = {}
    current, headed = "", False
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{source}, line {number}"
        if number == 1:
            if line.strip() != MAGIC:
                raise ProfileError(f"{where}: a latency profile begins with {MAGIC!r}, found {line[:60]!r}")
            continue
        if not line.strip() or line.startswith("#"):
            continue
        if not headed:
            if line.strip() != HEADER:
                raise ProfileError(f"{where}: expected the header {HEADER!r}, found {line[:60]!r}")
            headed = True
            continue
        name, quantile, ns = _row(line, where)
        rows = found.setdefault(name, [])
        if name != current and rows:
            raise ProfileError(f"{where}: the rows of {name!r} must stand together")
        current = name
        _follows(name, rows, quantile, ns, where)
        rows.append((quantile, ns))
    if not found:
        raise ProfileError(f"{source}: there is no row; each one is {HEADER}")
    for name, rows in found.items():
        if len(rows) < 2 or rows[-1][0] != 1.0:
            raise ProfileError(
                f"{source}: {name!r} ends with quantile {rows[-1][0]:g}; its last row must be quantile 1"
            )
    return {name: tuple(rows) for name, rows in found.items()}


def read(file: Path) -> dict[str, Quantiles]:
    """The profile in a file. Raises ProfileError, also for a file that cannot be read or is too large."""
    try:
        with file.open("rb") as opened:
            data = opened.read(_MAX_BYTES + 1)
        if len(data) > _MAX_BYTES:
            raise ProfileError(f"{file}: larger than {_MAX_BYTES} bytes; a profile has some hundred rows")
        return parse(data.decode("utf-8"), str(file))
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"{file}: cannot be read as a profile: {error}") from error


def write(quantiles: Mapping[str, Sequence[tuple[float, int]]], remark: str = "") -> str:
    """A profile's text; `remark` says where it comes from."""
    out = io.StringIO()
    out.write(MAGIC + "\n")
    out.writelines(f"# {line}\n" for line in remark.splitlines())
    out.write(HEADER + "\n")
    rows = csv.writer(out, lineterminator="\n")
    for name in NAMES:
        rows.writerows((name, f"{q:g}", ns) for q, ns in quantiles.get(name, ()))
    return out.getvalue()


def quantiles_of(samples: NDArray[np.int64], grid: Iterable[float] = GRID) -> Quantiles:
    """Quantiles of measured nanoseconds; what a clock saw as less than nothing is nothing."""
    at = tuple(grid)
    values = np.quantile(np.clip(samples, 0, MAX_NS), at)
    return tuple((q, round(float(v))) for q, v in zip(at, values, strict=True))


def draws(quantiles: Quantiles, rng: np.random.Generator, count: int) -> list[int]:
    """As many seeded draws."""
    at, values = zip(*quantiles, strict=True)
    drawn: list[int] = np.interp(rng.random(count), at, values).round().astype(np.int64).tolist()
    return drawn


def _row(line: str, where: str) -> tuple[str, float, int]:
    fields = next(csv.reader([line]))
    if len(fields) != 3:
        raise ProfileError(f"{where}: {len(fields)} fields, want 3: {HEADER}")
    name = fields[0].strip()
    if name not in NAMES:
        raise ProfileError(f"{where}: there is no link or step {name!r}; there are {', '.join(NAMES)}")
    try:
        quantile, ns = float(fields[1]), int(fields[2])
    except ValueError:
        raise ProfileError(f"{where}: quantile and ns must be numbers, got {fields[1]!r} and {fields[2]!r}") from None
    return name, quantile, ns


def _follows(name: str, rows: Sequence[tuple[float, int]], quantile: float, ns: int, where: str) -> None:
    """Check a row against those of its name before it."""
    if not 0 <= ns <= MAX_NS:
        raise ProfileError(f"{where}: {ns} ns is not between 0 and one hour")
    if not rows and quantile != 0:
        raise ProfileError(f"{where}: the first row of {name!r} must be quantile 0, got {quantile:g}")
    if not 0 <= quantile <= 1 or (rows and quantile <= rows[-1][0]):
        raise ProfileError(f"{where}: quantiles must ascend from 0 to 1, got {quantile:g}")
    if rows and ns < rows[-1][1]:
        raise ProfileError(f"{where}: {ns} ns is less than the {rows[-1][1]} ns of the quantile before it")
    if len(rows) >= _MAX_ROWS:
        raise ProfileError(f"{where}: {name!r} has more than {_MAX_ROWS} rows")
