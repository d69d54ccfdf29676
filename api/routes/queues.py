"""`/v1/queues`: the tail by depth on arrival, Little's law, headroom, microbursts and who leads."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics.paths import END_TO_END
from analytics.queueing.bursts import burst_effects
from analytics.queueing.capacity import capacity
from analytics.queueing.leads import gauge_lead
from analytics.queueing.queues import queues
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span
from api.problems import bad_parameter
from api.routes.latency import PATH
from api.routes.tail import MODE, MODES
from api.shapes import check_rollup, check_stage, completeness_of, path_of, plain
from collector.settings import ConfigError, duration_ns

router = APIRouter(route_class=Door, tags=["queues"], prefix="/v1/queues")
_READ = opens_for("read", query=True)
MAX_OBJECTIVES = 10
SHARE = Annotated[
    float,
    Query(gt=0, le=1, description="Share of the messages to read, by key; 1 is all of them.", examples=[0.1]),
]
STAGE = Annotated[str | None, Query(max_length=400, description="One stage; all queues when left out.")]


class Quantile(Answer):
    """A quantile of waits."""

    quantile: float = Field(description="0..1.", examples=[0.99])
    value: float | None = Field(description="ns; null when refused.")
    low: float | None = Field(description="Start of the 95 % interval, ns.")
    high: float | None = Field(description="End of the 95 % interval, ns; null: not known, among unfinished messages.")
    count: int = Field(description="Messages.")
    effective: int = Field(description="How many independent messages they are worth.")
    refused: str = Field(description="Why there is none; empty when there is.")


class DepthTail(Answer):
    """Waits of messages that found so many others."""

    low: int = Field(description="They found at least so many.")
    high: int | None = Field(description="They found at most so many; null: any number.")
    count: int = Field(description="Messages.")
    unfinished: int = Field(description="Of them never left the queue.")
    quantiles: list[Quantile] = Field(description="p50, p90, p99 and p99.9 of the wait.")


class Little(Answer):
    """One check of Little's law."""

    source: Literal["events", "depth on arrival", "gauge"] = Field(description="Where the length comes from.")
    count: int = Field(description="Messages, or readings.")
    rate_s: float = Field(description="Arrivals per second.")
    wait_ns: float = Field(description="Mean wait.")
    length: float = Field(description="L.")
    expected: float = Field(description="What the events say: lambda W, or their length at the same moments.")
    edge: float = Field(description="What messages that cross the edges of the time can explain.")
    error: float | None = Field(description="Half width of the interval of the difference; null: unknown.")
    gap: float | None = Field(description="|L - expected| / the larger one.")
    verdict: Literal["holds", "broken", "undecided"] = Field(description="Within 5 %, beyond, or not to be told.")
    sentence: str = Field(description="The same in words.")


class QueueClassRow(Answer):
    """One class of a queue."""

    name: str = Field(description="The label's value; `all` for all messages.")
    count: int = Field(description="Messages that came.")
    unfinished: int = Field(description="Of them never left.")
    without_depth: int = Field(description="Of them have no depth stamped.")
    depths: list[DepthTail] = Field(description="By depth on arrival.")
    rising: list[dict[str, Any]] = Field(description="Per quantile whether it never falls with depth.")
    limit: dict[str, Any] | None = Field(description="The depth limit that would keep the objective of the wait.")
    little: list[Little] = Field(description="Little's law.")


