"""The tape: what was stamped and linked on the virtual clock, turned into the columns that collectors ship."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tailsight_probe import hash64

from api.demo.instances import SHADOW_SPACE
from collector.keys import hash64_ints
from collector.record import EVENTS, LABEL_SETS, LINKS, STAMPS, Columns, Mode

SPACES = ("feed", "order", *SHADOW_SPACE.values())
CLOCK = "virtual"
_NONE = (None, 0, 0, 0, None)

Spot = int  # a point of a service, stamped by one thread on keys of one space


class Tape:
    """Collects stamps and links of one host; mode is `synthetic`, but for those of a shadow."""

    def __init__(self, host: str) -> None:
        self._host = host
        self._spots: list[tuple[str, str, int, int, int]] = []  # point, service, thread, index of the space, mode
        self._more: dict[tuple[Any, ...], int] = {_NONE: 0}  # depth, label set, outcome, cache, data age
        self._stamps: list[int] = []
        self._links: list[int] = []
        self._labels: dict[int, str] = {}
        self._events: list[dict[str, Any]] = []
        self.quotes = 0  # that were sent

    def spot(self, point: str, service: str, thread: int, space: str, mode: Mode = Mode.SYNTHETIC) -> Spot:
        """A place to stamp at."""
        self._spots.append((point, service, thread, SPACES.index(space), int(mode)))
        return len(self._spots) - 1

    def labels(self, text: str) -> int:
        """The label set of a canonical JSON object."""
        number = hash64("labels", text)
        self._labels[number] = text
        return number

    def stamp(self, time_ns: int, spot: Spot, key: int) -> None:
        """One stamp that says nothing but where and when."""
        self._stamps += (time_ns, spot, key, 0)

    def stamp_with(
        self, time_ns: int, spot: Spot, key: int, *, depth: int | None = None, labels: int = 0,
        outcome: int = 0, cache: int = 0, data_age_ns: int | None = None,
    ) -> None:  # fmt: skip
        """One stamp with what the program says of the message."""
        more = (depth, labels, outcome, cache, data_age_ns)
        self._stamps += (time_ns, spot, key, self._more.setdefault(more, len(self._more)))

    def link(self, time_ns: int, parent: int, child: int, space: str = "order") -> None:
        """A quote led to an order, or to the copy of one that a shadow gets."""
        self._links += (time_ns, parent, child, SPACES.index(space))

    def event(self, time_ns: int, service: str, kind: str, body: str, about: Mapping[str, str]) -> None:
        """Something that is said of no message."""
        attributes = json.dumps(about, sort_keys=True, separators=(",", ":"))
        self._events.append(
            {
                "ts_ns": time_ns, "key": 0, "host": self._host, "service": service, "kind": kind, "body": body,
                "attributes": attributes,
            }
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self._stamps) // 4 + len(self._links) // 4

    def columns(self) -> list[Columns]:
        """Label sets, events, links and stamps, in the order of their times."""
        events = Columns.from_rows(EVENTS, sorted(self._events, key=lambda row: row["ts_ns"]))
        if not self._stamps:
            return [events] if self._events else []  # labels of nothing need not travel
        found = (self._label_rows(), events, self._link_columns(), self._stamp_columns())
        return [one for one in found if len(one)]

    def _label_rows(self) -> Columns:
        rows = ({"label_set": number, "labels": text} for number, text in sorted(self._labels.items()))
        return Columns.from_rows(LABEL_SETS, rows)

    def _link_columns(self) -> Columns:
        ts, parent, child, spaces = _table(self._links, 4)
        children = np.zeros(len(ts), np.uint64)
        for i, space in enumerate(SPACES):
            children[spaces == i] = hash64_ints(space, child[spaces == i])
        order = np.argsort(ts.view(np.int64), kind="stable")
        zeros = np.zeros(len(ts), np.uint16)
        values = {
            "ts_ns": ts.view(np.int64)[order],
            "parent": hash64_ints("feed", parent)[order],
            "child": children[order],
            "host": zeros,
            "service": zeros,
        }
        return Columns(LINKS, values, {"host": [self._host], "service": ["engine"]})

    def _stamp_columns(self) -> Columns:
        ts, spot, key, more = _table(self._stamps, 4)
        order = np.argsort(ts.view(np.int64), kind="stable")
        ts, spot, key, more = ts[order], spot[order].astype(np.intp), key[order], more[order].astype(np.intp)
        spaces = np.array([s[3] for s in self._spots])[spot] if self._spots else np.zeros(0)
        keys = np.zeros(len(ts), np.uint64)
        for i, space in enumerate(SPACES):
            keys[spaces == i] = hash64_ints(space, key[spaces == i])
        points, services = _codes(s[0] for s in self._spots), _codes(s[1] for s in self._spots)
        said = list(self._more)
        depths, ages = [m[0] for m in said], [m[4] for m in said]
        n = len(ts)
        values: dict[str, NDArray[Any]] = {
            "ts_ns": ts.view(np.int64),
            "key": keys,
            "point": _lookup([points[s[0]] for s in self._spots], np.uint16, spot),
            "host": np.zeros(n, np.uint16),
            "service": _lookup([services[s[1]] for s in self._spots], np.uint16, spot),
            "thread": _lookup([s[2] for s in self._spots], np.uint32, spot),
            "clock": np.zeros(n, np.uint16),
            "error_ns": np.zeros(n, np.uint32),  # the virtual clock is what it says
            "depth": _lookup([d or 0 for d in depths], np.int32, more),
            "label_set": _lookup([m[1] for m in said], np.uint64, more),
            "outcome": _lookup([m[2] for m in said], np.uint8, more),
            "mode": _lookup([s[4] for s in self._spots], np.uint8, spot),
            "cache": _lookup([m[3] for m in said], np.uint8, more),
            "data_age_ns": _lookup([a or 0 for a in ages], np.int64, more),
        }
        texts = {"point": list(points), "host": [self._host], "service": list(services), "clock": [CLOCK]}
        nulls = {
            "depth": _lookup([d is None for d in depths], np.bool_, more),
            "data_age_ns": _lookup([a is None for a in ages], np.bool_, more),
        }
        return Columns(STAMPS, values, texts, nulls)


def _table(flat: list[int], width: int) -> NDArray[np.uint64]:
    return np.array(flat, np.uint64).reshape(-1, width).T


def _codes(words: Iterable[str]) -> Mapping[str, int]:
    return {word: code for code, word in enumerate(dict.fromkeys(words))}


def _lookup(values: list[Any], dtype: Any, index: NDArray[np.intp]) -> NDArray[Any]:
    return np.array(values, dtype)[index] if values else np.zeros(len(index), dtype)
