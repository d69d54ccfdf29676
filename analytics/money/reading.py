"""Rows to estimate from, out of the store: messages with their KPI, or intervals with the latency that lay in them.

Memory is bounded: a million messages at a time, and `MOST_ROWS` rows kept; beyond that a share of the messages by a
hash of their key, the same ones each time. The load is counted from all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from analytics.generations import CURRENT
from analytics.kpis import DIMENSIONS
from analytics.money.effects import Floats, Ints, SensitivityError
from analytics.money.exposures import MS, NS, Exposure
from analytics.paths import Path
from analytics.population import NOT_USERS, labels_of
from analytics.tail.read import Reach, slices
from collector.record import Mode
from collector.store import Store

MOST_ROWS = 1_000_000
LOAD_NS = 10 * NS  # the load a message meets: how many started in the seconds before it
LEAST_OF_P99 = 100
_MOST_LABEL_SETS = 200_000
Progress = Callable[[int, int], None]

_MESSAGES = f"""
SELECT key, toUnixTimestamp64Nano(start) AS start_ns, $value AS value, label_set,
    ({{below:UInt64}} = 0) OR (cityHash64(key) < {{below:UInt64}}) AS taken
FROM messages
WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window <
    toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT}) AND has({{modes:Array(Int8)}}, toInt8(mode))
    AND start >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC')
    AND start < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
ORDER BY start_ns, key
"""  # noqa: S608 - fixed text, values are bound
_KPIS = f"""
SELECT key, value AS kpi, toString(cohort) AS cohort, toString(channel) AS channel, toString(region) AS region,
    toString(offer) AS offer
FROM message_kpis FINAL
WHERE name = {{kpi:String}} AND (({{below:UInt64}} = 0) OR (cityHash64(key) < {{below:UInt64}})) AND key IN (
    SELECT key FROM messages
    WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window <
        toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT}))
"""  # noqa: S608 - fixed text, values are bound
_WINDOWED = f"""
SELECT intDiv(at - {{origin:Int64}}, {{length:Int64}}) AS slot, count() AS messages, countIf(isNull(value)) AS lost,
    avg(value) AS mean, avg(if(isNull(value), 1, value > {{threshold:Int64}})) AS beyond,
    arraySort(groupArrayIf(assumeNotNull(value), isNotNull(value))) AS sorted,
    sorted[toUInt64(greatest(1, ceil(0.99 * length(sorted))))] AS p99
FROM (
    SELECT toUnixTimestamp64Nano(start) AS at, $value AS value FROM messages
    WHERE path = {{path:String}} AND window >= toDateTime({{from_s:UInt32}}, 'UTC') AND window <
        toDateTime({{to_s:UInt32}}, 'UTC') AND generation IN ({CURRENT}) AND has({{modes:Array(Int8)}}, toInt8(mode))
        AND start >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC')
        AND start < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
)
GROUP BY slot ORDER BY slot
"""  # noqa: S608 - fixed text, values are bound
_INTERVALS = """
SELECT toUnixTimestamp64Nano(ts) AS start_ns, duration_ns, value AS kpi, weight, toString(cohort) AS cohort,
    toString(channel) AS channel, toString(region) AS region, toString(offer) AS offer
FROM kpis FINAL
WHERE name = {kpi:String} AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
    AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC') AND weight > 0