class QueueRow(Answer):
    """One queue stage of the path."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.", examples=["queue_wait"])
    between: str = Field(description="Which two events it lies between.")
    label: str = Field(description="The label that tells classes apart.")
    count: int = Field(description="Messages that came to the queue.")
    untimed: int = Field(description="Messages left out, because a stage before is unknown.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known yet.")
    order: list[list[str]] = Field(description="Classes, the most urgent first; those alike stand together.")
    order_from: str = Field(description="How the order is known.")
    classes: list[QueueClassRow] = Field(description="All messages, and those of each class.")
    head_of_line: list[dict[str, Any]] = Field(
        description="Per class the shares of its waiting time behind more urgent, equal, lower classes, unseen, long."
    )
    little: Literal["holds", "broken", "undecided"] = Field(description="The worst verdict of Little's law.")
    depth_counts: str = Field(description="What the stamped depth counts: `all`, the own `class`, or empty: unknown.")
    refused: str = Field(description="Why nothing is known; empty otherwise.")
    sentence: str = Field(description="How to read it.")


class Queues(Span):
    """Queues of a path."""

    path: str = Field(description="The path.")
    completeness: Completeness = Field(description="What the answer is built on.")
    queues: list[QueueRow] = Field(description="In the path's order.")


class HeadroomRow(Answer):
    """One objective's headroom."""

    threshold_ns: int = Field(description="The objective's threshold.")
    good: float = Field(description="The share that is to be faster.")
    count: int = Field(description="Messages.")
    late: int = Field(description="Slower ones, and those that never finished.")
    late_share: float = Field(description="late / count.")
    steps: int = Field(description="Steps of time in the fit.")
    now_s: float = Field(description="Mean rate of the last tenth of the time, per second.")
    safe_s: float = Field(description="Highest rate seen, 99th percentile of the steps, per second.")
    rate_s: float | None = Field(description="Rate at which the objective breaks; null when refused.")
    low_s: float | None = Field(description="Start of its 95 % interval.")
    high_s: float | None = Field(description="End of its 95 % interval; null: no end is seen.")
    headroom_s: float | None = Field(description="rate_s - now_s.")
    refused: str = Field(description="Why there is none; empty when there is.")
    sentence: str = Field(description="The same in words.")
    date: dict[str, Any] = Field(description="When the growth of the daily peaks reaches that rate, or why not.")


class Headroom(Span):
    """Headroom of a path."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    step_s: int = Field(description="Length of a step of stored counts, seconds.")
    count: int = Field(description="Messages.")
    completeness: Completeness = Field(description="What the answer is built on.")
    knee: dict[str, Any] = Field(description="Knee or ceiling by the universal scalability law, or why there is none.")
    saturation: dict[str, dict[str, Any]] = Field(description="Per queue the rate at which waiting has no end.")
    sentence: str = Field(description="How to read it.")
    headroom: list[HeadroomRow] = Field(description="One per objective, as asked.")


class BurstRow(Answer):
    """What bursts of one kind did to one stage."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    kind: str = Field(description="Which bursts.", examples=["microburst_1ms"])
    bursts: int = Field(description="How many.")
    burst_ns: int = Field(description="How long they lasted together.")
    count: int = Field(description="Messages that passed the stage.")
    hit: int = Field(description="Of them came during a burst.")
    minutes: int = Field(description="Minutes with both kinds of messages.")
    excess_ns: float | None = Field(description="How much longer the hit ones took than the same minute's others.")
    low_ns: float | None = Field(description="Start of its 95 % interval.")
    high_ns: float | None = Field(description="End of its 95 % interval.")
    hit_share: float = Field(description="Share of all messages that were hit.")
    tail_share: float | None = Field(description="Share of the slowest 1 % that were hit.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known yet.")
    refused: str = Field(description="Why there is no figure; empty when there is.")
    sentence: str = Field(description="How to read it.")


class Bursts(Span):
    """Microbursts and messages."""

    path: str = Field(description="The path.")
    completeness: Completeness = Field(description="What the answer is built on.")
    bursts: list[BurstRow] = Field(description="Per kind and stage; empty when there was no burst.")


