"""Runbooks as HTML for a browser, under the policy of the page: text stays text, and links lead to runbooks or http(s).

Rendered once from Markdown (CommonMark and tables). Addresses within are relative, so that a proxy may put the server
below a path.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from itertools import pairwise
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from dashboards.page import Asset
from dashboards.runbooks import INDEX, texts

_MEDIA = "text/html; charset=utf-8"
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title} - Tailsight</title>
<link rel="icon" href="../page/icon.svg" type="image/svg+xml">
<link rel="stylesheet" href="../page/page.css">
<script src="../page/theme.js"></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
  <a class="brand" href="../">Tailsight</a>
  <nav aria-label="Runbooks"><a href="./">Runbooks</a></nav>
</header>
<main class="text" id="main" tabindex="-1">
{body}</main>
</body>
</html>
"""


@cache
def pages() -> Mapping[str, Asset]:
    """Every runbook by name, the index as `README`."""
    known = texts()
    found = {}
    for name, text in known.items():
        body = document(text, known).encode()
        found[name] = Asset(body, _MEDIA, f'"{sha256(body).hexdigest()[:32]}"')
    return found


def document(text: str, known: Mapping[str, object]) -> str:
    """A page from Markdown. Links to `known` runbooks are kept, and those by http(s); others become their text."""
    reader = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    tokens = reader.parse(text)
    title = next((after.content for one, after in pairwise(tokens) if one.tag == "h1"), "Runbook")
    _headings(tokens)
    for token in tokens:
        token.attrs.pop("style", None)  # a column's alignment: the policy takes no inline style
        if token.children:
            token.children = _linked(token.children, known)
    reader.add_render_rule("table_open", _table_open)
    reader.add_render_rule("table_close", _table_close)
    return _PAGE.format(title=escape(title), body=reader.renderer.render(tokens, reader.options, {}))


def _headings(tokens: Sequence[Token]) -> None:
    """Names for the parts, as GitHub makes them, so that a link may lead to one."""
    seen: dict[str, int] = {"main": 1}  # the page's own
    for one, after in pairwise(tokens):
        if one.type == "heading_open":
            name = re.sub(r"[^a-z0-9_ -]", "", after.content.lower()).strip().replace(" ", "-") or "part"
            count = seen[name] = seen.get(name, 0) + 1
            one.attrSet("id", name if count == 1 else f"{name}-{count - 1}")


def _linked(children: Sequence[Token], known: Mapping[str, object]) -> list[Token]:
    kept, found = True, []
    for one in children:
        if one.type == "link_open":
            address = _address(str(one.attrGet("href") or ""), known)
            kept = address is not None
            one.attrs = {"href": address or ""}
            if kept and "://" in str(address):
                one.attrs |= {"rel": "noopener noreferrer"}
        if kept or one.type not in ("link_open", "link_close"):
            found.append(one)
    return found


def _address(written: str, known: Mapping[str, object]) -> str | None:
    """Where a link of a runbook leads, seen from another one; None: nowhere that is served."""
    if re.match(r"https?://[^/]", written) or re.fullmatch(r"#[a-z0-9_-]+", written):
        return written
    found = re.fullmatch(r"(?:\./)?(\w[\w-]*)\.md(#[a-z0-9_-]+)?", written)
    if found is None or found[1] not in known:
        return None
    return ("./" if found[1] == INDEX else found[1]) + (found[2] or "")


def _table_open(*_: Any) -> str:
    # Scrolled by keyboard too, as the page's tables are.
    return '<div class="scroll" tabindex="0" role="region" aria-label="Table"><table>\n'


def _table_close(*_: Any) -> str:
    return "</table></div>\n"
