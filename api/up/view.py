"""What `tailsight up` shows: where to look, what is collected and what is not, and live figures.

On a terminal one picture is redrawn in place; elsewhere each event is a line and the figures come every ten seconds.
"""

from __future__ import annotations

import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console, ConsoleDimensions, Group, RenderableType
from rich.live import Live
from rich.text import Text

from api.up.figures import Figures
from api.up.run import Display
from api.up.supervisor import Event, Slot, Supervisor
from dashboards.terminal import count, duration, percentiles_table, share

if TYPE_CHECKING:
    from api.up.run import Summary

_LINE_S = 10.0
_TABLE_FRAME = 4  # a table's title, head and remark, and the empty line before it
_EVENTS = 5
_TOGETHER = "\u00a0"  # a space that wrapping keeps: a name stays beside its number


def display_for(console: Console, url: str, data: Path) -> Display:
    """The display that fits: redrawn in place on a terminal, lines elsewhere, nothing when quiet."""
    if console.quiet:
        return Display()
    return LiveDisplay(console, url, data) if console.is_terminal else LineDisplay(console, url, data)


def where_to_look(url: str, data: Path) -> list[str]:
    """Commands that show more, ready to paste."""
    given = "" if str(data) == "data" else f" --data {data}"
    lines = [
        f"tailsight query percentiles --path order{given}",
        f"tailsight doctor{given}",
    ]
    if url:
        lines = [
            f"{url}/   the page: objectives, paths, slow messages and their causes in a browser",
            f"{url}/openapi.json   every question that REST answers",
            f"curl '{url}/v1/latency?path=order&from=-1m'",
            *lines,
        ]
    return [*lines, f"logs are in {data / 'log'}; Ctrl-C stops everything"]


class LineDisplay(Display):
    """For pipes, CI and service managers."""

    def __init__(self, console: Console, url: str, data: Path) -> None:
        self._console = console
        self._where = where_to_look(url, data)
        self._ready = False
        self._collected: list[str] = []
        self._due_s = 0.0

    def event(self, event: Event) -> None:
        """One line."""
        detail = f": {event.detail}" if event.detail else ""
        self._console.print(f"{event.program} {event.kind} (pid {event.pid}){detail}", soft_wrap=True, highlight=False)

    def refresh(self, supervisor: Supervisor, figures: Figures) -> None:
        """Where to look once the server is ready, what is collected when that changes, figures every ten seconds."""
        if figures.ready and not self._ready:
            self._ready = True
            self._console.print(f"ready after {figures.ready_after_s} s", highlight=False)
            for line in self._where:
                self._console.print("  " + line, soft_wrap=True, highlight=False)
        if figures.collectors and (collected := collector_lines(figures.collectors)) != self._collected:
            self._collected = collected
            for line in collected:
                self._console.print("  " + line, soft_wrap=True, highlight=False)
        if figures.ready and time.monotonic() >= self._due_s:
            self._due_s = time.monotonic() + _LINE_S
            for line in figure_lines(figures, supervisor.slots):
                self._console.print(line, soft_wrap=True, highlight=False)


class LiveDisplay(Display):
    """One picture, redrawn in place."""

    def __init__(self, console: Console, url: str, data: Path) -> None:
        self._where = where_to_look(url, data)
        self._events: list[str] = []
        # No refresh thread: the supervisor redraws, and forks from a process with one thread less.
        self._live = Live(console=console, auto_refresh=False, transient=False, vertical_overflow="crop")
        self._live.start()

    def event(self, event: Event) -> None:
        """Keep the last few that matter."""
        if event.kind != "started":
            stamp = time.strftime("%H:%M:%S")
            self._events = [*self._events, f"{stamp} {event.program} {event.kind}: {event.detail}"][-_EVENTS:]

    def refresh(self, supervisor: Supervisor, figures: Figures) -> None:
        """Draw the picture anew."""
        size = self._live.console.size
        self._live.update(picture(self._where, self._events, supervisor.slots, figures, size), refresh=True)

    def close(self) -> None:
        """Leave the last picture and give the terminal back."""
        self._live.stop()


