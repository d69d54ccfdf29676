"""The report as parts of a page: sentences, tables and charts, the same for HTML and PDF.

Everything here is plain text. Whoever draws it treats it as text and never as markup; names have been cleaned of
characters that would turn or break the text around them.
"""

from __future__ import annotations

from dataclasses import dataclass

from analytics.report.value import Report
from analytics.report.words import clean, moment
from dashboards.report import evidence, first
from dashboards.report.blocks import Block, Chart, Section, Table, Text, cell

_MOST_TEXT = 900


@dataclass(frozen=True, slots=True)
class View:
    """A page: the first holds what has to be read, `evidence` what it rests on."""

    title: str
    subtitle: str
    short: tuple[str, ...]
    first: tuple[Section, ...]
    evidence: tuple[Section, ...]
    foot: str


def view(report: Report) -> View:
    """The page of a report, with its charts drawn. Raises MissingExtraError without the extra `report`."""
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
