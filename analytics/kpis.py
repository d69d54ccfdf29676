"""Business measures: what is declared under `[kpis]`, how values come in, and their course over time.

A value is of an interval, or of one message by its key. It may come late, again, or corrected: what has the same name,
time and dimensions replaces what was there if its version is larger, and is never counted twice.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import xxhash

from collector.keys import key_of
from collector.settings import ConfigError, Section, section
from collector.store import OutcomeUnknownError, Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types

NS = 1_000_000_000
DIMENSIONS = ("cohort", "channel", "region", "offer")
_NAME = re.compile(r"[a-z][a-z0-9_.]{0,63}")
_MAX_TEXT = 200
MAX_VALUES = 10_000  # of one call
_LAST_NS = 4_000_000_000 * NS


class KpiDefinition(Section, frozen=True, kw_only=True):
    """`[kpis.NAME]`: what a business measure means.

    `kind` ratio: the sum of numerators over the sum of denominators; sum: values add up; level: values are averaged.
    `good` is the direction that is better. `node` is the revenue node that it belongs to, which paths name as theirs.
    """

    kind: Literal["ratio", "sum", "level"] = "ratio"
    unit: str = "ratio"
    good: Literal["up", "down"] = "up"
    description: str = ""
    numerator: str = ""
    denominator: str = ""
    node: str = ""

    def validate(self) -> None:
        """Raise ConfigError naming what is wrong."""
        if self.kind != "ratio" and (self.numerator or self.denominator):
            raise ConfigError("numerator", f"is of a ratio; this kpi is a {self.kind}")


def kpis_from(document: Mapping[str, Any], source: str = "") -> dict[str, KpiDefinition]:
    """The declared measures by name. Raises ConfigError naming the section and field."""
    declared = document.get("kpis", {})
    if not isinstance(declared, Mapping):
        raise ConfigError("kpis", "must be sections [kpis.NAME]", source)
    found = {}
    for name, fields in declared.items():
        if not _NAME.fullmatch(name):
            raise ConfigError(f"kpis.{name}", "a name has 1 to 64 of a-z, 0-9, _ and ., a letter first", source)
        found[name] = section(fields, KpiDefinition, f"kpis.{name}", source)
    return found


class KpiError(ValueError):
    """A value that cannot be taken: which one, what is wrong, what to do."""


class KpiValue(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value as it comes in: of the interval [ts_ns, ts_ns + duration_ns), or of the message `key`.

    Give `value`, or `numerator` and `denominator`. `version` orders corrections; left out it is when it came.
    """

    name: str
    ts_ns: int
    value: float | None = None
    numerator: float | None = None
    denominator: float | None = None
    duration_ns: int = 60 * NS
    key: str | int | None = None
    cohort: str = ""
    channel: str = ""
    region: str = ""
    offer: str = ""
    version: int | None = None


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """What became of values: those of intervals and of messages."""

    intervals: int
    messages: int


