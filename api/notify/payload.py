"""What a notification says, from a row of the outbox: the same bytes for every try."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from dashboards.runbooks import runbook_of

NS = 1_000_000_000
VERSION = "1"
_SHOWN = (
    "service", "severity", "display_name", "indicator", "target", "why", "breach_ns", "fired_ns", "resolved_ns",
    "acknowledged_by", "sides", "budget", "cost_per_hour", "cost", "episode_cost", "top_cause", "cause",
    "queries", "labels", "maintenance",
)  # fmt: skip
# What takes longer to find out than a page may wait: told afterwards.
LATER = ("cost_per_hour", "cost", "top_cause", "cause")
_MAX_LABELS, _MAX_TEXT = 40, 1_000


@dataclass(frozen=True, slots=True)
class Notice:
    """A row of the outbox: a change of an alert's state that somebody has to hear of."""

    id: int
    episode: str
    kind: str
    objective: str
    rule: str
    at_ns: int
    body: Mapping[str, Any]

    @property
    def key(self) -> str:
        """The same for every try: a receiver that has seen it has seen the notification."""
        return f"{self.episode}-{self.kind}"


def content(notice: Notice, dashboards: str = "", public_url: str = "") -> dict[str, Any]:
    """The notification as a document (docs/alerts.md). What is not known is absent."""
    if notice.kind == "rollback":
        return rollback(notice)
    body = notice.body
    budget = body.get("budget") or {}
    found: dict[str, Any] = {
        "version": VERSION,
        "id": notice.key,
        "dedup_key": notice.episode,
        "status": notice.kind,
        "at_ns": notice.at_ns,
        "summary": summary(notice),
        "objective": notice.objective,
        "rule": notice.rule,
        "links": links(notice, dashboards, public_url),
    }
    found |= {name: body[name] for name in _SHOWN if body.get(name) not in (None, "", 0)}
    if budget.get("exhausted_s") is not None:
        found["exhausted_s"] = budget["exhausted_s"]
    return found


def rollback(notice: Notice) -> dict[str, Any]:
    """The trigger of a rollback as a document (docs/gates.md)."""
    body = notice.body
    return {
        "version": VERSION,
        "id": notice.key,
        "dedup_key": notice.episode,
        "status": notice.kind,
        "at_ns": notice.at_ns,
        "gate": notice.objective,
        "description": body.get("description", ""),
        "summary": f"roll back: gate {notice.objective} is closed: {body.get('why', '')}"[:_MAX_TEXT],
        "closing_ns": body.get("closing_ns", notice.at_ns),
        "sides": body.get("sides", []),
    }


def summary(notice: Notice) -> str:
    """One line for a pager."""
    body = notice.body
    name = body.get("display_name") or notice.objective
    head = f"{name}: {notice.rule} {notice.kind}"
    if notice.kind == "resolved":
        return head + (f" after {_span((notice.at_ns - body['fired_ns']) / NS)}" if body.get("fired_ns") else "")
    if notice.kind == "explained":
        said = [str(body.get("top_cause") or ""), str((body.get("cost") or {}).get("sentence") or "")]
        return ": ".join(part for part in (f"{name}: {notice.rule}", ", ".join(s for s in said if s)) if part)
    if notice.kind == "acknowledged":
        return f"{head} by {body.get('acknowledged_by', '')}"
    parts = [
        f"burns {side['burn']:.3g} x its budget over {_span(side['window_s'])}" for side in body.get("sides", ())[:2]
    ]
    left = (body.get("budget") or {}).get("exhausted_s")
    if left is not None and parts:
        parts.append(f"budget gone in {_span(left)}" if left > 0 else "budget is gone")
    if body.get("why") and not body.get("sides"):
        parts.append(str(body["why"]))
    return ": ".join(part for part in (head, ", ".join(parts)) if part)


