"""Business values of the test language: what has come up to a moment, in its newest version."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction

from analytics.kpis import DIMENSIONS, KpiDefinition
from analytics.slo.gates import KpiRule, Portion
from analytics.slo.indicators import Kpi
from analytics.slo.kpi_counts import MAX_INTERVAL_S, NS, Cells, events_of, fold
from analytics.slo.scenario import Values


@dataclass(frozen=True, slots=True)
class _Arrival:
    at: Fraction
    order: int
    kpi: str
    of: tuple[str, str, str, str]
    start_ns: int
    length_ns: int
    value: float
    weight: float


class Business:
    """The values of a case. Times are epoch seconds and nanoseconds; `origin_s` is the moment 0."""

    def __init__(self, values: Iterable[Values], kpis: Mapping[str, KpiDefinition], origin_s: int, late_s: int) -> None:
        self._kpis, self._origin_s, self._late_s = kpis, origin_s, late_s
        arrivals = [one for order, part in enumerate(values) for one in self._arrivals(part, order)]
        self._coming = sorted(arrivals, key=lambda one: (one.at, one.order, one.start_ns))
        self._next = 0
        self._known: dict[tuple[str, tuple[str, ...], int], _Arrival] = {}
        self._starts: dict[tuple[str, tuple[str, ...]], list[int]] = {}  # of each, ascending
        self._longest_ns = max((one.length_ns for one in arrivals), default=0)

    def __len__(self) -> int:
        return len(self._coming)

    def _arrivals(self, part: Values, order: int) -> Iterable[_Arrival]:
        at = part.start
        while at < part.end:
            comes = part.at if part.at is not None else at + part.every + part.late
            start_ns = int((self._origin_s + at) * NS)
            yield _Arrival(comes, order, part.kpi, part.of, start_ns, int(part.every * NS), part.value, part.weight)
            at += part.every

    def take(self, now: int) -> list[tuple[str, int, int]]:
        """Take in what has come by `now`; the measures and times (epoch seconds) that changed."""
        changed = []
        while self._next < len(self._coming) and self._coming[self._next].at <= now:
            one = self._coming[self._next]
            self._next += 1
            ended = Fraction(one.start_ns + one.length_ns, NS) - self._origin_s
            if one.at - ended > self._late_s:
                continue  # as the server, which looks back no further
            key = (one.kpi, one.of, one.start_ns)
            before = self._known.get(key)
            if before is None:
                insort(self._starts.setdefault((one.kpi, one.of), []), one.start_ns)
            self._known[key] = one
            end_ns = one.start_ns + max(one.length_ns, before.length_ns if before else 0, 1)
            changed.append((one.kpi, one.start_ns // NS // 10 * 10, -(-end_ns // NS)))
        return changed

    def cells(self, kpi: Kpi, from_s: int, to_s: int, cell_s: int) -> Cells:
        """What an indicator counts in [from_s, to_s) of what has come."""
        definition = self._kpis.get(kpi.name)
        if definition is None:
            return {}
        wanted = tuple(getattr(kpi, name) for name in DIMENSIONS)
        return fold(
            (
                events_of(kpi, definition, one.start_ns, one.length_ns, one.value, one.weight)
                for one in self._of(kpi.name, wanted, from_s * NS, to_s * NS)
                if one.length_ns <= MAX_INTERVAL_S * NS
            ),
            from_s, to_s, cell_s,
        )  # fmt: skip

    def portions(self, rule: KpiRule, now_ns: int) -> list[Portion]:
        """The values that a gate's rule looks at: those that ended within its window."""
        wanted = tuple(getattr(rule, name) for name in DIMENSIONS)
        return [
            Portion(one.start_ns, end, one.value * one.weight, one.weight, one.value, 1.0)
            for one in self._of(rule.kpi, wanted, now_ns - rule.window_s * NS, now_ns)
            for end in [one.start_ns + one.length_ns]
            if now_ns - rule.window_s * NS < end <= now_ns
        ]

    def _of(self, name: str, wanted: tuple[str, ...], from_ns: int, to_ns: int) -> Iterator[_Arrival]:
        """Values that overlap [from_ns, to_ns)."""
        for (kpi, of), starts in self._starts.items():
            if kpi == name and all(w in ("", g) for w, g in zip(wanted, of, strict=True)):
                first, last = bisect_left(starts, from_ns - self._longest_ns), bisect_left(starts, to_ns)
                for start in starts[first:last]:
                    one = self._known[kpi, of, start]
                    if one.start_ns + one.length_ns > from_ns:
                        yield one
