"""The report as one HTML file: no script, nothing fetched, and a policy that would forbid both.

Charts are images with the SVG inside, so that whatever an SVG might hold cannot run.
"""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from dashboards.report.blocks import Chart, MissingExtraError, Table, Text
from dashboards.report.view import View

_HERE = Path(__file__).parent


def html(view: View) -> str:
    """The page. Raises MissingExtraError without the extra `report`."""
    try:
        import jinja2
        import markupsafe
    except ImportError as error:
        raise MissingExtraError("jinja2") from error

    style = (_HERE / "page.css").read_text("utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.tests |= {"chart": _is(Chart), "table": _is(Table), "sentence": _is(Text)}
    environment.filters["data_uri"] = data_uri
    template = environment.from_string((_HERE / "page.html").read_text("utf-8"))
    trusted = markupsafe.Markup(style)  # noqa: S704 - a file of ours
    return template.render(view=view, style=trusted, policy=policy(digest))


def policy(digest: str) -> str:
    """What the page may do: its own style by hash, images in it, and nothing else."""
    return f"default-src 'none'; style-src 'sha256-{digest}'; img-src data:; base-uri 'none'; form-action 'none'"


def page_policy() -> str:
    """The policy of pages that this version makes, for the response's header too, where it holds before any markup."""
    style = (_HERE / "page.css").read_bytes()
    digest = base64.b64encode(hashlib.sha256(style).digest()).decode()
    return f"{policy(digest)}; frame-ancestors 'none'; sandbox"


def data_uri(svg: str) -> str:
    """An SVG as an address that needs no fetching."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def _is(kind: type[Any]) -> Any:
    return lambda block: isinstance(block, kind)
