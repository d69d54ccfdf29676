"""The kinds of panels that the dashboards are made of, with the product's conventions in one place.

Every panel has a description that says what is measured and how to read it, a unit, and one or more statements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    dashboard,
    heatmap,
    logs,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog import builder as cogbuilder
from grafana_foundation_sdk.cog import variants
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import heatmap as heatmap_models

PLUGIN = "grafana-clickhouse-datasource"
SOURCE = common_models.DataSourceRef(type_val=PLUGIN, uid="${datasource}")
TIME_SERIES, TABLE, TRACES = 0, 1, 3  # the data source's own numbers of its result formats
Colour = Literal["green", "yellow", "orange", "red", "blue", "text"]
Builder = Any  # the SDK's panel builders have no common type that can be laid out


@dataclass
class Target(variants.Dataquery):
    """One statement of a panel, as the ClickHouse data source stores it."""

    sql: str
    ref: str = "A"
    form: int = TABLE

    def to_json(self) -> dict[str, object]:
        """What the SDK's encoder writes."""
        return {
            "refId": self.ref,
            "datasource": {"type": PLUGIN, "uid": "${datasource}"},
            "editorType": "sql",
            "queryType": {TIME_SERIES: "timeseries", TABLE: "table", TRACES: "traces"}[self.form],
            "format": self.form,
            "pluginVersion": "4.20.0",
            "rawSql": self.sql,
        }


@dataclass
class TargetBuilder(cogbuilder.Builder[Target]):
    """The SDK takes builders."""

    target: Target

    def build(self) -> Target:
        """The statement itself."""
        return self.target


@dataclass(frozen=True)
class Link:
    """A link from a value to another dashboard, with time and variables."""

    title: str
    uid: str
    variables: Mapping[str, str] = field(default_factory=dict)

    def url(self) -> str:
        """The address, with the time shown, the data source and the variables."""
        given = "".join(f"&var-{name}={value}" for name, value in self.variables.items())
        return f"/d/{self.uid}?${{__url_time_range}}&${{datasource:queryparam}}{given}"


def series(
    title: str, description: str, sql: str | Sequence[str], unit: str, *, width: int = 12, height: int = 8,
    stacked: bool = False, links: Sequence[Link] = (), minimum: float | None = 0, bars: bool = False,
    threshold: float | None = None,
) -> Builder:  # fmt: skip
    """Lines over time: the statement returns `time`, then text columns that name the line, then one number each."""
    panel = timeseries.Panel().legend(
        common.VizLegendOptions()
        .display_mode(common_models.LegendDisplayMode.TABLE)
        .placement(common_models.LegendPlacement.RIGHT)
        .show_legend(True)
        .calcs(["lastNotNull", "max"])
    )
    panel = panel.tooltip(
        common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING)
    )
    panel = panel.span_nulls(False).line_width(1).fill_opacity(60 if stacked or bars else 5)
    if minimum is not None:
        panel = panel.min(minimum)
    if bars:
        panel = panel.draw_style(common_models.GraphDrawStyle.BARS)
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_models.StackingMode.NORMAL).group("A"))
    if threshold is not None:
        panel = panel.thresholds(_steps([(None, "green"), (threshold, "red")])).thresholds_style(
            common.GraphThresholdsStyleConfig().mode(common_models.GraphThresholdsStyleMode.LINE)
        )
    return _finished(panel, title, description, sql, unit, TIME_SERIES, width, height, links)


def number(
    title: str, description: str, sql: str, unit: str, *, steps: Sequence[tuple[float | None, Colour]] = (),
    width: int = 4, height: int = 4, decimals: int | None = None, links: Sequence[Link] = (),
) -> Builder:  # fmt: skip
    """One number. `steps`: from which value on it has which colour, the first from None."""
    panel = stat.Panel().color_mode(
        common_models.BigValueColorMode.BACKGROUND if steps else common_models.BigValueColorMode.NONE
    )
    panel = panel.graph_mode(common_models.BigValueGraphMode.NONE).thresholds(_steps(steps or [(None, "text")]))
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).fields("/.*/").values(False))
    if decimals is not None:
        panel = panel.decimals(decimals)
    return _finished(panel, title, description, sql, unit, TABLE, width, height, links)


