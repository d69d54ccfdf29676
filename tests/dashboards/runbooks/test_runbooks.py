"""Runbooks as they are served, and the addresses that annotations become."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dashboards.runbooks import runbook_of, texts
from dashboards.runbooks.html import document, pages

FOLDER = Path(__file__).resolve().parents[3] / "docs" / "runbooks"
URL = "https://tailsight.example.com"
ALLOWED = {
    "html", "head", "meta", "title", "link", "script", "body", "a", "header", "nav", "main",
    "h1", "h2", "h3", "h4", "h5", "h6", "p", "code", "pre", "em", "strong", "ul", "ol", "li", "div", "table",
    "thead", "tbody", "tr", "th", "td", "br", "hr", "blockquote",
}  # fmt: skip
ATTRIBUTES = {
    "lang", "charset", "name", "content", "rel", "href", "type", "src", "class", "id", "tabindex", "role", "aria-label",
    "start",
}  # fmt: skip


LINK = r"https?://[^/].*|#[a-z0-9_-]+|\.\./|(\./|[A-Za-z0-9_-]+)(#[a-z0-9_-]+)?"


class Reader(HTMLParser):
    """Tags, attributes, links, names of parts and what a person reads."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.links: list[str] = []
        self.scripts: list[str | None] = []
        self.ids: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self.attributes |= set(given)
        if tag == "a":
            self.links.append(given.get("href") or "")
        if tag == "script":
            self.scripts.append(given.get("src"))
        self.ids += [value for name, value in attrs if name == "id" and value]

    def handle_data(self, data: str) -> None:
        self.words += data


def harmless(text: str) -> Reader:
    found = Reader(text)
    assert set(found.tags) <= ALLOWED, set(found.tags) - ALLOWED
    assert found.attributes <= ATTRIBUTES, found.attributes - ATTRIBUTES
    assert found.scripts == ["../page/theme.js"]
    for link in found.links:
        assert re.fullmatch(LINK, link, re.DOTALL), link
    return found


def test_every_runbook_of_the_repository_is_served_whole_and_small() -> None:
    assert set(pages()) == {path.stem for path in FOLDER.glob("*.md")} == set(texts())
    assert sum(len(page.body) for page in pages().values()) < 200_000
    assert len({page.etag for page in pages().values()}) == len(pages())


@pytest.mark.parametrize("name", sorted(pages()))
def test_a_page_is_harmless_and_says_what_the_text_says(name: str) -> None:
    found = harmless(pages()[name].body.decode())
    written = texts()[name]
    title = written.splitlines()[0].removeprefix("# ").replace("`", "")
    assert title in found.words
    for heading in re.findall(r"^## (.+)$", written, re.MULTILINE):
        assert heading.replace("`", "") in found.words
    for command in re.findall(r"^    (tailsight .+)$", written, re.MULTILINE):
        assert command in found.words
    assert "](" not in found.words
    assert found.tags.count("table") == len(re.findall(r"^\|[-| ]+\|$", written, re.MULTILINE))
    for link in found.links:
        place, _, part = link.partition("#")
        if "://" in link or link == "../":
            continue
        target = pages()["README" if place == "./" else place] if place else pages()[name]
        assert not part or part in Reader(target.body.decode()).ids, link


def test_pages_link_each_other() -> None:
    index = Reader(pages()["README"].body.decode())
    assert set(pages()) - {"README"} <= set(index.links)


def test_a_link_to_what_is_not_served_becomes_its_text() -> None:
    text = "[a](../alerts.md) [b](gone.md) [c](cpu_hog.md#what-to-do) [d](javascript:alert(1)) [e](//evil.example/x) [f](https://x.example/y)"
    found = harmless(document(text, {"cpu_hog": 0}))
    assert found.links[-2:] == ["cpu_hog#what-to-do", "https://x.example/y"]
    assert len(found.links) == 5  # and the three of the frame
    assert all(word in found.words for word in "abdf")


def test_markup_and_images_of_a_text_stay_text() -> None:
    found = harmless(
        document("# <b>T</b>\n\n<script>x()</script> ![p](https://x/y.png)\n\n|a|\n|-:|\n|<i onclick=x>|\n", {})
    )
    assert "<b>T</b>" in found.words
    assert "<script>x()</script>" in found.words
    assert "<i onclick=x>" in found.words


@given(st.text(alphabet=st.sampled_from("#[](){}<>|-*_`!&;:/\\\"'= \nabhj1."), max_size=200))
def test_no_text_makes_a_page_that_is_not_harmless(text: str) -> None:
    harmless(document(text, {"a": 0}))


@pytest.mark.parametrize(
    ("written", "place"),
    [
        ("docs/runbooks/README.md", "/runbooks/"),
        ("docs/runbooks/", "/runbooks/"),
        ("./docs/runbooks/cpu_hog.md", "/runbooks/cpu_hog"),
        ("/runbooks/cpu_hog", "/runbooks/cpu_hog"),
        ("runbooks/cpu_hog.md#what-to-do", "/runbooks/cpu_hog#what-to-do"),
    ],
)
def test_a_runbook_of_ours_becomes_an_address(written: str, place: str) -> None:
    annotations = {"tailsight.dev/runbook": written}
    assert runbook_of(annotations, URL) == URL + place
    assert runbook_of(annotations, f"{URL}/below/") == f"{URL}/below{place}"
    assert runbook_of(annotations, None) == place
    assert runbook_of(annotations, "") == runbook_of(annotations) == written


@pytest.mark.parametrize(
    "written",
    [
        "https://wiki.example/runbooks/cpu_hog", "docs/runbooks/ours.md", "docs/runbooks/../alerts.md",
        "docs/runbooks/.md",         "docs/runbooks/cpu_hog.md?x=1", "docs/runbooks/cpu_hog\n", "//runbooks/cpu_hog",
        "javascript:alert(1)", "see the wiki",
    ],
)  # fmt: skip
def test_anything_else_stays_as_it_is_written(written: str) -> None:
    assert runbook_of({"runbook": written}, URL) == runbook_of({"runbook": written}, None) == written


def test_the_first_annotation_counts_and_none_is_none() -> None:
    both = {"runbook": "https://b.example", "tailsight.dev/runbook": "docs/runbooks/link.md", "runbook_url": "c"}
    assert runbook_of(both, URL) == f"{URL}/runbooks/link"
    assert runbook_of({}, URL) == runbook_of({"tailsight.dev/runbook": ""}, None) == ""
