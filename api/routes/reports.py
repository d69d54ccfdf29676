"""`/v1/reports`: the executive reports that the server keeps, to list, open and order."""

from __future__ import annotations

import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from analytics.report.period import period as read_period
from api.answers import Answer
from api.door import Door, PrincipalDep, StateDep, opens_for
from api.problems import ProblemError, bad_parameter
from api.reports.desk import BusyError, Desk
from api.reports.making import Wanted
from api.state import State
from collector.settings import ConfigError
from dashboards.report.files import FORMATS, MEDIA, Format

router = APIRouter(route_class=Door, tags=["reports"])


class ReportRow(Answer):
    """A report that is kept."""

    id: str = Field(description="Its id: name, end of the period and hours.", examples=["weekly.20261116T0000Z.168h"])
    name: str = Field(description="Its name under `[reports.NAME]`; `asked` when somebody asked for it.")
    title: str = Field(description="What stands above it.")
    period: str = Field(description="The period as it was asked for.")
    from_ns: int = Field(description="Start of the period, epoch nanoseconds.")
    to_ns: int = Field(description="End (exclusive) of the period, epoch nanoseconds.")
    made_ns: int = Field(description="When it was made, epoch nanoseconds.")
    made_by: str = Field(description="`schedule`, or who asked.")
    formats: list[str] = Field(description="html, pdf, json: what it can be opened as.")
    bytes: dict[str, int] = Field(description="Size by format.")
    headline: list[str] = Field(description="What it says first.")


class FailedReport(Answer):
    """A report that could not be made."""

    id: str = Field(description="The id that it would have had.")
    at_ns: int = Field(description="When it failed, epoch nanoseconds.")
    error: str = Field(description="Why.")


class Reports(Answer):
    """All reports, the newest period first."""

    reports: list[ReportRow] = Field(description="Those that are kept.")
    making: str | None = Field(description="The id of the one that is being made; null: none is.")
    failed: list[FailedReport] = Field(description="Those that could not be made since the server started.")


