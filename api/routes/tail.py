"""`/v1/budgets`, `/v1/attribution`, `/v1/drivers` and `/v1/explain`: why the slowest messages are slow."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics.cover import widen
from analytics.tail import ask, why
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span, step_s
from api.problems import ProblemError
from api.routes.latency import PATH
from api.shapes import bounded, completeness_of, path_of, plain
from collector.record import Mode

router = APIRouter(route_class=Door, tags=["tail"], prefix="/v1")
_READ = opens_for("read", query=True)

Q = Annotated[
    float, Query(gt=0, le=0.5, description="The slowest share of messages that is the tail.", examples=[0.01])
]
MODES: dict[str, tuple[Mode, ...] | None] = {"users": None, "synthetic": (Mode.SYNTHETIC,), "shadow": (Mode.SHADOW,)}
MODE = Annotated[
    Literal["users", "synthetic", "shadow"],
    Query(description="Whose messages: users' are all but synthetic and shadow ones.", examples=["users"]),
]
AGAINST_FROM = Annotated[
    str | None,
    Query(
        max_length=64,
        description="Start of the time to compare with, written like `from`; with `against_to`. The default is the "
        "equally long time before.",
    ),
]
AGAINST_TO = Annotated[
    str | None, Query(max_length=64, description="End (exclusive) of the time to compare with, written like `from`.")
]
_INT, _FLOAT, _TEXT = pl.Int64, pl.Float64, pl.String
_BUDGETS: dict[str, Any] = {
    **dict.fromkeys(("stage", "kind"), _TEXT),
    **dict.fromkeys(("budget_ns", "count", "missing", "unfinished", "over_at_least", "over_at_most"), _INT),
    **dict.fromkeys(("over_share", "mean_ns"), _FLOAT),
    **dict.fromkeys(("p50_ns", "p99_ns", "p999_ns", "max_ns"), _INT),
    **dict.fromkeys(("ci", "refused"), _TEXT),
    "p99_less_p50_ns": _INT,
    **dict.fromkeys(("p999_over_p50", "jitter_ns", "tail_share"), _FLOAT),
    "tail_share_ci": _TEXT,
    **dict.fromkeys(("windows", "p99_smallest_ns", "p99_largest_ns"), _INT),
    **dict.fromkeys(("p99_spread", "trend_ns_per_hour"), _FLOAT),
    **dict.fromkeys(("trend_ci", "sentence"), _TEXT),
}
_SHARES: dict[str, Any] = {
    **dict.fromkeys(("stage", "kind"), _TEXT),
    **dict.fromkeys(("total_ns", "mean_ns"), _INT),
    "share": _FLOAT,
    "share_ci": _TEXT,
    **dict.fromkeys(("at_quantile_ns", "body_ns", "excess_ns"), _INT),
    "excess_ci_ns": _TEXT,
    "excess_share": _FLOAT,
    "excess_share_ci": _TEXT,
}
_DRIVERS: dict[str, Any] = {
    "what": _TEXT,
    **dict.fromkeys(("tail_count", "rest_count"), _INT),
    **dict.fromkeys(("tail_share", "rest_share", "difference"), _FLOAT),
    "ci": _TEXT,
    **dict.fromkeys(("lift", "slow_share", "p", "q", "effective_n", "known_share"), _FLOAT),
}
_CAUSES: dict[str, Any] = {
    **dict.fromkeys(("stage", "layer", "kind", "label"), _TEXT),
    "share": _FLOAT,
    "ci": _TEXT,
    "added_ns": _INT,
    **dict.fromkeys(("now_share", "before_share"), _FLOAT),
    **dict.fromkeys(("threshold_ns", "messages"), _INT),
    "p": _FLOAT,
    **dict.fromkeys(("behind", "evidence"), _TEXT),
}


class TailSpan(Span):
    """Base of answers about the tail of a path."""

    path: str = Field(description="The path.")
    completeness: Completeness = Field(description="What the answer is built on.")
    sentence: str = Field(description="How to read it, in words.")


class StageBudget(Answer):
    """What a stage may take against what it took, and how repeatable it is."""

    stage: str = Field(description="The stage, `end_to_end` or `unattributed`.", examples=["decide"])
    kind: str = Field(description="Its class; a stage between two services is `network`.", examples=["compute"])
    budget_ns: int | None = Field(description="Its budget; of `end_to_end` the sum of the stages'; null without.")
    count: int = Field(description="Latencies.")
    missing: int = Field(description="Finished messages without this stage.")
    unfinished: int = Field(description="Messages that never reached the path's end.")
    over_at_least: int | None = Field(description="Latencies surely over the budget; null without a budget.")
    over_at_most: int | None = Field(description="The same with those of the bucket in which the budget lies.")
    over_share: float | None = Field(description="Share over the budget, the middle of both counts.")
    mean_ns: float | None = Field(description="Mean; null without latencies.")
    p50_ns: int | None = Field(description="Median; null when refused.")
    p99_ns: int | None = Field(description="99th percentile; null when refused.")
    p999_ns: int | None = Field(description="99.9th percentile; null when refused.")
    max_ns: int | None = Field(description="Exact maximum.")
    ci: dict[str, list[int]] = Field(description="Distribution-free 95 % interval of each percentile, ns.")
    refused: dict[str, str] = Field(description="Why a percentile is not given.")
    p99_less_p50_ns: int | None = Field(description="p99 - p50: how far the tail lies from the middle.")
    p999_over_p50: float | None = Field(description="p99.9 / p50.")
    jitter_ns: float | None = Field(description="Mean change from one message to the next, ns.")
    tail_share: float | None = Field(description="Its share of the slowest messages' time; null without a tail.")
    tail_share_ci: list[float] | None = Field(description="95 % cluster-bootstrap interval of that.")
    windows: int = Field(description="Steps with enough messages for a p99.")
    p99_smallest_ns: int | None = Field(description="The smallest p99 of these steps.")
    p99_largest_ns: int | None = Field(description="The largest p99 of these steps.")
    p99_spread: float | None = Field(description="(largest - smallest) / median p99: 0 is perfectly stable.")
    trend_ns_per_hour: float | None = Field(description="Slope of p99 over the steps (Theil and Sen).")
    trend_ci: list[float] | None = Field(description="95 % interval of the slope.")
    sentence: str = Field(description="How to read it, in words.")


class ClassBudget(Answer):
    """The stages of one class, added message by message."""

    kind: str = Field(description="The class.", examples=["network"])
    stages: list[str] = Field(description="Its stages.")
    budget_ns: int | None = Field(description="The sum of their budgets; null when one has none.")
    count: int = Field(description="Finished messages.")
    over: int | None = Field(description="Of these, over the budget; null without one.")
    over_share: float | None = Field(description="The same as a share.")
    mean_ns: float | None = Field(description="Mean time per message in the class.")
    tail_share: float | None = Field(description="Its share of the slowest messages' time.")


class Budgets(TailSpan):
    """Budgets of stages and classes. Budgets and means add up; percentiles do not."""

    step_s: int = Field(description="Length of a step that the p99's stability is judged by, seconds.")
    q: float = Field(description="The slowest share that `tail_share` is of; 0: too few messages for a tail.")
    classes: list[ClassBudget] = Field(description="By class.")
    stages: list[StageBudget] = Field(description="In the path's order.")


class StageShare(Answer):
    """One part of the tail. Parts add up to the whole exactly."""

    stage: str = Field(description="The stage, `unattributed`, or `unfinished`.", examples=["decide"])
    kind: str = Field(description="Its class; a stage between two services is `network`.")
    total_ns: int = Field(description="Exact sum over the tail's messages.")
    mean_ns: int = Field(description="Mean over the tail; rounded so that the parts add up to `tail_mean_ns`.")
    share: float = Field(description="Share of the tail's time.")
    share_ci: list[float] | None = Field(description="95 % cluster-bootstrap interval; null with few clusters.")
    at_quantile_ns: int = Field(description="Mean over the messages right at the tail's begin.")
    body_ns: int = Field(description="Mean over the body, the 40 % to 60 % of messages in the middle.")
    excess_ns: int = Field(description="`mean_ns` less `body_ns`.")
    excess_ci_ns: list[float] | None = Field(description="Its 95 % interval.")
    excess_share: float | None = Field(description="Its share of the whole excess.")
    excess_share_ci: list[float] | None = Field(description="Its 95 % interval.")


class Inside(Answer):
    """What kept a stage's threads from working, where a collector saw it."""

    stage: str = Field(description="The stage.")
    messages: list[int] = Field(description="How many of the slowest, and of the others, lie on measured hosts.")
    unknown: int = Field(description="Of the slowest, on hosts where nobody measured.")
    slowest: dict[str, float] = Field(description="Kind to share of the stage's time, of the slowest messages.")
    others: dict[str, float] = Field(description="The same of a sample of all messages.")


