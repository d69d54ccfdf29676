"""A channel's report as rows: the `feeds` table, gauges, intervals and the label sets they name."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from numpy.typing import NDArray

from collector.decode import DecodedColumns
from collector.feeds.channel import ALL_LINES, ChannelReport, ToldHalt
from collector.keys import hash64
from collector.record import EVENTS, FEEDS, GAUGES, INTERVALS, LABEL_SETS, STAMPS, Columns

_INTERVALS = 1000  # gaps, and stale instruments, of one report that become intervals; all are counted

Row = dict[str, Any]


class Rows:
    """Rows of one poll. Label sets are shipped once."""

    def __init__(self, host: str) -> None:
        self.host = host
        self._known: set[int] = set()
        self._start()

    def _start(self) -> None:
        self._feeds: list[Row] = []
        self._gauges: list[Row] = []
        self._intervals: list[Row] = []
        self._labels: list[Row] = []
        self._events: list[Row] = []

    def take(self) -> list[Columns]:
        """The rows since the last call, label sets first."""
        made = (
            (LABEL_SETS, self._labels), (FEEDS, self._feeds), (GAUGES, self._gauges), (INTERVALS, self._intervals),
            (EVENTS, self._events),
        )  # fmt: skip
        columns = [Columns.from_rows(table, rows) for table, rows in made if rows]
        self._start()
        return columns

    def add(
        self,
        channel: str,
        protocol: str,
        report: ChannelReport,
        span_ns: tuple[int, int],
        drops: dict[str, int],
        error_ns: int | None,
    ) -> None:
        """Add a channel's report of an interval. `drops` are the kernel's, by line."""
        start, end = span_ns
        for line in report.lines:
            lost = sum(drops.values()) if line.line == ALL_LINES else drops.get(line.line, 0)
            whole = line.line == ALL_LINES
            self._feeds.append(
                {
                    "ts_ns": start,
                    "duration_ns": end - start,
                    "channel": channel,
                    "line": line.line,
                    "protocol": protocol,
                    "host": self.host,
                    "session": report.session,
                    **line.counts,
                    "kernel_drops": lost,
                    "recovered_max_ns": line.recovered_max_ns,
                    "skew_max_ns": line.skew_max_ns,
                    "delay_min_ns": line.delay_min_ns,
                    "delay_max_ns": line.delay_max_ns,
                    "delay_error_ns": error_ns,
                    "silence_ns": line.silence_ns,
                    "instruments": report.instruments if whole else 0,
                    "stale": len(report.stale) if whole else 0,
                    "open": int(report.open),
                    "schema_version": report.version,
                }
            )
            label_set = self._label({"channel": channel, "line": line.line or "all"})
            gauges: dict[str, float | None] = {
                "feed.missing": line.missing,
                "feed.duplicates": None if whole else line.counts["duplicates"],
                "feed.late": line.counts["late"],
                "feed.divergent": line.counts["divergent"],
                "feed.errors": line.counts["errors"],
                "feed.kernel_drops": lost,
                "feed.silence_ns": line.silence_ns,
                "feed.recovery_max_ns": line.recovered_max_ns if line.counts["recovered_ns"] else None,
                "feed.delay_max_ns": line.delay_max_ns,
                "feed.stale_instruments": len(report.stale) if whole else None,
                "feed.halted_instruments": len(report.halted) if whole else None,
                "feed.won_share": None if whole else _share(line.counts["won"], report.lines[-1].counts["messages"]),
            }
            for name, q in (("feed.skew_p50_ns", 0.5), ("feed.skew_p99_ns", 0.99)):
                gauges[name] = None if whole or not len(line.skew_ns) else _rank(line.skew_ns, q)
            for name, value in gauges.items():
                if value is not None:
                    self._gauges.append(
                        {"ts_ns": end, "name": name, "host": self.host, "label_set": label_set, "value": float(value)}
                    )
            for gap in line.gaps[:_INTERVALS]:
                length = max(0, (gap.end_ns if gap.end_ns is not None else end) - gap.start_ns)
                culprit = f"{channel}/{line.line or 'all'}"
                self._interval("sequence_gap", gap.start_ns, length, culprit, label_set)
        for instrument, since, _ in report.stale[:_INTERVALS]:
            # One piece per interval, so that an instrument that is stale now can be seen now.
            begin = max(since, start)
            labels = self._label({"channel": channel, "instrument": instrument})
            self._interval("feed_stale", begin, max(0, end - begin), channel, labels)
        ended = [one for one in report.halts if one.end_ns is not None]
        for halt in [*report.halted, *ended][:_INTERVALS]:
            begin, until = max(halt.start_ns, start), end if halt.end_ns is None else halt.end_ns
            labels = self._label({"channel": channel, "instrument": halt.instrument})
            self._interval("trading_halt", begin, max(0, until - begin), channel, labels)
        for halt in report.halts[:_INTERVALS]:
            self._events.append(self._event(channel, halt))

    def _event(self, channel: str, halt: ToldHalt) -> Row:
        about = {"channel": channel, "instrument": halt.instrument}
        if halt.end_ns is not None:
            about["halted_ns"] = str(halt.end_ns - halt.start_ns)
        return {
            "ts_ns": halt.start_ns if halt.end_ns is None else halt.end_ns,
            "key": 0,
            "host": self.host,
            "service": channel,
            "kind": "halt" if halt.end_ns is None else "resume",
            "body": f"{halt.instrument} is {'halted' if halt.end_ns is None else 'traded again'}",
            "attributes": json.dumps(about, sort_keys=True, ensure_ascii=False, separators=(",", ":")),
        }

    def _interval(self, kind: str, start_ns: int, duration_ns: int, culprit: str, label_set: int) -> None:
        self._intervals.append(
            {
                "ts_ns": start_ns,
                "duration_ns": duration_ns,
                "kind": kind,
                "host": self.host,
                "thread": 0,
                "culprit": culprit,
                "label_set": label_set,
            }
        )

    def _label(self, labels: dict[str, str]) -> int:
        text = json.dumps(labels, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
        name = hash64("labels", text)
        if name not in self._known:
            if len(self._known) > 200_000:
                self._known.clear()
            self._known.add(name)
            self._labels.append({"label_set": name, "labels": text})
        return name


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _rank(samples: NDArray[np.int64], q: float) -> int:
    place = max(1, int(np.ceil(q * len(samples)))) - 1
    return int(np.partition(samples, place)[place])


def stamps(
    got: DecodedColumns,
    line: NDArray[np.int64],
    time_ns: NDArray[np.int64],
    *,
    point: str,
    host: str,
    services: list[str],
    clock: str = "realtime",
    error_ns: int | None = None,
) -> Columns | None:
    """A stamp per numbered unit, at the time of its datagram; units without a key have none.

    Args:
        got: decoded datagrams.
        line, time_ns: of the datagrams that were given to the decoder.
        services: what the stamps of each line say for service.
    """
    index = np.flatnonzero(got.key != 0)
    if not len(index):
        return None
    count = len(index)
    row = got.row[index]

    def zeros(kind: str) -> NDArray[Any]:
        return np.zeros(count, dtype=kind)

    unknown = np.ones(count, dtype=np.bool_)
    return Columns(
        STAMPS,
        {
            "ts_ns": time_ns[row].astype("<i8"),
            "key": got.key[index].astype("<u8"),
            "point": zeros("<u2"),
            "host": zeros("<u2"),
            "service": line[row].astype("<u2"),
            "thread": zeros("<u4"),
            "clock": zeros("<u2"),
            "error_ns": np.full(count, min(error_ns or 0, 0xFFFF_FFFF), dtype="<u4"),
            "depth": zeros("<i4"),
            "label_set": zeros("<u8"),
            "outcome": zeros("<u1"),
            "mode": zeros("<u1"),
            "cache": zeros("<u1"),
            "data_age_ns": zeros("<i8"),
        },
        {"point": [point], "host": [host], "service": services, "clock": [clock]},
        {
            "error_ns": unknown if error_ns is None else ~unknown,
            "depth": unknown,
            "data_age_ns": unknown.copy(),
        },
    )
