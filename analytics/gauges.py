"""Sampled levels: which there are, and their course over time.

A gauge says what was true when it was read; between two readings nothing is known. Per step an answer has how many
readings there were, their extremes, mean and last value; it never fills a gap.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from collector.store import Store


class GaugeName(msgspec.Struct, frozen=True, kw_only=True):
    """One name and where it was read: how many series and readings, first and last time."""

    name: str
    hosts: list[str]
    services: list[str]
    series: int
    count: int
    first_ns: int
    last_ns: int


class GaugeStep(msgspec.Struct, frozen=True, kw_only=True):
    """The readings of one series in [start_ns, end_ns). `mean` is that of the readings, not of time."""

    start_ns: int
    end_ns: int
    name: str
    host: str
    service: str
    labels: dict[str, str]
    count: int
    min: float
    max: float
    mean: float
    last: float
    last_ns: int


_NAMES = """
SELECT toString(name) AS name, arraySort(groupUniqArray(100)(toString(host))) AS hosts,
    arraySort(groupUniqArray(100)(toString(service))) AS services, uniqExact(host, service, label_set) AS series,
    count() AS count, toUnixTimestamp64Nano(min(ts)) AS first_ns, toUnixTimestamp64Nano(max(ts)) AS last_ns
FROM gauges
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    AND ({prefix:String} = '' OR startsWith(name, {prefix:String}))
GROUP BY name ORDER BY name LIMIT {limit:UInt32}
"""

_SERIES = """
SELECT step, toString(g.name) AS name, toString(g.host) AS host, toString(g.service) AS service, label_set,
    any(sets.text) AS labels, count() AS count, min(value) AS min, max(value) AS max, avg(value) AS mean,
    argMax(value, t) AS last, max(t) AS last_ns
FROM (
    SELECT name, host, service, label_set, value, toUnixTimestamp64Nano(ts) AS t,
        intDiv(t - {origin_ns:Int64}, {step_ns:Int64}) AS step
    FROM gauges
    WHERE $names AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
        AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
        AND ({host:String} = '' OR host = {host:String}) AND ({any_service:UInt8} OR service = {service:String})
) AS g
LEFT JOIN (
    SELECT label_set, any(labels) AS text FROM label_sets
    WHERE label_set IN (
        SELECT DISTINCT label_set FROM gauges
        WHERE $names AND ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC')
            AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC')
    ) GROUP BY label_set
) AS sets USING label_set
WHERE $labels
GROUP BY step, g.name, g.host, g.service, label_set
ORDER BY step, name, host, service, labels LIMIT {limit:UInt32}
"""


def names(store: Store, *, from_ns: int, to_ns: int, prefix: str = "", limit: int = 1_000) -> list[GaugeName]:
    """The gauges read in [from_ns, to_ns) whose name begins with `prefix`, at most `limit`, by name."""
    params = {"from_ns": from_ns, "to_ns": to_ns, "prefix": prefix, "limit": limit}
    return [GaugeName(**row) for row in store.query(_NAMES, params).iter_rows(named=True)]


def series(
    store: Store,
    name: str,
    *,
    from_ns: int,
    to_ns: int,
    step_ns: int | None = None,
    host: str = "",
    service: str | None = None,
    labels: Mapping[str, str] | None = None,
    limit: int = 100_000,
) -> list[GaugeStep]:
    """The series of `name` in [from_ns, to_ns), at most `limit` rows; `prefix*` asks for every name that begins so.

    Steps of `step_ns` begin at multiples of it since the epoch, and the first and last are cut to the range; without
    one, each series is one row. `service` "" asks for what belongs to no service, None for all. `labels` keeps series
    that have all of these values; others of theirs do not matter.
    """
    wanted = dict(labels or {})
    origin = from_ns if step_ns is None else from_ns // step_ns * step_ns
    length = to_ns - from_ns if step_ns is None else step_ns
    params: dict[str, object] = {
        "from_ns": from_ns, "to_ns": to_ns, "origin_ns": origin, "step_ns": length, "host": host,
        "any_service": int(service is None), "service": service or "", "name": name.removesuffix("*"), "limit": limit,
    }  # fmt: skip
    having = []
    for n, (label, value) in enumerate(wanted.items()):
        params |= {f"label{n}": label, f"value{n}": value}
        having.append(f"JSONExtractString(sets.text, {{label{n}:String}}) = {{value{n}:String}}")
    condition = "startsWith(name, {name:String})" if name.endswith("*") else "name = {name:String}"
    sql = _SERIES.replace("$names", condition).replace("$labels", " AND ".join(having) or "1")
    found = []
    for row in store.query(sql, params).iter_rows(named=True):
        start = origin + row["step"] * length
        found.append(
            GaugeStep(
                start_ns=max(start, from_ns),
                end_ns=min(start + length, to_ns),
                labels=msgspec.json.decode(row["labels"] or "{}", type=dict[str, str]),
                **{k: row[k] for k in ("name", "host", "service", "count", "min", "max", "mean", "last", "last_ns")},
            )
        )
    return found