def picture(
    where: Sequence[str],
    events: Sequence[str],
    slots: Sequence[Slot],
    figures: Figures,
    size: ConsoleDimensions,
) -> RenderableType:
    """Everything there is to see; the paths' tables come last, as many as the terminal has lines for."""
    head = ["", *(f"  {line}" for line in where), ""]
    if not figures.ready and slots:
        head.append(figures.problem)
    head += figures.degraded
    if figures.ready:
        head.append(headline(figures))
    head += collector_lines(figures.collectors) if figures.collectors else []
    head.append("processes: " + ", ".join(process_word(slot).replace(" ", _TOGETHER) for slot in slots))
    head += events
    lines = [line for text in head for line in wrapped(text, size.width - 1)]
    parts: list[RenderableType] = [Text("Tailsight", style="bold"), *map(Text, lines)]
    left = size.height - len(parts) - 1
    hidden = []
    for name, stages in figures.latency.items():
        if not any(stage["count"] for stage in stages):
            continue
        table = percentiles_table(f"{name}, last minute", stages, size.width)
        if (lines_needed := table.row_count + _TABLE_FRAME) <= left:
            left -= lines_needed
            parts += [Text(), table]
        else:
            hidden.append(name)
    if hidden:
        parts.append(
            Text(f"a taller terminal shows {', '.join(hidden)} too; or tailsight query percentiles --path PATH")
        )
    return Group(*parts)


def wrapped(text: str, width: int) -> list[str]:
    """A line of text as lines of at most `width`, broken at spaces only: names and paths can be copied whole."""
    lines = textwrap.wrap(text, width, subsequent_indent="    ", break_on_hyphens=False)
    return [line.replace(_TOGETHER, " ") for line in lines] or [""]


def process_word(slot: Slot) -> str:
    """One process: its name and number, and what happened to it."""
    number = slot.process.pid if slot.process else "waiting"
    again = f" ({slot.restarts} restarts, last: {slot.last_exit})" if slot.restarts else ""
    return f"{slot.program.name} {number}{again}"


def collector_lines(collectors: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is collected, and what is not and why."""
    running = [one["name"] for one in collectors if one["status"] == "running"]
    lines = [f"collected: {', '.join(running) or 'nothing'}"]
    return lines + [f"{c['status']}: {c['name']}: {c['reason']}" for c in collectors if c["status"] != "running"]


def headline(figures: Figures) -> str:
    """Rate, completeness and freshness in one line."""
    if figures.freshness_s is None:
        return "no window is counted yet; the first comes about 15 s after the first stamps"
    rate = "-" if figures.messages_per_s is None else f"{figures.messages_per_s:.1f}"
    return (
        f"messages/s {rate}   completeness {share(figures.completeness)}   "
        f"newest window {figures.freshness_s:.0f} s ago"
    )


def figure_lines(figures: Figures, slots: Sequence[Slot]) -> list[str]:
    """The picture's figures as lines of text."""
    restarts = ", ".join(f"{slot.program.name} {slot.restarts}" for slot in slots if slot.restarts) or "none"
    lines = [f"{headline(figures)}   restarts {restarts}"]
    for name, stages in figures.latency.items():
        for stage in stages:
            p = [duration(stage.get(field)) for field in ("p50_ns", "p99_ns", "p999_ns")]
            label = f"{name}/{stage['stage']}"
            lines.append(f"  {label:<24} n {count(stage['count']):>8}  p50 {p[0]:>8}  p99 {p[1]:>8}  p99.9 {p[2]:>8}")
    return lines


def print_summary(console: Console, summary: Summary) -> None:
    """How the session went."""
    restarts = ", ".join(f"{name} {n}" for name, n in summary.restarts.items() if n) or "none"
    killed = f"; had to kill {', '.join(summary.killed)}" if summary.killed else ""
    console.print(f"Stopped after {summary.seconds:.0f} s; restarts: {restarts}{killed}.")
    if summary.figures.ready:
        for line in figure_lines(summary.figures, ()):
            console.print(line)
