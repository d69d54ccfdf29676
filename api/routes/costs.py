"""`/v1/costs` and `/v1/velocity`: what latency costs, and whom; budgets from the value at stake; agreements."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Response
from pydantic import Field

from analytics.money.effects import SensitivityError
from analytics.money.worth import WorthError
from api import cost_answers
from api.answers import Answer, Span
from api.door import Door, StateDep, opens_for
from api.params import FROM, TO, span, time_ns
from api.problems import ProblemError, bad_parameter
from api.routes.compare import json_of
from api.routes.latency import PATH
from api.shapes import path_of
from api.state import State

router = APIRouter(route_class=Door, tags=["money"])
_READ = opens_for("read", query=True)


class Cost(Answer):
    """A cost with its 95 % interval, or why it is none in money."""

    currency: str = Field(description="The currency of `[money]`.")
    value: float | None = Field(description="The cost; null unless the interval leaves out zero.")
    low: float | None = Field(description="Lower end of the 95 % interval; null: not in money.")
    high: float | None = Field(description="Upper end.")
    design: str = Field(description="How the effect was found: experiment, natural experiment, strata, ...")
    measured: str = Field(description="Last day of the data that the effect is of.")
    at_least: bool = Field(description="Some of it lies beyond what the effect was measured over, and is not counted.")
    reason: str = Field(description="Why there is no money; empty where there is.")
    sentence: str = Field(description="All of it in words.")


class Burned(Answer):
    """What an objective's bad events cost in a time."""

    objective: str = Field(description="The objective.")
    indicator: str = Field(description="What it counts.")
    path: str = Field(description="Whose revenue was taken.")
    from_ns: int = Field(description="Start, epoch nanoseconds.")
    to_ns: int = Field(description="End (exclusive).")
    bad: int = Field(description="Bad events; of latency objectives the messages beyond the threshold.")
    total: int = Field(description="Events.")
    unfinished: int = Field(description="Messages without a latency: no price per millisecond.")
    mean_ms: float | None = Field(description="Mean from end to end.")
    excess_ms: float | None = Field(description="Mean, over all messages, of what went beyond the threshold.")
    revenue: float | None = Field(description="Revenue of the time (of an hour, where the cost is per hour).")
    cost: Cost = Field(description="The cost.")


class ObjectiveCost(Answer):
    """An objective's costs."""

    objective: str = Field(description="The objective.")
    period: Burned = Field(description="Of the budget's period so far.")
    now: Burned = Field(description="Per hour, at the burn of the last five minutes.")


class EpisodeCost(Answer):
    """An alert's episode and what it cost."""

    episode: str = Field(description="Its id.")
    objective: str = Field(description="The objective.")
    rule: str = Field(description="The rule.")
    severity: str = Field(description="page, ticket or what the document says.")
    breach_ns: int = Field(description="First breach.")
    fired_ns: int = Field(description="When it fired.")
    resolved_ns: int = Field(description="When it ended; 0: it still fires.")
    over: bool = Field(description="Whether it has ended.")
    length_ns: int = Field(description="From the first breach to the end, or to now.")
    burned: Burned = Field(description="From the first breach to the end, or to now.")


class Costs(Answer):
    """Costs of objectives and episodes."""

    currency: str = Field(description="The currency.")
    at_ns: int = Field(description="As of, epoch nanoseconds.")
    objectives: list[ObjectiveCost] = Field(description="The dearest first.")
    episodes: list[EpisodeCost] = Field(description="The newest first.")


class StageWorth(Answer):
    """One stage's change by itself."""

    stage: str = Field(description="The stage.")
    kind: str = Field(description="Its class.")
    mean_ms: float = Field(description="Its mean over all messages.")
    weight: float = Field(description="Its share of the mean from end to end.")
    change_ms: float = Field(description="The change; negative is faster.")
    per_month: float = Field(description="Money per month.")
    low: float = Field(description="Lower end of the 95 % interval.")
    high: float = Field(description="Upper end.")
    seen: bool = Field(description="The interval leaves out zero.")
    per_ms: float = Field(description="Money per month and millisecond.")
    cost_per_month: float | None = Field(description="As given.")
    per_dollar: float | None = Field(description="Money per month by cost per month.")
    clamped: bool = Field(description="Counted only as far as latencies were seen.")


