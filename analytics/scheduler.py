"""What the scheduler did to threads: how long they waited for a CPU, who had it, and what stole time.

Percentiles come from counts that the kernel made of every delay, summed over the time asked for; a `culprit` is named
for delays above the collector's threshold only. What no mechanism saw is absent, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np

from analytics import buckets
from analytics.percentiles import Counts
from analytics.percentiles import percentiles as percentiles_of
from collector.store import Store

Per = Literal["host", "service", "cpu", "thread"]
_FIELDS = {"p50": "p50_ns", "p90": "p90_ns", "p99": "p99_ns", "p99.9": "p999_ns"}
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
# Below this share of the events a percentile would be one of what happened to be seen.
MIN_COVERAGE = 0.99


class Delays(msgspec.Struct, frozen=True, kw_only=True):
    """Delays of one kind in one scope. `count` is complete up to `coverage`; percentiles as everywhere in Tailsight.

    `coverage` is the smallest share of events that the collector measured in any of its periods; null: not known.
    """

    host: str
    service: str
    cpu: int | None
    thread: int | None
    kind: str
    count: int
    p50_ns: int | None
    p90_ns: int | None
    p99_ns: int | None
    p999_ns: int | None
    max_ns: int | None
    ci: dict[str, tuple[int, int]]
    value_error: dict[str, int]
    refused: dict[str, str]
    coverage: float | None


class Culprit(msgspec.Struct, frozen=True, kw_only=True):
    """Who kept threads from running: intervals of one kind that name it, how many, their sum and the longest."""

    host: str
    kind: str
    culprit: str
    count: int
    total_ns: int
    max_ns: int
    threads: int


class Counter(msgspec.Struct, frozen=True, kw_only=True):
    """A counter's sum over the time asked for, with its labels."""

    name: str
    host: str
    service: str
    labels: dict[str, str]
    total: float


class Mechanism(msgspec.Struct, frozen=True, kw_only=True):
    """How a host's delays were measured: what that can know at all, and from which delay on there are intervals."""

    host: str
    mechanism: str
    sees: list[str]
    threshold_ns: int
    coverage: dict[str, float]
    records_lost: int
    periods: int


class NotObservable(msgspec.Struct, frozen=True, kw_only=True):
    """A thread whose delays cannot be observed, because it polls and is never switched, and in how many periods."""

    host: str
    service: str
    thread: int
    periods: int


class Collections(msgspec.Struct, frozen=True, kw_only=True):
    """Garbage collections of a service: how many (null: not said), their sum, and the longest (null: not known).

    `placed` ones are intervals, each on the thread that made it, and are in the budgets of stages. Others are sums over
    periods that the program's runtime states (`mechanism` is the metric): they say how much time the program stood
    still and not when, so that no stage can be charged with them.
    """

    host: str
    service: str
    mechanism: str
    pauses: int | None
    total_ns: int
    max_ns: int | None
    placed: bool


