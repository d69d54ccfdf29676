"""`/v1/compare`: two populations of one path, with intervals, tests of the tail and a verdict."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import Field

from analytics.compare import comparing
from analytics.compare.reading import Choice, NothingToCompareError, arms, labels_from
from api.answers import Answer
from api.door import Door, StateDep, opens_for
from api.params import FROM, TO, span
from api.problems import ProblemError, bad_parameter
from api.routes.latency import PATH
from api.shapes import WHOLE, check_stage, path_of
from collector.settings import ConfigError, duration_ns

router = APIRouter(route_class=Door, tags=["compare"])
SIDE = Annotated[
    str,
    Query(
        max_length=2_000,
        description="Messages with these labels: `label=value[,label=value]`, or `all`. Labels are those that programs "
        "stamp, and `host`, `service`, `mode`, `outcome`, `cache` and `hour`.",
        examples=["gateway=2"],
    ),
]
_OWN = Annotated[str | None, Query(max_length=64, description="This side's time, instead of `from` or `to`.")]


class Side(Answer):
    """One side of the comparison."""

    name: str = Field(description="Its labels.")
    source: str = Field(description="`messages`, or `counts` where messages are not kept any more.")
    count: int = Field(description="Latencies.")
    unfinished: int | None = Field(description="Messages that never finished; null where it is not known.")
    from_ns: int | None = Field(description="Start, epoch nanoseconds.")
    to_ns: int | None = Field(description="End (exclusive), epoch nanoseconds.")
    clustering: str = Field(description="What the clusters are: `instance`, `time`, `none`.")
    clusters: int = Field(description="How many clusters there are.")
    instances: int = Field(description="Hosts that served it; 0 where it is not known.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known.")


class Exceeding(Answer):
    """How many messages of each side exceed a threshold, or had an outcome, and how surprising the difference is."""

    name: str = Field(description="The pooled percentile, or `errors`, `rejected`, `unfinished`.")
    threshold_ns: int | None = Field(description="The threshold; null for outcomes.")
    a_hits: int = Field(description="Messages of a above it.")
    a_total: int = Field(description="Messages of a.")
    b_hits: int = Field(description="Messages of b above it.")
    b_total: int = Field(description="Messages of b.")
    a_share: float | None = Field(description="Share of a.")
    b_share: float | None = Field(description="Share of b.")
    p_value: float | None = Field(description="The larger of the two p-values.")
    p_fisher: float | None = Field(description="Fisher's exact p-value, as if messages were independent.")
    p_clustered: float | None = Field(description="Cluster-robust p-value; null with too few clusters.")
    p_holm: float | None = Field(description="After Holm's adjustment over all tests.")
    design: float | None = Field(description="Variance of the difference over that of independent messages.")
    detectable: float | None = Field(description="Difference of shares that would have been found with 80 % power.")
    finding: str = Field(description="`worse`, `better`, `no difference` or `refused`.")
    refused: str = Field(description="Why there is no test.")


class Moved(Answer):
    """A percentile of both sides and how far it moved, with 95 % intervals."""

    name: str = Field(description="The percentile.")
    a_ns: int | None = Field(description="Of a.")
    a_ci: list[int] | None = Field(description="Interval of a's.")
    b_ns: int | None = Field(description="Of b.")
    b_ci: list[int] | None = Field(description="Interval of b's.")
    value_error_ns: int | None = Field(description="Largest distance to the true order statistic.")
    difference_ns: int | None = Field(description="b - a.")
    difference_ci: list[int] | None = Field(description="Its interval.")
    ratio: float | None = Field(description="b / a.")
    ratio_ci: list[float] | None = Field(description="Its interval.")
    refused: str = Field(description="Why it is not given.")


class Limit(Answer):
    """A percentile of b against a budget."""

    name: str = Field(description="The percentile.")
    budget_ns: int = Field(description="The budget.")
    value_ns: int | None = Field(description="The percentile of b.")
    ci: list[int] | None = Field(description="Its 95 % interval.")
    status: str = Field(description="`over`, `within`, `undecided` (the budget lies in the interval) or `refused`.")
    refused: str = Field(description="Why it is not judged.")


class Place(Answer):
    """Mann and Whitney's test: a check of location, blind to the tail alone."""

    b_slower: float = Field(description="Chance that a message of b is slower than one of a; 0.5 is no difference.")
    p_value: float = Field(description="Its p-value.")