class LagRow(Answer):
    """How a gauge and a latency go together."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    gauge: str = Field(description="The gauge.")
    count: int = Field(description="Messages.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known yet.")
    lag: dict[str, Any] = Field(description="lag_ns (positive: the gauge first), interval, p, and the whole function.")
    sentence: str = Field(description="How to read it.")


class Lags(Span):
    """Who leads."""

    path: str = Field(description="The path.")
    completeness: Completeness = Field(description="What the answer is built on.")
    lags: list[LagRow] = Field(description="One row.")


_QUEUES: dict[str, Any] = {
    **dict.fromkeys(("path", "stage", "between", "label"), pl.String),
    **dict.fromkeys(("count", "untimed"), pl.Int64),
    "completeness": pl.Float64,
    **dict.fromkeys(
        ("order", "order_from", "classes", "head_of_line", "little", "depth_counts", "refused", "sentence"), pl.String
    ),
}
_BURSTS: dict[str, Any] = {
    **dict.fromkeys(("path", "stage", "kind"), pl.String),
    **dict.fromkeys(("bursts", "burst_ns", "count", "hit", "minutes"), pl.Int64),
    **dict.fromkeys(("excess_ns", "low_ns", "high_ns", "hit_share", "tail_share", "completeness"), pl.Float64),
    **dict.fromkeys(("refused", "sentence"), pl.String),
}


@router.get("", response_model=Queues, openapi_extra=_READ, responses=in_formats("Queues."), summary="Queues")
def listed(
    request: Request,
    state: StateDep,
    path: PATH,
    from_: FROM = None,
    to: TO = None,
    stage: STAGE = None,
    label: Annotated[str, Query(max_length=100, description="The label that tells classes apart.")] = "priority",
    order: Annotated[
        str, Query(max_length=1_000, description="Its values, most urgent first, with commas; seen when left out.")
    ] = "",
    gauge: Annotated[str, Query(max_length=200, description="A sampled depth of the queue, for Little's law.")] = "",
    threshold: Annotated[
        str | None, Query(max_length=20, description="Threshold of the wait for the depth limit; else the budget.")
    ] = None,
    good: Annotated[float, Query(gt=0, lt=1, description="Share of waits that is to be below it.")] = 0.99,
    share: SHARE = 1.0,
    mode: MODE = "users",
    format_: FORMAT = None,
) -> Response:
    """The tail of the wait by depth on arrival and class, head of line, Little's law and the depth limit."""
    chosen = path_of(state, path)
    check_stage(chosen, stage)
    start, end = span(from_, to)
    try:
        rows = queues(
            state.reader, chosen, from_ns=start, to_ns=end, stage=stage, label=label,
            order=tuple(filter(None, order.split(","))), gauge=gauge,
            threshold_ns=None if threshold is None else _duration(threshold, "threshold"), good=good, share=share,
            modes=MODES[mode],
        )  # fmt: skip
    except KeyError as error:
        raise bad_parameter("stage", str(error.args[0])) from None
    except ValueError as error:
        raise bad_parameter("share", str(error)) from None
    about = {"path": path, "from_ns": start, "to_ns": end, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "queues", [plain(row) for row in rows], about, _QUEUES)


@router.get(
    "/headroom",
    response_model=Headroom,
    openapi_extra=_READ,
    responses=in_formats("Headroom."),
    summary="How much more load an objective stands",
)
def stands(
    request: Request,
    state: StateDep,
    path: PATH,
    objective: Annotated[
        str,
        Query(
            min_length=1,
            max_length=400,
            description="`threshold:share`, the share of messages that is to take at most that long; at most 10, with"
            " commas.",
            examples=["5ms:0.99"],
        ),
    ],
    from_: FROM = None,
    to: TO = None,
    stage: Annotated[str, Query(max_length=400, description="The stage.")] = END_TO_END,
    rollup: Annotated[str, Query(max_length=200, description="Only messages with this label, as label=value.")] = "",
    format_: FORMAT = None,
) -> Response:
    """The rate at which each objective breaks, the date at trend, the knee, and where waiting has no end."""
    chosen = path_of(state, path)
    check_stage(chosen, stage)
    start, end = span(from_, to, "-6h")
    wanted = objectives_of(objective)
    found = plain(
        capacity(
            state.reader, chosen, from_ns=start, to_ns=end, objectives=wanted, stage=stage,
            rollup=check_rollup(chosen, rollup),
        )
    )  # fmt: skip
    rows = [{**row, "date": date} for row, date in zip(found.pop("headroom"), found.pop("dates"), strict=True)]
    about = {**found, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "headroom", rows, about)


