"""Grafana alert rules that mirror the burn rules, for those who page from Grafana.

One Grafana rule per burn rule, one group per objective, and one rule for the case that nothing is heard any more. The
same rules are written as files for provisioning and pushed over the API; the two forms differ in a few names only.

States, and why: the statement of a burn rule always returns a row, so that `NoData` is a fault and is told as one; an
error says nothing of the budget, so it is told as `DatasourceError` and not as a burn. The rule for silence fires on
both: where Grafana cannot ask, nobody is paged for anything else.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from analytics.slo.episodes import BLIND
from analytics.slo.objectives import Objective
from analytics.slo.prometheus import duration as _duration
from analytics.slo.rules import Rule
from dashboards.grafana.burn_sql import rule_sql, silence_sql
from dashboards.grafana.panels import PLUGIN, TABLE
from dashboards.runbooks import runbook_of

FOLDER_UID, FOLDER_TITLE = "tailsight", "Tailsight"
SOURCE_UID = "tailsight"
INTERVAL_S = 60
DELAY_S = 20  # what the evaluation of the server leaves to arrive, too
SILENT_S, SILENT_FOR_S = 60, 600
BOARD, PANEL = "tailsight-slo", "Burn rate"
_PREFIX = "ts-"
_MAX_TITLE = 190
_LABEL = re.compile(r"^(?=\d)|[^a-zA-Z0-9_]")


@dataclass(frozen=True, slots=True)
class AlertRule:
    """One rule, in neither of Grafana's two forms."""

    uid: str
    title: str
    sql: str
    above: float
    range_s: int
    for_s: int
    no_data: str
    on_error: str
    labels: dict[str, str]
    annotations: dict[str, str]
    board: str
    panel: int


@dataclass(frozen=True, slots=True)
class Group:
    """Rules that are evaluated together."""

    name: str
    rules: tuple[AlertRule, ...]
    interval_s: int = INTERVAL_S


@dataclass(frozen=True, slots=True)
class Mirrored:
    """The groups of some objectives, and what has no rule in Grafana."""

    groups: tuple[Group, ...]
    left_out: tuple[str, ...] = field(default=())


def mirrored(objectives: Sequence[Objective], panel: int, public_url: str = "") -> Mirrored:
    """The groups of `objectives`, in order, and the one for silence.

    `panel`: the id of the panel that they link to. `public_url`: the server's address, at which runbooks of ours are.
    """
    known = {one.name: one for one in objectives if not one.slice_s}
    groups, left_out = [], []
    for one in objectives:
        rules = []
        if one.slice_s:
            left_out.append(f"{one.name}: time slices have no rule in Grafana")
            continue
        for rule in one.rules:
            missing = sorted({o.objective for o in rule.overs if o.objective and o.objective not in known})
            if missing:
                left_out.append(f"{one.name} {rule.name}: looks at {', '.join(missing)}, which has no rule in Grafana")
            elif "$" in one.name or any("$" in o.objective for o in rule.overs):
                left_out.append(f"{one.name} {rule.name}: a $ in the name would be expanded by Grafana")
            else:
                rules.append(_burn(one, rule, known, panel, public_url))
        if rules:
            groups.append(Group(_titled(one.name, one.name, ""), tuple(rules)))
    groups.append(Group("tailsight", (_silence(panel),)))
    return Mirrored(tuple(groups), tuple(left_out))


def uid_of(objective: str, rule: str) -> str:
    """A rule's stable uid: at most 40 characters that Grafana allows."""
    return _PREFIX + sha256(f"{objective}\0{rule}".encode()).hexdigest()[:24]


def is_ours(uid: str) -> bool:
    """Whether a rule's uid is one that `uid_of` makes."""
    return re.fullmatch(_PREFIX + "[0-9a-f]{24}", uid) is not None


def api_group(group: Group, folder_uid: str, source_uid: str, receiver: str = "") -> dict[str, Any]:
    """A group as `PUT /api/v1/provisioning/folder/{uid}/rule-groups/{group}` takes it."""
    rules = []
    for one in group.rules:
        body = {
            **_shared(one, source_uid),
            "ruleGroup": group.name,
            "folderUID": folder_uid,
            "orgID": 1,
            "annotations": {**one.annotations, "__dashboardUid__": one.board, "__panelId__": str(one.panel)},
        }
        rules.append(_received(body, receiver))
    return {"title": group.name, "folderUid": folder_uid, "interval": group.interval_s, "rules": rules}


