"""The page as HTML and PDF: nothing runs, nothing overflows, nothing is empty."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest

from analytics.report.value import Report
from dashboards.report import charts
from dashboards.report.blocks import Chart, Table, Text
from dashboards.report.files import drawn, read
from dashboards.report.html import html, page_policy
from dashboards.report.pdf import pdf
from dashboards.report.view import View, view
from tests.dashboards.report.sample import HOSTILE, hostile, sample
from tests.needs import program


class Page(HTMLParser):
    """What a browser would make of it: elements, attributes and text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.text.append(data)


@pytest.fixture(scope="module")
def views() -> dict[str, View]:
    return {"sample": view(sample()), "hostile": view(hostile())}


@pytest.fixture(scope="module")
def pages(views: dict[str, View]) -> dict[str, str]:
    return {name: html(one) for name, one in views.items()}


@pytest.fixture(scope="module")
def pdfs(views: dict[str, View], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pdf")
    for name, one in views.items():
        (folder / f"{name}.pdf").write_bytes(pdf(one))
    return {name: folder / f"{name}.pdf" for name in views}


def blocks(one: View) -> Iterator[Text | Table | Chart]:
    for section in (*one.first, *one.evidence):
        yield from section.blocks


ELEMENTS = {
    "html", "head", "meta", "title", "style", "body", "main", "header", "h1", "h2", "p", "ul", "li", "section", "div",
    "table", "caption", "thead", "tbody", "tr", "th", "td", "bdi", "figure", "img", "figcaption",
}  # fmt: skip


@pytest.mark.parametrize("name", ["sample", "hostile"])
def test_the_html_has_only_harmless_elements_and_fetches_nothing(pages: dict[str, str], name: str) -> None:
    page = Page(pages[name])
    assert set(page.tags) <= ELEMENTS
    for _, attribute, value in page.attributes:
        assert not attribute.startswith("on")
        assert attribute != "style"
        if attribute in ("src", "href"):
            assert value.startswith("data:image/svg+xml;base64,")


def test_the_policy_allows_the_style_by_its_hash_and_nothing_else(pages: dict[str, str]) -> None:
    page = Page(pages["sample"])
    policy = next(
        value for tag, name, value in page.attributes if tag == "meta" and name == "content" and "src" in value
    )
    style = re.search(r"<style>(.*?)</style>", pages["sample"], re.DOTALL)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page_policy().startswith(policy)


def test_hostile_text_is_shown_as_text_in_html(pages: dict[str, str]) -> None:
    shown = "".join(Page(pages["hostile"]).text)
    for text in ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "{{ 7*7 }}", '#panic("typst")', "שלום"):
        assert text in shown
    assert "\u202e" not in pages["hostile"]
    assert "\x00" not in pages["hostile"]


@pytest.mark.parametrize("name", ["sample", "hostile"])
def test_charts_are_drawings_without_scripts_links_or_foreign_content(views: dict[str, View], name: str) -> None:
    found = [block for block in blocks(views[name]) if isinstance(block, Chart)]
    assert len(found) >= 8
    for chart in found:
        root = ElementTree.fromstring(chart.svg)  # noqa: S314 - made here
        tags = {element.tag.partition("}")[2] for element in root.iter()}
        assert tags <= {"svg", "g", "path", "line", "rect", "text", "tspan", "circle", "clipPath", "defs"}, tags
        for element in root.iter():
            assert not any(key.lower().startswith("on") or key.endswith("href") for key in element.attrib)
        marks = [e for e in root.iter() if "mark-" in e.get("class", "") and "role-mark" in e.get("class", "")]
        assert marks, "an empty chart"
        assert chart.alt
        assert chart.caption


def test_labels_of_charts_lie_inside_the_drawing(views: dict[str, View]) -> None:
    """The widest label of names is drawn right-aligned from the axis: its begin must not be cut."""
    for one in views.values():
        for chart in (block for block in blocks(one) if isinstance(block, Chart)):
            root = ElementTree.fromstring(chart.svg)  # noqa: S314 - made here
            moved = re.search(r'transform="translate\(([\d.]+),', chart.svg)
            assert moved is not None
            left = float(moved[1])
            for element in root.iter():
                if element.tag.endswith("text") and element.get("text-anchor") == "end" and element.text:
                    assert left > 6.0 * min(len(element.text), 34) or "W" in element.text or not element.text.isascii()


def words_of(file: Path) -> Iterator[tuple[int, dict[str, float], str, float]]:
    text = subprocess.run(
        [program("pdftotext", "poppler-utils"), "-bbox", str(file), "-"], capture_output=True, check=True
    ).stdout.decode("utf-8", "replace")
    number, width = 0, 0.0
    for line in text.splitlines():
        if match := re.search(r'<page width="([\d.]+)"', line):
            number, width = number + 1, float(match[1])
        elif match := re.search(
            r'xMin="([-\d.]+)" yMin="([-\d.]+)" xMax="([-\d.]+)" yMax="([-\d.]+)">(.*)</word>', line
        ):
            box = dict(zip(("x0", "y0", "x1", "y1"), map(float, match.groups()[:4]), strict=True))
            yield number, box, match[5], width


