"""The report as a PDF, by Typst: no browser, no system package.

The page is given to Typst as JSON, so that its text is a value there and never markup.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from dashboards.report.blocks import Chart, DrawingError, MissingExtraError, Section, Table
from dashboards.report.view import View

_HERE = Path(__file__).parent


def pdf(view: View) -> bytes:
    """The page. Raises MissingExtraError without the extra `report`, DrawingError when Typst refuses."""
    try:
        import typst
    except ImportError as error:
        raise MissingExtraError("typst") from error
    document = {
        "title": view.title, "subtitle": view.subtitle, "foot": view.foot, "short": view.short,
        "first": [_section(one) for one in view.first], "evidence": [_section(one) for one in view.evidence],
    }  # fmt: skip
    given = {"report": msgspec.json.encode(document).decode()}
    try:
        made = typst.compile((_HERE / "page.typ").read_bytes(), format="pdf", sys_inputs=given)
    except RuntimeError as error:
        raise DrawingError(f"the PDF could not be set: {str(error)[:500]}") from error
    return bytes(made)


def _section(one: Section) -> dict[str, object]:
    return {"title": one.title, "blocks": [_block(block) for block in one.blocks]}


def _block(one: object) -> dict[str, object]:
    kind = "table" if isinstance(one, Table) else "chart" if isinstance(one, Chart) else "text"
    return {"kind": kind, **msgspec.to_builtins(one)}