class Attribution(TailSpan):
    """Where the slowest messages spend their time."""

    q: float = Field(description="The slowest share of messages.")
    count: int = Field(description="Messages, unfinished ones included.")
    tail_count: int = Field(description="Of these, in the tail; ties can make it larger than q.")
    threshold_ns: int = Field(description="What the fastest message of the tail took.")
    tail_total_ns: int = Field(description="Exact sum of the tail; the stages' `total_ns` add up to it.")
    tail_mean_ns: int = Field(description="Its mean.")
    body_mean_ns: int = Field(description="Mean of the body.")
    excess_ns: int = Field(description="The difference; the stages' `excess_ns` add up to it.")
    unfinished: int = Field(description="Messages of the tail that never ended; they count with `max_age`.")
    tail_outcomes: dict[str, int] = Field(description="How the tail's messages ended.")
    failed: dict[str, int] = Field(description="Messages that ended early, by outcome; in no other number.")
    undecided: int = Field(description="Messages that may still arrive; in no other number.")
    overlapping: int = Field(description="Messages whose stages add up to more than the message.")
    clusters: int = Field(description="Clusters (time and host) that the intervals are drawn from.")
    cluster_s: int = Field(description="Length of a cluster's time, seconds.")
    effective_n: float = Field(description="How many independent messages the tail is worth.")
    confidence: float = Field(description="Of the intervals.")
    reduced: int = Field(description="Messages that were reduced to their critical path.")
    inside: list[Inside] = Field(description="What the collectors saw on the threads of the 200 slowest and of others.")
    stages: list[StageShare] = Field(description="In the path's order, then `unattributed` and `unfinished`.")