MOST_BUCKETS = 8_192  # more than any delay needs
_RANGE = (
    "ts >= fromUnixTimestamp64Nano({from_ns:Int64}, 'UTC') AND ts < fromUnixTimestamp64Nano({to_ns:Int64}, 'UTC') "
    "AND ({host:String} = '' OR host = {host:String})"
)
_DELAYS = f"""
SELECT toString(host) AS host, toString(service) AS service, cpu, thread, toString(kind) AS kind,
    groupArray(bucket) AS buckets, groupArray(total) AS counts, max(longest) AS longest
FROM (
    SELECT host, service, cpu, thread, kind, bucket, sum(n) AS total, max(max_ns) AS longest
    FROM (
        SELECT host, service, cpu, thread, kind, max_ns, arrayJoin(splitByChar(',', cells)) AS cell,
            toInt32OrZero(splitByChar(':', cell)[1]) AS bucket, toUInt32OrZero(splitByChar(':', cell)[2]) AS n
        FROM delay_counts
        WHERE scope = {{scope:String}} AND {_RANGE} AND ({{service:String}} = '' OR service = {{service:String}})
    )
    WHERE n > 0 AND bucket BETWEEN 0 AND {MOST_BUCKETS - 1}
    GROUP BY host, service, cpu, thread, kind, bucket ORDER BY bucket
)
GROUP BY host, service, cpu, thread, kind ORDER BY host, service, cpu, thread, kind LIMIT {{limit:UInt32}}
"""  # noqa: S608 - fixed text
_CULPRITS = f"""
SELECT toString(host) AS host, toString(kind) AS kind, toString(culprit) AS culprit, count() AS count,
    sum(duration_ns) AS total_ns, max(duration_ns) AS max_ns, uniqExact(thread) AS threads
FROM intervals WHERE {_RANGE} AND kind != 'run_queue_sum'
GROUP BY host, kind, culprit ORDER BY total_ns DESC, host, kind, culprit LIMIT {{limit:UInt32}}
"""  # noqa: S608 - fixed text
_PLACED = f"""
SELECT toString(host) AS host, if(isValidJSON(text), JSONExtractString(text, 'service'), '') AS service,
    count() AS pauses, sum(duration_ns) AS total_ns, max(duration_ns) AS max_ns
FROM (SELECT host, label_set, duration_ns FROM intervals WHERE kind = 'gc' AND {_RANGE}) AS i
LEFT JOIN (SELECT label_set, any(labels) AS text FROM label_sets GROUP BY label_set) AS sets USING label_set
GROUP BY host, service ORDER BY total_ns DESC, host, service
"""  # noqa: S608 - fixed text
_READINGS = f"""
    SELECT name, host, service, label_set, value FROM gauges WHERE name IN {{names:Array(String)}} AND {_RANGE}
"""  # noqa: S608 - fixed text
_GAUGES = f"""
SELECT toString(g.name) AS name, toString(g.host) AS host, toString(g.service) AS service, any(sets.text) AS labels,
    sum(value) AS total, min(value) AS least, max(value) AS most, count() AS periods
FROM ({_READINGS}) AS g
LEFT JOIN (
    SELECT label_set, any(labels) AS text FROM label_sets
    WHERE label_set IN (SELECT DISTINCT label_set FROM ({_READINGS})) GROUP BY label_set
) AS sets USING label_set
GROUP BY g.name, g.host, g.service, label_set ORDER BY name, host, service, labels
"""  # noqa: S608 - fixed text
# Sums over a period, which add up over periods; the other gauges of the scheduler do not.
COUNTERS = (
    "scheduler_migrations", "scheduler_blocked", "scheduler_blocked_ns", "scheduler_stolen", "scheduler_stolen_ns",
    "scheduler_irqs", "scheduler_irq_ns", "scheduler_softirqs", "scheduler_softirq_ns", "scheduler_pressure_ns",
    "scheduler_steal_ns", "scheduler_throttled", "scheduler_throttled_ns",
)  # fmt: skip

GC_CALLBACKS = "gc.callbacks"  # of Python, by the probe

_QUALITY = ("scheduler_threshold_ns", "scheduler_coverage", "scheduler_records_lost")


def delays(
    store: Store,
    *,
    from_ns: int,
    to_ns: int,
    per: Per = "service",
    host: str = "",
    service: str = "",
    limit: int = 1_000,
) -> list[Delays]:
    """Run-queue delays of each host, service, CPU or thread whose report periods end in [from_ns, to_ns)."""
    params = {"scope": per, "from_ns": from_ns, "to_ns": to_ns, "host": host, "service": service, "limit": limit}
    rows = list(store.query(_DELAYS, params).iter_rows(named=True))
    covered = {one.host: min(one.coverage.values(), default=None) for one in mechanisms(store, from_ns, to_ns, host)}
    return [_delays(row, per, covered.get(row["host"])) for row in rows]


def culprits(store: Store, *, from_ns: int, to_ns: int, host: str = "", limit: int = 20) -> list[Culprit]:
    """Who kept threads from running, by the time it took from them: of intervals that start in [from_ns, to_ns)."""
    params = {"from_ns": from_ns, "to_ns": to_ns, "host": host, "limit": limit}
    return [Culprit(**row) for row in store.query(_CULPRITS, params).iter_rows(named=True)]


def counters(store: Store, from_ns: int, to_ns: int, host: str = "") -> list[Counter]:
    """Migrations, blocked and stolen time, interrupts, pressure, steal and throttling, summed over the periods."""
    return [
        Counter(name=r["name"], host=r["host"], service=r["service"], labels=_labels(r), total=r["total"])
        for r in _gauges(store, COUNTERS, from_ns, to_ns, host)
    ]