class Compared(Answer):
    """The comparison."""

    path: str = Field(description="The path.")
    stage: str = Field(description="The stage.")
    verdict: str = Field(description="`regression`, `no_regression` or `insufficient`.")
    a: Side = Field(description="The side compared with.")
    b: Side = Field(description="The side that is judged.")
    alpha: float = Field(description="Chance of any false alarm, all tests together.")
    tolerance: float = Field(description="Ratio - 1 up to which a slower percentile is accepted.")
    tests: list[Exceeding] = Field(description="The tests.")
    quantiles: list[Moved] = Field(description="The percentiles.")
    budgets: list[Limit] = Field(description="The budgets asked for.")
    location: Place | None = Field(description="The check of location.")
    sentences: list[str] = Field(description="What it says in words, and how to read it.")


@router.get(
    "/v1/compare", response_model=Compared, openapi_extra=opens_for("read", query=True), summary="Compare two sides"
)
def compared(
    state: StateDep,
    path: PATH,
    a: SIDE = "all",
    b: SIDE = "all",
    stage: Annotated[str, Query(max_length=400, description="The stage.", examples=["decide"])] = WHOLE,
    from_: FROM = None,
    to: TO = None,
    a_from: _OWN = None,
    a_to: _OWN = None,
    b_from: _OWN = None,
    b_to: _OWN = None,
    budget: Annotated[
        str, Query(max_length=400, description="Limits of b: `p99=5ms,p99.9=20ms`.", examples=["p99=5ms"])
    ] = "",
    tolerance: Annotated[
        float, Query(ge=0, le=100, description="Ratio - 1 up to which a slower percentile is accepted.")
    ] = 0.0,
    alpha: Annotated[
        float, Query(gt=0, le=0.5, description="Chance of any false alarm, all tests together.")
    ] = comparing.ALPHA,
) -> Response:
    """Compares side b with side a: shares of slow messages, percentiles with intervals, outcomes, and one verdict."""
    known = path_of(state, path)
    check_stage(known, stage)
    sides = []
    for name, labels, begins, ends in (("a", a, a_from, a_to), ("b", b, b_from, b_to)):
        begin, end = span(begins or from_, ends or to)
        sides.append(Choice(labels_given(name, labels), begin, end))
    if a == b and (a_from, a_to) == (b_from, b_to):
        raise bad_parameter("b", "is the same as a: say what differs with labels or times")
    limits = limits_given(budget)
    try:
        first, second = arms(state.reader, known, sides, stage=stage)
    except NothingToCompareError as error:
        raise ProblemError(422, "not-kept", str(error)) from error
    found = comparing.compare(first, second, alpha=alpha, tolerance=tolerance, budgets_ns=limits)
    return json_of({"path": path, "stage": stage, **msgspec.to_builtins(found)})


def labels_given(name: str, text: str) -> dict[str, str]:
    """Labels of a parameter. Raises a 422 problem."""
    try:
        return labels_from(text)
    except ValueError as error:
        raise bad_parameter(name, str(error)) from error


def limits_given(text: str) -> dict[str, int]:
    """`p99=5ms,p99.9=20ms` in nanoseconds. Raises a 422 problem."""
    out = {}
    for part in filter(None, text.split(",")):
        name, _, limit = part.strip().partition("=")
        try:
            comparing.quantile_of(name)
            out[name] = duration_ns(limit, "budget")
        except ConfigError as error:
            raise bad_parameter("budget", error.problem) from error
        except ValueError as error:
            raise bad_parameter("budget", str(error)) from error
    return out


def json_of(value: dict[str, Any], status: int = 200) -> Response:
    """An answer that is not a table: JSON only, not to be kept."""
    return Response(
        msgspec.json.encode(value), status, media_type="application/json", headers={"Cache-Control": "no-store"}
    )
