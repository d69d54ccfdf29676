"""`/v1/collectors` and `/v1/ledger`: who collects, how they are, and where every produced event is."""

from __future__ import annotations

import time
from typing import Any

import polars as pl
from fastapi import APIRouter, Request, Response
from pydantic import Field

from analytics.ledger import collectors, ledger
from api.answers import Answer, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.shapes import plain

router = APIRouter(route_class=Door, tags=["delivery"])
_WHO: dict[str, Any] = {"collector": pl.String, "boot": pl.Int64, "name": pl.String, "host": pl.String}
_COLLECTORS: dict[str, Any] = {
    **_WHO,
    **dict.fromkeys(("status", "reason"), pl.String),
    "live": pl.Boolean,
    **dict.fromkeys(("last_ns", "watermark_ns", "produced", "acked", "in_flight", "spool_bytes"), pl.Int64),
}
_LEDGER: dict[str, Any] = {
    **_WHO,
    **dict.fromkeys(("produced", "stored_unique"), pl.Int64),
    "dropped": pl.String,
    **dict.fromkeys(("quarantined", "in_spool", "in_flight", "difference"), pl.Int64),
}


class CollectorState(Answer):
    """What a collector last said of itself."""

    collector: str = Field(description="Its UUID.")
    boot: int = Field(description="How often it was started.")
    name: str = Field(description="Its name.", examples=["probe"])
    host: str = Field(description="Its host.")
    status: str = Field(description="running, degraded, unavailable or stopped.", examples=["running"])
    reason: str = Field(description="What is missing and what would grant it; empty when nothing is.")
    live: bool = Field(description="Whether its last heartbeat is recent and it has not stopped.")
    last_ns: int = Field(description="Its last heartbeat, epoch nanoseconds.")
    watermark_ns: int = Field(description="Every event before this time has landed or is booked as lost.")
    produced: int = Field(description="Events it has produced in this boot.")
    acked: int = Field(description="Sequence number below which everything is acknowledged.")
    in_flight: int = Field(description="Events on their way at that moment.")
    spool_bytes: int = Field(description="Bytes waiting on its disk.")


class Collectors(Answer):
    """All collectors that the store knows, by name."""

    at_ns: int = Field(description="The moment of the answer, epoch nanoseconds.")
    collectors: list[CollectorState] = Field(description="The newest boot of each.")


class LedgerRow(Answer):
    """Where the events of one collector and boot are.

    produced = stored_unique + dropped + quarantined + in_spool + in_flight + difference
    """

    collector: str = Field(description="Its UUID.")
    boot: int = Field(description="Which of its lives.")
    name: str = Field(description="Its name.")
    host: str = Field(description="Its host.")
    produced: int = Field(description="Events produced.")
    stored_unique: int = Field(description="Events in the store, each counted once.")
    dropped: dict[str, int] = Field(description="Events lost, by reason.", examples=[{"ring_overwritten": 12}])
    quarantined: int = Field(description="Events set aside with a reason.")
    in_spool: int = Field(description="Events on the collector's disk.")
    in_flight: int = Field(description="Events on their way.")
    difference: int = Field(description="What is not accounted for; 0, or something is wrong.", examples=[0])


class Ledger(Answer):
    """The account of every collector and boot."""

    at_ns: int = Field(description="The moment of the answer, epoch nanoseconds.")
    ledger: list[LedgerRow] = Field(description="By name and boot.")


_READ = opens_for("read", query=True)


@router.get(
    "/v1/collectors",
    response_model=Collectors,
    openapi_extra=_READ,
    responses=in_formats("Collectors."),
    summary="Collectors and how they are",
)
def list_collectors(request: Request, state: StateDep, format_: FORMAT = None) -> Response:
    """Each collector's last heartbeat: status and reason, watermark, and what it still holds."""
    now = time.time_ns()
    rows = [plain(row) for row in collectors(state.reader, now, round(state.settings.heartbeat_seconds * 1e9))]
    return answer(request, format_, "collectors", rows, {"at_ns": now}, _COLLECTORS)


@router.get(
    "/v1/ledger",
    response_model=Ledger,
    openapi_extra=_READ,
    responses=in_formats("The ledger."),
    summary="Where every event is",
)
def list_ledger(request: Request, state: StateDep, format_: FORMAT = None) -> Response:
    """Per collector and boot: produced, stored, dropped by reason, quarantined, waiting, and the difference."""
    rows = [plain(row) for row in ledger(state.reader)]
    return answer(request, format_, "ledger", rows, {"at_ns": time.time_ns()}, _LEDGER)
