"""`/v1/paths`: what is measured: paths, their stages, and which two events each lies between."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import Field

from analytics.learned import shown_origin
from analytics.paths import END_TO_END, UNATTRIBUTED, Path
from api.answers import Answer
from api.door import Door, StateDep, opens_for

router = APIRouter(route_class=Door, tags=["latency"])


class StageShape(Answer):
    """A stage of a path."""

    name: str = Field(description="The stage; `end_to_end` and `unattributed` are always there.", examples=["decide"])
    kind: str | None = Field(description="network, compute, store, queue or scheduler; null for the added ones.")
    budget_ns: int | None = Field(description="What it may take; null where no budget is set.")
    sentence: str = Field(description="Which two events it lies between.")


class PathShape(Answer):
    """A path as configured or learned, and how far it is computed."""

    name: str = Field(description="The path.", examples=["order"])
    description: str = Field(description="What it is, in the configuration's words.")
    origin: str = Field(description="configured, or what it was learned from: spans, histogram.", examples=["spans"])
    learned_ns: int | None = Field(description="When it was learned, epoch nanoseconds; null when configured.")
    value_error: float = Field(
        description="What the source's own buckets add to the error of every value, as a share of it; 0 for stamps."
    )
    max_age_ns: int = Field(description="After it a message without its last end is unfinished.")
    hops: int = Field(description="How many links a message may cross.")
    rollups: list[str] = Field(description="Labels that have counts of their own.")
    stages: list[StageShape] = Field(description="The stages in order.")
    computed_to_ns: int | None = Field(
        description="End of the newest window computed since the server started; null when there was none."
    )


class PathList(Answer):
    """The configured and learned paths."""

    paths: list[PathShape] = Field(description="The paths by name.")
    unlearned: int = Field(description="Operations that were seen and have no path: there are [learned] max_paths.")


@router.get("/v1/paths", response_model=PathList, openapi_extra=opens_for("read"), summary="What is measured")
async def paths(state: StateDep) -> dict[str, Any]:
    """The paths of the configuration and the learned ones: stages in order, budgets, labels that can be asked for."""
    return {
        "paths": [
            {**_shape(p, state.window_ends_ns.get(p.name)), **shown_origin(state.learned, p.name)}
            for _, p in sorted(state.paths.items())
        ],
        "unlearned": state.unlearned,
    }


def _shape(path: Path, computed_to_ns: int | None) -> dict[str, Any]:
    added = [(name, None, None) for name in (END_TO_END, UNATTRIBUTED)]
    stages = [(s.name, s.kind, s.budget_ns) for s in path.stages]
    return {
        "name": path.name,
        "description": path.description,
        "max_age_ns": path.max_age_ns,
        "hops": path.hops,
        "rollups": list(path.rollup),
        "stages": [
            {"name": name, "kind": kind, "budget_ns": budget, "sentence": path.sentence(name)}
            for name, kind, budget in [*stages, *added]
        ],
        "computed_to_ns": computed_to_ns,
    }