@router.get(
    "/bursts", response_model=Bursts, openapi_extra=_READ, responses=in_formats("Bursts."), summary="Microbursts"
)
def bursts(
    request: Request,
    state: StateDep,
    path: PATH,
    from_: FROM = None,
    to: TO = None,
    stage: Annotated[str | None, Query(max_length=400, description="One stage; else network and queue stages.")] = None,
    format_: FORMAT = None,
) -> Response:
    """How much longer messages took that came to a stage during a microburst than the same minute's others."""
    chosen = path_of(state, path)
    check_stage(chosen, stage)
    start, end = span(from_, to)
    try:
        rows = burst_effects(state.reader, chosen, from_ns=start, to_ns=end, stages=None if stage is None else [stage])
    except KeyError as error:
        raise bad_parameter("stage", str(error.args[0])) from None
    except ValueError as error:
        raise bad_parameter("from", str(error)) from None
    about = {"path": path, "from_ns": start, "to_ns": end, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "bursts", [plain(row) for row in rows], about, _BURSTS)


@router.get("/lag", response_model=Lags, openapi_extra=_READ, responses=in_formats("Lag."), summary="Who leads")
def leads(
    request: Request,
    state: StateDep,
    path: PATH,
    gauge: Annotated[str, Query(min_length=1, max_length=200, description="The sampled level.")],
    from_: FROM = None,
    to: TO = None,
    stage: Annotated[str, Query(max_length=400, description="The stage whose latency is looked at.")] = END_TO_END,
    longest: Annotated[str, Query(max_length=20, description="The longest lag, either way.")] = "5s",
    bin_: Annotated[str, Query(alias="bin", max_length=20, description="Width of a bin of lags.")] = "250ms",
    share: SHARE = 1.0,
    mode: MODE = "users",
    format_: FORMAT = None,
) -> Response:
    """Whether a gauge goes before a latency: discrete correlation function, held against shifted series."""
    chosen = path_of(state, path)
    start, end = span(from_, to)
    try:
        found = gauge_lead(
            state.reader, chosen, gauge, from_ns=start, to_ns=end, stage=stage,
            longest_ns=_duration(longest, "longest"), bin_ns=_duration(bin_, "bin"), share=share, modes=MODES[mode],
        )  # fmt: skip
    except KeyError as error:
        raise bad_parameter("stage", str(error.args[0])) from None
    except ValueError as error:
        raise bad_parameter("bin", str(error)) from None
    about = {"path": path, "from_ns": start, "to_ns": end, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "lags", [plain(found)], about)


def objectives_of(text: str) -> tuple[tuple[int, float], ...]:
    """`5ms:0.99,20ms:0.999` as (threshold_ns, share). Raises a 422 problem."""
    found = []
    for part in filter(None, text.split(",")):
        limit, _, good = part.partition(":")
        try:
            share = float(good)
        except ValueError:
            share = 0.0
        if not 0 < share < 1:
            raise bad_parameter("objective", f"{part[:40]!r} is not threshold:share, such as 5ms:0.99")
        found.append((_duration(limit, "objective"), share))
    if not 0 < len(found) <= MAX_OBJECTIVES:
        raise bad_parameter("objective", f"one to {MAX_OBJECTIVES} objectives may be asked for")
    return tuple(found)


def _duration(text: str, name: str) -> int:
    try:
        found = duration_ns(text, name)
    except ConfigError as error:
        raise bad_parameter(name, error.problem) from None
    if found <= 0:
        raise bad_parameter(name, f"{text!r} must be longer than nothing")
    return found
