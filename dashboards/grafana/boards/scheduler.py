"""The scheduler: who waits for a CPU, who ran instead, what the machine took away."""

from __future__ import annotations

from dashboards.grafana import queries as q
from dashboards.grafana.board import Board
from dashboards.grafana.panels import rows, series

UID = "tailsight-scheduler"
_TIME = "toDateTime(intDiv(toUnixTimestamp(ts), $__interval_s) * $__interval_s) AS time"
_HOST = "$__timeFilter(ts) AND host = '$host'"
_CELLS = f"""FROM (SELECT ts, kind, service, toInt32(splitByChar(':', cell)[1]) AS bucket,
toUInt64(splitByChar(':', cell)[2]) AS n FROM delay_counts ARRAY JOIN splitByChar(',', cells) AS cell
WHERE {_HOST} AND cells != '' AND scope = """


def board() -> Board:
    """Run-queue delay, culprits, blocked time, steal, pressure of one host."""
    return (
        Board(UID, "Scheduler", "Who waits for a CPU, who ran instead, what the machine took away.", variables=["host"])
        .row(
            "Waiting for a CPU",
            series(
                "Run-queue delay",
                "Time between being able to run and running, of all threads of the host, from complete counts of the "
                "collector `scheduler`. Empty where that collector does not run.",
                f"""SELECT {_TIME}, toString(kind) AS kind, {q.percentile(0.5)} AS p50, {q.percentile(0.99)} AS p99,
            {q.percentile(0.999)} AS `p99.9` {_CELLS} 'host') GROUP BY time, kind ORDER BY time""",
                "ns",
            ),
            rows(
                "Run-queue delay by service",
                "From complete counts over the time shown, longest tail first.",
                f"""SELECT toString(service) AS service, sum(n) AS waits, {q.percentile(0.5)} AS p50,
                {q.percentile(0.99)} AS p99,
            {q.percentile(0.999)} AS `p99.9` {_CELLS} 'service') GROUP BY service ORDER BY p99 DESC LIMIT 50""",
                units=dict.fromkeys(("p50", "p99", "p99.9"), "ns"),
                width=12,
            ),
            rows(
                "Who ran instead",
                "Threads and interrupts that held the CPU while observed threads waited for it, longest in sum "
                "first. Only "
                "waits above the collector's threshold are kept one by one.",
                f"""SELECT toString(kind) AS kind, toString(culprit) AS culprit, count() AS times, sum(duration_ns)
                AS sum,
            max(duration_ns) AS longest FROM intervals WHERE {_HOST} AND kind != 'run_queue_sum' GROUP BY kind,
            culprit ORDER BY sum DESC LIMIT 50""",
                units={"sum": "ns", "longest": "ns"},
                width=12,
            ),
            series(
                "Threads' waiting, as the kernel sums it",
                "Nanoseconds per second that observed threads waited for a CPU (schedstat): there without any "
                "privilege.",
                f"""SELECT {_TIME}, toString(service) AS service, sum(value) / uniqExact(toUnixTimestamp(ts)) AS waited
            FROM gauges WHERE name = 'sched.run_delay_ns' AND {_HOST} GROUP BY time, service ORDER BY time""",
                "ns",
            ),
        )
        .row(
            "Asleep and taken away",
            series(
                "Blocked time",
                "What observed threads slept for: locks, disk, page faults and others.",
                f"""SELECT {_TIME}, toString(kind) AS kind, sum(duration_ns) AS blocked FROM intervals
            WHERE {_HOST} AND startsWith(toString(kind), 'blocked') GROUP BY time, kind ORDER BY time""",
                "ns",
                stacked=True,
            ),
            series(
                "Steal",
                "CPU time per second that the hypervisor gave to others.",
                f"""SELECT {_TIME}, avg(value) AS steal FROM gauges
            WHERE name IN ('cpu.steal_ns', 'scheduler_steal_ns') AND {_HOST} GROUP BY time ORDER BY time""",
                "ns",
            ),
            series(
                "Pressure",
                "Time per second in which at least one task (`some`) or all of them (`full`) were held up for "
                "lack of CPU, "
                "disk or memory (PSI).",
                f"""SELECT {_TIME}, toString(name) AS name, avg(value) AS held FROM gauges
            WHERE startsWith(toString(name), 'pressure.') AND {_HOST} GROUP BY time, name ORDER BY time""",
                "ns",
            ),
            series(
                "Garbage collections",
                "Time per step in which a program's collector held its thread, as the probe or the runtime tells.",
                f"""SELECT {_TIME}, toString(culprit) AS program, sum(duration_ns) AS paused FROM intervals
            WHERE {_HOST} AND kind = 'gc' GROUP BY time, program ORDER BY time""",
                "ns",
            ),
        )
    )
