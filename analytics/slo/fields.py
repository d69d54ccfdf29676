"""Reading a mapping field by field: types, ranges and unknown names, every problem with its line."""

from __future__ import annotations

import re
from collections.abc import Collection

from analytics.slo.document import Node
from analytics.slo.openslo import Problem, Severity

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?")
_SHORT = re.compile(r"([1-9]\d{0,8})([mhdwMQY])")
UNIT_S = {"m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


class Fields:
    """One mapping being read; what nobody asked for is a problem at `done`."""

    def __init__(self, node: Node, where: str, problems: list[Problem], file: str = "") -> None:
        self.node, self.where, self.file = node, where, file
        self._problems = problems
        self._asked: set[str] = set()
        self._is_mapping = isinstance(node.value, dict)
        if not self._is_mapping:
            self.problem("", "must be a mapping")

    def problem(self, name: str, message: str, severity: Severity = "error", line: int | None = None) -> None:
        """Note a problem with a field, at its own line when it is there."""
        at = self.node.keys.get(name, self.node.line) if line is None else line
        where = f"{self.where}.{name}" if name else self.where
        self._problems.append(Problem(at, where, message, severity, self.file))

    def node_of(self, name: str, *, required: bool = False) -> Node | None:
        """A member as it stands."""
        self._asked.add(name)
        found = self.node.get(name)
        if found is None and required and self._is_mapping:
            self.problem(name, "is required")
        return found

    def has(self, name: str) -> bool:
        """Whether a member is there and not null."""
        return self.node.get(name) is not None

    def text(self, name: str, *, required: bool = False, longest: int = 1_050, among: Collection[str] = ()) -> str:
        """A text, '' when absent or wrong."""
        found = self.node_of(name, required=required)
        if found is None:
            return ""
        if not isinstance(found.value, str):
            self.problem(name, f"must be text, got {_kind(found)}; put it in quotes if it is meant as text")
            return ""
        if len(found.value) > longest:
            self.problem(name, f"has {len(found.value)} characters, at most {longest} are allowed")
        if among and found.value not in among:
            self.problem(name, f"must be one of {', '.join(among)}, got {found.value!r}")
            return ""
        return found.value

    def name(self, name: str = "name", *, required: bool = True) -> str:
        """A name as Kubernetes has them: lower case, digits, '-' and '.', at most 63."""
        text = self.text(name, required=required)
        if text and not _NAME.fullmatch(text):
            self.problem(name, f"{text!r} is no name: write lower-case letters, digits and '-', at most 63")
        return text

    def flag(self, name: str, default: bool = False) -> bool:
        """A truth value."""
        found = self.node_of(name)
        if found is None:
            return default
        if not isinstance(found.value, bool):
            self.problem(name, f"must be true or false, got {_kind(found)}")
            return default
        return found.value

    def number(self, name: str, *, required: bool = False) -> float | None:
        """A number; whole ones stay exact up to 2**53."""
        found = self.node_of(name, required=required)
        if found is None:
            return None
        if isinstance(found.value, bool) or not isinstance(found.value, int | float):
            self.problem(name, f"must be a number, got {_kind(found)}")
            return None
        if abs(found.value) > 1e300:
            self.problem(name, "is too large")
            return None
        return float(found.value)

    def whole(self, name: str, *, required: bool = False, least: int = 0) -> int | None:
        """A whole number of at least `least`."""
        found = self.node_of(name, required=required)
        if found is None:
            return None
        if isinstance(found.value, bool) or not isinstance(found.value, int):
            self.problem(name, f"must be a whole number, got {_kind(found)}")
            return None
        if not least <= found.value < 1 << 62:
            self.problem(name, f"must be at least {least} and below 2^62, got {found.value}")
            return None
        return found.value

    def items(self, name: str, *, required: bool = False, most: int = 100) -> list[Node]:
        """A list."""
        found = self.node_of(name, required=required)
        if found is None:
            return []
        if not isinstance(found.value, list):
            self.problem(name, f"must be a list, got {_kind(found)}")
            return []
        if len(found.value) > most:
            self.problem(name, f"has {len(found.value)} entries, at most {most} are allowed")
            return []
        return found.value

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts."""
        found = []
        for item in self.items(name):
            if isinstance(item.value, str):
                found.append(item.value)
            else:
                self.problem(name, f"must hold texts, got {_kind(item)}", line=item.line)
        return tuple(found)

    def inner(self, name: str, *, required: bool = False) -> Fields | None:
        """A mapping below this one."""
        found = self.node_of(name, required=required)
        if found is None:
            return None
        return Fields(found, f"{self.where}.{name}", self._problems, self.file)

    def of(self, item: Node, name: str, number: int) -> Fields:
        """An entry of a list below this one."""
        return Fields(item, f"{self.where}.{name}[{number}]", self._problems, self.file)

    def seconds(self, name: str, default: int | None = None, *, required: bool = False, zero: bool = False) -> int:
        """A duration shorthand of minutes to weeks (5m, 1h, 3d, 4w) in seconds; 0 when wrong."""
        text = self.text(name, required=required)
        if not text:
            return default or 0
        if zero and re.fullmatch(r"0[smhdw]", text):
            return 0
        match = _SHORT.fullmatch(text)
        if match is None or match[2] not in UNIT_S:
            self.problem(name, f"{text!r} is not a duration; write a whole number and one of m, h, d, w")
            return 0
        return int(match[1]) * UNIT_S[match[2]]

    def shorthand(self, name: str) -> tuple[int, str]:
        """A duration shorthand with its unit, months to years included; (0, '') when wrong."""
        text = self.text(name, required=True)
        match = _SHORT.fullmatch(text)
        if match is None:
            if text:
                self.problem(name, f"{text!r} is not a duration; write a whole number and one of m, h, d, w, M, Q, Y")
            return 0, ""
        return int(match[1]), match[2]

    def done(self, severity: Severity = "error") -> None:
        """Report the members that nobody asked for."""
        for name, line in self.node.keys.items():
            if name not in self._asked:
                known = ", ".join(sorted(self._asked))
                self.problem(name, f"is not known here; known are {known}", severity, line)


def _kind(node: Node) -> str:
    if isinstance(node.value, dict):
        return "a mapping"
    if isinstance(node.value, list):
        return "a list"
    return "nothing" if node.value is None else repr(node.value)
