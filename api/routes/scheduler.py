"""`/v1/scheduler`: how long threads waited for a CPU, who had it, and what stole time."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics import budget
from analytics import scheduler as analysis
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span
from api.routes.latency import PATH
from api.routes.messages import Part
from api.shapes import bounded, completeness_of, path_of, plain

router = APIRouter(route_class=Door, tags=["scheduler"], prefix="/v1/scheduler")
_DELAYS: dict[str, Any] = {
    **dict.fromkeys(("host", "service"), pl.String),
    **dict.fromkeys(("cpu", "thread"), pl.Int64),
    "kind": pl.String,
    **dict.fromkeys(("count", "p50_ns", "p90_ns", "p99_ns", "p999_ns", "max_ns"), pl.Int64),
    **dict.fromkeys(("ci", "value_error", "refused"), pl.String),
    "coverage": pl.Float64,
}


_STAGES: dict[str, Any] = {
    "stage": pl.String,
    **dict.fromkeys(("messages", "unknown", "total_ns"), pl.Int64),
    "kinds": pl.String,
    "remaining_ns": pl.Int64,
    "share": pl.Float64,
    "culprits": pl.String,
}


class Delays(Answer):
    """Run-queue delays of one kind. Keys of `ci`, `value_error` and `refused` are percentile fields."""

    host: str = Field(description="The host.")
    service: str = Field(description="The service (of an observed thread); empty for a whole host or CPU.")
    cpu: int | None = Field(description="The CPU, when asked per CPU.")
    thread: int | None = Field(description="The thread, when asked per thread.")
    kind: str = Field(description="`run_queue` (after a wakeup) or `preempted`.", examples=["run_queue"])
    count: int = Field(description="Delays, complete up to `coverage`.")
    p50_ns: int | None = Field(description="Median; null when refused.")
    p90_ns: int | None = Field(description="90th percentile; null when refused.")
    p99_ns: int | None = Field(description="99th percentile; null when refused.")
    p999_ns: int | None = Field(description="99.9th percentile; null when refused.")
    max_ns: int | None = Field(description="Exact maximum; null where only buckets are known.")
    ci: dict[str, list[int]] = Field(description="Distribution-free 95 % interval [low, high] in ns.")
    value_error: dict[str, int] = Field(description="Largest distance to the true order statistic, ns.")
    refused: dict[str, str] = Field(description="Why a percentile is not given.")
    coverage: float | None = Field(description="Smallest share of events measured in any period; null: not known.")


class Culprit(Answer):
    """Who kept threads from running, by intervals above the threshold."""

    host: str = Field(description="The host.")
    kind: str = Field(description="What kind of interval.", examples=["preempted"])
    culprit: str = Field(description="Who: a thread's command name, an interrupt, `idle`.", examples=["backup"])
    count: int = Field(description="Intervals.")
    total_ns: int = Field(description="Their sum.")
    max_ns: int = Field(description="The longest.")
    threads: int = Field(description="How many threads were hit.")


class Counter(Answer):
    """A counter's sum over the time."""

    name: str = Field(description="The gauge it is summed from.", examples=["scheduler_migrations"])
    host: str = Field(description="The host.")
    service: str = Field(description="The service; empty for the whole machine.")
    labels: dict[str, str] = Field(description="Its labels.")
    total: float = Field(description="The sum.")


class Mechanism(Answer):
    """How a host's delays were measured."""

    host: str = Field(description="The host.")
    mechanism: str = Field(description="The last mechanism in use.", examples=["eBPF"])
    sees: list[str] = Field(description="What it can know; the rest is unknown, not zero.")
    threshold_ns: int = Field(description="From which delay on there are intervals; shorter ones are only counted.")
    coverage: dict[str, float] = Field(description="Smallest share of each event measured in any period.")
    records_lost: int = Field(description="Intervals that were not delivered.")
    periods: int = Field(description="Report periods.")


class NotObservable(Answer):
    """A thread that polls and is never switched: it has no delay to observe, which is not a delay of zero."""

    host: str = Field(description="The host.")
    service: str = Field(description="Its service.")
    thread: int = Field(description="The thread.")
    periods: int = Field(description="In how many report periods.")


class Collections(Answer):
    """Garbage collections of a service."""

    host: str = Field(description="The host.")
    service: str = Field(description="The service.")
    mechanism: str = Field(
        description="`gc.callbacks` (the probe), or the metric of the program's runtime.", examples=["jvm.gc.duration"]
    )
    pauses: int | None = Field(description="How many; null where the metric does not say.")
    total_ns: int = Field(description="Their sum.")
    max_ns: int | None = Field(description="The longest; null where only sums are known.")
    placed: bool = Field(
        description="Whether each has a time and a thread, and so a place in budgets; else sums over periods."
    )