ORDER BY start_ns LIMIT {limit:UInt32}
"""


@dataclass(frozen=True, slots=True)
class Rows:
    """One row per message or interval, in the order of `start_ns`, with everything known; and what was left out.

    `exposure` is in milliseconds (or 0 and 1), `load` the logarithm of how busy the path was, `dimensions` the text of
    cohort, channel, region and offer, `label_set` 0 for intervals. `left_out` says how many rows and why.
    """

    source: str
    start_ns: Ints
    key: np.ndarray
    kpi: Floats
    exposure: Floats
    load: Floats
    label_set: np.ndarray
    dimensions: dict[str, pl.Series]
    messages: int
    sampled: float = 1.0
    left_out: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.start_ns)

    def where(self, chosen: np.ndarray) -> Rows:
        """The rows that `chosen` (bool[n]) names."""
        return Rows(
            self.source, self.start_ns[chosen], self.key[chosen], self.kpi[chosen], self.exposure[chosen],
            self.load[chosen], self.label_set[chosen],
            {name: column.filter(pl.Series(chosen)) for name, column in self.dimensions.items()},
            self.messages, self.sampled, self.left_out, self.notes,
        )  # fmt: skip


def of_messages(
    store: Store,
    path: Path,
    kpi: str,
    exposure: Exposure,
    *,
    from_ns: int,
    to_ns: int,
    modes: tuple[Mode, ...] | None = None,
    absent: str = "left out",
    most_rows: int = MOST_ROWS,
    progress: Progress | None = None,
) -> Rows:
    """The messages of [from_ns, to_ns) with what the KPI says of each by its key. Raises SensitivityError, StoreError.

    `absent`: a message without a value is left out, or counts as "zero" (a lifetime value that never came).
    """
    cut = slices(store, path, Reach(from_ns, to_ns, modes))
    share = min(1.0, most_rows / max(cut.messages, 1))
    windows = windowed(store, path, exposure, from_ns, to_ns, modes) if exposure.kind == "p99" else None
    parts: list[pl.DataFrame] = []
    left = dict.fromkeys(("unfinished", "without a value", "of a key that is there twice", "in a thin window"), 0)
    tail = np.zeros(0, dtype=np.int64)
    messages = 0
    for done, (first, last) in enumerate(cut.spans):
        if progress is not None:
            progress(done, len(cut.spans))
        told = {**_span(path, first, last, modes), "below": 0 if share == 1.0 else int(share * 2**64)}
        frame = store.query(_MESSAGES.replace("$value", exposure.column(path)), told)
        starts = frame["start_ns"].to_numpy()
        every = np.concatenate([tail, starts])
        # Those that started in the seconds before, the message itself included.
        met = np.searchsorted(every, starts, side="right") - np.searchsorted(every, starts - LOAD_NS, side="right")
        tail = every[np.searchsorted(every, last - LOAD_NS) :]
        messages += frame.height
        frame = frame.with_columns(pl.Series("load", np.log(np.maximum(met, 1)))).filter(pl.col("taken") == 1)
        twice = frame["key"].is_duplicated()
        left["of a key that is there twice"] += int(twice.sum())
        frame = _exposed(frame.filter(~twice), exposure, windows, from_ns, left)
        values = store.query(_KPIS, {**told, "kpi": kpi})
        joined = frame.join(values, on="key", how="left", maintain_order="left")
        missing = joined["kpi"].is_null()
        left["without a value"] += int(missing.sum()) if absent == "left out" else 0
        if absent == "left out":
            joined = joined.filter(~missing)
        else:
            blank = [pl.col(name).fill_null("") for name in DIMENSIONS]
            joined = joined.with_columns(pl.col("kpi").fill_null(0.0), *blank)
        parts.append(joined.with_columns([pl.col(name).cast(pl.Categorical) for name in DIMENSIONS]))
    if progress is not None:
        progress(len(cut.spans), len(cut.spans))
    whole = pl.concat(parts)
    return Rows(
        "messages",
        whole["start_ns"].to_numpy(),
        whole["key"].to_numpy(),
        whole["kpi"].to_numpy().astype(np.float64),
        whole["exposure"].to_numpy(),
        whole["load"].to_numpy(),
        whole["label_set"].to_numpy(),
        _dimensions(store, whole),
        messages,
        share,
        {what: n for what, n in left.items() if n},
    )


def _exposed(
    frame: pl.DataFrame, exposure: Exposure, windows: pl.DataFrame | None, origin: int, left: dict[str, int]
) -> pl.DataFrame:
    """With the column `exposure`, without the messages that have none."""
    if windows is not None:
        slot = (pl.col("start_ns") - origin) // (exposure.window_s * NS)
        found = frame.with_columns(slot.alias("slot")).join(
            windows.filter(pl.col("messages") - pl.col("lost") >= LEAST_OF_P99).select("slot", "p99"),
            on="slot", how="left", maintain_order="left",
        )  # fmt: skip
        left["in a thin window"] += int(found["p99"].null_count())
        return found.filter(pl.col("p99").is_not_null()).with_columns((pl.col("p99") / MS).alias("exposure"))
    if exposure.kind == "exceedance":
        # What never ended was slow: to leave it out would look at the survivors alone.
        slow = (pl.col("value") > exposure.threshold_ns).fill_null(True)
        return frame.with_columns(slow.cast(pl.Float64).alias("exposure"))
    left["unfinished"] += int(frame["value"].null_count())
    return frame.filter(pl.col("value").is_not_null()).with_columns((pl.col("value") / MS).alias("exposure"))


def windowed(
    store: Store,
    path: Path,
    exposure: Exposure,
    from_ns: int,
    to_ns: int,
    modes: tuple[Mode, ...] | None = None,
    length_ns: int | None = None,
) -> pl.DataFrame:
    """Messages by window: `slot` from `from_ns` on, `messages`, `lost`, `mean` and `p99` in ns, and `beyond`.

    `lost` have no value, `beyond` is the share over the exposure's threshold.
    """
    told = {
        **_span(path, from_ns, to_ns, modes), "origin": from_ns, "threshold": exposure.threshold_ns or 0,
        "length": length_ns or exposure.window_s * NS,
    }  # fmt: skip
    return store.query(_WINDOWED.replace("$value", exposure.column(path)), told).drop("sorted")


def of_intervals(
    store: Store,
    path: Path,
    kpi: str,
    exposure: Exposure,
    *,
    from_ns: int,
    to_ns: int,
    modes: tuple[Mode, ...] | None = None,
) -> Rows:
    """The KPI's intervals that begin in [from_ns, to_ns), each with the path's messages of the same time.

    Raises SensitivityError where there is no interval, and StoreError.
    """
    found = store.query(_INTERVALS, {"kpi": kpi, "from_ns": from_ns, "to_ns": to_ns, "limit": MOST_ROWS})
    if not found.height:
        raise SensitivityError(f"kpi: {kpi} has no value in this time, neither of messages nor of intervals")
    length = int(found["duration_ns"].mode().sort()[0])
    if length <= 0:
        raise SensitivityError(f"kpi: the intervals of {kpi} have no length; give them a duration")
    left = dict.fromkeys(("of another length", "not at a whole multiple", "without messages", "in a thin window"), 0)
    same = found.filter(pl.col("duration_ns") == length)
    left["of another length"] = found.height - same.height
    origin = from_ns // length * length
    whole = same.filter((pl.col("start_ns") - origin) % length == 0)
    left["not at a whole multiple"] = same.height - whole.height
    last = -(-to_ns // length) * length
    windows = windowed(store, path, exposure, origin, last, modes, length)
    joined = whole.with_columns(((pl.col("start_ns") - origin) // length).alias("slot")).join(
        windows, on="slot", how="left", maintain_order="left"
    )
    value = {"exceedance": "beyond", "p99": "p99"}.get(exposure.kind, "mean")
    least = LEAST_OF_P99 if exposure.kind == "p99" else 1
    thin = (pl.col("messages") - pl.col("lost") < least) if exposure.in_ms else pl.col("messages") < 1
    left["without messages"] = int(joined["messages"].null_count())
    joined = joined.filter(pl.col("messages").is_not_null())
    rest = joined.filter(~thin & pl.col(value).is_not_null())
    left["in a thin window"] = joined.height - rest.height
    scale = MS if exposure.in_ms else 1
    return Rows(
        "intervals",
        rest["start_ns"].to_numpy(),
        np.zeros(rest.height, dtype=np.uint64),
        rest["kpi"].to_numpy().astype(np.float64),
        rest[value].to_numpy().astype(np.float64) / scale,
        np.log(rest["messages"].to_numpy().astype(np.float64)),
        np.zeros(rest.height, dtype=np.uint64),
        {name: rest[name].cast(pl.Categorical) for name in DIMENSIONS},
        int(windows["messages"].sum()),
        1.0,
        {what: n for what, n in left.items() if n},
        ("An interval's latency is that of all the path's messages in it, also where the KPI is of some.",),
    )


def has_message_values(store: Store, kpi: str) -> bool:
    """Whether the KPI has values of single messages."""
    return bool(store.query("SELECT 1 FROM message_kpis WHERE name = {kpi:String} LIMIT 1", {"kpi": kpi}).height)


def _span(path: Path, from_ns: int, to_ns: int, modes: tuple[Mode, ...] | None) -> dict[str, object]:
    wanted = tuple(mode for mode in Mode if mode not in NOT_USERS) if modes is None else modes
    return {
        "path": path.name, "level": 10, "from_ns": from_ns, "to_ns": to_ns, "modes": [int(mode) for mode in wanted],
        "from_s": from_ns // NS // 10 * 10, "to_s": -(-to_ns // (10 * NS)) * 10,
    }  # fmt: skip


def _dimensions(store: Store, rows: pl.DataFrame) -> dict[str, pl.Series]:
    """Cohort, channel, region and offer: as the KPI has them, else as the message's labels of these names do."""
    known = {name: rows[name] for name in DIMENSIONS}
    empty = [name for name, column in known.items() if not (column.cast(pl.String) != "").any()]
    sets = rows["label_set"].unique()
    if not empty or not rows.height or len(sets) > _MOST_LABEL_SETS:
        return known
    labels = labels_of(store, sets)
    for name in empty:
        told = labels.select("label_set", pl.col("labels").str.json_path_match(f"$.{name}").fill_null("").alias("text"))
        known[name] = (
            rows.select("label_set").join(told, on="label_set", how="left", maintain_order="left")["text"]
            .fill_null("").cast(pl.Categorical)
        )  # fmt: skip
    return known
