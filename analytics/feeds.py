"""The quality of feeds over a time: stored intervals added up per channel, line and host.

Counts add up; of times the sum, the count and the largest are kept, so that a mean and a maximum are exact over any
number of intervals. Line "" is what was left after arbitration: what a receiver of all lines missed.
"""

from __future__ import annotations

from dataclasses import dataclass

from collector.record import FEEDS, Kind
from collector.store import Store

_MAXIMA = ("recovered_max_ns", "skew_max_ns", "delay_max_ns", "delay_error_ns")
_SUMS = tuple(
    c.name
    for c in FEEDS.columns
    if (c.kind is Kind.U64 or c.name in ("recovered_ns", "skew_ns", "delay_ns")) and not c.nullable
)
_LAST = ("session", "silence_ns", "instruments", "open", "schema_version", "protocol")

_LINES = f"""
SELECT {{bucket:String}} AS bucketed, channel, line, host,
    if(bucketed = '', 0, intDiv(toUnixTimestamp64Nano(ts), {{step_ns:Int64}}) * {{step_ns:Int64}}) AS from_ns,
    {", ".join(f"toInt64(sum({name})) AS sum_{name}" for name in _SUMS)},
    {", ".join(f"max({name}) AS max_{name}" for name in _MAXIMA)},
    min(delay_min_ns) AS min_delay, max(stale) AS max_stale,
    {", ".join(f"argMax(tuple({name}), ts).1 AS last_{name}" for name in _LAST)}
FROM feeds
WHERE ts >= fromUnixTimestamp64Nano({{from_ns:Int64}}, 'UTC') AND ts < fromUnixTimestamp64Nano({{to_ns:Int64}}, 'UTC')
    AND ({{channel:String}} = '' OR channel = {{channel:String}})
GROUP BY channel, line, host, from_ns
ORDER BY channel, line != '', line, host, from_ns
LIMIT 100000
"""  # noqa: S608 - names of our own columns


@dataclass(frozen=True, slots=True)
class FeedLine:
    """One line of a channel, or all of them ("" for line), over a time; see docs/feeds.md for every count.

    Shares are None where nothing was there to divide by, times None where none was measured.
    """

    channel: str
    line: str
    host: str
    protocol: str
    session: str
    from_ns: int
    datagrams: int
    bytes: int
    heartbeats: int
    ends: int
    messages: int
    missing: int
    missing_share: float | None
    gaps: int
    duplicates: int
    out_of_order: int
    late: int
    old: int
    resets: int
    sessions: int
    wraps: int
    won: int
    won_share: float | None
    pairs: int
    divergent: int
    errors: int
    unknown: int
    kernel_drops: int
    recovery_mean_ns: float | None
    recovery_max_ns: int | None
    skew_mean_ns: float | None
    skew_max_ns: int | None
    delay_mean_ns: float | None
    delay_min_ns: int | None
    delay_max_ns: int | None
    delay_error_ns: int | None
    silence_ns: int | None
    instruments: int
    stale: int
    open: bool
    schema_version: int | None


def feed_lines(
    store: Store, from_ns: int, to_ns: int, *, channel: str = "", step_s: int | None = None
) -> list[FeedLine]:
    """Every line of every channel in [from_ns, to_ns); per step where one is asked for, otherwise one row each."""
    parameters = {
        "from_ns": from_ns,
        "to_ns": to_ns,
        "channel": channel,
        "bucket": "" if step_s is None else "step",
        "step_ns": (step_s or 1) * 1_000_000_000,
    }
    rows = store.query(_LINES, parameters).to_dicts()
    accepted = {(r["channel"], r["host"], r["from_ns"]): r["sum_messages"] for r in rows if not r["line"]}
    return [_line(row, accepted.get((row["channel"], row["host"], row["from_ns"])), from_ns) for row in rows]


def _line(row: dict[str, object], accepted: int | None, from_ns: int) -> FeedLine:
    def total(name: str) -> int:
        return int(str(row[f"sum_{name}"]))

    def known(name: str) -> int | None:
        return None if row[name] is None else int(str(row[name]))

    recovered = total("out_of_order") + total("late")
    missing = total("skipped") - recovered
    sent = total("messages") + missing
    whole = not row["line"]
    return FeedLine(
        channel=str(row["channel"]),
        line=str(row["line"]),
        host=str(row["host"]),
        protocol=str(row["last_protocol"]),
        session=str(row["last_session"]),
        from_ns=known("from_ns") or from_ns,
        missing=missing,
        missing_share=missing / sent if sent > 0 else None,
        won_share=None if whole or not accepted else total("won") / accepted,
        recovery_mean_ns=total("recovered_ns") / recovered if recovered else None,
        recovery_max_ns=known("max_recovered_max_ns") if recovered else None,
        skew_mean_ns=total("skew_ns") / total("pairs") if total("pairs") else None,
        skew_max_ns=known("max_skew_max_ns") if total("pairs") else None,
        delay_mean_ns=total("delay_ns") / total("delays") if total("delays") else None,
        delay_min_ns=known("min_delay"),
        delay_max_ns=known("max_delay_max_ns"),
        delay_error_ns=known("max_delay_error_ns"),
        silence_ns=known("last_silence_ns"),
        instruments=known("last_instruments") or 0,
        stale=known("max_stale") or 0,
        open=bool(row["last_open"]),
        schema_version=known("last_schema_version"),
        **{name: total(name) for name in _COUNTS},
    )


_COUNTS = (
    "datagrams", "bytes", "heartbeats", "ends", "messages", "gaps", "duplicates", "out_of_order", "late", "old",
    "resets", "sessions", "wraps", "won", "pairs", "divergent", "errors", "unknown", "kernel_drops",
)  # fmt: skip
