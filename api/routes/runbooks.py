"""`/runbooks/`: what to do about a fault, for whoever was paged. They hold no data and are open."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Response

from api.door import Door, opens_for
from api.problems import ProblemError
from api.routes.page import IF_NONE_MATCH, sent
from dashboards.page import HEADERS
from dashboards.runbooks import INDEX
from dashboards.runbooks.html import pages

router = APIRouter(route_class=Door, tags=["page"])
_HTML: dict[int | str, dict[str, Any]] = {
    200: {"description": "The runbook.", "content": {"text/html": {"schema": {"type": "string"}}}},
    304: {"description": "The browser's copy is the newest."},
}


@router.get(
    "/runbooks/",
    response_class=Response,
    openapi_extra=opens_for("public"),
    responses=_HTML,
    summary="The runbooks",
)
async def index(if_none_match: IF_NONE_MATCH = None) -> Response:
    """Which runbook is for what, as HTML. Alerts of objectives that name a runbook of ours link here."""
    return _page(INDEX, if_none_match)


@router.get(
    "/runbooks/{name}",
    response_class=Response,
    openapi_extra=opens_for("public"),
    responses=_HTML,
    summary="A runbook",
)
async def runbook(
    name: Annotated[str, Path(max_length=100, description="The runbook.", examples=["cpu_hog"])],
    if_none_match: IF_NONE_MATCH = None,
) -> Response:
    """One fault as HTML: what it looks like, the way to its cause, what to do."""
    return _page(name, if_none_match)


def _page(name: str, if_none_match: str | None) -> Response:
    found = pages().get(name)
    if found is None:
        detail = f"there is no runbook {name!r}; /runbooks/ lists them" if pages() else "no runbooks were installed"
        raise ProblemError(404, "not-found", detail)
    return sent(found, if_none_match, HEADERS)