def record(store: Store, values: Sequence[KpiValue], known: Mapping[str, KpiDefinition], now_ns: int) -> Taken:
    """Store values; all or none of a call. Raises KpiError for the first that cannot be taken, and StoreError.

    The same call again changes nothing but the version, so a call of unknown outcome may be repeated.
    """
    if len(values) > MAX_VALUES:
        raise KpiError(f"{len(values)} values in one call; send at most {MAX_VALUES}")
    rows: dict[str, list[dict[str, Any]]] = {"kpis": [], "message_kpis": []}
    for number, value in enumerate(values):
        table, row = _row(value, known, now_ns, f"value {number}")
        rows[table].append(row)
    for table, found in rows.items():
        # A partition is a month: one block each, so that each is whole or not there.
        by_month: dict[str, list[dict[str, Any]]] = {}
        for row in found:
            month = time.strftime("%Y%m", time.gmtime(row["ts"] // NS)) if table == "kpis" else ""
            by_month.setdefault(month, []).append(row)
        for part in by_month.values():
            _insert(store, table, part)
    return Taken(intervals=len(rows["kpis"]), messages=len(rows["message_kpis"]))


def _insert(store: Store, table: str, rows: Sequence[Mapping[str, Any]]) -> None:
    # The token says what is in the block: the same values under the same versions are one block, however often sent.
    token = f"{table}/{xxhash.xxh3_128_hexdigest(msgspec.msgpack.encode(list(rows)))}"
    block = from_rows(table_types()[table], rows)
    try:
        store.insert(table, block, token=token)
    except OutcomeUnknownError:
        store.settle(token)
        store.insert(table, block, token=f"{token}#1")  # replaced by version where it was there


def _row(value: KpiValue, known: Mapping[str, KpiDefinition], now_ns: int, at: str) -> tuple[str, dict[str, Any]]:
    if value.name not in known:
        declared = ", ".join(sorted(known)) or "none"
        raise KpiError(f"{at}: {value.name[:80]!r} is not declared; declare [kpis.NAME], there are: {declared}")
    definition = known[value.name]
    if not 0 <= value.ts_ns <= _LAST_NS:
        raise KpiError(f"{at}: ts_ns {value.ts_ns} is not a time in epoch nanoseconds")
    if value.duration_ns < 0:
        raise KpiError(f"{at}: duration_ns {value.duration_ns} is below 0")
    for name in DIMENSIONS:
        if len(getattr(value, name)) > _MAX_TEXT:
            raise KpiError(f"{at}: {name} has more than {_MAX_TEXT} characters")
    number, weight = _number(value, definition, at)
    row: dict[str, Any] = {
        "ts": value.ts_ns, "name": value.name, **{name: getattr(value, name) for name in DIMENSIONS}, "value": number,
        "version": now_ns if value.version is None else value.version,
    }  # fmt: skip
    if not 0 <= row["version"] < 1 << 64:
        raise KpiError(f"{at}: version {value.version} is not from 0 to 2^64 - 1")
    if value.key is None:
        return "kpis", {**row, "duration_ns": value.duration_ns, "weight": weight}
    try:
        return "message_kpis", {**row, "key": key_of(str(value.key))}
    except ValueError as error:
        raise KpiError(f"{at}: {error}") from None


def _number(value: KpiValue, definition: KpiDefinition, at: str) -> tuple[float, float]:
    """The value and its weight."""
    ratio = value.numerator is not None or value.denominator is not None
    if ratio == (value.value is not None):
        raise KpiError(f"{at}: give either value, or numerator and denominator")
    if ratio:
        if definition.kind != "ratio":
            raise KpiError(f"{at}: {value.name} is a {definition.kind}; give value alone")
        above, below = value.numerator, value.denominator
        if above is None or below is None or not (math.isfinite(above) and math.isfinite(below)) or below < 0:
            raise KpiError(f"{at}: numerator and denominator must be finite numbers, the denominator not below 0")
        return (above / below, below) if below else (0.0, 0.0)
    number = value.value
    if number is None or not math.isfinite(number):
        raise KpiError(f"{at}: value must be a finite number, got {number}")
    return number, 1.0


class KpiStep(msgspec.Struct, frozen=True, kw_only=True):
    """A measure in [start_ns, end_ns) of one choice of dimensions; those that were not asked for are empty.

    `weight` is the sum of denominators of a ratio, the number of values otherwise.
    """

    start_ns: int
    end_ns: int
    name: str
    cohort: str
    channel: str
    region: str
    offer: str
    value: float | None
    weight: float
    values: int


_SERIES = """
SELECT step, toString(name) AS name, $shown, sum(value * weight) AS above, sum(weight) AS below, sum(value) AS total,
    count() AS values
FROM (
    SELECT name, cohort, channel, region, offer, value, weight,
        intDiv(toUnixTimestamp64Nano(ts) - {origin_ns:Int64}, {step_ns:Int64}) AS step
    FROM kpis FINAL
    WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
        AND ({any_name:UInt8} OR name IN {names:Array(String)})
)
GROUP BY step, name, cohort_, channel_, region_, offer_ ORDER BY step, name, cohort_, channel_, region_, offer_
LIMIT {limit:UInt32}
"""


def series(
    store: Store,
    known: Mapping[str, KpiDefinition],
    *,
    from_ns: int,
    to_ns: int,
    step_ns: int | None = None,
    names: Iterable[str] = (),
    by: Iterable[str] = (),
    limit: int = 100_000,
) -> list[KpiStep]:
    """Measures over time, split `by` some of the dimensions; the whole range is one step when `step_ns` is None.

    Intervals count where they begin. Raises ValueError for an unknown dimension or an empty range, and StoreError.
    """
    chosen = set(by)
    if unknown := sorted(chosen - set(DIMENSIONS)):
        raise ValueError(f"{unknown[0]!r} is no dimension; there are {', '.join(DIMENSIONS)}")
    if from_ns >= to_ns:
        raise ValueError(f"the range is empty: from_ns {from_ns} is not before to_ns {to_ns}")
    step = step_ns or to_ns - from_ns
    origin = from_ns if step_ns is None else from_ns // step * step
    shown = ", ".join(f"toString({name}) AS {name}_" if name in chosen else f"'' AS {name}_" for name in DIMENSIONS)
    wanted = sorted(set(names))
    rows = store.query(
        _SERIES.replace("$shown", shown),
        {
            "from_ns": from_ns, "to_ns": to_ns, "origin_ns": origin, "step_ns": step, "limit": limit,
            "names": wanted, "any_name": int(not wanted),
        },
    )  # fmt: skip
    return [_step(row, known, origin, step) for row in rows.iter_rows(named=True)]


def _step(row: Mapping[str, Any], known: Mapping[str, KpiDefinition], origin: int, step: int) -> KpiStep:
    kind = known[row["name"]].kind if row["name"] in known else "ratio"
    below, above = float(row["below"]), float(row["above"])
    start = origin + int(row["step"]) * step
    value = float(row["total"]) if kind == "sum" else above / below if below else None
    return KpiStep(
        start_ns=start, end_ns=start + step, name=row["name"], value=value, weight=below, values=int(row["values"]),
        **{name: row[f"{name}_"] for name in DIMENSIONS},
    )  # fmt: skip
