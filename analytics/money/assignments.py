"""Assignments of experiments, as the customer's flag system made them: who got which arm, and from when.

An assignment is of one message by its key, or of a unit (an account, a device) by the value of a label that its
messages carry. The same again changes nothing; a larger version replaces what was there.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import polars as pl
import xxhash

from analytics.money.effects import Floats, Ints, SensitivityError
from analytics.money.reading import Rows
from analytics.population import labels_of
from collector.keys import key_of
from collector.store import OutcomeUnknownError, Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

NS = 1_000_000_000
MAX_ASSIGNMENTS = 10_000  # of one call
MOST_UNITS = 1_000_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}")
_MAX_TEXT = 200
_LAST_NS = 4_000_000_000 * NS
_CONTROL = ("control", "off", "a", "0", "false", "baseline")
_AT_ONCE = 200_000


class Assignment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One assignment: `key` of a message (as everywhere), or `label` and `unit`. `dose` is what the arm adds, in ms.

    Without doses an experiment has two arms. It holds from `ts_ns` on, until the unit's next.
    """

    experiment: str
    arm: str
    ts_ns: int = 0
    key: str | int | None = None
    label: str = ""
    unit: str = ""
    dose: float | None = None
    version: int | None = None


def record(store: Store, values: Sequence[Assignment], now_ns: int) -> int:
    """Store assignments, all or none. Raises SensitivityError for the first that cannot be stored, and StoreError."""
    if len(values) > MAX_ASSIGNMENTS:
        raise SensitivityError(f"{len(values)} assignments in one call; send at most {MAX_ASSIGNMENTS}")
    rows = [_row(value, now_ns, f"assignment {number}") for number, value in enumerate(values)]
    if rows:
        token = f"assignments/{xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode(rows))}"
        block = from_rows(table_types()["assignments"], rows)
        try:
            store.insert("assignments", block, token=token)
        except OutcomeUnknownError:
            store.settle(token)
            store.insert("assignments", block, token=f"{token}#1")  # replaced by version where it was there
    return len(rows)


def _row(value: Assignment, now_ns: int, at: str) -> dict[str, Any]:
    if not _NAME.fullmatch(value.experiment):
        raise SensitivityError(f"{at}: experiment {value.experiment[:80]!r} must have 1 to 100 of a-z, 0-9 and _.:/-")
    if not 1 <= len(value.arm) <= _MAX_TEXT or max(len(value.label), len(value.unit)) > _MAX_TEXT:
        raise SensitivityError(f"{at}: arm, label and unit have at most {_MAX_TEXT} characters, the arm at least 1")
    by_unit, some = bool(value.label and value.unit), bool(value.label or value.unit)
    if by_unit == (value.key is not None) or some != by_unit:
        raise SensitivityError(f"{at}: give either key, or label and unit")
    if not 0 <= value.ts_ns <= _LAST_NS:
        raise SensitivityError(f"{at}: ts_ns {value.ts_ns} is not a time in epoch nanoseconds")
    if value.dose is not None and not math.isfinite(value.dose):
        raise SensitivityError(f"{at}: dose must be a finite number, got {value.dose}")
    version = now_ns if value.version is None else value.version
    if not 0 <= version < 1 << 64:
        raise SensitivityError(f"{at}: version {value.version} is not from 0 to 2^64 - 1")
    try:
        key = 0 if value.key is None else key_of(str(value.key))
    except ValueError as error:
        raise SensitivityError(f"{at}: {error}") from None
    return {
        "ts": value.ts_ns or now_ns, "since_ns": value.ts_ns if value.key is None else 0,
        "experiment": value.experiment, "label": value.label,
        "unit": value.unit, "key": key, "arm": value.arm, "dose": value.dose, "version": version,
    }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Assigned:
    """The dose of each row (NaN: not in the experiment), the unit's number where units were assigned, rows by arm."""

    dose: Floats
    unit: Ints | None
    arms: dict[str, int]


