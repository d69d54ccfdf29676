"""What a degraded mode costs in a business measure: messages answered from a cache or by a fallback, and normal ones.

Messages are compared within strata (cohort, channel, region, offer, hour, decile of load): who falls back, and when, is
no accident. So it is an association and says so. Errors are by block of time; with too few blocks it is refused.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import polars as pl

from analytics.generations import CURRENT
from analytics.kpis import DIMENSIONS, KpiDefinition
from analytics.money.effects import Effect, Floats, Ints, SensitivityError, Words, refused
from analytics.money.strata import codes, compared, deciles, within
from analytics.paths import Path
from collector.record import Mode
from collector.store import Store

NS = 1_000_000_000
DEGRADED = ("cached", "fallback")
MOST = 500_000  # messages, the rest by a hash of the key
_LEAST = 30  # messages of the mode
_HOUR_NS = 3_600 * NS

_JOINED = f"""
SELECT k.value AS value, toString(k.cohort) AS cohort, toString(k.channel) AS channel, toString(k.region) AS region,
    toString(k.offer) AS offer, toInt8(m.mode) AS mode, toUnixTimestamp64Nano(m.start) AS start_ns
FROM (
    SELECT key, start, mode FROM messages
    WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC')
        AND window < toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT})
        AND toInt8(mode) IN {{modes:Array(Int8)}} AND ({{below:UInt64}} = 0 OR cityHash64(key) < {{below:UInt64}})
) AS m
INNER JOIN (
    SELECT key, value, cohort, channel, region, offer FROM message_kpis FINAL
    WHERE name = {{kpi:String}} AND ts >= fromUnixTimestamp64Nano({{a:Int64}}, 'UTC')
        AND ts < fromUnixTimestamp64Nano({{b:Int64}}, 'UTC')
) AS k ON k.key = m.key
LIMIT {{most:UInt32}}
"""  # noqa: S608 - fixed text, values are bound
_COUNT = """
SELECT count() FROM messages WHERE path = {path:String} AND window >= toDateTime({from_s:UInt32}, 'UTC')
    AND window < toDateTime({to_s:UInt32}, 'UTC')