class Scheduler(Span):
    """What the scheduler did to threads."""

    per: str = Field(description="What each row of `delays` is of.")
    completeness: Completeness = Field(description="What the answer is built on.")
    mechanisms: list[Mechanism] = Field(description="How it was measured, per host; empty: nobody measured.")
    not_observable: list[NotObservable] = Field(description="Threads whose delays cannot be seen.")
    culprits: list[Culprit] = Field(description="By the time they took, largest first.")
    counters: list[Counter] = Field(
        description="Migrations, blocked and stolen time, interrupts, pressure, steal, throttling."
    )
    collections: list[Collections] = Field(description="Garbage collections, most time first.")
    delays: list[Delays] = Field(description="By host, service, CPU, thread and kind.")


class StageBudget(Answer):
    """What kept one stage's threads from working, over the chosen messages."""

    stage: str = Field(description="The stage.")
    messages: int = Field(description="Messages with this stage on a host that was measured.")
    unknown: int = Field(description="Messages with this stage on a host that nobody measured.")
    total_ns: int = Field(description="Sum of the stage's latencies: of `kinds` and `remaining_ns` exactly.")
    kinds: dict[str, int] = Field(description="Time by kind of interval, largest first.")
    remaining_ns: int = Field(description="What no interval covers: work, and delays below the threshold.")
    share: float | None = Field(description="Share of all kinds in the total; null without messages.")
    culprits: list[Part] = Field(description="The kinds and culprits that took most.")


class Budget(Span):
    """The additive budget of a path's stages."""

    path: str = Field(description="The path.")
    pick: str = Field(description="Which messages: the `slowest`, or a `sample`.")
    messages: int = Field(description="How many messages.")
    unmatched: int = Field(description="Stages left out because their stamps are gone or changed.")
    threshold_ns: int | None = Field(description="Shorter intervals are in what remains; null where nobody measured.")
    intervals_lost: int = Field(description="Intervals that were not delivered in this time: they are in what remains.")
    not_placed: list[Collections] = Field(
        description="Garbage collections of the stages' services that only sums are known of: in no stage's `kinds`."
    )
    completeness: Completeness = Field(description="What the answer is built on.")
    stages: list[StageBudget] = Field(description="In the path's order; empty without messages.")


@router.get(
    "/budget",
    response_model=Budget,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("The stages."),
    summary="What kept a path's threads from working",
)
def budgets(
    request: Request,
    state: StateDep,
    path: PATH,
    pick: Annotated[
        budget.Pick, Query(description="The slowest messages, or a sample to compare them with.", examples=["slowest"])
    ] = "slowest",
    limit: Annotated[int, Query(ge=1, le=5_000, description="How many messages.")] = 500,
    from_: FROM = None,
    to: TO = None,
    format_: FORMAT = None,
) -> Response:
    """Each stage as the sum of what kept its thread from working, and of what remains, over chosen messages."""
    start, end = span(from_, to)
    chosen = path_of(state, path)
    found = plain(budget.stage_budgets(state.reader, chosen, from_ns=start, to_ns=end, pick=pick, limit=limit))
    stages = found.pop("stages")
    about = {**found, "from_ns": start, "to_ns": end, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "stages", stages, about, _STAGES)


@router.get(
    "",
    response_model=Scheduler,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("The delays."),
    summary="Run-queue delays, culprits and stolen time",
)
def listed(
    request: Request,
    state: StateDep,
    per: Annotated[
        analysis.Per, Query(description="One row per host, service, CPU or observed thread.", examples=["service"])
    ] = "service",
    host: Annotated[str, Query(max_length=200, description="Only of this host.")] = "",
    service: Annotated[str, Query(max_length=200, description="Only delays of this service.")] = "",
    culprits: Annotated[int, Query(ge=0, le=1_000, description="How many culprits to name.")] = 20,
    from_: FROM = None,
    to: TO = None,
    format_: FORMAT = None,
) -> Response:
    """Percentiles of run-queue delays from complete counts, who had the CPU, and what else took time."""
    start, end = span(from_, to)
    store = state.reader
    most = state.settings.max_rows + 1
    rows = analysis.delays(store, from_ns=start, to_ns=end, per=per, host=host, service=service, limit=most)
    about = {
        "per": per,
        "from_ns": start,
        "to_ns": end,
        "completeness": completeness_of(state, start, end),
        "mechanisms": [plain(one) for one in analysis.mechanisms(store, start, end, host)],
        "not_observable": [plain(one) for one in analysis.not_observable(store, start, end, host)],
        "culprits": [
            plain(one) for one in analysis.culprits(store, from_ns=start, to_ns=end, host=host, limit=culprits)
        ],
        "counters": [plain(one) for one in analysis.counters(store, start, end, host)],
        "collections": [plain(one) for one in analysis.collections(store, start, end, host)],
    }
    return answer(request, format_, "delays", bounded(state, [plain(row) for row in rows]), about, _DELAYS)