def rows(
    title: str, description: str, sql: str, *, units: Mapping[str, str] | None = None, width: int = 24, height: int = 8,
    links: Mapping[str, Link] | None = None, colours: Mapping[str, Sequence[tuple[float | None, Colour]]] | None = None,
) -> Builder:  # fmt: skip
    """A table. `units`, `links` and `colours` are by column."""
    panel = table.Panel().show_header(True)
    properties: dict[str, list[models.DynamicConfigValue]] = {}
    for column, unit in (units or {}).items():
        properties.setdefault(column, []).append(models.DynamicConfigValue("unit", unit))
    for column, link in (links or {}).items():
        value = [{"title": link.title, "url": link.url()}]
        properties.setdefault(column, []).append(models.DynamicConfigValue("links", value))
    for column, steps in (colours or {}).items():
        threshold = _steps(steps).build()
        properties.setdefault(column, []).extend(
            [
                models.DynamicConfigValue("thresholds", threshold),
                models.DynamicConfigValue("custom.cellOptions", {"type": "color-background", "mode": "basic"}),
            ]
        )
    for column, chosen in properties.items():
        panel = panel.override_by_name(column, chosen)
    return _finished(panel, title, description, sql, "short", TABLE, width, height, ())


def bars(
    title: str, description: str, sql: str, unit: str, *, width: int = 12, height: int = 8, links: Sequence[Link] = ()
) -> Builder:
    """A horizontal bar per row: the statement returns a text column and a number."""
    panel = bargauge.Panel().orientation(common_models.VizOrientation.HORIZONTAL)
    panel = panel.display_mode(common_models.BarGaugeDisplayMode.BASIC).min(0)
    panel = panel.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]).values(True))
    return _finished(panel, title, description, sql, unit, TABLE, width, height, links)


def cells(title: str, description: str, sql: str, *, width: int = 24, height: int = 9) -> Builder:
    """A heatmap of counts: the statement returns `time` (a cell's end), `le` (its upper edge) and `Value`."""
    panel = heatmap.Panel().calculate(False).show_value(common_models.VisibilityMode.NEVER)
    panel = panel.color(
        heatmap.HeatmapColorOptions()
        .mode(heatmap_models.HeatmapColorMode.SCHEME)
        .scheme("Oranges")
        .exponent(0.5)
        .steps(64)
    )
    panel = panel.y_axis(heatmap.YAxisConfig().unit("ns")).cell_gap(1)
    panel = panel.filter_values(heatmap.FilterValueRange().le(1e-9))
    return _finished(panel, title, description, sql, "ns", TIME_SERIES, width, height, ())


def states(
    title: str, description: str, sql: str, words: Mapping[int, tuple[str, Colour]], *, width: int = 24, height: int = 6
) -> Builder:
    """A state per line over time: the statement returns `time`, a name, and a number; `words` has each number's word.

    A word instead of the number would not do: the data source makes lines of numbers only, one for all names.
    """
    mapping = models.ValueMap(
        options={
            str(number): models.ValueMappingResult(text=text, color=colour, index=place)
            for place, (number, (text, colour)) in enumerate(words.items())
        }
    )
    panel = statetimeline.Panel().mappings([mapping]).show_value(common_models.VisibilityMode.NEVER)
    return _finished(panel, title, description, sql, "short", TIME_SERIES, width, height, ())


def trace(title: str, description: str, sql: str, form: int = TRACES, *, width: int = 24, height: int = 9) -> Builder:
    """The traces panel, which the SDK has no builder for: a panel with its type."""
    panel = _finished(table.Panel(), title, description, sql, "short", form, width, height, ())
    built = panel.build()
    built.type_val = "traces"
    built.options = built.field_config = None
    return _Built(built)


@dataclass
class _Built(cogbuilder.Builder[models.Panel]):
    """A panel that is finished."""

    panel: models.Panel

    def build(self) -> models.Panel:
        """The panel itself."""
        return self.panel


def lines(title: str, description: str, sql: str, *, width: int = 24, height: int = 8) -> Builder:
    """Log lines: the statement returns `timestamp`, `body` and `level`."""
    return _finished(logs.Panel().show_time(True), title, description, sql, "short", TABLE, width, height, ())


def _finished(
    panel: Builder, title: str, description: str, sql: str | Sequence[str], unit: str, form: int, width: int,
    height: int, links: Sequence[Link],
) -> Builder:  # fmt: skip
    texts = [sql] if isinstance(sql, str) else list(sql)
    panel = panel.title(title).description(description).unit(unit).datasource(SOURCE).span(width).height(height)
    for number_, text in enumerate(texts):
        panel = panel.with_target(TargetBuilder(Target(" ".join(text.split()), "ABCDEFGH"[number_], form)))
    if links:
        panel = panel.data_links([dashboard.DashboardLink(link.title).url(link.url()) for link in links])
    return panel


def _steps(steps: Sequence[tuple[float | None, str]]) -> dashboard.ThresholdsConfig:
    return (
        dashboard.ThresholdsConfig()
        .mode(models.ThresholdsMode.ABSOLUTE)
        .steps([models.Threshold(value=value, color=colour) for value, colour in steps])
    )