"""


class ModeCost(msgspec.Struct, frozen=True, kw_only=True):
    """The difference of a measure between one mode and normal, within strata; nulls where it was refused.

    `plain` is the difference without strata, a warning. `lost` is the difference times the mode's messages: of a
    conversion, how many fewer; null unless `verdict` is `effect`. `sampled` is the share of messages that were read.
    """

    path: str
    kpi: str
    unit: str
    mode: str
    from_ns: int
    to_ns: int
    messages: int
    normal: int
    share: float
    sampled: float
    verdict: str
    difference: float | None
    low: float | None
    high: float | None
    detectable: float | None
    plain: float | None
    lost: float | None
    clusters: int
    strata: int
    sentence: str
    reason: str


def modes(
    store: Store, path: Path, kpi: str, known: Mapping[str, KpiDefinition], *, from_ns: int, to_ns: int
) -> list[ModeCost]:
    """Each degraded mode against normal messages of [from_ns, to_ns), by values of `kpi` per message.

    Raises ValueError for a measure that is not declared or an empty range, and StoreError.
    """
    if kpi not in known:
        declared = ", ".join(sorted(known)) or "none"
        raise ValueError(f"{kpi[:80]!r} is not declared; declare [kpis.NAME], there are: {declared}")
    if from_ns >= to_ns:
        raise ValueError(f"the range is empty: from_ns {from_ns} is not before to_ns {to_ns}")
    span = {"path": path.name, "from_s": from_ns // NS // 10 * 10, "to_s": -(-to_ns // (10 * NS)) * 10}
    n = int(store.query(_COUNT, span).item())
    part = min(1.0, MOST / max(1, n))
    frame = store.query(
        _JOINED,
        {
            **span, "level": 10, "modes": [int(Mode.UNSET), int(Mode.NORMAL), int(Mode.CACHED), int(Mode.FALLBACK)],
            "below": 0 if part == 1.0 else int(part * 2**64), "kpi": kpi, "a": max(0, from_ns - _HOUR_NS),
            "b": to_ns + 24 * _HOUR_NS, "most": 2 * MOST,
        },
    )  # fmt: skip
    block_ns = max(60 * NS, min(_HOUR_NS, (to_ns - from_ns) // 60))
    return [_cost(frame, path.name, kpi, known[kpi].unit, mode, (from_ns, to_ns), part, block_ns) for mode in DEGRADED]


def _cost(
    frame: pl.DataFrame, path: str, kpi: str, unit: str, mode: str, span: tuple[int, int], part: float, block_ns: int
) -> ModeCost:
    code = int(Mode[mode.upper()])
    normal = (int(Mode.UNSET), int(Mode.NORMAL))
    some = frame.filter(pl.col("mode").is_in([code, *normal]))
    degraded = (some["mode"] == code).to_numpy()
    count, rest = int(degraded.sum()), int((~degraded).sum())
    found = _difference(some, degraded, kpi, mode, block_ns)
    y = some["value"].to_numpy()
    plain = float(y[degraded].mean() - y[~degraded].mean()) if count and rest else None
    seen = found.seen and found.estimate is not None
    return ModeCost(
        path=path, kpi=kpi, unit=unit, mode=mode, from_ns=span[0], to_ns=span[1], messages=count, normal=rest,
        share=count / frame.height if frame.height else 0.0, sampled=part, verdict=found.verdict,
        difference=found.estimate, low=found.low, high=found.high, detectable=found.detectable, plain=plain,
        lost=found.estimate * count / part if seen and found.estimate is not None else None, clusters=found.clusters,
        strata=found.strata, sentence=_sentence(found, kpi, mode, unit), reason=found.reason,
    )  # fmt: skip


def _difference(
    some: pl.DataFrame, degraded: np.ndarray[tuple[int], np.dtype[np.bool_]], kpi: str, mode: str, block_ns: int
) -> Effect:
    method = "within-stratum difference, errors by cluster"
    words = Words(kpi=kpi, exposure=f"mode {mode} instead of normal", unit="message")
    count = int(degraded.sum())
    if count < _LEAST or some.height - count < _LEAST:
        reason = (
            f"{count} messages of mode {mode} and {some.height - count} normal ones have a value of {kpi};"
            f" at least {_LEAST} of each are needed."
        )
        return refused("strata", method, reason, some.height, 0)
    start = some["start_ns"].to_numpy()
    load = _load(start)
    strata = codes(*(some[name].to_numpy() for name in DIMENSIONS), start // _HOUR_NS, deciles(load))
    try:
        data = within(some["value"].to_numpy(), degraded.astype(np.float64), start // block_ns, strata, [load])
        return compared("strata", data, words)
    except SensitivityError as error:
        return refused("strata", method, str(error), some.height, 0)


def _load(start: Ints) -> Floats:
    """Messages of the same second, 10 s or minute: the shortest that holds enough of them to be no noise."""
    for step in (1, 10, 60):
        _, at, sizes = np.unique(start // (step * NS), return_inverse=True, return_counts=True)
        if sizes.mean() >= _LEAST:
            break
    return np.asarray(sizes[at], dtype=np.float64)


def _sentence(found: Effect, kpi: str, mode: str, unit: str) -> str:
    if found.estimate is None or found.low is None or found.high is None or found.detectable is None:
        return f"Mode {mode}: no estimate. {found.reason}"
    shown = "" if unit == "ratio" else f" {unit}"
    span = f"{found.estimate:+.4g}{shown} (95 % interval {found.low:+.4g} to {found.high:+.4g})"
    if not found.seen:
        return (
            f"Mode {mode}: no detectable effect on {kpi}, {span};"
            f" {found.detectable:.4g}{shown} would have been seen with a probability of 80 %."
        )
    return f"Mode {mode}: {kpi} differs by {span} from that of normal messages that are alike. Association, not proof."