class Velocity(Span):
    """Expected Revenue Velocity."""

    path: str = Field(description="The path.")
    messages: int = Field(description="Messages it rests on.")
    total_ms: float = Field(description="Mean from end to end.")
    revenue_per_month: float = Field(description="Today's revenue.")
    revenue: str = Field(description="Where that is from.")
    currency: str = Field(description="The currency.")
    design: str = Field(description="How the effect was found.")
    measured: str = Field(description="Last day of the data that the effect is of.")
    erv: float = Field(description="Revenue per month after all changes.")
    low: float = Field(description="Lower end of the 95 % interval.")
    high: float = Field(description="Upper end.")
    gain: float = Field(description="What all changes bring together.")
    clamped: bool = Field(description="Counted only as far as latencies were seen.")
    ranked: list[StageWorth] = Field(description="By money per dollar where all have a cost, else by money.")
    weights: dict[str, float] = Field(description="Shares of the mean by class; they add up to 1.")
    sentence: str = Field(description="In words.")


class ActionBudget(Answer):
    """The latency that a market action may take."""

    action: str = Field(description="The action.")
    path: str = Field(description="Its path.")
    match: str = Field(description="The label of its decisions; empty: all.")
    value: float = Field(description="Money at stake in one decision.")
    tolerate: float = Field(description="What of it latency may cost.")
    currency: str = Field(description="The currency.")
    budget_ns: int | None = Field(description="At the effect's estimate; null with a reason.")
    least_ns: int | None = Field(description="At its strongest: safe to promise.")
    most_ns: int | None = Field(description="At its weakest.")
    capped: bool = Field(description="The effect was measured no further.")
    count: int = Field(description="Decisions of the time.")
    mean_ns: float | None = Field(description="Their mean.")
    p50_ns: int | None = Field(description="Their median; null when refused.")
    p99_ns: int | None = Field(description="Their p99; null when refused.")
    over: float | None = Field(description="Share that took longer than `least_ns`.")
    lost_per_decision: float | None = Field(description="What the mean above the fastest seen costs each.")
    reason: str = Field(description="Why there is no budget.")
    sentence: str = Field(description="In words.")


class Budgets(Span):
    """Latency budgets of market actions."""

    currency: str = Field(description="The currency.")
    actions: list[ActionBudget] = Field(description="As declared under `[actions.NAME]`.")


class Share(Answer):
    """One team's or region's part."""

    who: str = Field(description="The label's value; `(without)`: what has none.")
    decisions: float = Field(description="Its decisions.")
    share: float = Field(description="Of all.")
    cost: float = Field(description="Its part of the cost.")


class ShowbackCost(Span):
    """A declared cost by one label."""

    name: str = Field(description="The cost.")
    by: str = Field(description="The label.")
    source: str = Field(description="`path` or `kpi`: whose decisions were counted.")
    of: str = Field(description="The path's or measure's name.")
    currency: str = Field(description="The currency.")
    cost: float = Field(description="The cost of the time.")
    decisions: float = Field(description="All decisions.")
    per_decision: float | None = Field(description="Blended cost of a decision.")
    shares: list[Share] = Field(description="The largest first; they add up to `cost`.")
    sentence: str = Field(description="In words.")


class Showback(Span):
    """Costs per team and region."""

    currency: str = Field(description="The currency.")
    showback: list[ShowbackCost] = Field(description="Each cost by each of its labels.")


class Episode(Answer):
    """An alert's episode."""

    episode: str = Field(description="Its id.")
    objective: str = Field(description="The objective.")
    rule: str = Field(description="The rule.")
    severity: str = Field(description="page, ticket or what the document says.")
    breach_ns: int = Field(description="First breach.")
    fired_ns: int = Field(description="When it fired.")
    resolved_ns: int = Field(description="When it ended; 0: it still fires.")


