"""`/` and `/page/...`: the page for a browser. Its files hold no data and are open; what they ask for is not."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Response

from api.door import Door, opens_for
from api.problems import ProblemError
from dashboards.page import HEADERS, INDEX, Asset, assets

router = APIRouter(route_class=Door, tags=["page"])
IF_NONE_MATCH = Annotated[
    str | None, Header(alias="If-None-Match", max_length=1_000, description="Tags of copies that the browser has.")
]
_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "The browser's copy is the newest."}}


def _text(*media: str) -> dict[int | str, dict[str, Any]]:
    content = {one: {"schema": {"type": "string"}} for one in media}
    return {200: {"description": "The file.", "content": content}, **_UNCHANGED}


@router.get(
    "/",
    response_class=Response,
    openapi_extra=opens_for("public"),
    responses=_text("text/html"),
    summary="The page",
)
async def index(if_none_match: IF_NONE_MATCH = None) -> Response:
    """Overview, paths, messages and reports for a browser. It asks the other routes and needs nothing else."""
    return sent(assets()[INDEX], if_none_match, HEADERS)


@router.get(
    "/page/{name}",
    response_class=Response,
    openapi_extra=opens_for("public"),
    responses=_text("text/javascript", "text/css", "image/svg+xml"),
    summary="A file of the page",
)
async def file(
    name: Annotated[str, Path(max_length=100, description="The file.", examples=["main.js"])],
    if_none_match: IF_NONE_MATCH = None,
) -> Response:
    """Scripts, styles and the icon of the page. Asked again each time, answered with 304 while it is the same."""
    found = assets().get(name)
    if found is None or name == INDEX:
        raise ProblemError(404, "not-found", "the page has no such file")
    return sent(found, if_none_match, {})


def sent(asset: Asset, known: str | None, headers: Any) -> Response:
    """A file, or 304 to a browser whose copy (`known`, the header If-None-Match) is the same."""
    given = {**headers, "ETag": asset.etag, "Cache-Control": "no-cache"}
    tags = [tag.strip().removeprefix("W/") for tag in (known or "").split(",")]
    if asset.etag in tags or "*" in tags:
        return Response(status_code=304, headers=given)
    return Response(asset.body, media_type=asset.media, headers=given)
