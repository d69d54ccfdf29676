"""Macros of the data source and variables of Grafana, expanded as the plugin expands them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any


def panels(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """All panels of a dashboard but row headings."""
    for panel in document["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from (inner for inner in panel.get("panels", ()) if inner["type"] != "row")


def statements(document: Mapping[str, Any]) -> Iterator[tuple[str, str, int]]:
    """(where, SQL, format) of every panel, variable and annotation."""
    for panel in panels(document):
        for target in panel["targets"]:
            yield f"{document['uid']}/{panel['title']}/{target['refId']}", target["rawSql"], target["format"]
    for variable in document["templating"]["list"]:
        if variable["type"] == "query":
            yield f"{document['uid']}/variable {variable['name']}", variable["query"]["rawSql"], 1
    for annotation in document["annotations"]["list"]:
        if "rawSql" in annotation.get("target", {}):
            yield f"{document['uid']}/annotation", annotation["target"]["rawSql"], 1


def expanded(sql: str, from_s: int, to_s: int, variables: Mapping[str, str], interval_s: int = 10) -> str:
    """`sql` as the data source sends it. Raises KeyError for a variable that nobody set."""
    text = re.sub(r"\$__timeFilter\(([^()]*)\)", rf"(\1 >= toDateTime({from_s}) AND \1 <= toDateTime({to_s}))", sql)
    text = text.replace("$__fromTime", f"toDateTime({from_s})").replace("$__toTime", f"toDateTime({to_s})")
    text = text.replace("$__interval_s", str(interval_s))
    text = re.sub(r"\$\{(\w+):singlequote\}", lambda m: f"'{variables[m[1]]}'", text)
    return re.sub(r"\$(\w+)", lambda m: variables[m[1]], text)
