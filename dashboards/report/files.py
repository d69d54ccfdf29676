"""The formats of a report: what each is called, and its bytes."""

from __future__ import annotations

from typing import Literal, get_args

import msgspec

from analytics.report.value import Report
from dashboards.report.view import View, view

Format = Literal["html", "pdf", "json"]
FORMATS: tuple[Format, ...] = get_args(Format)
MEDIA: dict[Format, str] = {"html": "text/html; charset=utf-8", "pdf": "application/pdf", "json": "application/json"}


def drawn(report: Report, formats: tuple[Format, ...]) -> dict[Format, bytes]:
    """A report in each of the formats; charts are drawn once. Raises MissingExtraError, DrawingError."""
    from dashboards.report.html import html
    from dashboards.report.pdf import pdf

    shown: View | None = view(report) if set(formats) & {"html", "pdf"} else None
    made: dict[Format, bytes] = {}
    for one in formats:
        if one == "json" or shown is None:
            made[one] = msgspec.json.format(msgspec.json.encode(report), indent=2)
        elif one == "html":
            made[one] = html(shown).encode()
        else:
            made[one] = pdf(shown)
    return made


def read(data: bytes) -> Report:
    """A report from its JSON. Raises msgspec.ValidationError."""
    return msgspec.json.decode(data, type=Report)