class Driver(Answer):
    """A value or a pair of values that is over-represented in the tail."""

    what: dict[str, str] = Field(description="Dimension to value.", examples=[{"symbol": "AAA"}])
    tail_count: int = Field(description="Messages of the tail with it.")
    rest_count: int = Field(description="Other messages with it.")
    tail_share: float = Field(description="Its share of the tail.")
    rest_share: float = Field(description="Its share of the other messages.")
    difference: float = Field(description="The difference.")
    ci: list[float] = Field(description="Newcombe's 95 % interval on effective counts.")
    lift: float | None = Field(description="The ratio; null when no other message has it.")
    slow_share: float = Field(description="Share of its messages that are in the tail.")
    p: float = Field(description="One-sided, Fisher's exact test.")
    q: float = Field(description="Adjusted for all that was looked at (Benjamini and Hochberg).")
    effective_n: float = Field(description="How many independent messages its count in the tail is worth.")
    known_share: float = Field(
        description="Share of messages of which the dimension is known; the counts are of these."
    )


class Drivers(TailSpan):
    """Who the slow messages are; empty where nothing stands out."""

    q: float = Field(description="The slowest share of messages.")
    count: int = Field(description="Messages.")
    tail_count: int = Field(description="Of these, in the tail.")
    threshold_ns: int = Field(description="What the fastest message of the tail took.")
    looked_at: int = Field(description="Values and pairs that were compared.")
    dimensions: list[str] = Field(description="Dimensions in which messages differ.")
    false_discoveries: float = Field(description="Expected share of false ones among those that are named.")
    no_cpus: str = Field(description="Why CPUs are no dimension; empty: they were looked at.")
    drivers: list[Driver] = Field(description="Largest difference first.")