def links(notice: Notice, dashboards: str, public_url: str = "") -> dict[str, str]:
    """The dashboard over the episode's time, where a Grafana is known, and the runbook of the SLO's annotations.

    A runbook of ours is at `public_url`, the server's address, where that is known.
    """
    body, found = notice.body, {}
    if dashboards:
        since = body.get("breach_ns") or notice.at_ns
        window_s = max((side["window_s"] for side in body.get("sides", ())), default=3_600)
        query = {"from": str(since // 10**6 - min(window_s, 86_400) * 1_000), "to": "now"}
        if notice.kind == "resolved":
            query["to"] = str(notice.at_ns // 10**6)
        board = "tailsight-path" if body.get("path") else "tailsight-overview"
        if body.get("path"):
            query["var-path"] = str(body["path"])
        found["dashboard"] = f"{dashboards.rstrip('/')}/d/{board}?{urlencode(query)}"
    runbook = runbook_of(body.get("annotations") or {}, public_url)
    if runbook:
        found["runbook"] = runbook
    return found


def alert_labels(first: Notice) -> dict[str, str]:
    """An Alertmanager alert's labels: of the notice that began the episode, so that its fingerprint never changes."""
    body = first.body
    own = {
        "alertname": f"{first.objective} {first.rule}",
        "objective": first.objective,
        "rule": first.rule,
        "service": str(body.get("service") or ""),
        "severity": str(body.get("severity") or ""),
        "episode": first.episode,
    }
    found: dict[str, str] = {}
    for name, value in sorted((body.get("labels") or {}).items())[:_MAX_LABELS]:
        text = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
        found[re.sub(r"^(?=\d)|[^a-zA-Z0-9_]", "_", str(name))[:100] or "_"] = text
    return {name: text[:_MAX_TEXT] for name, text in {**found, **own}.items() if text}


def alert(
    first: Notice,
    resolved: Notice | None,
    now_ns: int,
    resend_ns: int,
    dashboards: str = "",
    later: Mapping[str, Any] | None = None,
    public_url: str = "",
) -> dict[str, Any]:
    """An alert of Alertmanager's v2 API: firing for four more intervals, or ended; with what was found out `later`."""
    shown = {**content(resolved or first, dashboards, public_url), **(later or {})}
    cost = shown.get("cost") or {}
    starts_ns = first.body.get("fired_ns") or first.at_ns
    # Alertmanager refuses an end before the start: a clock that was set back must not lose the end.
    ends_ns = now_ns + 4 * resend_ns if resolved is None else max(resolved.at_ns, starts_ns + 1_000_000)
    notes = {
        "summary": shown["summary"],
        "description": str(shown.get("why", "")),
        "indicator": str(shown.get("indicator", "")),
        "target": f"{shown['target']:g}" if "target" in shown else "",
        "since": stamp(first.body.get("breach_ns") or starts_ns),
        "exhausted_s": f"{shown['exhausted_s']:.0f}" if "exhausted_s" in shown else "",
        "cost_per_hour": str(cost.get("sentence") or shown.get("cost_per_hour", "")),
        "episode_cost": str((shown.get("episode_cost") or {}).get("sentence", "")),
        "top_cause": str(shown.get("top_cause", "")),
        "dashboard": shown["links"].get("dashboard", ""),
        "runbook_url": shown["links"].get("runbook", ""),
        "maintenance": _maintenance(shown.get("maintenance") or {}),
        "burn": ", ".join(f"{s['burn']:.4g} over {_span(s['window_s'])}" for s in shown.get("sides", ())),
        "query": ";\n".join(one["sql"] for one in shown.get("queries", ())),
    }
    made: dict[str, Any] = {
        "labels": alert_labels(first),
        "annotations": {name: text[: 4 * _MAX_TEXT] for name, text in notes.items() if text},
        "startsAt": stamp(starts_ns),
        "endsAt": stamp(max(ends_ns, starts_ns + 1_000_000)),
    }
    if notes["dashboard"]:
        made["generatorURL"] = notes["dashboard"]
    return made


def _maintenance(window: Mapping[str, Any]) -> str:
    if not window:
        return ""
    held = f", held until {stamp(window['held_until_ns'])}" if window.get("held_until_ns") else ""
    return f"{window.get('name', '')} of {window.get('who', '')}: {window.get('why', '')}{held}"


def stamp(at_ns: int) -> str:
    """A time as RFC 3339, to the microsecond."""
    return datetime.fromtimestamp(at_ns // NS, UTC).strftime("%Y-%m-%dT%H:%M:%S") + f".{at_ns % NS // 1000:06d}Z"


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
