"""`/v1/flows`: what flows did, as the taps saw them."""

from __future__ import annotations

import ipaddress
from typing import Annotated, Any

import polars as pl
from fastapi import APIRouter, Query, Request, Response
from pydantic import Field

from analytics import flows as analysis
from api.answers import Answer, Completeness, Span, in_formats
from api.door import Door, StateDep, opens_for
from api.negotiate import FORMAT, answer
from api.params import FROM, TO, span
from api.problems import bad_parameter
from api.shapes import completeness_of, plain

router = APIRouter(route_class=Door, tags=["network"])
_TCP = (
    "retransmissions",
    "fast_retransmissions",
    "spurious_retransmissions",
    "out_of_order",
    "duplicate_acks",
    "lost_segments",
    "zero_windows",
    "handshake_ns",
    "rtt_samples",
    "rtt_min_ns",
    "rtt_p50_worst_ns",
    "rtt_p99_worst_ns",
    "rtt_max_ns",
)
_ROUTE = ("hops_min", "hops_max", "ttl_min", "ttl_max", "dscp_min", "dscp_max")
_FLOWS: dict[str, Any] = {
    **dict.fromkeys(("host", "tap", "interface", "direction", "time_source", "source"), pl.String),
    "source_port": pl.Int64,
    "target": pl.String,
    "target_port": pl.Int64,
    "protocol": pl.String,
    **dict.fromkeys(("vlan", "from_ns", "to_ns", "reports", "packets", "bytes", *_ROUTE), pl.Int64),
    "coverage": pl.Float64,
    **dict.fromkeys(_TCP, pl.Int64),
}


class FlowRow(Answer):
    """One direction of a flow at one tap. TCP figures are null where it is no TCP or was not analysed."""

    host: str = Field(description="Host of the tap.")
    tap: str = Field(description="The tap.", examples=["exchange-side"])
    interface: str = Field(description="Its interface.", examples=["eth0"])
    direction: str = Field(description="`in` or `out`, as the host sees it; empty when both were seen.")
    time_source: str = Field(description="Who took the times: `sw` (kernel) or `hw` (NIC).", examples=["sw"])
    source: str = Field(description="Address of the sender; empty: flows beyond those the tap tells apart.")
    source_port: int = Field(description="Its port; 0 without one.")
    target: str = Field(description="Address of the receiver.")
    target_port: int = Field(description="Its port; 0 without one.")
    protocol: str = Field(description="Transport, by name or number.", examples=["tcp"])
    vlan: int | None = Field(description="VLAN of the outer tag; null without one.")
    from_ns: int = Field(description="Start of the first report, epoch nanoseconds.")
    to_ns: int = Field(description="End of the last report, epoch nanoseconds.")
    reports: int = Field(description="In how many reports of the tap it was seen.")
    packets: int = Field(description="Packets.")
    bytes: int = Field(description="Bytes on the wire, without preamble and checksum.")
    hops_min: int | None = Field(description="Fewest routers passed, guessed from the TTL.")
    hops_max: int | None = Field(description="Most routers passed, guessed from the TTL.")
    ttl_min: int | None = Field(description="Smallest TTL or hop limit.")
    ttl_max: int | None = Field(description="Largest TTL or hop limit.")
    dscp_min: int | None = Field(description="Smallest DSCP.")
    dscp_max: int | None = Field(description="Largest DSCP.")
    coverage: float = Field(description="Share of its packets that the tap did not lose, in its worst report.")
    retransmissions: int | None = Field(description="As docs/pcap.md defines it, of packets in this direction.")
    fast_retransmissions: int | None = Field(description="Likewise.")
    spurious_retransmissions: int | None = Field(description="Likewise.")
    out_of_order: int | None = Field(description="Likewise.")
    duplicate_acks: int | None = Field(description="Likewise.")
    lost_segments: int | None = Field(description="Likewise.")
    zero_windows: int | None = Field(description="Likewise.")
    handshake_ns: int | None = Field(description="Longest handshake that this side completed.")
    rtt_samples: int | None = Field(description="Segments of this direction whose acknowledgement was seen.")
    rtt_min_ns: int | None = Field(description="Shortest round trip from the tap to the receiver and back.")
    rtt_p50_worst_ns: int | None = Field(description="Median of the worst report.")
    rtt_p99_worst_ns: int | None = Field(description="99th percentile of the worst report.")
    rtt_max_ns: int | None = Field(description="Longest round trip.")


class Flows(Span):
    """Flows, the largest first."""

    order: str = Field(description="By what they are ordered.")
    completeness: Completeness = Field(description="What the answer is built on.")
    flows: list[FlowRow] = Field(description="The flows.")


@router.get(
    "/v1/flows",
    response_model=Flows,
    openapi_extra=opens_for("read", query=True),
    responses=in_formats("Flows."),
    summary="Flows as the taps saw them",
)
def listed(
    request: Request,
    state: StateDep,
    from_: FROM = None,
    to: TO = None,
    host: Annotated[str, Query(max_length=255, description="Only this host's taps.")] = "",
    tap: Annotated[str, Query(max_length=255, description="Only this tap.")] = "",
    address: Annotated[str, Query(max_length=45, description="Only flows with this address at either end.")] = "",
    port: Annotated[int, Query(ge=0, le=65_535, description="Only flows with this port at either end.")] = 0,
    order: Annotated[analysis.Order, Query(description="The largest of what come first.")] = "bytes",
    limit: Annotated[int, Query(ge=1, le=10_000, description="How many at most.")] = 100,
    format_: FORMAT = None,
) -> Response:
    """Packets, bytes, hops, class and TCP figures of each direction of a flow, summed over the taps' reports."""
    start, end = span(from_, to)
    if address:
        try:
            address = str(ipaddress.ip_address(address))
        except ValueError:
            raise bad_parameter("address", f"{address!r} is not an IP address") from None
    rows = analysis.flows(
        state.reader,
        from_ns=start,
        to_ns=end,
        host=host,
        tap=tap,
        address=address,
        port=port,
        order=order,
        limit=limit,
    )
    about = {"from_ns": start, "to_ns": end, "order": order, "completeness": completeness_of(state, start, end)}
    return answer(request, format_, "flows", [plain(row) for row in rows], about, _FLOWS)
