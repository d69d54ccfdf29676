"""`/v1/gates`: may a deployment go on? 200 says yes, 409 says no, both with every side's value."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter
from fastapi import Path as InPath
from pydantic import Field

from api.answers import Answer
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.gates import GateBook, answered, tell
from api.problems import ProblemError
from api.state import State

router = APIRouter(route_class=Door, tags=["objectives"])


class Side(Answer):
    """One thing that a gate looks at: `value op limit` keeps it open."""

    name: str = Field(description="Objective and rule, objective and `budget`, or business measure.")
    verdict: Literal["open", "closed", "unknown"] = Field(description="What it says.")
    value: float | None = Field(description="Burn rate, share of the budget that is left, or measure; null: none.")
    op: str = Field(description="lte, lt, gte or gt; empty when nothing could be compared.")
    limit: float | None = Field(description="What the value is compared with.")
    count: float = Field(description="Events behind the value.")
    why: str = Field(description="The reason in words, where it is not open.")


class Gate(Answer):
    """A gate as it was judged last. Times are epoch nanoseconds, 0 where they have not come."""

    name: str = Field(description="Its name.")
    description: str = Field(description="What it is about.")
    verdict: Literal["open", "closed", "unknown"] = Field(description="What its sides say together.")
    passes: bool = Field(description="Whether who asks may go on; of an unknown gate as configured.")
    why: str = Field(description="The reason in words, where it is not open.")
    on_unknown: Literal["open", "closed"] = Field(description="What an unknown gate answers.")
    judged_ns: int = Field(description="When it was judged; too long ago makes it unknown.")
    since_ns: int = Field(description="Since when the verdict is so.")
    closing_ns: int = Field(description="Since when data keep it closed.")
    trigger: str = Field(description="Id of the last rollback; empty: there was none.")
    triggered_ns: int = Field(description="When that was.")
    sides: list[Side] = Field(description="Each side with its value.")


class Gates(Answer):
    """The configured gates."""

    gates: list[Gate] = Field(description="By name.")


@router.get("/v1/gates", response_model=Gates, openapi_extra=opens_for("read"), summary="List gates")
def listed(state: StateDep) -> dict[str, Any]:
    """Every configured gate with its sides. Listing is not asking: it is not recorded."""
    rows, now = GateBook(state.control).rows(), time.time_ns()
    return {"gates": [answered(name, state.gates[name], rows.get(name), now) for name in sorted(state.gates)]}


@router.get(
    "/v1/gates/{name}",
    response_model=Gate,
    openapi_extra=opens_for("read"),
    responses={
        404: {"description": "No gate has this name."},
        409: {"description": "The gate does not let pass; the member `gate` is what 200 would have answered."},
    },
    summary="May a deployment go on?",
)
def one(
    state: StateDep,
    who: PrincipalDep,
    name: Annotated[str, InPath(max_length=200, description="The gate.", examples=["rollout"])],
) -> dict[str, Any]:
    """200 when the gate lets pass, 409 when it does not: `curl -f` ends with an error then. Every changed answer is
    audited."""
    found = _asked(state, name)
    tell(GateBook(state.control), state.audit, who.name, found)
    if not found["passes"]:
        detail = f"gate {name} is {found['verdict']}: {found['why']}"[:2_000]
        raise ProblemError(409, "gate-closed", detail, members={"gate": found})
    return found


def _asked(state: State, name: str) -> dict[str, Any]:
    if name not in state.gates:
        known = ", ".join(sorted(state.gates)[:20]) or "none; declare [gates.NAME]"
        raise ProblemError(404, "unknown-gate", f"no gate is called {name[:80]!r}; there are {known}")
    return answered(name, state.gates[name], GateBook(state.control).rows().get(name), time.time_ns())
