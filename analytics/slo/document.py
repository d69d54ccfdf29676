"""YAML with the place of every value, so that an error can say on which line it lies.

The parser's events are read (PyYAML), nothing is constructed by it: tags cannot name types, aliases cannot grow without
bound, and a key that is given twice is an error instead of a silent loss. Plain scalars are those of YAML 1.2's core
schema: `yes`, `on` and `1:30` are text.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_BYTES = 4 << 20
MAX_NODES = 200_000
MAX_DEPTH = 60
_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NULL = {"", "~", "null", "Null", "NULL"}
_BOOL = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_STR_TAG = "tag:yaml.org,2002:str"


class DocumentError(ValueError):
    """Not readable as YAML, or beyond its bounds; `line` counts from 1."""

    def __init__(self, line: int, problem: str) -> None:
        self.line = line
        self.problem = problem
        super().__init__(f"line {line}: {problem}")


@dataclass(frozen=True, slots=True)
class Node:
    """A value and where it begins. `value` is a scalar, a list of nodes, or a dict of nodes by their text keys."""

    value: Any
    line: int
    keys: dict[str, int] = field(default_factory=dict)  # of a mapping: the line of each key

    def plain(self) -> Any:
        """The value without places."""
        if isinstance(self.value, list):
            return [one.plain() for one in self.value]
        if isinstance(self.value, dict):
            return {name: one.plain() for name, one in self.value.items()}
        return self.value

    def get(self, name: str) -> Node | None:
        """A member of a mapping; None when absent, null, or this is no mapping."""
        found = self.value.get(name) if isinstance(self.value, dict) else None
        return None if found is None or found.value is None else found


def documents(text: str) -> list[Node]:
    """Every document of a YAML stream. Raises DocumentError."""
    if len(text.encode("utf-8", "replace")) > MAX_BYTES:
        raise DocumentError(1, f"more than {MAX_BYTES >> 20} MiB; split it into several files")
    reader = _Reader()
    try:
        return list(reader.read(yaml.parse(text, Loader=yaml.SafeLoader)))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise DocumentError(mark.line + 1 if mark else 1, str(error.problem or error.context)) from error
    except yaml.YAMLError as error:  # a character that YAML does not have
        at = getattr(error, "position", 0)
        raise DocumentError(text.count("\n", 0, at) + 1, str(getattr(error, "reason", error))) from error


class _Reader:
    def __init__(self) -> None:
        self._anchors: dict[str, tuple[Node, int]] = {}
        self._nodes = 0

    def read(self, events: Iterator[yaml.Event]) -> Iterator[Node]:
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors.clear()
            elif isinstance(event, yaml.NodeEvent):
                yield self._node(event, events, 0)

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        line = _line(event)
        before = self._nodes
        self._count(1, line)
        if depth > MAX_DEPTH:
            raise DocumentError(line, f"nested deeper than {MAX_DEPTH}")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise DocumentError(line, f"*{event.anchor} refers to nothing above it")
            known, size = self._anchors[event.anchor]
            self._count(size, line)
            return known
        if isinstance(event, yaml.ScalarEvent):
            node = Node(_scalar(event), line)
        elif isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(events), yaml.SequenceEndEvent):
                items.append(self._node(inner, events, depth + 1))
            node = Node(items, line)
        else:
            node = self._mapping(line, events, depth)
        if isinstance(event, yaml.NodeEvent) and event.anchor is not None:
            self._anchors[event.anchor] = (node, self._nodes - before)
        return node

    def _mapping(self, line: int, events: Iterator[yaml.Event], depth: int) -> Node:
        found: dict[str, Node] = {}
        keys: dict[str, int] = {}
        while not isinstance(inner := next(events), yaml.MappingEndEvent):
            at = _line(inner)
            if not isinstance(inner, yaml.ScalarEvent):
                raise DocumentError(at, "a key must be plain text")
            name = inner.value
            if name == "<<" and inner.style is None:
                raise DocumentError(at, "merge keys (<<) are not taken; write the members out")
            if name in found:
                raise DocumentError(at, f"{name!r} is given twice, first on line {keys[name]}")
            keys[name] = at
            found[name] = self._node(next(events), events, depth + 1)
        return Node(found, line, keys)

    def _count(self, more: int, line: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise DocumentError(line, f"more than {MAX_NODES} values, aliases counted where they are used")


def _line(event: yaml.Event) -> int:
    return event.start_mark.line + 1 if event.start_mark is not None else 1


def _scalar(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    if event.tag == _STR_TAG or not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _BOOL:
        return _BOOL[text]
    if _INT.fullmatch(text) and len(text) <= 40:
        return int(text)
    if _FLOAT.fullmatch(text) and math.isfinite(value := float(text)):
        return value
    return text