def mechanisms(store: Store, from_ns: int, to_ns: int, host: str = "") -> list[Mechanism]:
    """Per host how delays were measured, and how much of what happened was seen; empty where nobody measured."""
    found: dict[str, dict[str, Any]] = {}
    rows = _gauges(store, _QUALITY, from_ns, to_ns, host)
    for row in rows:
        if row["name"] == "scheduler_threshold_ns":
            labels = _labels(row)
            found[row["host"]] = {
                "mechanism": labels.get("mechanism", ""),
                "sees": [s for s in labels.get("sees", "").split(",") if s],
                "threshold_ns": int(row["most"]),
                "periods": row["periods"],
                "coverage": {},
                "records_lost": 0,
            }
    for row in rows:
        if row["host"] not in found:
            continue
        if row["name"] == "scheduler_coverage":
            found[row["host"]]["coverage"][_labels(row).get("event", "")] = row["least"]
        elif row["name"] == "scheduler_records_lost":
            found[row["host"]]["records_lost"] += int(row["total"])
    return [Mechanism(host=name, **about) for name, about in sorted(found.items())]


def not_observable(store: Store, from_ns: int, to_ns: int, host: str = "") -> list[NotObservable]:
    """Threads that polled without a switch: they have no delay to observe, which is not a delay of zero."""
    return [
        NotObservable(host=r["host"], service=r["service"], thread=int(_labels(r)["thread"]), periods=r["periods"])
        for r in _gauges(store, ("scheduler_not_observable",), from_ns, to_ns, host)
        if _labels(r).get("thread", "").isdigit()
    ]


def collections(store: Store, from_ns: int, to_ns: int, host: str = "") -> list[Collections]:
    """Garbage collections that started, or whose period ended, in [from_ns, to_ns): most time first."""
    params = {"from_ns": from_ns, "to_ns": to_ns, "host": host}
    found = [
        Collections(**row, mechanism=GC_CALLBACKS, placed=True)
        for row in store.query(_PLACED, params).iter_rows(named=True)
    ]
    sums: dict[tuple[str, str, str], dict[str, float]] = {}
    for row in _gauges(store, ("gc.pause_ns", "gc.pauses"), from_ns, to_ns, host):
        of = (row["host"], row["service"], _labels(row).get("metric", ""))
        each = sums.setdefault(of, {})
        each[row["name"]] = each.get(row["name"], 0.0) + row["total"]
    found += [
        Collections(
            host=of[0],
            service=of[1],
            mechanism=of[2],
            pauses=round(each["gc.pauses"]) if "gc.pauses" in each else None,
            total_ns=round(each["gc.pause_ns"]),
            max_ns=None,
            placed=False,
        )
        for of, each in sums.items()
        if "gc.pause_ns" in each
    ]
    return sorted(found, key=lambda one: (-one.total_ns, one.host, one.service, one.mechanism))


def _gauges(store: Store, names: Sequence[str], from_ns: int, to_ns: int, host: str) -> list[dict[str, Any]]:
    params = {"names": list(names), "from_ns": from_ns, "to_ns": to_ns, "host": host}
    return list(store.query(_GAUGES, params).iter_rows(named=True))


def _labels(row: Mapping[str, Any]) -> dict[str, str]:
    return msgspec.json.decode(row["labels"] or "{}", type=dict[str, str])


def _delays(row: Mapping[str, Any], per: Per, coverage: float | None) -> Delays:
    counted = counts_of(row["buckets"], row["counts"], row["longest"])
    found = {_FIELDS[name]: p for name, p in percentiles_of(counted, _QUANTILES).items()}
    too_little = (
        f"only {100 * coverage:.1f} % of the events were measured, percentiles need {100 * MIN_COVERAGE:g} %"
        if coverage is not None and coverage < MIN_COVERAGE
        else ""
    )
    given = {name: p for name, p in found.items() if not p.refused and not too_little}
    return Delays(
        host=row["host"],
        service=row["service"],
        cpu=row["cpu"],
        thread=row["thread"] if per == "thread" else None,
        kind=row["kind"],
        count=counted.count,
        **{name: given[name].value_ns if name in given else None for name in found},
        max_ns=row["longest"],
        ci={name: (p.low_ns or 0, p.high_ns or 0) for name, p in given.items()},
        value_error={name: p.error_ns or 0 for name, p in given.items()},
        refused={name: too_little or p.refused for name, p in found.items() if name not in given},
        coverage=coverage,
    )


def counts_of(bucket: Iterable[int], n: Iterable[int], longest: int | None) -> Counts:
    """Counts of buckets in any order; what buckets do not hold exactly is taken from their edges."""
    at, many = np.array(list(bucket), dtype=np.int64), np.array(list(n), dtype=np.int64)
    order = np.argsort(at)
    at, many = at[order], many[order]
    if not len(at):
        return Counts(at, many, 0, 0, 0)
    largest = int(buckets.high(at[-1])) if longest is None else longest
    total = int((buckets.midpoint(at) * many).sum())
    return Counts(at, many, int(buckets.low(at[0])), largest, total)
