"""`/v1/ingest`: the agents' door. A batch is answered 200 only when it is durably in the store."""

from __future__ import annotations

import asyncio
import re
import time
from contextlib import suppress
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Header, Path, Request
from pydantic import Field

from api.answers import Answer
from api.door import Door, StateDep, opens_for
from api.ingest_queue import IngestFullError
from api.problems import ProblemError, bad_parameter
from api.routes.changes import changes_of_batch
from api.state import State
from collector.heartbeat import Heartbeat
from collector.keys import hash64
from collector.landing import RejectedError
from collector.log import logger
from collector.store import StoreError

router = APIRouter(route_class=Door, tags=["ingest"])
FRAMES = "application/vnd.tailsight.frames"
MAX_HEARTBEATS = 1_000
_BATCH = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/[0-9]{1,10}/[0-9]{1,20}"
_EXAMPLE = "7b0c2a44-33c2-4f0e-9a56-0a4d4a8f9d11/3/120000"
_log = logger("ingest")
_NAMES = re.compile(r"[^@\s]{1,128}@[^@\s]{1,255}")


class Landed(Answer):
    """What became of a batch. The ledger has the same numbers."""

    batch: str = Field(description="The batch's id.", examples=[_EXAMPLE])
    status: str = Field(description="`stored`, or `duplicate` when it was stored before.", examples=["stored"])
    events: int = Field(description="Events that the batch accounts for.")
    stored: int = Field(description="Events in the store.")
    quarantined: int = Field(description="Events set aside with a reason.")
    dropped: int = Field(description="Events that the collector says it lost.")
    boot_id: str = Field(description="The store's present life.")


class LedgerRow(Answer):
    """A batch's row in the ledger."""

    batch: str = Field(description="The batch's id.", examples=[_EXAMPLE])
    collector: str = Field(description="The collector's UUID.")
    boot: int = Field(description="The collector's boot count.")
    seq_first: int = Field(description="The first event's sequence number.")
    events: int = Field(description="Events accounted for.")
    stored: int = Field(description="Events in the store.")
    quarantined: int = Field(description="Events set aside with a reason.")
    dropped: int = Field(description="Events that the collector says it lost.")
    attempt: int = Field(description="The attempt that was stored.")
    received_ns: int = Field(description="When it came, epoch nanoseconds.")


class Taken(Answer):
    """How many heartbeats were taken."""

    taken: int = Field(description="Heartbeats in the request.")


@router.post(
    "/v1/ingest",
    response_model=Landed,
    summary="Land one batch of frames",
    openapi_extra={
        **opens_for("agent"),
        "requestBody": {
            "required": True,
            "description": "Whole frames of one collector and boot, one after another (docs/architecture.md).",
            "content": {FRAMES: {"schema": {"type": "string", "format": "binary"}}},
        },
    },
)
async def ingest(
    request: Request,
    state: StateDep,
    batch: Annotated[
        str,
        Header(alias="Tailsight-Batch", description="UUID/boot/seq_first of the batch.", pattern=f"^{_BATCH}$"),
    ],
    collector: Annotated[
        str, Header(alias="Tailsight-Collector", description="name@host", max_length=400, examples=["agent@host-1"])
    ],
    attempt: Annotated[
        int,
        Header(alias="Tailsight-Attempt", description="0, 1, 2 ...: how often it was sent before.", ge=0, lt=1 << 32),
    ] = 0,
) -> Any:
    """Checks the frames, sets bad rows aside, inserts, writes the ledger row last, then answers.

    The same batch may be sent any number of times. 429 and 503 say when to come again; every other refusal is final.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FRAMES:
        raise ProblemError(415, "wrong-content-type", f"send the frames as {FRAMES}")
    if not _NAMES.fullmatch(collector):
        raise bad_parameter("Tailsight-Collector", "must be name@host", "header")
    if state.store.away or state.stopping:
        raise _unavailable(state)
    length = request.headers.get("content-length")
    size = int(length) if length is not None else state.settings.max_ingest_bytes
    name, _, host = collector.partition("@")
    try:
        with state.queue.admit(batch, size):
            body = bytearray()
            async for chunk in request.stream():
                body += chunk
            return await _land(state, batch, name, host, attempt, body)
    except IngestFullError as error:
        state.metrics.batches.labels("refused_full").inc()
        raise ProblemError(
            429, "ingest-full", str(error), retry_after=error.retry_after_s, headers={"Connection": "close"}
        ) from None


async def _land(state: State, batch: str, name: str, host: str, attempt: int, body: bytearray) -> Any:
    loop = asyncio.get_running_loop()
    received_ns = time.time_ns()
    started = time.monotonic()
    try:
        landed = await loop.run_in_executor(
            state.pool, lambda: state.landing.land(batch, name, host, attempt, memoryview(body), received_ns)
        )
    except RejectedError as error:
        state.metrics.batches.labels("rejected").inc()
        _log.warning("batch_rejected", batch=batch, reason=error.reason, detail=error.detail)
        raise ProblemError(error.status, error.reason.replace("_", "-"), error.detail) from None
    except StoreError as error:
        state.metrics.batches.labels("store_error").inc()
        _log.warning("batch_not_stored", batch=batch, code=error.code, error=str(error))
        raise _unavailable(state) from None
    state.metrics.landing.observe(time.monotonic() - started)
    state.metrics.batches.labels(landed.status).inc()
    if landed.status == "stored":
        state.metrics.bytes.inc(len(body))
        for result in ("stored", "quarantined", "dropped"):
            state.metrics.events.labels(result).inc(getattr(landed, result))
        if "changes" in landed.tables:
            await loop.run_in_executor(state.pool, lambda: _tell_changes(state, batch))
    return {name: getattr(landed, name) for name in Landed.model_fields}


def _tell_changes(state: State, batch: str) -> None:
    """Publish the batch's changes to whoever follows; a reader that misses them reads them from the store."""
    with suppress(StoreError):
        for row in changes_of_batch(state, hash64("batch", batch)):
            state.broker.publish("change", row)


