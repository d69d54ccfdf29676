"""The runbooks that are shipped: which there are, and the address of the one that an SLO's annotation names.

Their text is `docs/runbooks`: a wheel carries a copy beside this module, a source tree has the folder itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path

ANNOTATIONS = ("tailsight.dev/runbook", "runbook_url", "runbook")  # the first that is given counts
INDEX = "README"
ROOT = "/runbooks/"
_HERE = Path(__file__).resolve().parent
_FOLDERS = (_HERE, _HERE.parents[1] / "docs" / "runbooks")
# The place in the repository or the address on the server, with or without the part of the page.
_OURS = re.compile(
    r"(?:\./|/)?(?:docs/)?runbooks(?:/(?P<name>[A-Za-z0-9_-]{1,60})?(?:(?<=[A-Za-z0-9_-])\.md)?)?(?P<part>#[a-z0-9_-]{1,80})?"
)


@cache
def texts() -> Mapping[str, str]:
    """The Markdown of every runbook by name; the index is `README`. Empty in a package that was built without them."""
    folder = next((one for one in _FOLDERS if (one / f"{INDEX}.md").is_file()), _HERE)
    return {path.stem: path.read_text("utf-8") for path in sorted(folder.glob("*.md"))}


def runbook_of(annotations: Mapping[str, object], public_url: str | None = "") -> str:
    """The runbook that an SLO's annotations name, or "".

    One of ours becomes `<public_url>/runbooks/NAME`; anything else, and everything when `public_url` is "", stays as
    it is written. With None it becomes `/runbooks/NAME`, for whoever asks the server itself.
    """
    written = next((str(annotations[name]) for name in ANNOTATIONS if annotations.get(name)), "")
    if public_url == "":
        return written
    place = _place(written)
    return written if place is None else (public_url or "").rstrip("/") + place


def _place(written: str) -> str | None:
    """The path on the server of a runbook of ours, None for anything else."""
    found = _OURS.fullmatch(written)
    if found is None:
        return None
    name = found["name"] or INDEX
    if name not in texts():
        return None
    return ROOT + ("" if name == INDEX else name) + (found["part"] or "")