def assigned(store: Store, experiment: str, rows: Rows) -> Assigned:
    """What the rows were assigned. Raises SensitivityError where that says nothing, and StoreError."""
    labels = store.query(
        "SELECT DISTINCT toString(label) AS label FROM assignments WHERE experiment = {e:String} LIMIT 10",
        {"e": experiment},
    )["label"].to_list()
    if not labels:
        known = store.query("SELECT DISTINCT toString(experiment) AS e FROM assignments ORDER BY e LIMIT 20")["e"]
        there = ", ".join(known.to_list()) or "none"
        raise SensitivityError(f"experiment: no assignment of {experiment[:80]!r} was imported; there are {there}")
    if len(labels) > 1:
        ways = ", ".join(one or "key" for one in labels)
        raise SensitivityError(f"experiment: {experiment} assigns by {ways}; import it by one of them")
    if rows.source != "messages":
        raise SensitivityError("experiment: needs values of single messages, and the KPI has intervals only")
    found = _by_key(store, experiment, rows) if not labels[0] else _by_unit(store, experiment, labels[0], rows)
    arms = {str(arm): int(n) for arm, n in found["arm"].drop_nulls().value_counts(sort=True).iter_rows()}
    if len(arms) < 2:
        raise SensitivityError(f"experiment: of the rows, {len(arms)} arms of {experiment} are seen; two are needed")
    unit = None
    if labels[0]:
        unit = found["unit"].fill_null("").rank("dense").to_numpy().astype(np.int64)
    return Assigned(_doses(found, arms), unit, arms)


def _doses(found: pl.DataFrame, arms: dict[str, int]) -> Floats:
    said = found.filter(pl.col("arm").is_not_null())["dose"]
    if said.null_count() == 0:
        return found["dose"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    if said.null_count() < len(said):
        raise SensitivityError("experiment: some assignments have a dose and some have none; give all of them one")
    if len(arms) > 2:
        raise SensitivityError(f"experiment: has {len(arms)} arms and no doses; say what each adds")
    control = next((arm for arm in sorted(arms) if arm.lower() in _CONTROL), min(arms))
    dose = pl.when(pl.col("arm").is_null()).then(np.nan).otherwise((pl.col("arm") != control).cast(pl.Float64))
    return found.select(dose.alias("dose"))["dose"].to_numpy()


def _by_key(store: Store, experiment: str, rows: Rows) -> pl.DataFrame:
    parts = []
    for first in range(0, len(rows), _AT_ONCE):
        keys = rows.key[first : first + _AT_ONCE]
        told = store.query(
            "SELECT key, toString(arm) AS arm, dose FROM assignments FINAL WHERE experiment = {e:String} AND label = ''"
            " AND unit = '' AND key IN {keys:Array(UInt64)}",
            {"e": experiment, "keys": keys.tolist()},
        )
        parts.append(pl.DataFrame({"key": keys}).join(told, on="key", how="left", maintain_order="left"))
    return pl.concat(parts).with_columns(pl.lit("").alias("unit"))


def _by_unit(store: Store, experiment: str, label: str, rows: Rows) -> pl.DataFrame:
    told = store.query(
        "SELECT unit, since_ns AS from_ns, toString(arm) AS arm, dose FROM assignments FINAL"
        " WHERE experiment = {e:String} AND label = {label:String} ORDER BY from_ns LIMIT {most:UInt32}",
        {"e": experiment, "label": label, "most": MOST_UNITS + 1},
    )
    if told.height > MOST_UNITS:
        raise SensitivityError(f"experiment: {experiment} has more than {MOST_UNITS} assignments of units")
    sets = labels_of(store, pl.Series(np.unique(rows.label_set)))
    unit = pl.Series([label_in(text, label) for text in sets["labels"]], dtype=pl.String)
    frame = pl.DataFrame({"start_ns": rows.start_ns, "label_set": rows.label_set}).join(
        pl.DataFrame({"label_set": sets["label_set"], "unit": unit}), on="label_set", how="left", maintain_order="left"
    )
    # The rows are in order of time; of a unit the newest assignment counts that is not younger than the row.
    return frame.join_asof(told, left_on="start_ns", right_on="from_ns", by="unit", check_sortedness=False)


def label_in(labels: str, name: str) -> str | None:
    """The value of a label in an interned set; None where it has none, or is no set of texts."""
    try:
        return msgspec.json.decode(labels or "{}", type=dict[str, str]).get(name)
    except msgspec.DecodeError:
        return None
