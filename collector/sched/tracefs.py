"""Tracepoints as tracefs describes them: ids and field offsets, read from `format` because they differ by kernel."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOTS = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_FIELD = re.compile(r"field:(?P<type>[^;]*?)(?P<name>\w+)(?:\[\w*\])?;\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);")
_SYMBOL = re.compile(r'\{ (\d+), "(\w+)" \}')
MOUNT = "mount -t tracefs tracefs /sys/kernel/tracing"


class TracefsError(Exception):
    """tracefs is absent, or lacks a tracepoint or field; the message says what would help."""


class TracefsPermissionError(TracefsError):
    """tracefs is there but not readable: it is root's own, or takes CAP_DAC_READ_SEARCH."""


@dataclass(frozen=True, slots=True)
class Field:
    """Where one field of a raw record lies."""

    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class Tracepoint:
    """One tracepoint: its perf id, its fields, and the symbols its print format names."""

    name: str
    id: int
    fields: dict[str, Field]
    symbols: dict[int, str]

    def offset(self, field: str, size: int) -> int:
        """The offset of `field`, which must have `size` bytes. Raises TracefsError naming what the kernel has."""
        found = self.fields.get(field)
        if found is None or found.size != size:
            raise TracefsError(
                f"{self.name}.{field}: wanted {size} bytes, this kernel has "
                f"{found.size if found else 'no such field'}; report it with the file `format` of the tracepoint"
            )
        return found.offset


def parse_format(text: str) -> Tracepoint:
    """Read one `format` file. Raises TracefsError when it has no name or id."""
    name = re.search(r"^name: (\w+)$", text, re.MULTILINE)
    number = re.search(r"^ID: (\d+)$", text, re.MULTILINE)
    if name is None or number is None:
        raise TracefsError(f"not a tracepoint format: {text[:80]!r}")
    fields = {m["name"]: Field(int(m["offset"]), int(m["size"])) for m in _FIELD.finditer(text)}
    symbols = {int(value): symbol for value, symbol in _SYMBOL.findall(text)}
    return Tracepoint(name[1], int(number[1]), fields, symbols)


def tracepoint(group: str, name: str, roots: tuple[Path, ...] = ROOTS) -> Tracepoint:
    """The tracepoint `group:name` from the first of `roots` that has it.

    Raises TracefsError saying whether tracefs is not mounted, not readable, or lacks this tracepoint.
    """
    for root in roots:
        path = root / "events" / group / name / "format"
        try:
            return parse_format(path.read_text())
        except FileNotFoundError:
            continue
        except PermissionError:
            raise TracefsPermissionError(f"{path} is not readable") from None
    mounted = [root for root in roots if _has_events(root)]
    if not mounted:
        raise TracefsError(f"tracefs is not mounted; run `{MOUNT}`")
    raise TracefsError(f"this kernel has no tracepoint {group}:{name} below {mounted[0]}")


def _has_events(root: Path) -> bool:
    try:
        return (root / "events").is_dir()
    except PermissionError:
        return True
