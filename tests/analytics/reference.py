"""The slow stitcher that the SQL one is compared with: one stamp at a time, as docs/numbers.md words the rules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from analytics.paths import End, Path
from collector.record import Mode, Outcome

BAD = {Outcome.ERROR, Outcome.REJECTED, Outcome.SHED, Outcome.TIMEOUT}


@dataclass(frozen=True)
class Message:
    key: int
    start: int
    e2e: int | None
    stages: tuple[int | None, ...]
    errors: tuple[int | None, ...]
    duplicates: int
    repeated: int
    outcome: int
    mode: int
    label_set: int


def _at(stamp: dict[str, Any], end: End) -> bool:
    return stamp["point"] == end.point and (not end.service or stamp.get("service", "") == end.service)


def stitch(
    path: Path, stamps: list[dict[str, Any]], links: list[dict[str, Any]], from_ns: int, to_ns: int
) -> list[Message]:
    age, skew = path.max_age_ns, path.skew_ns
    found: list[Message] = []
    for root in sorted({s["key"] for s in stamps}):
        times = sorted(s["ts_ns"] for s in stamps if s["key"] == root and _at(s, path.first_end))
        for i, start in enumerate(times):
            if (i and start - times[i - 1] <= age) or not from_ns <= start < to_ns:
                continue
            low = max(start - skew, times[i - 1] + age + 1 if i else 0)
            for chain in _chains(path, links, root, start):
                mine = [
                    s
                    for s in stamps
                    if s["key"] in set(chain)
                    and (low if s["key"] == root else start - skew) <= s["ts_ns"] <= start + age
                ]
                message = _message(path, chain, start, mine)
                if message is not None:
                    found.append(message)
    return sorted(found, key=lambda m: (m.start, m.key))


def _chains(path: Path, links: list[dict[str, Any]], root: int, start: int, *, every: bool = False) -> list[list[int]]:
    """The keys from `root` to each key where a message ends; `every`: to each key that is reached at all."""
    near = {
        (link["ts_ns"], link["parent"], link["child"])
        for link in links
        if start - path.skew_ns <= link["ts_ns"] <= start + path.max_age_ns
    }

    def onward(key: int) -> list[int]:
        children = set()
        for time, parent, child in near:
            rivals = [(t, p) for t, p, c in near if c == child]
            winner = max(rivals) if path.conflation == "last" else min(rivals)
            if parent == key and winner == (time, parent):
                children.add(child)
        return sorted(children)

    done, open_chains = [], [[root]]
    for _ in range(path.hops):
        longer = []
        for chain in open_chains:
            if every or not any(parent == chain[-1] for _, parent, _ in near):
                done.append(chain)
            longer += [[*chain, child] for child in onward(chain[-1])]
        open_chains = longer
    return done + open_chains


def _message(path: Path, chain: list[int], start: int, mine: list[dict[str, Any]]) -> Message | None:
    def pick(end: End) -> dict[str, Any] | None:
        here = [s for s in mine if _at(s, end)]
        if not here:
            return None
        return (min if end.which == "first" else max)(here, key=lambda s: s["ts_ns"])

    def count(end: End) -> int:
        return sum(_at(s, end) for s in mine)

    def latency(a: End, b: End) -> tuple[int | None, int | None]:
        x, y = pick(a), pick(b)
        if x is None or y is None:
            return None, None
        value = y["ts_ns"] - x["ts_ns"]
        if (x["host"], x["clock"]) == (y["host"], y["clock"]):
            return value, 50 + -(-abs(value) * 50 // 1_000_000)
        if x.get("error_ns") is None or y.get("error_ns") is None:
            return value, None
        return value, x["error_ns"] + y["error_ns"]

    def said(name: str) -> int:
        stated = [s for s in mine if any(_at(s, end) or s["point"] == end.point for end in path.ends) and s.get(name)]
        return int(max(stated, key=lambda s: s["ts_ns"])[name]) if stated else 0

    finished = pick(path.last_end) is not None
    outcome = said("outcome")
    if path.hops and path.unlinked == "ignored" and not finished and len(chain) == 1 and outcome not in BAD:
        return None
    spots = {(end.point, end.service): end for end in path.ends}
    values = [latency(s.start, s.end) for s in path.stages]
    pairs = [(s.start, s.end) for s in path.stages] + [(path.first_end, path.last_end)]
    return Message(
        chain[-1],
        start,
        latency(path.first_end, path.last_end)[0],
        tuple(v for v, _ in values),
        tuple(e for _, e in values),
        sum(max(count(end), 1) - 1 for end in spots.values()),
        sum(1 << bit for bit, (a, b) in enumerate(pairs) if count(a) > 1 or count(b) > 1),
        outcome or int(Outcome.OK if finished else Outcome.TIMEOUT),
        said("mode") or 1,
        said("label_set"),
    )


def headless(path: Path, stamps: list[dict[str, Any]], links: list[dict[str, Any]], from_ns: int, to_ns: int) -> int:
    """Messages without a start whose earliest stamp lies in [from_ns, to_ns)."""
    age, skew = path.max_age_ns, path.skew_ns
    claimed: list[tuple[int, int, int]] = []
    for root in {s["key"] for s in stamps}:
        times = sorted(s["ts_ns"] for s in stamps if s["key"] == root and _at(s, path.first_end))
        for i, start in enumerate(times):
            if i and start - times[i - 1] <= age:
                continue
            low = max(start - skew, times[i - 1] + age + 1 if i else 0)
            for chain in _chains(path, links, root, start, every=True):
                claimed += [(key, low if key == root else start - skew, start + age) for key in chain]
    first = (path.first_end.point, path.first_end.service)
    later = [end for end in path.ends if (end.point, end.service) != first]
    found = 0
    for key in {s["key"] for s in stamps}:
        free = sorted(
            s["ts_ns"]
            for s in stamps
            if s["key"] == key
            and any(_at(s, end) for end in later)
            and s.get("mode") not in (Mode.SHADOW, Mode.SYNTHETIC)
            and not any(k == key and low <= s["ts_ns"] <= high for k, low, high in claimed)
        )
        earliest = [t for i, t in enumerate(free) if not i or t - free[i - 1] > age]
        found += sum(from_ns <= t < to_ns for t in earliest)
    return found
