"""`/v1/whatif`: percentiles if a stage were faster, no thread waited for a CPU, or requests were hedged."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Query, Response
from pydantic import Field

from analytics.whatif import asking
from api.answers import Answer, Span
from api.door import Door, StateDep, opens_for
from api.params import FROM, TO, span
from api.problems import ProblemError, bad_parameter
from api.routes.compare import json_of
from api.routes.latency import PATH, STAGE
from api.shapes import path_of
from collector.settings import ConfigError, duration_ns

router = APIRouter(route_class=Door, tags=["whatif"])


class Effect(Answer):
    """A percentile as it was and as it would be."""

    name: str = Field(description="The percentile.")
    before_ns: int | None = Field(description="As recorded; null when refused.")
    after_ns: int | None = Field(description="As it would be.")
    after_ci: list[int] | None = Field(description="Its 95 % interval; null with fewer than 8 blocks of time.")
    change: float | None = Field(description="after / before - 1.")
    change_ci: list[float] | None = Field(description="Its 95 % interval.")
    same_time_ns: int | None = Field(description="Of hedging: if both requests met the slowness of the same second.")
    refused: str = Field(description="Why it is not given.")


class WhatIf(Span):
    """What would be, and what that assumes."""

    what: str = Field(description="What would be different.")
    path: str = Field(description="The path.")
    messages: int = Field(description="Messages it rests on.")
    unfinished: int = Field(description="Of these, how many never finished.")
    sampled: float = Field(description="The share of all messages that were taken.")
    completeness: float | None = Field(description="Share of produced events behind it; null: not known.")
    extra_load: float | None = Field(description="Share of additional requests; null where there are none.")
    effects: list[Effect] = Field(description="Percentiles before and after.")
    assumptions: list[str] = Field(description="What has to be true for this to come about.")


@router.get("/v1/whatif", response_model=WhatIf, openapi_extra=opens_for("read", query=True), summary="What if")
def whatif(
    state: StateDep,
    path: PATH,
    stage: STAGE = None,
    faster: Annotated[
        float | None, Query(ge=0.01, le=1e6, description="How many times as fast `stage` is: 2 takes half the time.")
    ] = None,
    without: Annotated[
        Literal["scheduler"] | None, Query(description="`scheduler`: no thread had waited for a CPU.")
    ] = None,
    hedge_after: Annotated[
        str | None,
        Query(max_length=40, description="A second request is sent after so long.", examples=["2ms"]),
    ] = None,
    from_: FROM = None,
    to: TO = None,
) -> Response:
    """Computes percentiles anew from recorded messages as if one thing were different, and says what that assumes."""
    known = path_of(state, path)
    begin, end = span(from_, to)
    if sum(one is not None for one in (faster, without, hedge_after)) != 1:
        raise ProblemError(422, "bad-request", "give one of faster (with stage), without and hedge_after")
    if (faster is None) != (stage is None):
        raise bad_parameter("stage", "goes together with faster")
    try:
        if faster is not None and stage is not None:
            found = asking.faster(state.reader, known, stage, faster, from_ns=begin, to_ns=end)
        elif hedge_after is not None:
            after_ns = duration_ns(hedge_after, "hedge_after")
            found = asking.hedged(state.reader, known, after_ns, from_ns=begin, to_ns=end)
        else:
            found = asking.without_scheduler(state.reader, known, from_ns=begin, to_ns=end)
    except ConfigError as error:
        raise bad_parameter(error.field, error.problem) from error
    except asking.WhatIfError as error:
        raise ProblemError(422, "not-kept", str(error)) from error
    return json_of(msgspec.to_builtins(found))
