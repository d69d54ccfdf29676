"""Feed quality: what the lines lost, repeated and reordered, and what decisions were taken on it."""

from __future__ import annotations

from dashboards.grafana.board import Board
from dashboards.grafana.panels import rows, series

UID = "tailsight-feeds"
_TIME = "toDateTime(intDiv(toUnixTimestamp(ts), $__interval_s) * $__interval_s) AS time"
_NAME = "concat(toString(channel), if(line = '', ' arbitrated', concat(' line ', toString(line)))) AS line_of"
_FROM = "FROM feeds WHERE $__timeFilter(ts)"


def board() -> Board:
    """Gaps, duplicates, staleness, skew per channel and line."""
    return (
        Board(UID, "Feed quality", "What the lines of feeds lost, repeated and reordered.")
        .row(
            "Gaps",
            series(
                "Messages missing",
                "Sequence numbers that never came, per line and after arbitration: after arbitration they are "
                "lost to you.",
                f"""SELECT {_TIME}, {_NAME}, toInt64(sum(skipped)) - toInt64(sum(out_of_order)) - toInt64(sum(late))
                AS missing {_FROM} GROUP BY time, line_of ORDER BY time""",
                "short",
                bars=True,
                minimum=None,
            ),
            series(
                "Time to recover",
                "The longest time from seeing a gap until it was filled.",
                f"SELECT {_TIME}, {_NAME}, max(recovered_max_ns) AS longest {_FROM} GROUP BY time, line_of ORDER "
                f"BY time",
                "ns",
            ),
            rows(
                "Channels and lines",
                "Sums over the time shown. `won` is the share of messages that the line brought first; `divergent` are "
                "copies whose content differs between lines.",
                """SELECT toString(f.channel) AS channel, if(f.line = '', 'arbitrated', toString(f.line)) AS line,
                sum(f.messages) AS messages,
                toInt64(sum(f.skipped)) - toInt64(sum(f.out_of_order)) - toInt64(sum(f.late)) AS missing,
                sum(f.gaps) AS gaps, sum(f.duplicates) AS duplicates, sum(f.out_of_order) AS `out of order`,
                sum(f.late) AS late, sum(f.resets) AS resets, sum(f.errors) AS errors, sum(f.unknown) AS unknown,
                sum(f.kernel_drops) AS `socket drops`, sum(f.won) / greatest(sum(f.messages), 1) AS won,
                sum(f.divergent) AS divergent FROM feeds AS f WHERE $__timeFilter(f.ts)
                GROUP BY f.channel, f.line ORDER BY channel, line""",
                units={"won": "percentunit"},
                colours={"missing": [(None, "text"), (1, "red")]},
            ),
        )
        .row(
            "Staleness",
            series(
                "Stale instruments",
                "Instruments without an update for longer than their own rhythm allows, while their market is open.",
                f"SELECT {_TIME}, toString(channel) AS channel, max(stale) AS stale {_FROM} GROUP BY time, "
                f"channel ORDER BY time",
                "short",
            ),
            series(
                "Silence of the line",
                "How long nothing at all came: no message and no heartbeat.",
                f"SELECT {_TIME}, {_NAME}, max(silence_ns) AS silence {_FROM} GROUP BY time, line_of ORDER BY time",
                "ns",
            ),
            series(
                "Delay from the sender",
                "Receipt minus the send time in the message, mean and largest; true within the clocks' bounds.",
                f"""SELECT {_TIME}, {_NAME}, sum(delay_ns) / greatest(sum(delays), 1) AS mean, max(delay_max_ns) AS
                largest
                {_FROM} AND delays > 0 GROUP BY time, line_of ORDER BY time""",
                "ns",
                minimum=None,
            ),
            series(
                "Skew between lines",
                "The largest time between the first copy of a message and the next line's.",
                f"SELECT {_TIME}, {_NAME}, max(skew_max_ns) AS skew {_FROM} GROUP BY time, line_of ORDER BY time",
                "ns",
            ),
        )
    )
