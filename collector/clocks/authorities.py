"""The authorities on this host's time, asked in a thread of their own; the smallest bound is the one in use.

A daemon that does not answer must not hold up the collectors: readers get the last answer, grown by its drift, and
none at all once it is older than three questions. Cost for the collectors: one adjtimex call (1 us) per reading.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from collector.clock import Adjtimex, Bound, BoundSource, smallest
from collector.clocks.settings import ClockSettings

_FORGET = 3.0  # questions; an older answer is none


class Authority(Protocol):
    """Someone who may be slow to answer."""

    name: str

    def ask(self) -> Bound:
        """What it says now. Never raises: what it cannot say is None, with the reason."""


@dataclass(frozen=True, slots=True)
class Held:
    """An answer and when it came (MONOTONIC)."""

    bound: Bound
    monotonic_ns: int


def aged(held: Held, now_ns: int, drift_ppm: float, forget_ns: int) -> Bound:
    """The bound as it is now: it grows by the larger of `drift_ppm` and the authority's own; None once forgotten."""
    age_ns = max(0, now_ns - held.monotonic_ns)
    bound = held.bound
    if bound.error_ns is None:
        return bound
    if age_ns > forget_ns:
        return replace(bound, error_ns=None, reason=f"{bound.source} has not answered for {age_ns / 1e9:.0f} s")
    growth = age_ns * max(drift_ppm, bound.drift_ppm) / 1e6
    return replace(bound, error_ns=bound.error_ns + round(growth))


class Authorities:
    """All of a host's authorities as one `BoundSource`."""

    def __init__(
        self,
        asked: Sequence[Authority],
        *,
        kernel: BoundSource | None = None,
        settings: ClockSettings | None = None,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._asked = asked
        self._kernel = kernel or Adjtimex()
        self._settings = settings or ClockSettings()
        self._monotonic = monotonic
        self._held: dict[str, Held] = {}
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self, wait_s: float = 0.5) -> None:
        """Ask from now on, each authority in its own thread; returns when all have answered once, or after `wait_s`."""
        end = time.monotonic() + wait_s
        for authority in self._asked:
            thread = threading.Thread(target=self._asks, args=(authority,), name=f"clock-{authority.name}", daemon=True)
            thread.start()
            self._threads.append(thread)
        while len(self._held) < len(self._asked) and time.monotonic() < end:
            time.sleep(0.005)

    def close(self) -> None:
        """Ask no more. A thread that waits for a silent daemon ends with the process."""
        self._stop.set()
        for thread in self._threads:
            thread.join(0.2)

    def ask_once(self) -> None:
        """Ask each authority now, in this thread."""
        for authority in self._asked:
            self._ask(authority)

    def bound(self) -> Bound:
        """The smallest bound that anyone states."""
        return smallest(self.all_bounds())

    def all_bounds(self) -> list[Bound]:
        """What each says, the kernel first."""
        now = self._monotonic()
        forget_ns = round(_FORGET * max(self._settings.ask_s, 1.0) * 1e9)
        others = [aged(h, now, self._settings.drift_ppm, forget_ns) for _, h in sorted(self._held.items())]
        return [self._kernel.bound(), *others]

    def _asks(self, authority: Authority) -> None:
        while not self._stop.is_set():
            self._ask(authority)
            self._stop.wait(self._settings.ask_s)

    def _ask(self, authority: Authority) -> None:
        # Dated before the question: an answer is never younger than it seems.
        asked_ns = self._monotonic()
        try:
            bound = authority.ask()
        except Exception as error:  # noqa: BLE001 - one authority's defect must not silence the others
            bound = Bound(None, authority.name, reason=f"failed: {type(error).__name__}: {error}")
        self._held[authority.name] = Held(bound, asked_ns)


def authorities(settings: ClockSettings) -> Authorities:
    """The authorities that the settings name and this host may have."""
    from collector.clocks.chrony import Chrony
    from collector.clocks.ptp import Ptp

    asked: list[Authority] = []
    if settings.chrony != "off":
        asked.append(Chrony("" if settings.chrony == "auto" else settings.chrony))
    if settings.ptp != "off":
        asked.append(Ptp("" if settings.ptp == "auto" else settings.ptp, settings.phc))
    return Authorities(asked, settings=settings)
