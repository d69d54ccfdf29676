"""The dashboards as files: what is in git, what Grafana provisions, what is pushed, is one and the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dashboards.grafana import alert_rules
from dashboards.grafana.boards import BOARDS

FOLDER = Path("deploy/grafana/dashboards")
ALERTING = Path("deploy/grafana/provisioning/alerting/tailsight.yaml")
_HEAD = """\
# Made by `tailsight dashboards alerts`: the burn rules of the objectives, judged by Grafana on the same counts.
# docs/grafana.md says how they differ from the server's own alerts, and when to use which.
"""


def documents() -> dict[str, dict[str, Any]]:
    """Every dashboard's JSON by file name."""
    return {f"{document['uid']}.json": document for document in (build().document() for build in BOARDS)}


def text(document: dict[str, Any]) -> str:
    """A dashboard as it is written: sorted, indented, the same every time."""
    return json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def burn_panel() -> int:
    """The id of the panel that alert rules link to."""
    panels = documents()[f"{alert_rules.BOARD}.json"]["panels"]
    return next(int(panel["id"]) for panel in panels if panel["title"] == alert_rules.PANEL)


def alerting_text(document: dict[str, Any]) -> str:
    """A document for `provisioning/alerting/` as it is written."""
    import yaml

    return _HEAD + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120)


def stale(folder: Path) -> list[str]:
    """The names of files below `folder` that are missing, different, or of a board that is no more."""
    return sorted(_differences(folder))


def write(folder: Path) -> list[str]:
    """Write all dashboards below `folder`, remove those that are no more, and return the names that changed."""
    folder.mkdir(parents=True, exist_ok=True)
    changed = _differences(folder)
    for name, content in changed.items():
        if content is None:
            (folder / name).unlink()
        else:
            (folder / name).write_text(content, encoding="utf-8")
    return sorted(changed)


def _differences(folder: Path) -> dict[str, str | None]:
    """What each file that is not right must hold; None where it must go. Only files of ours are looked at."""
    wanted = {name: text(document) for name, document in documents().items()}
    there = {file.name: file.read_text(encoding="utf-8") for file in folder.glob("tailsight-*.json")}
    return {
        name: wanted.get(name) for name in sorted(wanted.keys() | there.keys()) if wanted.get(name) != there.get(name)
    }
