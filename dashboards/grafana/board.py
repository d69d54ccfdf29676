"""A dashboard around its panels: variables, links, annotations, layout, ids."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models

from dashboards.grafana.panels import PLUGIN, SOURCE, Builder
from dashboards.grafana.queries import LEVEL

TAG = "tailsight"
EPISODES = "tailsight-episode"  # the tag of alerts that `tailsight dashboards push` leaves in Grafana's own annotations
_OWN = common_models.DataSourceRef(type_val="grafana", uid="-- Grafana --")
# Changes stand in every dashboard: the first question is what changed.
_CHANGES = """SELECT toDateTime64(ts, 3) AS time, concat(toString(kind), ' ', service, ' ', version, ' ', what) AS text,
who AS title, toString(kind) AS tags FROM changes WHERE $__timeFilter(ts) ORDER BY ts LIMIT 500"""
# By hours, and by tens of seconds for what has not seen a whole hour yet.
_PATHS = """SELECT DISTINCT path FROM windows WHERE (level = 3600 AND window > now() - 2592000)
OR (level = 10 AND window > now() - 7200) ORDER BY path"""
_HOSTS = "SELECT DISTINCT host FROM heartbeats WHERE ts > now() - 86400 ORDER BY host"
_STAGES = f"""SELECT DISTINCT stage FROM stage_windows WHERE path = '$path' AND rollup = '' AND level = {LEVEL}
AND $__timeFilter(window) ORDER BY stage"""
_KNOWN = {"path": _PATHS, "host": _HOSTS, "stage": _STAGES}


class Board:
    """Builds one dashboard. `uid` is stable: links and provisioning go by it."""

    def __init__(
        self, uid: str, title: str, description: str, *, variables: Sequence[str] = (), text: str = ""
    ) -> None:
        self.uid = uid
        self._built = (
            dashboard.Dashboard(f"Tailsight / {title}")
            .uid(uid)
            .description(description)
            .tags([TAG])
            .timezone("utc")
            .readonly()
            .tooltip(models.DashboardCursorSync.CROSSHAIR)
            .time("now-1h", "now")
            .refresh("30s")
            .with_variable(
                dashboard.DatasourceVariable("datasource").label("Data source").type(PLUGIN)
            )
            .link(
                dashboard.DashboardLink("Tailsight")
                .type(models.DashboardLinkType.DASHBOARDS)
                .tags([TAG])
                .as_dropdown(True)
                .keep_time(True)
                .include_vars(True)
            )
            .annotation(
                dashboard.AnnotationQuery().name("Changes").datasource(SOURCE).enable(True).icon_color("purple")
                .target(_annotation())
            )
            .annotation(
                dashboard.AnnotationQuery().name("Alerts").datasource(_OWN).enable(True).icon_color("red")
                .target(_given({"type": "tags", "tags": [EPISODES], "matchAny": False, "limit": 200}))
            )
        )  # fmt: skip
        for name in variables:
            self._built = self._built.with_variable(_query(name))
        if text:
            self._built = self._built.with_variable(dashboard.TextBoxVariable(text).label(text).default_value(""))

    def row(self, title: str, *panels: Builder) -> Board:
        """Put panels below a heading."""
        self._built = self._built.with_row(dashboard.Row(title))
        for panel in panels:
            self._built = self._built.with_panel(panel)
        return self

    def document(self) -> dict[str, Any]:
        """The dashboard as Grafana's classic JSON, with ids and one refresh per change of time."""
        document: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(self._built.build()))
        for number, panel in enumerate(document["panels"], 1):
            panel["id"] = number
        for variable in document["templating"]["list"]:
            # The SDK writes keys of interval variables for the data source, which Grafana's own schema has not.
            for extra in ("auto", "auto_min", "auto_count"):
                variable.pop(extra, None)
        return document


def _query(name: str) -> dashboard.QueryVariable:
    sql = " ".join(_KNOWN[name].split())
    return (
        dashboard.QueryVariable(name)
        .label(name.capitalize())
        .datasource(SOURCE)
        .query({"editorType": "sql", "rawSql": sql, "refId": "variable"})
        .definition(sql)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
    )


def _annotation() -> Any:
    return _given({"refId": "annotation", "editorType": "sql", "format": 1, "rawSql": " ".join(_CHANGES.split())})


def _given(fields: dict[str, object]) -> Any:
    """A target with these fields, as the SDK takes it."""

    class Given:
        def build(self) -> Any:
            return _Raw(fields)

    return Given()


class _Raw(models.AnnotationTarget):
    """The data source's own annotation target: the SDK's has only Grafana's built-in fields."""

    def __init__(self, fields: dict[str, object]) -> None:
        super().__init__()
        self._fields = fields

    def to_json(self) -> dict[str, object]:
        return dict(self._fields)
