"""What a page is made of: sentences, tables, charts and sections of them. All of it is plain text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analytics.report.words import clean

MOST_CELL = 160


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


def cell(text: str, most: int = MOST_CELL) -> str:
    """A name in a table."""
    return clean(text, most)


class DrawingError(RuntimeError):
    """A chart or the page could not be drawn; the message is the drawing program's own."""


class MissingExtraError(RuntimeError):
    """What draws charts or pages is not installed; the message says how to install it."""

    def __init__(self, module: str) -> None:
        super().__init__(f"reports need the extra `report` ({module} is missing): pip install 'tailsight[report]'")
