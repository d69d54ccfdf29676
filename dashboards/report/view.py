"""The report as parts of a page: sentences, tables and charts, the same for HTML and PDF.

Everything here is plain text. Whoever draws it treats it as text and never as markup; names have been cleaned of
characters that would turn or break the text around them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analytics.report.value import Report
from analytics.report.words import clean, moment

MOST_CELL = 160
_MOST_TEXT = 900


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence or a few; `tone` a remark, or what is not known."""

    text: str
    tone: Literal["plain", "remark", "unknown"] = "plain"


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of cells; from column `numbers` on they are figures. `caption` says what it shows."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numbers: int = 1


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing, and its content in a sentence for those who cannot see it."""

    caption: str
    alt: str
    svg: str


Block = Text | Table | Chart


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what is under it."""

    title: str
    blocks: tuple[Block, ...]


@dataclass(frozen=True, slots=True)
class View:
    """A page: the first holds what has to be read, `evidence` what it rests on."""

    title: str
    subtitle: str
    short: tuple[str, ...]
    first: tuple[Section, ...]
    evidence: tuple[Section, ...]
    foot: str


def cell(text: str, most: int = MOST_CELL) -> str:
    """A name in a table."""
    return clean(text, most)


def view(report: Report) -> View:
    """The page of a report, with its charts drawn. Raises MissingExtraError without the extra `report`."""
    from dashboards.report import evidence, first

    only = f", messages with {clean(report.population, 60)} only" if report.population else ""
    here = f"{moment(report.from_ns)} to {moment(report.to_ns)} UTC"
    return View(
        title=clean(report.title, 100),
        subtitle=f"{here}, held against the same length before it, from {moment(report.before_from_ns)} on{only}",
        short=tuple(clean(line, _MOST_TEXT) for line in report.headline),
        first=tuple(_cleaned(one) for one in first.sections(report)),
        evidence=tuple(_cleaned(one) for one in evidence.sections(report)),
        foot=f"Made {moment(report.made_ns)} UTC by Tailsight from measured messages. Times are UTC.",
    )


def _cleaned(section: Section) -> Section:
    """Whatever a part forgot to clean or to shorten is cleaned and shortened here."""
    return Section(clean(section.title, 200), tuple(_block(block) for block in section.blocks))


def _block(block: Block) -> Block:
    if isinstance(block, Text):
        return Text(clean(block.text, _MOST_TEXT), block.tone)
    if isinstance(block, Chart):
        return Chart(clean(block.caption, 200), clean(block.alt, _MOST_TEXT), block.svg)
    rows = tuple(tuple(cell(text) for text in row) for row in block.rows)
    return Table(clean(block.caption, 200), tuple(cell(name, 60) for name in block.head), rows, block.numbers)


class DrawingError(RuntimeError):
    """A chart or the page could not be drawn; the message is the drawing program's own."""


class MissingExtraError(RuntimeError):
    """What draws charts or pages is not installed; the message says how to install it."""

    def __init__(self, module: str) -> None:
        super().__init__(f"reports need the extra `report` ({module} is missing): pip install 'tailsight[report]'")