def _unavailable(state: State) -> ProblemError:
    what = "the server is stopping" if state.stopping else "the store does not take the batch at the moment"
    return ProblemError(503, "store-unavailable", f"{what}; keep the batch and send it again", retry_after=1)


@router.get(
    "/v1/ingest/batches/{batch:path}",
    response_model=LedgerRow,
    openapi_extra=opens_for("agent"),
    summary="What became of a batch",
)
def batch_row(
    state: StateDep,
    batch: Annotated[str, Path(description="UUID/boot/seq_first", pattern=f"^{_BATCH}$", examples=[_EXAMPLE])],
) -> dict[str, Any]:
    """The batch's ledger row, or 404 when it is not stored."""
    frame = state.reader.query(
        "SELECT toString(collector) AS collector, boot, seq_first, events, stored, quarantined, dropped, attempt, "
        "toUnixTimestamp64Nano(received) AS received_ns FROM batches WHERE batch = {batch:UInt64} LIMIT 1",
        {"batch": hash64("batch", batch)},
    )
    if frame.is_empty():
        raise ProblemError(404, "not-found", f"the ledger has no batch {batch}: it is not stored")
    return {"batch": batch, **frame.row(0, named=True)}


@router.post(
    "/v1/ingest/heartbeat",
    response_model=Taken,
    summary="Say how collectors are",
    openapi_extra={
        **opens_for("agent"),
        "requestBody": {
            "required": True,
            "description": "One object per collector, as `collector.heartbeat` has it.",
            "content": {
                "application/json": {
                    "schema": {
                        "type": "array",
                        "maxItems": MAX_HEARTBEATS,
                        "items": {"$ref": "#/components/schemas/Heartbeat"},
                    }
                }
            },
        },
    },
)
async def heartbeat(request: Request, state: StateDep) -> dict[str, int]:
    """State, watermark and what the collectors still hold; the ledger and the windows are computed from them."""
    raw = await request.body()
    try:
        heartbeats = msgspec.json.decode(raw, type=list[Heartbeat])
    except msgspec.DecodeError as error:  # ValidationError is one
        problem, _, where = str(error).partition(" - at `$")
        raise bad_parameter(where.rstrip("`").strip("[].") or "body", problem, "body") from None
    if len(heartbeats) > MAX_HEARTBEATS:
        raise bad_parameter("body", f"at most {MAX_HEARTBEATS} heartbeats at once", "body")
    try:
        state.book.add(heartbeats)
    except ValueError as error:
        name, _, problem = str(error).partition(": ")
        raise bad_parameter(name, problem, "body") from None
    return {"taken": len(heartbeats)}
