"""What is pushed beside dashboards and rules, as Grafana takes it: the data source, contact points, annotations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from analytics.slo.episodes import Alert
from dashboards.grafana.alert_rules import SOURCE_UID
from dashboards.grafana.board import EPISODES
from dashboards.grafana.panels import PLUGIN
from dashboards.grafana.pushing import ID_TAG, TAG

_MAX_TAG, _MAX_TEXT = 100, 1_000
_UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")


class ContactPointsError(ValueError):
    """A file of contact points cannot be used; the message says where and why."""


def source(address: str, database: str = "tailsight", user: str = "grafana", name: str = "Tailsight") -> dict[str, Any]:
    """The data source for a server's SQL door at `address`, as the provisioning file has it. Raises ValueError."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query or parts.fragment:
        raise ValueError(f"{address!r} is not the address of a server; write http://HOST:8472")
    return {
        "name": name,
        "uid": SOURCE_UID,
        "type": PLUGIN,
        "access": "proxy",
        "jsonData": {
            "host": parts.hostname,
            "port": parts.port or (443 if parts.scheme == "https" else 80),
            "path": f"{parts.path.rstrip('/')}/clickhouse",
            "protocol": "http",
            "secure": parts.scheme == "https",
            "defaultDatabase": database,
            "username": user,
            "dialTimeout": "10",
            "queryTimeout": "60",
        },
    }


def contact_points(document: Any, environment: Mapping[str, str]) -> list[dict[str, Any]]:
    """Contact points of a file in Grafana's own form for provisioning, one per receiver.

    `${NAME}` in a setting is taken from the environment. Raises ContactPointsError.
    """
    given = document.get("contactPoints") if isinstance(document, Mapping) else None
    if not isinstance(given, list) or not given:
        raise ContactPointsError("there is no list `contactPoints`")
    found, seen = [], set()
    for number, point in enumerate(given):
        where = f"contactPoints[{number}]"
        if not isinstance(point, Mapping) or not isinstance(point.get("name"), str) or not point["name"]:
            raise ContactPointsError(f"{where} has no name")
        receivers = point.get("receivers")
        if not isinstance(receivers, list) or not receivers:
            raise ContactPointsError(f"{where} ({point['name']}) has no receivers")
        for place, receiver in enumerate(receivers):
            at = f"{where}.receivers[{place}]"
            if not isinstance(receiver, Mapping) or not isinstance(receiver.get("type"), str):
                raise ContactPointsError(f"{at} has no type")
            uid = receiver.get("uid")
            if not isinstance(uid, str) or not _UID.fullmatch(uid) or uid in seen:
                raise ContactPointsError(f"{at} needs a uid of its own: 1 to 40 letters, digits, - and _")
            seen.add(uid)
            settings = receiver.get("settings")
            if not isinstance(settings, Mapping):
                raise ContactPointsError(f"{at} has no settings")
            found.append(
                {
                    "uid": uid,
                    "name": point["name"],
                    "type": receiver["type"],
                    "settings": _filled(settings, environment, f"{at}.settings"),
                    "disableResolveMessage": bool(receiver.get("disableResolveMessage", False)),
                }
            )
    return found


def change_annotation(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `changes` (with `ts_ns`) as a point in time."""
    at_ms = int(row["ts_ns"]) // 1_000_000
    version = f" {row['version']}" if row.get("version") else ""
    about = {name: str(row[name]) for name in ("service", "host") if row.get(name)}
    text = f"{row['kind']}: {row['what']}{version} ({row['who']})" + (f" {row['url']}" if row.get("url") else "")
    tags = [TAG, "tailsight-change", str(row["kind"]), *(f"{name}:{value}" for name, value in about.items())]
    return _annotation(at_ms, at_ms, tags, str(row["id"]), text)


def episode_annotation(alert: Alert, severity: str) -> dict[str, Any]:
    """An alert that fires or has fired, as the time for which it did; while it fires, its beginning."""
    start_ms, end_ms = alert.fired_ns // 1_000_000, alert.resolved_ns // 1_000_000
    ended = alert.state == "resolved" and end_ms >= start_ms
    tags = [TAG, EPISODES, f"objective:{alert.objective}", f"rule:{alert.rule}"]
    if severity:
        tags.append(f"severity:{severity}")
    state = "fired" if ended else alert.state
    text = f"{alert.objective} {alert.rule} {state}" + (f": {alert.why}" if alert.why else "")
    return _annotation(start_ms, end_ms if ended else start_ms, tags, alert.episode, text)


def _annotation(start_ms: int, end_ms: int, tags: Iterable[str], name: str, text: str) -> dict[str, Any]:
    return {
        "time": start_ms,
        "timeEnd": end_ms,
        "tags": [one[:_MAX_TAG] for one in (*tags, f"{ID_TAG}{name}")],
        "text": text[:_MAX_TEXT],
    }


def _filled(value: Any, environment: Mapping[str, str], at: str) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _filled(one, environment, f"{at}.{key}") for key, one in value.items()}
    if isinstance(value, list):
        return [_filled(one, environment, f"{at}[{n}]") for n, one in enumerate(value)]
    if not isinstance(value, str):
        return value

    def put(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise ContactPointsError(f"{at} wants the environment's {match[1]}, which is not set")
        return environment[match[1]]

    return re.sub(r"\$\{(\w+)\}", put, value)
