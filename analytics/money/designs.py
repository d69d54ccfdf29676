"""The designs that are asked for by name: a change that struck some and not others, and double machine learning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import polars as pl
from numpy.typing import NDArray

from analytics.kpis import DIMENSIONS
from analytics.money.assignments import Assigned, label_in
from analytics.money.double import double
from analytics.money.effects import SensitivityError, Words
from analytics.money.exposures import NS
from analytics.money.instruments import experiment
from analytics.money.laying import Laid
from analytics.money.natural import Natural, natural
from analytics.money.reading import Rows
from analytics.money.sensitivity import Sensitivity
from analytics.money.strata import within
from analytics.population import labels_of
from collector.store import Store

_BLOCKS_S = (21_600, 3_600, 600, 60, 10)
_LEAST_BLOCKS = 24  # of each side of a change
_CHANGE = """
SELECT toUnixTimestamp64Nano(ts) AS ts_ns, what FROM changes WHERE id = {id:String} ORDER BY recorded DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class Struck:
    """A change at `at_ns`, and whom it struck: rows whose dimensions or labels have all these values."""

    at_ns: int
    treated: Mapping[str, str]
    what: str = ""


def struck_by(store: Store, change: str, treated: str) -> Struck:
    """The change of that id (or a moment in epoch nanoseconds), and `label=value[,label=value]` of the treated.

    Raises SensitivityError where there is no such change, and StoreError.
    """
    chosen: dict[str, str] = {}
    for part in treated.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or not name:
            raise SensitivityError(f"treated: must be label=value[,label=value], got {treated[:100]!r}")
        chosen[name] = value
    if change.isdigit():
        return Struck(int(change), chosen)
    found = store.query(_CHANGE, {"id": change})
    if not found.height:
        raise SensitivityError(f"change: no change has the id {change[:80]!r}; `tailsight changes list` shows them")
    return Struck(int(found["ts_ns"][0]), chosen, str(found["what"][0]))


def by_change(store: Store, rows: Rows, struck: Struck, words: Words) -> Natural:
    """The natural experiment among these rows. Raises SensitivityError where a group or side is missing."""
    offset = rows.start_ns - struck.at_ns
    length = _block_s(offset) * NS
    # Blocks are counted from the change, so that none lies on both sides.
    return natural(rows.kpi, rows.exposure, _treated(store, rows, struck.treated), offset, offset // length, words)


def _block_s(offset: NDArray[np.int64]) -> int:
    for length in _BLOCKS_S:
        blocks = np.unique(offset // (length * NS))
        if min(int((blocks < 0).sum()), int((blocks >= 0).sum())) >= _LEAST_BLOCKS:
            return length
    return _BLOCKS_S[-1]


def _treated(store: Store, rows: Rows, wanted: Mapping[str, str]) -> NDArray[np.bool_]:
    chosen = np.ones(len(rows), dtype=bool)
    labels: pl.DataFrame | None = None
    for name, value in wanted.items():
        if name in DIMENSIONS:
            chosen &= (rows.dimensions[name].cast(pl.String) == value).to_numpy()
            continue
        if labels is None:
            labels = labels_of(store, pl.Series(np.unique(rows.label_set)))
        sets = labels.select("label_set", "labels").iter_rows()
        having = [one for one, text in sets if label_in(text, name) == value]
        chosen &= np.isin(rows.label_set, np.array(having, dtype=np.uint64))
    if not chosen.any() or chosen.all():
        which = ",".join(f"{name}={value}" for name, value in wanted.items())
        raise SensitivityError(f"treated: {'every' if chosen.any() else 'no'} row has {which[:100]}; both are needed")
    return chosen


def with_natural(result: Sensitivity, found: Natural) -> Sensitivity:
    """The ladder's result with the natural experiment as its answer; what the checks of strata say is not of it."""
    return replace(
        result,
        answer=found.effect,
        rungs=(found.effect, *result.rungs),
        checks_failed=(),
        sentence=found.effect.sentence,
    )


def with_experiment(result: Sensitivity, layout: Laid, rows: Rows, given: Assigned, words: Words) -> Sensitivity:
    """The ladder's result with the experiment on top; where it is refused the next rung answers, and it says why.

    Clusters are the units that were assigned, or blocks of time where messages were.
    """
    inside = np.isfinite(given.dose)
    cluster = layout.given.cluster if given.unit is None else given.unit
    data = within(rows.kpi[inside], rows.exposure[inside], cluster[inside], None, (), [given.dose[inside]])
    found = experiment(data, words)
    rungs = (found, *result.rungs)
    if found.verdict == "refused":
        return replace(result, rungs=rungs)
    return replace(result, answer=found, rungs=rungs, sentence=found.sentence)


def with_double(result: Sensitivity, layout: Laid, rows: Rows, words: Words, seed: int) -> Sensitivity:
    """The ladder's result with double machine learning as its answer; the strata's checks hold for it too."""
    second = rows.start_ns % (86_400 * NS) / NS
    known = [
        rows.load,
        np.cos(2 * np.pi * second / 86_400),
        np.sin(2 * np.pi * second / 86_400),
        (rows.start_ns - rows.start_ns.min()) / (3_600 * NS),
        *layout.given.beside,
    ]
    found = double(rows.kpi, rows.exposure, known, layout.given.cluster, words, seed)
    sentence = found.sentence
    if result.checks_failed and found.verdict != "refused":
        sentence = (
            f"No claim: the check that must show nothing ({', '.join(result.checks_failed)}) shows something, so what "
            f"else moves {words.kpi} is not held fixed. Only an experiment can answer."
        )
    return replace(result, answer=found, rungs=(found, *result.rungs), sentence=sentence)
