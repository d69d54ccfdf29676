"""`verify percentiles`: the same question to raw stamps, messages and every level must get the same answer."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from analytics import tally
from analytics.due import NS
from analytics.paths import Path
from analytics.stitch import ClockSettings
from collector.store import Store


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of one path: `source` against level 10. `differences` is empty when they agree.

    `skipped` says why a source could not be asked, and is empty when it was.
    """

    path: str
    source: str
    from_ns: int
    to_ns: int
    stages: int
    latencies: int
    differences: list[str]
    skipped: str = ""


def verify_percentiles(
    store: Store,
    paths: Mapping[str, Path],
    *,
    from_ns: int | None = None,
    to_ns: int | None = None,
    clock: ClockSettings | None = None,
) -> list[Verified]:
    """Compare raw stamps, messages and the levels 60 and 3600 with level 10, per path, over whole windows of the range.

    By default the range is all that is kept. Coarse levels are compared over the windows of theirs that lie in it. Only
    committed windows can agree: stamps that came after the last run of the job show as differences, as they should.
    """
    answers = []
    for path in paths.values():
        all_of_it = tally.extent(store, path.name)
        if all_of_it is None:
            continue
        begin, end = tally.widen(
            all_of_it[0] * NS if from_ns is None else from_ns, all_of_it[1] * NS if to_ns is None else to_ns
        )
        begin, end = max(begin, all_of_it[0]), min(end, all_of_it[1])
        if begin >= end:
            continue
        fine = tally.stored(store, path.name, begin, end, level=10)
        raw = tally.raw(store, path, begin * NS, end * NS, clock=clock)
        answers.append(_compare(path.name, "raw", begin, end, fine, raw))
        answers.append(_compare(path.name, "messages", begin, end, fine, tally.from_messages(store, path, begin, end)))
        for level in (60, 3600):
            inner = -(-begin // level) * level, end // level * level
            if inner[0] >= inner[1]:
                answers.append(
                    _skipped(path.name, f"{level} s", begin, end, f"the range holds no whole window of {level} s")
                )
                continue
            part = tally.stored(store, path.name, *inner, level=10)
            coarse = tally.stored(store, path.name, *inner, level=level)
            answers.append(_compare(path.name, f"{level} s", *inner, part, coarse))
    return answers


def _compare(path: str, source: str, begin: int, end: int, fine: tally.Tallies, other: tally.Tallies) -> Verified:
    differences = []
    for key in sorted(set(fine) | set(other)):
        a, b = fine.get(key), other.get(key)
        if a is None or b is None:
            differences.append(f"stage {key[1]}: only {'level 10' if b is None else source} has it")
            continue
        differences += [
            f"stage {key[1]}: {name} is {x} from level 10, {y} from {source}"
            for name, x, y in _facts(a, b, source)
            if x != y
        ]
    latencies = sum(t.sums["n"] for t in fine.values())
    return Verified(
        path=path, source=source, from_ns=begin * NS, to_ns=end * NS, stages=len(fine), latencies=latencies,
        differences=differences,
    )  # fmt: skip


def _facts(a: tally.Tally, b: tally.Tally, source: str) -> list[tuple[str, object, object]]:
    facts: list[tuple[str, object, object]] = [(name, a.sums[name], b.sums[name]) for name in a.sums]
    if source != "messages":  # which hold none
        facts.append(("headless", a.headless, b.headless))
    facts += [
        ("min_ns", a.min_ns, b.min_ns),
        ("max_ns", a.max_ns, b.max_ns),
        ("max_error_ns", a.max_error_ns, b.max_error_ns),
    ]
    odd = sorted(k for k in set(a.buckets) | set(b.buckets) if a.buckets.get(k, 0) != b.buckets.get(k, 0))
    if odd:
        first = odd[0]
        facts.append((f"bucket {first} (and {len(odd) - 1} more)", a.buckets.get(first, 0), b.buckets.get(first, 0)))
    return facts


def _skipped(path: str, source: str, begin: int, end: int, why: str) -> Verified:
    return Verified(
        path=path, source=source, from_ns=begin * NS, to_ns=end * NS, stages=0, latencies=0, differences=[], skipped=why
    )
