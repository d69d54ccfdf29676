"""Pieces of SQL that panels share. Only macros that every version of the ClickHouse data source since 4.5 knows."""

from __future__ import annotations

# Ten-second counts for hours, minutes for days, hours beyond: what is kept that long, and few enough rows.
LEVEL = (
    "multiIf(toUnixTimestamp($__toTime) - toUnixTimestamp($__fromTime) <= 21600, 10,"
    " toUnixTimestamp($__toTime) - toUnixTimestamp($__fromTime) <= 604800, 60, 3600)"
)
_SINCE = "toStartOfHour($__fromTime)"
# A panel's step: never shorter than the windows it is built from.
STEP = f"greatest($__interval_s, {LEVEL})"

# The midpoint of a count's bucket (HdrHistogram, 7 sub-bucket bits): docs/numbers.md. Negative buckets: negative times.
_POSITIVE = (
    "if(abs(bucket) < 128, toFloat64(abs(bucket)), (reinterpretAsFloat64(bitShiftLeft(toUInt64(abs(bucket)) + "
    "131712, 45))"
    " + reinterpretAsFloat64(bitShiftLeft(toUInt64(abs(bucket)) + 131713, 45))) / 2)"
)
MIDPOINT_NS = f"if(bucket < 0, -1, 1) * ({_POSITIVE})"
# Fewest samples for a bounded 95 % interval (docs/numbers.md): below it a percentile is not shown.
_NEEDED = {0.5: 6, 0.9: 36, 0.99: 368, 0.999: 3_688, 0.9999: 36_887}


def current(path: str = "$path", level: str = LEVEL) -> str:
    """The generations that count, of one path and level in the panel's time: readers see no older ones."""
    return (
        f"SELECT max(generation) FROM windows WHERE path = '{path}' AND level = {level}"
        f" AND window >= {_SINCE} AND window <= $__toTime GROUP BY window"
    )


def counts_where(stage: str | None = None, path: str = "$path", rollup: str = "= ''") -> str:
    """The condition for rows of `stage_counts` or `stage_windows` in the panel's time; of all messages, or by
    rollup."""
    only = f" AND stage = '{stage}'" if stage else ""
    return (
        f"path = '{path}' AND level = {LEVEL} AND rollup {rollup} AND window >= {_SINCE} AND "
        f"$__timeFilter(window){only}"
        f" AND generation IN ({current(path)})"
    )


def percentile(quantile: float) -> str:
    """A percentile in ns over rows (bucket, n); null where there are too few samples for it."""
    value = f"quantileExactWeighted({quantile})({MIDPOINT_NS}, n)"
    return f"if(sum(n) < {_NEEDED[quantile]}, NULL, {value})"


def messages_where(path: str = "$path") -> str:
    """The condition for current rows of `messages` of users in the panel's time."""
    return (
        f"path = '{path}' AND window >= toStartOfMinute($__fromTime) AND window <= $__toTime AND $__timeFilter(start)"
        f" AND generation IN ({current(path, '10')}) AND mode NOT IN ('shadow', 'synthetic')"
    )