class Debt(Answer):
    """One entry of the ledger."""

    debt: str = Field(description="Its name.")
    what: str = Field(description="What is slow.")
    owner: str = Field(description="Whose it is.")
    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    since: str = Field(description="Since when.")
    url: str = Field(description="Where it is written down.")
    costs_ms: float = Field(description="What it adds to each message.")
    counted_ms: float | None = Field(description="What of that the stage takes at all.")
    stage_mean_ms: float | None = Field(description="The stage's mean over all messages.")
    per_month: Cost = Field(description="At today's revenue.")
    so_far: Cost = Field(description="The same since it began.")
    fix_cost: float | None = Field(description="What mending takes.")
    payback_months: float | None = Field(description="When that has paid.")
    objective: str = Field(description="Whose alerts belong to it.")
    alerts: int = Field(description="Episodes since then.")
    firing_s: float = Field(description="How long they fired together.")
    episodes: list[Episode] = Field(description="The newest of them.")


class Debts(Span):
    """The ledger of technical debt."""

    currency: str = Field(description="The currency.")
    debts: list[Debt] = Field(description="The dearest first.")


class ModeCost(Span):
    """The difference of a measure between a degraded mode and normal, among what is alike."""

    path: str = Field(description="The path.")
    kpi: str = Field(description="The measure.")
    unit: str = Field(description="Its unit.")
    mode: str = Field(description="cached or fallback.")
    messages: int = Field(description="Of the mode.")
    normal: int = Field(description="Normal ones.")
    share: float = Field(description="The mode's share of both.")
    sampled: float = Field(description="The share of messages that were read.")
    verdict: str = Field(description="effect, no detectable effect or refused.")
    difference: float | None = Field(description="Mode less normal.")
    low: float | None = Field(description="Lower end of the 95 % interval.")
    high: float | None = Field(description="Upper end.")
    detectable: float | None = Field(description="What would have been seen with a probability of 80 %.")
    plain: float | None = Field(description="Without comparing like with like: a warning.")
    lost: float | None = Field(description="Difference times messages; null unless it is an effect.")
    clusters: int = Field(description="Blocks of time.")
    strata: int = Field(description="Groups of what is alike.")
    sentence: str = Field(description="In words.")
    reason: str = Field(description="Why it was refused.")


class Modes(Span):
    """What degraded modes cost."""

    path: str = Field(description="The path.")
    kpi: str = Field(description="The measure.")
    modes: list[ModeCost] = Field(description="One per mode.")


class Agreement(Span):
    """A provider agreement in one period."""

    agreement: str = Field(description="Its name.")
    provider: str = Field(description="The provider.")
    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    match: str = Field(description="The label of the provider's messages.")
    percentile: float = Field(description="The contract's percentile.")
    limit_ns: int = Field(description="The contract's limit.")
    over: bool = Field(description="Whether the period has ended.")
    count: int = Field(description="Latencies.")
    unfinished: int = Field(description="Messages that never finished.")
    missing: int = Field(description="Finished messages without the stage.")
    lost: int | None = Field(description="Events that did not arrive; null: not known.")
    value_ns: int | None = Field(description="The percentile.")
    ci: list[int] | None = Field(description="Its 95 % interval from the count.")
    clock_error_ns: int | None = Field(description="Largest clock error; null: not known for some.")
    near_ns: int | None = Field(description="The least it may have been, everything considered.")
    far_ns: int | None = Field(description="The most; null: no bound.")
    verdict: str = Field(description="kept, broken or not decided.")
    credit_share: float = Field(description="Share of the fee that is due.")
    credit: float = Field(description="Money that is due; 0 while the period lasts.")
    currency: str = Field(description="The currency.")
    reason: str = Field(description="Why it is not decided.")
    sentence: str = Field(description="In words.")


class Agreements(Answer):
    """Provider agreements."""

    currency: str = Field(description="The currency.")
    at_ns: int = Field(description="A moment in the periods.")
    agreements: list[Agreement] = Field(description="As declared under `[agreements.NAME]`.")


@router.get("/v1/costs", response_model=Costs, openapi_extra=_READ, summary="Cost of burned budgets")
def costs(state: StateDep, from_: FROM = None, to: TO = None) -> Response:
    """What each objective has cost in its period and costs per hour now, and each episode of the time (default a week).

    Without a measured effect of an accepted design nothing is money, and `reason` says so.
    """
    begin, end = span(from_, to, "-7d")
    if state.slos is None:
        return json_of(cost_answers.objectives(state.reader, state.money, [], []))
    episodes = state.slos.book.episodes(begin, end)
    # Before the first tick of a new server nothing has been taken over from the control state yet.
    some = state.slos.objectives or list(state.slos.book.compiled(state.paths).objectives)
    return json_of(cost_answers.objectives(state.reader, state.money, some, episodes))