class NewReport(BaseModel):
    """A report to make now."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"period": "7d", "formats": ["html"]}]})

    period: str = Field(default="7d", max_length=80, description="7d, 2026-W46, 2026-11, or FROM/TO (UTC).")
    title: str = Field(default="Latency and what it costs", min_length=1, max_length=100, description="Its title.")
    paths: list[Annotated[str, Field(max_length=200)]] = Field(
        default_factory=list, max_length=12, description="Paths; all declared ones when left out."
    )
    kpi: str = Field(default="", max_length=64, description="One measure; those of the paths' nodes when left out.")
    rollup: str = Field(default="", max_length=300, description="Only one label's messages, as label=value.")
    formats: list[Format] = Field(
        default_factory=lambda: list(FORMATS), min_length=1, max_length=3, description="html, pdf, json."
    )


class Ordered(Answer):
    """A report that is being made."""

    id: str = Field(description="Its id; GET it until it is there.")


@router.get("/v1/reports", response_model=Reports, openapi_extra=opens_for("executive"), summary="List reports")
def listed(state: StateDep) -> dict[str, Any]:
    """Reports that are kept, the newest period first. For tokens of scope `executive` or `read`."""
    desk = _desk(state)
    return {
        "reports": [_row(about) for about in desk.shelf.all()],
        "making": desk.making or None,
        "failed": [{"id": f.id, "at_ns": f.at_ns, "error": f.error} for f in list(desk.failures.values())],
    }


@router.get(
    "/v1/reports/{id}",
    response_class=Response,
    openapi_extra=opens_for("executive"),
    responses={
        200: {
            "description": "The report.",
            "content": {
                "text/html": {"schema": {"type": "string"}},
                "application/pdf": {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}},
                "application/json": {"schema": {"type": "object"}},
            },
        },
        406: {"description": "The report is not kept in a format that Accept names."},
    },
    summary="Open a report",
)
def opened(
    request: Request,
    state: StateDep,
    who: PrincipalDep,
    report_id: Annotated[str, Path(alias="id", max_length=80, description="The report's id, as the list has it.")],
    format_: Annotated[
        Format | None, Query(alias="format", description="html, pdf or json; it goes before the Accept header.")
    ] = None,
) -> Response:
    """One report as HTML, PDF or JSON. Opening one is audited."""
    desk = _desk(state)
    try:
        about = desk.shelf.get(report_id)
    except KeyError:
        raise _absent(desk, report_id) from None
    kind = format_ or _accepted(request.headers.get("accept", "*/*"), about.formats)
    if kind is None or kind not in about.formats:
        detail = f"this report is kept as {', '.join(about.formats)}"
        raise ProblemError(406, "format-not-offered", detail)
    try:
        data = desk.shelf.read(report_id, kind)
    except KeyError:
        raise _absent(desk, report_id) from None
    state.audit.record(who.name, "report.open", report_id, "ok", {"format": kind})
    headers = {"Vary": "Accept", "Cache-Control": "private, no-store"}
    headers["Content-Disposition"] = f'inline; filename="{report_id}.{kind}"'
    if kind == "html":
        headers["Content-Security-Policy"] = about.policy
    return Response(data, media_type=MEDIA[kind], headers=headers)


@router.post(
    "/v1/reports",
    status_code=202,
    response_model=Ordered,
    openapi_extra=opens_for("operate"),
    responses={409: {"description": "Another report is being made."}},
    summary="Make a report",
)
def ordered(state: StateDep, who: PrincipalDep, body: NewReport) -> dict[str, Any]:
    """Begins to make a report and answers at once. One is made at a time. Audited."""
    desk = _desk(state)
    try:
        time_of = read_period(body.period, time.time_ns())
    except ConfigError as error:
        raise bad_parameter("period", error.problem) from None
    known = desk.declared()
    for name in body.paths:
        if name not in known.paths:
            raise bad_parameter("paths", f"no path is called {name[:80]!r}")
    if body.kpi and body.kpi not in known.kpis:
        raise bad_parameter("kpi", f"no measure is called {body.kpi[:64]!r}")
    wanted = Wanted(
        time=time_of, title=body.title, paths=tuple(dict.fromkeys(body.paths)), kpi=body.kpi, rollup=body.rollup
    )
    try:
        report_id = desk.begin(wanted, tuple(dict.fromkeys(body.formats)), who.name)
    except BusyError as error:
        raise ProblemError(409, "report-being-made", str(error), retry_after=5) from None
    state.audit.record(who.name, "report.make", report_id, "ok", {"period": body.period})
    return {"id": report_id}


def _desk(state: State) -> Desk:
    if state.reports is None:
        raise ProblemError(503, "not-ready", "the server has not begun to keep reports yet", retry_after=1)
    return state.reports


def _row(about: Any) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(about)
    row.pop("policy")
    return row


def _absent(desk: Desk, report_id: str) -> ProblemError:
    if desk.making == report_id:
        return ProblemError(404, "report-being-made", "this report is being made; ask again in some seconds")
    failure = desk.failures.get(report_id)
    if failure is not None:
        return ProblemError(404, "report-failed", f"this report could not be made: {failure.error}")
    return ProblemError(404, "unknown-report", "there is no report with this id")


def _accepted(accept: str, kept: tuple[Format, ...]) -> Format | None:
    """The kept format that Accept likes best; for a browser HTML."""
    ranked: list[tuple[float, int, str]] = []
    for place, part in enumerate(accept.split(",")[:50]):
        media, *parameters = [p.strip().lower() for p in part.split(";")]
        quality = 1.0
        for parameter in parameters:
            if parameter.startswith("q="):
                try:
                    quality = float(parameter[2:])
                except ValueError:
                    quality = 0.0
        if quality > 0:
            ranked.append((-quality, place, media))
    for _, _, media in sorted(ranked):
        for kind in FORMATS:
            own = MEDIA[kind].partition(";")[0]
            if kind in kept and media in (own, "*/*", own.partition("/")[0] + "/*"):
                return kind
    return None
