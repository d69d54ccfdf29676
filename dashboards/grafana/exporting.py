"""What a Grafana holds, as files that can be compared and kept."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dashboards.grafana.remote import Grafana


def exported(grafana: Grafana, folder_uid: str) -> dict[str, dict[str, Any]]:
    """Dashboards and groups of alert rules of a folder, by file name; without what Grafana counts itself."""
    found: dict[str, dict[str, Any]] = {}
    for one in grafana.dashboards_in(folder_uid):
        there = grafana.dashboard(str(one.get("uid")))
        if there is not None:
            document = {key: value for key, value in there["dashboard"].items() if key not in ("id", "version")}
            found[f"dashboards/{_name(str(one['uid']))}.json"] = document
    groups = {str(rule.get("ruleGroup")) for rule in grafana.rules() if rule.get("folderUID") == folder_uid}
    for name in sorted(groups):
        group = grafana.group(folder_uid, name)
        if group is not None:
            found[f"alert-rules/{_name(name)}.json"] = group
    return found


def written(documents: Mapping[str, Mapping[str, Any]], out: Path) -> list[str]:
    """Write documents below `out`; returns their names."""
    for name, document in documents.items():
        file = out / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(document, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")
    return sorted(documents)


def _name(text: str) -> str:
    """A file name of what somebody else has named."""
    return re.sub(r"[^a-zA-Z0-9_-]+", "-", text)[:100].strip("-") or "unnamed"
