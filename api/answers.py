"""What every answer has: the shapes of the documented models and the error responses of the OpenAPI description."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from api.negotiate import MEDIA


class Answer(BaseModel):
    """Base of the documented answers: nothing that is not declared."""

    model_config = ConfigDict(extra="forbid")


class Completeness(Answer):
    """The share of produced events that an answer is built on."""

    share: float | None = Field(
        description="0..1; null while a collector that lived in this time has not landed everything.", examples=[1.0]
    )
    produced: int = Field(description="Events that the collectors produced in this time, as far as they have landed.")
    missing: int = Field(description="Of these, what was dropped for a reason or quarantined.")
    waiting_for: list[str] = Field(description="Collectors that are behind; empty when none is.")
    known_to_ns: int | None = Field(
        description="Up to when everything has landed, epoch nanoseconds; null when no collector lived in this time."
    )
    known_share: float | None = Field(
        description="The share up to `known_to_ns`; of a time that ends now this is what can be said.", examples=[1.0]
    )


class Span(Answer):
    """Base of answers about a time."""

    from_ns: int = Field(description="Start, epoch nanoseconds.", examples=[1795168800000000000])
    to_ns: int = Field(description="End (exclusive), epoch nanoseconds.", examples=[1795169700000000000])


def in_formats(description: str) -> dict[int | str, dict[str, Any]]:
    """`responses` of a route that answers in every format of `api.negotiate`; JSON takes the response model."""
    binary = {"schema": {"type": "string", "contentMediaType": "application/octet-stream"}}
    text = {"schema": {"type": "string"}}
    return {
        200: {
            "description": description,
            "content": {media: text if name == "csv" else binary for name, media in MEDIA.items() if name != "json"},
            "headers": {
                "Tailsight-Answer": {
                    "description": "What JSON answers say beside the rows, as JSON; only in the other formats.",
                    "schema": {"type": "string"},
                }
            },
        }
    }
