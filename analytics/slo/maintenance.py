"""Maintenance windows: times in which alerts are judged and recorded, and not sent. Every window ends.

A window is declared in the configuration or by somebody with a name; it says which objectives it is about, who wants
it and why, what becomes of notifications, and whether the budget goes on burning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from analytics.slo.calendars import SloCalendar, Stretch
from analytics.slo.objectives import Objective
from collector.settings import ConfigError, Section, section

NS = 1_000_000_000
LONGEST_NS = 7 * 86_400 * NS
MAX_WINDOWS = 200
_MAX_PATTERNS, _MAX_TEXT = 100, 500
Send = Literal["hold", "annotate"]


@dataclass(frozen=True, slots=True)
class Window:
    """One window: [start_ns, end_ns), epoch nanoseconds. Patterns are of shells (`*`, `?`, `[...]`)."""

    name: str
    start_ns: int
    end_ns: int
    who: str
    why: str
    objectives: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    send: Send = "hold"
    budget_burns: bool = True

    def at(self, now_ns: int) -> bool:
        """Whether it is in force."""
        return self.start_ns <= now_ns < self.end_ns

    def about(self, objective: str, service: str) -> bool:
        """Whether it is about an objective: one of its patterns fits the objective's name or its service."""
        return any(fnmatchcase(objective, one) for one in self.objectives) or any(
            fnmatchcase(service, one) for one in self.services
        )

    def check(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        if not self.name or len(self.name) > 100 or not self.name.isprintable() or "/" in self.name:
            raise ConfigError("name", "must have 1 to 100 printable characters and no /")
        if self.end_ns <= self.start_ns:
            raise ConfigError("end", "must be after start")
        if self.end_ns - self.start_ns > LONGEST_NS:
            raise ConfigError("end", "a window lasts at most 7 d, so that nothing is silent for ever; declare another")
        for field in ("who", "why"):
            text = getattr(self, field)
            if not text.strip() or len(text) > _MAX_TEXT:
                raise ConfigError(field, f"must say it, in at most {_MAX_TEXT} characters")
        if not self.objectives and not self.services:
            raise ConfigError("objectives", 'names patterns of objectives (or services) that it is about; ["*"] is all')
        if any(not one or len(one) > 200 for one in (*self.objectives, *self.services)) or (
            len(self.objectives) + len(self.services) > _MAX_PATTERNS
        ):
            raise ConfigError("objectives", f"at most {_MAX_PATTERNS} patterns of 1 to 200 characters")


class Maintenance(Section, frozen=True, kw_only=True):
    """`[maintenance.NAME]`: a window, from `start` to `end` (RFC 3339), at most 7 days.

    `send` is "hold" (nobody is told; what fires at the end is told then) or "annotate" (sent at once, saying that it is
    maintenance). `budget` is "burns" or "pauses": then what happens in the window is neither good nor bad.
    """

    start: str
    end: str
    who: str
    why: str
    objectives: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    send: Send = "hold"
    budget: Literal["burns", "pauses"] = "burns"

    def validate(self) -> None:
        """Raise ConfigError naming what makes no sense."""
        self.window("name").check()

    def window(self, name: str) -> Window:
        """The window called `name`. Raises ConfigError for an end that is no time."""
        first, last = Stretch(start=self.start, end=self.end).seconds
        return Window(
            name, round(first * 1e9), round(last * 1e9), self.who, self.why, self.objectives, self.services,
            self.send, self.budget == "burns",
        )  # fmt: skip


def windows_from(document: Mapping[str, Any], source: str = "") -> list[Window]:
    """The windows that the configuration declares. Raises ConfigError."""
    declared = document.get("maintenance", {})
    if not isinstance(declared, Mapping) or not all(isinstance(fields, Mapping) for fields in declared.values()):
        raise ConfigError("maintenance", "must be sections [maintenance.NAME]", source)
    if len(declared) > MAX_WINDOWS:
        raise ConfigError("maintenance", f"holds {len(declared)} windows, at most {MAX_WINDOWS} are kept", source)
    found = []
    for name, fields in declared.items():
        window = section(fields, Maintenance, f"maintenance.{name}", source).window(name)
        try:
            window.check()
        except ConfigError as error:
            raise ConfigError(f"maintenance.{name}.{error.field}", error.problem, source) from error
        found.append(window)
    return found


def covering(windows: Iterable[Window], objective: str, service: str, now_ns: int) -> Window | None:
    """The window that an objective is in; of several one that holds, and the one that ends last."""
    found = [one for one in windows if one.at(now_ns) and one.about(objective, service)]
    return max(found, key=lambda one: (one.send == "hold", one.end_ns), default=None)


def paused(
    objectives: Sequence[Objective], calendars: Mapping[str, SloCalendar], windows: Sequence[Window]
) -> tuple[dict[str, str], dict[str, SloCalendar]]:
    """Calendars that are closed in the windows that pause a budget.

    Returns the calendar's name of each objective that such a window is about, and the calendars with those added. The
    objectives' own calendars keep their names, so that counts from before a window stay theirs.
    """
    names: dict[str, str] = {}
    made = dict(calendars)
    for one in objectives:
        some = tuple(w for w in windows if not w.budget_burns and w.about(one.name, one.service))
        if not some:
            continue
        name = f"{one.calendar}+{','.join(w.name for w in some)}"
        names[one.name] = name
        if name not in made:
            base = calendars[one.calendar] if one.calendar else SloCalendar()
            halts = tuple(Stretch(start=_iso(w.start_ns), end=_iso(w.end_ns), why=w.why) for w in some)
            made[name] = msgspec.structs.replace(base, halts=(*base.halts, *halts))
    return names, made


def ended(window: Window, now_ns: int) -> Window:
    """The window, ended now. Raises ValueError when it is over already."""
    if window.end_ns <= now_ns:
        raise ValueError(f"the window {window.name} ended at {_iso(window.end_ns)}")
    return replace(window, end_ns=max(now_ns, window.start_ns + 1))


def _iso(at_ns: int) -> str:
    return datetime.fromtimestamp(at_ns / NS, UTC).isoformat()
