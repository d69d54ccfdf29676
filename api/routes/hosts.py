"""`/v1/hosts`: what each host is set to, and what is not as its declared profile says."""

from __future__ import annotations

from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics.host_settings import host_history, host_items
from api.answers import Answer, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.shapes import plain

router = APIRouter(route_class=Door, tags=["hosts"])
_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("host", "item", "state", "value", "expected"), pl.String),
    "shipped_ns": pl.Int64,
}


class HostItem(Answer):
    """One item of one host, as it was last read."""

    host: str = Field(description="The host.")
    item: str = Field(description="The item.", examples=["cpu.governor"])
    state: str = Field(description="Empty; `drift`: not as the profile says; `gone`: the profile has it, the host not.")
    value: str = Field(description="Its value.", examples=["performance"])
    expected: str = Field(description="What the declared profile says; empty where it says nothing.")
    shipped_ns: int = Field(description="When it was last shipped, epoch nanoseconds; it was read since.")


class HostValue(Answer):
    """A value that an item had."""

    ts_ns: int = Field(description="From when on, epoch nanoseconds.")
    host: str = Field(description="The host.")
    item: str = Field(description="The item.")
    state: str = Field(description="As above.")
    value: str = Field(description="The value.")


class Hosts(Answer):
    """The settings of hosts."""

    drift: int = Field(description="How many of these items are not as declared.")
    hosts: list[HostItem] = Field(description="By host and item.")
    history: list[HostValue] = Field(description="Of one item, newest first; empty unless asked for.")


@router.get(
    "/v1/hosts",
    response_model=Hosts,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Items by host."),
    summary="Settings of hosts",
)
def listed(
    request: Request,
    state: StateDep,
    host: Annotated[str, Query(max_length=255, description="Only this host.")] = "",
    item: Annotated[
        str,
        Query(max_length=200, description="Only items of this name; `*`, `?`: any.", examples=["cpu.*"]),
    ] = "",
    drift: Annotated[bool, Query(description="Only what is not as declared.")] = False,
    history: Annotated[bool, Query(description="The values that the item had; needs its full name.")] = False,
    format_: FORMAT = None,
) -> Response:
    """What the agents' collector `host` read last. Differences are changes of kind `config` too: see `/v1/changes`."""
    rows = [plain(row) for row in host_items(state.reader, host, item, drift)]
    values = host_history(state.reader, item, host) if history and item else []
    about = {
        "drift": sum(1 for row in rows if row["state"] and row["expected"]),
        "history": [plain(row) for row in values],
    }
    return answer(request, format_, "hosts", rows, about, _SCHEMA)
