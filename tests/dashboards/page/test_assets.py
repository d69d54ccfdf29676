"""The page's files: nothing from elsewhere, no text taken for markup, every module asked for at once, colours seen."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest

from dashboards.page import INDEX, POLICY, assets

FOLDER = Path(__file__).resolve().parents[3] / "dashboards" / "page"
TEXTS = {name: asset.body.decode() for name, asset in assets().items()}
MODULES = {name for name in TEXTS if name.endswith(".js")} - {"theme.js"}
SINKS = (
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc"
    r"|\beval\b|new Function|setTimeout\(\s*[\"'`]|cssText|\.setAttribute\([\"'](?:style|on)"
)


def test_every_file_of_the_folder_is_served() -> None:
    others = {path.name for path in FOLDER.iterdir() if path.is_file()} - set(TEXTS)
    assert others == {"__init__.py"}
    assert {"index.html", "main.js", "page.css", "theme.js", "icon.svg"} <= set(TEXTS)


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_nothing_is_fetched_from_elsewhere(name: str) -> None:
    text = TEXTS[name].replace("http://www.w3.org/2000/svg", "")  # a name, not an address
    found = re.findall(r"(?:https?:|wss?:)?//[a-z0-9][\w.-]*", text, re.IGNORECASE)
    assert not found, found
    assert "@import" not in text
    assert not re.search(r"url\(\s*[\"']?(?!#)", text.replace("url(#${id})", "")), "an address in a style"


@pytest.mark.parametrize("name", sorted(MODULES | {"theme.js"}))
def test_no_text_is_taken_for_markup_or_code(name: str) -> None:
    assert not re.findall(SINKS, TEXTS[name])


def test_the_document_has_no_inline_code_or_style() -> None:
    text = TEXTS[INDEX]
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:", text)
    assert all(
        re.search(r'src="/page/[\w.]+"></script>', script) for script in re.findall(r"<script.*?</script>", text)
    )


def test_modules_import_what_there_is_and_the_document_asks_for_all_at_once() -> None:
    for name in MODULES:
        for other in re.findall(r'from "\./([\w.]+)"', TEXTS[name]):
            assert other in MODULES, f"{name} imports {other}"
    asked = re.findall(r'rel="modulepreload" href="/page/([\w.]+)"', TEXTS[INDEX])
    assert sorted([*asked, "main.js"]) == sorted(MODULES)


def test_it_is_small() -> None:
    assert sum(len(asset.body) for asset in assets().values()) < 150_000
    for name in MODULES:
        assert TEXTS[name].count("\n") < 260, name


def test_the_policy_allows_our_own_files_and_nothing_else() -> None:
    rules = dict(rule.split(" ", 1) for rule in POLICY.split("; "))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert rules["script-src"] == rules["style-src"] == rules["connect-src"] == "'self'"
    assert "unsafe" not in POLICY
    assert rules["require-trusted-types-for"] == "'script'"


def _colours() -> dict[str, tuple[str, str]]:
    return {
        name: (light, dark)
        for name, light, dark in re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\);", TEXTS["page.css"])
    }


def _luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * r + 0.7152 * g + 0.0722 * b


def contrast(one: str, other: str) -> float:
    """WCAG 2.2, relative luminance."""
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


TEXT_ON = [
    *((ink, ground) for ink in ("ink", "soft", "link") for ground in ("ground", "card", "track", "chosen")),
    *((tone, f"{tone}-ground") for tone in ("good", "warn", "bad")),
    ("bad", "card"), ("ink", "bad-ground"), ("ink", "warn-ground"),
    *(("on-seg", kind) for kind in ("network", "compute", "queue", "store", "scheduler", "other")),
]  # fmt: skip
SEEN_ON_CARD = ["network", "compute", "queue", "store", "scheduler", "other", "fill", "good", "warn", "bad", "budget",
                *(f"line-{i}" for i in range(5)), "focus"]  # fmt: skip


def test_text_and_pictures_have_the_contrast_of_wcag_aa() -> None:
    colours = _colours()
    assert len(colours) > 30
    for theme in (0, 1):
        for ink, ground in TEXT_ON:
            found = contrast(colours[ink][theme], colours[ground][theme])
            assert found >= 4.5, f"{ink} on {ground}, theme {theme}: {found:.2f}"
        for name in SEEN_ON_CARD:
            found = contrast(colours[name][theme], colours["card"][theme])
            assert found >= 3, f"{name} on card, theme {theme}: {found:.2f}"


def test_the_heatmaps_shades_rise() -> None:
    colours = _colours()
    for theme in (0, 1):
        ground = colours["card"][theme]
        steps = [contrast(colours[f"heat-{i}"][theme], ground) for i in range(1, 9)]
        assert steps == sorted(steps)
        assert all(later / earlier > 1.15 for earlier, later in itertools.pairwise(steps))


def test_every_colour_that_is_used_is_defined() -> None:
    used = set(re.findall(r"var\(--([\w-]+)\)", TEXTS["page.css"]))
    assert used <= set(_colours()), used - set(_colours())