@router.get("/v1/velocity", response_model=Velocity, openapi_extra=_READ, summary="Expected revenue velocity")
def velocity(
    state: StateDep,
    path: PATH,
    change: Annotated[
        str,
        Query(
            max_length=2_000,
            description="`stage=-0.2ms[,stage=...]`, negative is faster; empty: each stage a millisecond.",
            examples=["decide=-0.2ms"],
        ),
    ] = "",
    cost: Annotated[
        str, Query(max_length=2_000, description="Money per month for each change: `stage=4000[,stage=...]`.")
    ] = "",
    from_: FROM = None,
    to: TO = None,
) -> Response:
    """Revenue per month after changes of stages, ranked by money per millisecond and per dollar (default a day)."""
    known = path_of(state, path)
    begin, end = span(from_, to, "-1d")
    try:
        changes = cost_answers.changes_of(_parts(change))
    except ValueError as error:
        raise bad_parameter("change", str(error)) from error
    try:
        priced = cost_answers.costs_of(_parts(cost), changes)
    except ValueError as error:
        raise bad_parameter("cost", str(error)) from error
    try:
        return json_of(cost_answers.velocity(state.reader, state.money, known, changes, priced, (begin, end)))
    except SensitivityError as error:
        raise bad_parameter("change", str(error)) from error
    except WorthError as error:
        raise ProblemError(422, "no-value", str(error)) from error


@router.get("/v1/costs/budgets", response_model=Budgets, openapi_extra=_READ, summary="Budgets of market actions")
def budgets(state: StateDep, from_: FROM = None, to: TO = None) -> Response:
    """Latency budgets per market action from the value at stake, and what decisions took (default an hour)."""
    return json_of(cost_answers.budgets(state.reader, state.money, span(from_, to, "-1h")))


@router.get("/v1/costs/showback", response_model=Showback, openapi_extra=_READ, summary="Costs per team and region")
def showback(state: StateDep, from_: FROM = None, to: TO = None) -> Response:
    """Declared costs by share of decisions (default 30 days); shares add up to the cost."""
    return json_of(cost_answers.shown_back(state.reader, state.money, span(from_, to, "-30d")))


@router.get("/v1/costs/debts", response_model=Debts, openapi_extra=_READ, summary="Technical debt in revenue")
def debts(state: StateDep, from_: FROM = None, to: TO = None) -> Response:
    """The ledger of technical debt, priced on the latencies of the time (default a day), with its alerts."""
    episodes = [] if state.slos is None else state.slos.book.episodes()
    return json_of(cost_answers.debts(state.reader, state.money, episodes, span(from_, to, "-1d")))


@router.get("/v1/costs/modes", response_model=Modes, openapi_extra=_READ, summary="Cost of degraded modes")
def modes(
    state: StateDep,
    path: PATH,
    kpi: Annotated[str, Query(max_length=64, description="A measure with values per message.", examples=["fill"])],
    from_: FROM = None,
    to: TO = None,
) -> Response:
    """What cached answers and fallbacks cost in a measure, against normal messages that are alike (default a day)."""
    return json_of(_modes(state, path, kpi, span(from_, to, "-1d")))


@router.get("/v1/costs/agreements", response_model=Agreements, openapi_extra=_READ, summary="Provider agreements")
def agreements(
    state: StateDep,
    at: Annotated[str, Query(max_length=64, description="A moment in the periods; default now.")] = "",
) -> Response:
    """Each agreement's percentile with interval and clock error, kept, broken or not decided, and the credit due."""
    now = time.time_ns()
    at_ns = time_ns(at, "at", now) if at else now
    return json_of(cost_answers.agreements(state.reader, state.money, at_ns))


def _modes(state: State, path: str, kpi: str, within: tuple[int, int]) -> dict[str, Any]:
    known = path_of(state, path)
    try:
        return cost_answers.degraded(state.reader, known, kpi, state.kpis, within)
    except ValueError as error:
        raise bad_parameter("kpi", str(error)) from error


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