@pytest.mark.parametrize("name", ["sample", "hostile"])
def test_no_word_of_the_pdf_leaves_its_page(pdfs: dict[str, Path], name: str) -> None:
    found = list(words_of(pdfs[name]))
    assert len(found) > 500
    for _, box, word, width in found:
        assert box["x0"] >= 0, word
        assert box["x1"] <= width, word
        assert 0 <= box["y0"] < box["y1"] <= 842, word


def test_the_first_page_holds_all_that_has_to_be_read(pdfs: dict[str, Path], views: dict[str, View]) -> None:
    tool = program("pdftotext", "poppler-utils")
    first = subprocess.run(
        [tool, "-l", "1", "-layout", str(pdfs["sample"]), "-"], capture_output=True, text=True, check=True
    ).stdout
    for section in views["sample"].first:
        assert section.title in first
    assert views["sample"].evidence[0].title not in first
    assert views["sample"].first[-1].blocks[0].text.split(".")[0][:40] in first  # type: ignore[union-attr]


def test_hostile_text_is_shown_as_text_in_the_pdf(pdfs: dict[str, Path]) -> None:
    tool = program("pdftotext", "poppler-utils")
    done = subprocess.run([tool, "-raw", str(pdfs["hostile"]), "-"], capture_output=True, check=True)
    text = (
        done.stdout.decode("utf-8", "replace").replace("\n", "").replace(" ", "").replace("\u200b", "").replace("-", "")
    )
    for hostile_text in ("<script>alert(1)</script>", '#panic("typst")', "{{7*7}}", "=HYPERLINK(1)"):
        assert hostile_text.replace(" ", "") in text


def test_the_json_is_the_value_and_reads_back() -> None:
    report = sample()
    data = drawn(report, ("json",))["json"]
    assert read(data) == report
    assert b"NaN" not in data
    assert isinstance(msgspec.json.decode(data), dict)


def without_anything(report: Report) -> Report:
    """The same report of a time in which nothing is known."""
    from analytics.completeness import Share
    from analytics.report.changes import changes_of
    from analytics.report.funding import funding
    from analytics.report.headline import headline
    from analytics.report.quality import quality
    from analytics.report.reliability import reliability
    from tests.dashboards.report.sample import WEEK

    dependable, funded = reliability([], [], WEEK, objectives=0), funding(None)
    empty = tuple(
        msgspec.convert(
            {
                **msgspec.to_builtins(one), "count": 0, "before_count": 0, "unfinished": 0, "mean_ns": None,
                "mean_before_ns": None, "series": [], "stages": [], "completeness": None,
                "quantiles": [
                    {
                        **msgspec.to_builtins(q), "refused": "p99 needs 368", "verdict": "not known",
                        **{name: None for name in msgspec.to_builtins(q) if name.endswith("_ns")},
                    }
                    for q in one.quantiles
                ],
            },
            type(one),
        )
        for one in report.paths
    )  # fmt: skip
    return msgspec.convert(
        {
            **msgspec.to_builtins(report),
            "paths": msgspec.to_builtins(empty), "costs": [], "budgets": [], "agreements": [], "debts": [],
            "budgets_unknown": "No objective is in force, so that there is no budget to burn.",
            "reliability": msgspec.to_builtins(dependable), "funding": msgspec.to_builtins(funded),
            "changes": msgspec.to_builtins(changes_of([], {}, 0, [], "")),
            "quality": msgspec.to_builtins(quality(Share(0, 1, 0, 0, None), empty)),
            "headline": headline(empty, (), (), dependable, funded),
        },
        Report,
    )  # fmt: skip


def test_what_is_not_known_is_a_sentence_and_no_empty_chart_or_table() -> None:
    nothing = view(without_anything(sample()))
    for block in blocks(nothing):
        assert not isinstance(block, Chart)
        if isinstance(block, Table):
            assert block.rows
    for section in (*nothing.first, *nothing.evidence):
        assert section.blocks, section.title
    shown = " ".join(nothing.short)
    assert "Too few messages" in shown
    assert "not known" in shown
    assert pdf(nothing).startswith(b"%PDF")
    assert "<img" not in html(nothing)


def test_a_label_that_vega_would_cut_inside_a_character_is_drawn() -> None:
    report: Any = sample()
    line = report.paths[0]
    stages = tuple(msgspec.structs.replace(s) if isinstance(s, msgspec.Struct) else s for s in line.stages)
    import dataclasses

    named = dataclasses.replace(
        line, stages=tuple(dataclasses.replace(s, name=f"{'🚀' * 40}{i}") for i, s in enumerate(stages))
    )
    assert charts.stages(named) is not None
    assert HOSTILE