class Cause(Answer):
    """A cause of a slower tail."""

    stage: str = Field(description="The stage.", examples=["decide"])
    layer: str = Field(description="`packet`, `nic`, `scheduler`, `application`, or `unknown`.")
    kind: str = Field(description="What was measured inside the stage, else its class.", examples=["run_queue"])
    label: str = Field(description="What most sets the slow messages apart, `dimension=value`; empty: nothing.")
    share: float = Field(description="Share of the time that all causes add.")
    ci: list[float] = Field(description="Its 95 % interval.")
    added_ns: int = Field(description="Time it adds per message above the threshold.")
    now_share: float = Field(description="Share of messages above the threshold.")
    before_share: float = Field(description="The same in the comparison.")
    threshold_ns: int = Field(description="The threshold at which the change shows most.")
    messages: int = Field(description="Messages above the threshold.")
    p: float = Field(description="Adjusted for all stages (Holm).")
    behind: list[str] = Field(description="Stages that waited because of it.")
    evidence: str = Field(description="What it rests on, in words.")


class Change(Answer):
    """A recorded change near the span."""

    ts_ns: int = Field(description="When.")
    before_ns: int = Field(description="How long before the span's start; negative: within it.")
    kind: str = Field(description="What kind.", examples=["deploy"])
    who: str = Field(description="Who.")
    what: str = Field(description="What.")
    host: str = Field(description="Host; empty: any.")
    service: str = Field(description="Service; empty: any.")
    version: str = Field(description="Version; empty: none.")


class Explanation(TailSpan):
    """Why the tail is slower than before: causes, best first, or none and the reason."""

    against_from_ns: int = Field(description="Start of what it is compared with.")
    against_to_ns: int = Field(description="End of what it is compared with.")
    compared_with: str = Field(description="`span`, or `body` when the span has too few messages.")
    count: int = Field(description="Messages.")
    against_count: int = Field(description="Messages of the comparison.")
    reason: str = Field(description="Why there is no cause; empty when there is one.")
    false_alarms: float = Field(description="Chance of any cause where nothing changed.")
    changes: list[Change] = Field(description="Recorded changes from ten minutes before on, newest first.")
    failed: dict[str, int] = Field(description="Messages that ended early, by outcome.")
    failed_before: dict[str, int] = Field(description="The same in the comparison.")
    negative: dict[str, float] = Field(
        description="Per stage the share of messages in which it ended before it began: a clock is wrong there."
    )
    no_cpus: str = Field(description="Why no label can be a CPU; empty: they were looked at, or nothing is labelled.")
    causes: list[Cause] = Field(description="Best first.")


@router.get(
    "/budgets", response_model=Budgets, openapi_extra=_READ, responses=in_formats("Budgets."), summary="Budgets"
)
def budgets(
    request: Request,
    state: StateDep,
    path: PATH,
    from_: FROM = None,
    to: TO = None,
    step: Annotated[str, Query(max_length=20, description="Step of the p99's stability, a multiple of `10s`.")] = "1m",
    q: Q = 0.01,
    mode: MODE = "users",
    format_: FORMAT = None,
) -> Response:
    """What each stage and class may take against what it took, its share of the tail, and how repeatable it is.

    Counts of synthetic or shadow messages are those of the rollup `mode`.
    """
    chosen = path_of(state, path)
    first, last = widen(*span(from_, to))
    seconds = step_s(step, first * 10**9, last * 10**9)
    found = ask.budgets(
        state.reader,
        chosen,
        from_ns=first * 10**9,
        to_ns=last * 10**9,
        step_s=seconds,
        q=q,
        rollup="" if mode == "users" else f"mode={mode}",
        modes=MODES[mode],
    )
    return _answered(request, state, format_, "stages", plain(found), _BUDGETS)