def file_document(groups: Sequence[Group], source_uid: str = SOURCE_UID, receiver: str = "") -> dict[str, Any]:
    """The groups as a file below `provisioning/alerting/`."""
    return {
        "apiVersion": 1,
        "groups": [
            {
                "orgId": 1,
                "name": group.name,
                "folder": FOLDER_TITLE,
                "interval": span(group.interval_s),
                "rules": [
                    _received(
                        {
                            **_shared(one, source_uid),
                            # Files expand a single $ as a variable of the environment.
                            "labels": {name: text.replace("$", "$$") for name, text in one.labels.items()},
                            "annotations": one.annotations,
                            "dashboardUid": one.board,
                            "panelId": one.panel,
                        },
                        receiver,
                    )
                    for one in group.rules
                ],
            }
            for group in groups
        ],
    }


def _burn(one: Objective, rule: Rule, known: dict[str, Objective], panel: int, public_url: str) -> AlertRule:
    windows = ", ".join(
        f"{over.factor:.4g} over {span(over.window_s)}" + (f" of {over.objective}" if over.objective else "")
        for over in rule.overs
    )
    notes = {
        "summary": f"{one.display_name} burns its error budget too fast",
        "description": f"Burn rate above {windows}. Now {{{{ .Values.A.Value }}}} times that at least. "
        f"Target {100 * one.target:.10g} % over {one.window.text}. {one.description}".strip(),
    }
    runbook = runbook_of(one.annotations, public_url)
    if runbook:
        notes["runbook_url"] = runbook
    return AlertRule(
        uid=uid_of(one.name, rule.name),
        title=_titled(f"{one.name} {rule.name}", one.name, rule.name),
        sql=rule_sql(one, rule, known),
        above=1,
        range_s=rule.long_s,
        for_s=rule.for_s,
        no_data="NoData",
        on_error="Error",
        labels={
            **_label_names(one.labels),
            "objective": one.name,
            "rule": rule.name,
            "service": one.service,
            "severity": rule.severity,
            "source": "tailsight",
        },
        annotations=notes,
        board=BOARD,
        panel=panel,
    )


def _silence(panel: int) -> AlertRule:
    return AlertRule(
        uid=uid_of("", BLIND),
        title="Tailsight hears nothing",
        sql=silence_sql(),
        above=SILENT_S,
        range_s=86_400,
        for_s=SILENT_FOR_S,
        no_data="Alerting",
        on_error="Alerting",
        labels={"rule": BLIND, "severity": "page", "source": "tailsight"},
        annotations={
            "summary": "No collector is heard of, or Grafana cannot ask: no objective can be judged",
            "description": "Seconds since the last heartbeat: {{ .Values.A.Value }}. No other rule can fire now.",
        },
        board=BOARD,
        panel=panel,
    )


def span(seconds: int) -> str:
    """A duration as Grafana writes it: 0s, 5m, 1h, 3d."""
    return _duration(seconds) if seconds else "0s"


def _titled(text: str, objective: str, rule: str) -> str:
    """A title of at most the length that Grafana takes; what is cut is told apart by its hash."""
    return text if len(text) <= _MAX_TITLE else f"{text[: _MAX_TITLE - 9]} {uid_of(objective, rule)[3:11]}"


def _label_names(labels: Any) -> dict[str, str]:
    """Labels with names that Alertmanagers take."""
    return {
        re.sub(r"^(?=\d)|[^a-zA-Z0-9_]", "_", str(name))[:100] or "_": str(text)[:200] for name, text in labels.items()
    }


def _shared(one: AlertRule, source_uid: str) -> dict[str, Any]:
    """What both forms have."""
    return {
        "uid": one.uid,
        "title": one.title,
        "condition": "C",
        "for": span(one.for_s),
        "noDataState": one.no_data,
        "execErrState": one.on_error,
        "isPaused": False,
        "labels": one.labels,
        "data": [
            {
                "refId": "A",
                "queryType": "table",
                "relativeTimeRange": {"from": one.range_s + DELAY_S, "to": DELAY_S},
                "datasourceUid": source_uid,
                "model": {
                    "refId": "A",
                    "datasource": {"type": PLUGIN, "uid": source_uid},
                    "editorType": "sql",
                    "queryType": "table",
                    "format": TABLE,
                    "pluginVersion": "4.20.0",
                    "rawSql": one.sql,
                },
            },
            {
                "refId": "C",
                "queryType": "",
                "relativeTimeRange": {"from": one.range_s + DELAY_S, "to": DELAY_S},
                "datasourceUid": "__expr__",
                "model": {
                    "refId": "C",
                    "datasource": {"type": "__expr__", "uid": "__expr__"},
                    "type": "threshold",
                    "expression": "A",
                    "conditions": [{"type": "query", "evaluator": {"type": "gt", "params": [one.above]}}],
                },
            },
        ],
    }


def _received(body: dict[str, Any], receiver: str) -> dict[str, Any]:
    return {**body, "notification_settings": {"receiver": receiver}} if receiver else body
