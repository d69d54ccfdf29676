"""`/v1/feeds`: what each line of each feed lost, repeated and reordered, and what was left after arbitration."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics.feed_decisions import TooManyDecisionsError, decisions_on_bad_data
from analytics.feeds import FeedLine, feed_lines
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span, step_s
from api.problems import bad_parameter
from api.shapes import completeness_of
from collector.settings import ConfigError, duration_ns

router = APIRouter(route_class=Door, tags=["feeds"])

_TEXTS = ("channel", "line", "host", "protocol", "session")
_FLOATS = ("missing_share", "won_share", "recovery_mean_ns", "skew_mean_ns", "delay_mean_ns")
_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(FeedLine.__slots__, pl.Int64),
    **dict.fromkeys(_TEXTS, pl.String),
    **dict.fromkeys(_FLOATS, pl.Float64),
    "open": pl.Boolean,
}


class LineShape(Answer):
    """One line of a channel over a time."""

    channel: str = Field(description="The channel, as configured.")
    line: str = Field(description="The line; empty for all lines after arbitration.")
    host: str = Field(description="The host that received it.")
    protocol: str = Field(description="Its decoder.")
    session: str = Field(description="The last session.")
    from_ns: int = Field(description="Start of the step, or of the time asked for, epoch nanoseconds.")
    datagrams: int = Field(description="Datagrams received.")
    bytes: int = Field(description="Their payload.")
    heartbeats: int = Field(description="Datagrams without messages that say which number comes next.")
    ends: int = Field(description="Datagrams that end a session.")
    messages: int = Field(description="Different numbers received.")
    missing: int = Field(description="Numbers passed over less those that came later, exactly.")
    missing_share: float | None = Field(description="missing / (messages + missing).")
    gaps: int = Field(description="Times that numbers were passed over.")
    duplicates: int = Field(description="Numbers received before; on the empty line the other lines' copies.")
    out_of_order: int = Field(description="Messages that filled a gap within the reorder window.")
    late: int = Field(description="Messages that filled a gap after it.")
    old: int = Field(description="Messages of a past session, or below what is remembered.")
    resets: int = Field(description="Times that numbers started over within a session.")
    sessions: int = Field(description="Times that the session changed.")
    wraps: int = Field(description="Times that the number passed its largest value.")
    won: int = Field(description="Messages that this line brought first.")
    won_share: float | None = Field(description="won / messages after arbitration.")
    pairs: int = Field(description="Copies compared with the first line's.")
    divergent: int = Field(description="Of these, with other content under the same number.")
    errors: int = Field(description="Datagrams that do not follow the protocol; their numbers count as missing.")
    unknown: int = Field(description="Messages of a type that the protocol does not declare.")
    kernel_drops: int = Field(description="Datagrams that the kernel dropped at the socket.")
    recovery_mean_ns: float | None = Field(description="From noticing a gap to its filling, per message.")
    recovery_max_ns: int | None = Field(description="The longest.")
    skew_mean_ns: float | None = Field(description="This line's copy after the first copy.")
    skew_max_ns: int | None = Field(description="The largest.")
    delay_mean_ns: float | None = Field(description="Receipt minus the sender's time.")
    delay_min_ns: int | None = Field(description="The smallest.")
    delay_max_ns: int | None = Field(description="The largest.")
    delay_error_ns: int | None = Field(
        description="Largest bound of the receiver's clock in that time; the sender's is not in it. Null: unknown."
    )
    silence_ns: int | None = Field(description="At the end, since the last datagram.")
    instruments: int = Field(description="Instruments followed (on the empty line).")
    stale: int = Field(description="Most instruments that were stale at once (on the empty line).")
    open: bool = Field(description="Whether the market was open at the end.")
    schema_version: int | None = Field(description="Largest schema version seen; null where the protocol has none.")


class DecisionsShape(Answer):
    """Decisions taken on bad data."""

    decisions: int = Field(description="Decisions in this time.")
    aged: int | None = Field(description="On data older than max_data_age; null where that cannot be judged.")
    gapped: int | None = Field(description="While a channel had a gap after arbitration; null without feeds.")
    stale: int | None = Field(description="On a stale instrument; null where none is named.")
    bad: int = Field(description="On any of these.")
    notional: float | None = Field(description="Sum over all that state one.")
    bad_notional: float | None = Field(description="Sum over the bad ones.")
    lacking: list[str] = Field(description="What was not there to judge by.")


class FeedsAnswer(Span):
    """Feeds over a time."""

    completeness: Completeness = Field(description="Of the time.")
    decisions: DecisionsShape | None = Field(description="When `decisions` names a point.")
    lines: list[LineShape] = Field(
        description="A row per channel, line and host, and per step where one was asked for."
    )


@router.get(
    "/v1/feeds",
    response_model=FeedsAnswer,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Lines of feeds."),
    summary="Feed quality",
)
def feeds(
    request: Request,
    state: StateDep,
    from_: FROM = None,
    to: TO = None,
    channel: Annotated[str, Query(max_length=64, description="One channel instead of all.")] = "",
    step: Annotated[
        str | None, Query(max_length=20, description="Length of a step: a multiple of `10s`.", examples=["1m"])
    ] = None,
    decisions: Annotated[
        str | None,
        Query(max_length=64, description="Point whose stamps are decisions, to count those taken on bad data."),
    ] = None,
    max_data_age: Annotated[
        str | None, Query(max_length=20, description="Older data are bad, with `decisions`.", examples=["100ms"])
    ] = None,
    format_: FORMAT = None,
) -> Response:
    """Gaps, duplicates, order, resets, recovery, arbitration and staleness, exact on every line; see docs/feeds.md."""
    start, end = span(from_, to)
    seconds = None if step is None else step_s(step, start, end)
    rows = [asdict(one) for one in feed_lines(state.reader, start, end, channel=channel, step_s=seconds)]
    judged = None
    if decisions is not None:
        try:
            age = None if max_data_age is None else duration_ns(max_data_age, "max_data_age")
            judged = asdict(decisions_on_bad_data(state.reader, start, end, point=decisions, max_age_ns=age))
        except ConfigError as error:
            raise bad_parameter("max_data_age", error.problem) from None
        except TooManyDecisionsError as error:
            raise bad_parameter("from", str(error)) from None
    about = {
        "from_ns": start,
        "to_ns": end,
        "completeness": completeness_of(state, start, end),
        "decisions": judged,
    }
    return answer(request, format_, "lines", rows, about, _SCHEMA)
