"""`/healthz`, `/readyz`, `/metrics`: is the process alive, can it do its work, and how does it go."""

from __future__ import annotations

import time

from fastapi import APIRouter, Response
from pydantic import Field
from starlette.responses import JSONResponse

from api.answers import Answer
from api.door import Door, StateDep, opens_for
from api.state import State

router = APIRouter(route_class=Door, tags=["health"])


class Alive(Answer):
    """The process answers."""

    status: str = Field(description="Always `ok`.", examples=["ok"])


class Check(Answer):
    """One thing that must be so before the server can take batches and answer questions."""

    name: str = Field(description="store, migrations, jobs or running.", examples=["store"])
    ok: bool = Field(description="Whether it is so.")
    detail: str = Field(description="What is wrong, or what is there.")


class JobReport(Answer):
    """How one job goes."""

    name: str = Field(examples=["windows"], description="The job.")
    paused: bool = Field(description="Whether it is paused.")
    runs: int = Field(description="How often it ran since the server started.")
    errors: int = Field(description="How many of these failed.")
    errors_in_a_row: int = Field(description="How many failed since one last succeeded.")
    last_seconds: float | None = Field(description="How long the last run took; null before the first.")
    last_success_ns: int | None = Field(description="When a run last succeeded; null when none has.")
    last_error: str = Field(description="Why the last run failed; empty when it did not.")


class Ready(Answer):
    """Whether the server can take batches and answer questions, check by check."""

    ready: bool = Field(description="Whether every check holds.")
    degraded: list[str] = Field(
        description="What is late though the server can work: newest answers may lack it. Empty when nothing is.",
        examples=[["jobs behind: windows"]],
    )
    checks: list[Check] = Field(description="The checks.")
    jobs: list[JobReport] = Field(description="The jobs.")


@router.get("/healthz", response_model=Alive, openapi_extra=opens_for("public"), summary="Is the process alive?")
async def healthz() -> Alive:
    """Answers 200 while the process runs, whatever else is wrong. Never needs a token."""
    return Alive(status="ok")


@router.get(
    "/readyz",
    response_model=Ready,
    openapi_extra=opens_for("read"),
    responses={503: {"model": Ready, "description": "At least one check does not hold."}},
    summary="Can the server take batches and answer questions?",
)
async def readyz(state: StateDep) -> JSONResponse:
    """The store answers, its schema is this version's, and no job fails again and again.

    A job that is late, as after a restart while it catches up, is named in `degraded`: the answer is still 200.
    """
    report = readiness(state)
    return JSONResponse(report.model_dump(), 200 if report.ready else 503)


def readiness(state: State) -> Ready:
    """The checks and the jobs, from what is known already: asks the store nothing."""
    health = state.store.health()
    up = health.ok and not state.store.away
    failing = state.jobs.failing() if state.jobs else ["none started"]
    late = state.jobs.late(time.time_ns()) if state.jobs else []
    behind = [f"jobs behind: {', '.join(late)}"] if late else []
    if state.standby is not None and state.standby.problem:
        behind.append(f"standby: {state.standby.problem}")
    behind += [f"heartbeat {beat.name}: {beat.why}" for beat in state.beats if beat.why]
    checks = [
        Check(
            name="store",
            ok=up,
            detail=f"{health.engine} {health.version}" if up else "away, being opened again",
        ),
        Check(name="migrations", ok=state.migrated, detail="applied" if state.migrated else "not applied yet"),
        Check(
            name="jobs",
            ok=not failing,
            detail=f"failing: {', '.join(failing)}" if failing else "behind" if late else "on time",
        ),
        Check(name="running", ok=not state.stopping, detail="stopping" if state.stopping else "running"),
    ]
    jobs = [
        JobReport(
            name=job.name,
            paused=job.paused,
            runs=job.runs,
            errors=job.errors,
            errors_in_a_row=job.errors_in_a_row,
            last_seconds=job.last_seconds,
            last_success_ns=job.last_success_ns,
            last_error="failed; the server's log has the reason" if job.last_error else "",
        )
        for job in (state.jobs.states.values() if state.jobs else ())
    ]
    return Ready(ready=all(check.ok for check in checks), degraded=behind, checks=checks, jobs=jobs)


@router.get(
    "/metrics",
    response_class=Response,
    openapi_extra=opens_for("read"),
    responses={
        200: {"description": "Prometheus text format 0.0.4.", "content": {"text/plain": {"schema": {"type": "string"}}}}
    },
    summary="The server's own metrics",
)
def metrics(state: StateDep) -> Response:
    """Ingest, queries, window lag, store, jobs and process, for Prometheus to scrape."""
    return Response(state.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")