@router.get(
    "/attribution",
    response_model=Attribution,
    openapi_extra=_READ,
    responses=in_formats("Shares of the tail."),
    summary="Attribution of the tail",
)
def attribution(
    request: Request,
    state: StateDep,
    path: PATH,
    from_: FROM = None,
    to: TO = None,
    q: Q = 0.01,
    mode: MODE = "users",
    format_: FORMAT = None,
) -> Response:
    """Which stages the slowest messages spent their time in, and which made them slower than the body; exact sums."""
    chosen = path_of(state, path)
    start, end = span(from_, to)
    try:
        found = ask.attribution(state.reader, chosen, from_ns=start, to_ns=end, q=q, modes=MODES[mode])
    except ValueError as error:
        raise ProblemError(422, "too-few-messages", str(error)) from error
    return _answered(request, state, format_, "stages", plain(found), _SHARES)


@router.get(
    "/drivers", response_model=Drivers, openapi_extra=_READ, responses=in_formats("Drivers."), summary="Drivers"
)
def drivers(
    request: Request,
    state: StateDep,
    path: PATH,
    from_: FROM = None,
    to: TO = None,
    q: Q = 0.01,
    support: Annotated[int, Query(ge=2, le=100_000, description="Least messages of a value in the tail.")] = 10,
    mode: MODE = "users",
    format_: FORMAT = None,
) -> Response:
    """Labels, hosts, threads, CPUs and data ages that are over-represented in the tail, alone and in pairs; or none."""
    chosen = path_of(state, path)
    start, end = span(from_, to)
    try:
        found = ask.who(state.reader, chosen, from_ns=start, to_ns=end, q=q, modes=MODES[mode], support=support)
    except ValueError as error:
        raise ProblemError(422, "too-few-messages", str(error)) from error
    return _answered(request, state, format_, "drivers", plain(found), _DRIVERS)


@router.get(
    "/explain", response_model=Explanation, openapi_extra=_READ, responses=in_formats("Causes."), summary="Explain"
)
def explain(
    request: Request,
    state: StateDep,
    path: PATH,
    from_: FROM = None,
    to: TO = None,
    against_from: AGAINST_FROM = None,
    against_to: AGAINST_TO = None,
    mode: MODE = "users",
    format_: FORMAT = None,
) -> Response:
    """The causes of a tail that is slower than before, best first, each tested; or none and the reason."""
    chosen = path_of(state, path)
    start, end = span(from_, to)
    if (against_from is None) != (against_to is None):
        raise ProblemError(422, "bad-request", "against_from and against_to are given together or not at all")
    against = None if against_from is None else span(against_from, against_to)
    try:
        found = why.explanation(
            state.reader,
            chosen,
            from_ns=start,
            to_ns=end,
            against=against,
            paths=list(state.paths.values()),
            modes=MODES[mode],
        )
    except ValueError as error:
        raise ProblemError(422, "bad-request", str(error)) from error
    return _answered(request, state, format_, "causes", plain(found), _CAUSES)


def _answered(
    request: Request, state: StateDep, format_: str | None, name: str, found: dict[str, Any], schema: dict[str, Any]
) -> Response:
    rows = bounded(state, found.pop(name))
    found["completeness"] = completeness_of(state, found["from_ns"], found["to_ns"])
    return answer(request, format_, name, rows, found, schema)
