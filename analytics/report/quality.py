"""How complete and how exact the data of a report are, and what that does to its figures."""

from __future__ import annotations

from collections.abc import Sequence

from analytics.completeness import Share
from analytics.report.value import PathLine, Quality
from analytics.report.words import clean, complete, latency, listed, many, moment, percent


def quality(share: Share, paths: Sequence[PathLine]) -> Quality:
    """The data's quality over the period."""
    known = share.share if share.share is not None else share.known_share
    said = []
    if not share.produced:
        said.append(
            "No collector reported what it produced in this period, so that how complete the data are is not known."
        )
    elif share.share is not None:
        said.append(f"{complete(share.share)} of {many(share.produced, 'event')} that programs produced are here.")
    elif known is not None and share.known_to_ns is not None:
        until = moment(share.known_to_ns)
        said.append(f"{complete(known)} of the events up to {until} UTC are here; later ones may be on their way.")
    else:
        said.append("Some of what was produced has not arrived yet: how complete the data are is not known.")
    if share.missing:
        said.append(f"{many(share.missing, 'event')} were lost or could not be read, for reasons on record.")
    if share.waiting_for:
        said.append(f"Behind are: {listed([clean(name, 60) for name in share.waiting_for])}.")
    for one in paths:
        if not one.count and not one.unfinished:
            continue
        said.append(_exact(one))
    return Quality(
        completeness=known, produced=share.produced, missing=share.missing, waiting_for=share.waiting_for,
        sentences=tuple(said),
    )  # fmt: skip


def _exact(one: PathLine) -> str:
    said = f"{one.name}: clocks of its hosts agree to within {latency(one.max_error_ns)}"
    typical = one.quantiles[0].value_ns
    if typical is not None and typical > 0 and one.max_error_ns > 0:
        said += f" ({percent(one.max_error_ns / typical, 2)} of its typical latency)"
    said += "."
    if one.unfinished:
        said += f" {many(one.unfinished, 'message')} without an end are in no percentile."
    if one.headless:
        said += f" {many(one.headless, 'message')} without a known start are in no figure."
    if one.negative:
        said += f" {many(one.negative, 'latency', 'latencies')} were below zero, which clock errors make."
    return said
