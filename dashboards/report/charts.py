"""Charts as SVG, by Vega-Lite: vectors, colours that the colour-blind can tell apart, and never colour alone.

The colours are Okabe and Ito's (Color Universal Design, 2008).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from analytics.report.value import CohortLine, CurveLine, PathLine, ScenarioLine
from analytics.report.words import clean
from dashboards.report.blocks import DrawingError, MissingExtraError

BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#555555"
WIDTH = 560
_LABEL = 34
_ENDS = ("input at its low end", "input at its high end")
_NOTHING = "no detectable effect"


def _altair() -> Any:
    try:
        import altair
    except ImportError as error:
        raise MissingExtraError("altair") from error
    return altair


def svg(chart: Any) -> str:
    """The drawing of a chart. Nothing is fetched: the data are in it."""
    try:
        import vl_convert
    except ImportError as error:
        raise MissingExtraError("vl-convert-python") from error
    configured = (
        chart.configure(background="white", font="sans-serif", padding={"left": 40, "right": 24, "top": 4, "bottom": 4})
        .configure_axis(
            labelFontSize=12, titleFontSize=12, labelLimit=240, titleFontWeight="normal", gridColor="#e4e4e4"
        )
        .configure_legend(labelFontSize=12, titleFontSize=12, orient="top", labelLimit=300, columnPadding=36)
        .configure_view(stroke=None)
    )
    try:
        return str(vl_convert.vegalite_to_svg(configured.to_dict(), allowed_base_urls=[]))
    except ValueError as error:
        raise DrawingError(f"a chart could not be drawn: {str(error)[:300]}") from error


def _name(text: str) -> str:
    # Vega shortens a label between the two halves of a character beyond U+FFFF, and then cannot measure it.
    return clean("".join(c if c <= "\uffff" else "\ufffd" for c in text[:200].replace("_", " ")), _LABEL)


def course(one: PathLine) -> str | None:
    """p50 and p99 over the period on a logarithmic scale; None for fewer than two points."""
    alt = _altair()
    rows = [
        {"t": p.start_ns // 1_000_000, "ms": value / 1e6, "what": label}
        for p in one.series
        for label, value in (("p50: half take at most this", p.p50_ns), ("p99: 99 of 100 take at most this", p.p99_ns))
        if value is not None and value > 0
    ]
    if len({row["t"] for row in rows}) < 2:
        return None
    base = alt.Chart(alt.Data(values=rows)).encode(
        x=alt.X(
            "t:T", title="time (UTC)", scale=alt.Scale(type="utc"), axis=_time_axis(alt, [row["t"] for row in rows])
        ),
        y=alt.Y(
            "ms:Q",
            title="latency in ms",
            scale=alt.Scale(type="log", nice=False, padding=6),
            axis=alt.Axis(format="~g", tickCount=6),
        ),
        color=alt.Color("what:N", title=None, scale=alt.Scale(range=[BLUE, ORANGE])),
        strokeDash=alt.StrokeDash("what:N", title=None, scale=alt.Scale(range=[[1, 0], [6, 3]])),
    )
    return svg(base.mark_line(strokeWidth=2, interpolate="linear").properties(width=WIDTH, height=170))


def _time_axis(alt: Any, times: Sequence[Any]) -> Any:
    """Days where there are some, hours otherwise; few enough that labels of any font stay apart."""
    days = (max(times) - min(times)) / 86_400_000
    if days > 3:
        step = -(-int(days) // 10)
        return alt.Axis(format="%d %b", tickCount=alt.TimeIntervalStep(interval="day", step=step), labelOverlap=False)
    return alt.Axis(format="%H:%M" if days <= 1 else "%d %b %H:%M", tickCount=5)


def stages(one: PathLine) -> str | None:
    """Mean time per stage, this period and the one before; None without stages."""
    alt = _altair()
    shown = [s for s in one.stages if s.mean_ns is not None]
    if not shown:
        return None
    names = _distinct([s.name for s in shown])
    rows = [
        {"stage": name, "ms": value / 1e6, "when": when}
        for name, s in zip(names, shown, strict=True)
        for when, value in (("this period", s.mean_ns), ("the period before", s.mean_before_ns))
        if value is not None
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("stage:N", title=None, sort=names, axis=alt.Axis(labelPadding=6)),
        yOffset=alt.YOffset("when:N", sort=["this period", "the period before"]),
        x=alt.X("ms:Q", title="mean time in ms", axis=alt.Axis(format="~g", tickCount=6)),
        color=alt.Color(
            "when:N", title=None, sort=["this period", "the period before"],
            scale=alt.Scale(domain=["this period", "the period before"], range=[BLUE, "#B8C7D3"]),
        ),
    )  # fmt: skip
    return svg(base.mark_bar().properties(width=WIDTH - 120, height=alt.Step(9)))


def response(one: CurveLine, measure: str, unit: str, good: str = "") -> str:
    """The response curve with its band."""
    del good
    alt = _altair()
    scale = 100.0 if unit == "ratio" else 1.0
    rows = [{"ms": p.at_ms, "level": p.level * scale, "low": p.low * scale, "high": p.high * scale} for p in one.points]
    title = f"{_name(measure)} in %" if unit == "ratio" else _name(f"{measure}, {unit}" if unit else measure)
    x = alt.X("ms:Q", title="latency in ms", scale=alt.Scale(zero=False, nice=False))
    y = alt.Y("low:Q", title=title, scale=alt.Scale(zero=False))
    base = alt.Chart(alt.Data(values=rows))
    band = base.mark_area(opacity=0.25, color=BLUE).encode(x=x, y=y, y2=alt.Y2("high:Q"))
    line = base.mark_line(color=BLUE, strokeWidth=2, point=alt.OverlayMarkDef(color=BLUE, size=18)).encode(
        x=x, y=alt.Y("level:Q", title=title)
    )
    return svg((band + line).properties(width=WIDTH, height=190))


def cohorts(lines: Sequence[CohortLine], unit: str) -> str | None:
    """The effect in each cohort with its interval; None where none was estimated."""
    alt = _altair()
    shown = [one for one in lines if one.effect.estimate is not None]
    if not shown:
        return None
    scale = 100.0 if unit == "ratio" else 1.0
    names = _distinct([f"{one.dimension}: {one.value}" for one in shown])
    rows = [
        {
            "who": name, "effect": (one.effect.estimate or 0.0) * scale, "low": (one.effect.low or 0.0) * scale,
            "high": (one.effect.high or 0.0) * scale, "seen": "effect" if one.effect.verdict == "effect" else _NOTHING,
        }
        for name, one in zip(names, shown, strict=True)
    ]  # fmt: skip
    what = "percentage points per ms" if unit == "ratio" else f"{_name(unit)} per ms".strip()
    return svg(_intervals(alt, rows, names, "who", f"effect in {what}"))


def scenarios(lines: Sequence[ScenarioLine], currency: str) -> str | None:
    """Net present value of each investment: the likeliest, and nine in ten draws."""
    alt = _altair()
    if not lines:
        return None
    names = _distinct([one.name for one in lines])
    size, word = _size([v for one in lines for v in (one.p5, one.npv, one.p95)])
    rows = [
        {
            "who": name, "effect": one.npv / size, "low": one.p5 / size, "high": one.p95 / size,
            "seen": "brings more than it takes" if one.npv > 0 else "takes more than it brings",
        }
        for name, one in zip(names, lines, strict=True)
    ]  # fmt: skip
    return svg(
        _intervals(
            alt,
            rows,
            names,
            "who",
            f"net present value in {word}{_name(currency)[:12]}: likeliest, and nine in ten draws",
        )
    )


def tornado(one: ScenarioLine, currency: str) -> str | None:
    """What an investment is worth at both ends of each input, the widest first."""
    alt = _altair()
    if not one.tornado:
        return None
    names = _distinct([s.name for s in one.tornado])
    size, word = _size([v for s in one.tornado for v in (s.at_low, s.at_high)])
    rows = [
        {"input": name, "from": one.npv / size, "to": value / size, "end": end}
        for name, s in zip(names, one.tornado, strict=True)
        for end, value in zip(_ENDS, (s.at_low, s.at_high), strict=True)
    ]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("input:N", title=None, sort=names),
        x=alt.X("from:Q", title=f"net present value in {word}{_name(currency)[:12]}", scale=alt.Scale(zero=False)),
        x2=alt.X2("to:Q"),
        color=alt.Color(
            "end:N",
            title=None,
            scale=alt.Scale(domain=list(_ENDS), range=[ORANGE, BLUE]),
        ),
    )
    return svg(base.mark_bar(height=11).properties(width=WIDTH - 140, height=alt.Step(20)))


def _intervals(alt: Any, rows: list[dict[str, Any]], names: list[str], field: str, title: str) -> Any:
    base = alt.Chart(alt.Data(values=rows)).encode(y=alt.Y(f"{field}:N", title=None, sort=names))
    zero = alt.Chart(alt.Data(values=[{"zero": 0}])).mark_rule(color=GREY, strokeDash=[4, 3]).encode(x=alt.X("zero:Q"))
    kinds = sorted({str(row["seen"]) for row in rows})
    colours = [GREY if kind.startswith(("no ", "takes")) else BLUE for kind in kinds]
    colour = alt.Color("seen:N", title=None, scale=alt.Scale(domain=kinds, range=colours))
    shape = alt.Shape(
        "seen:N",
        title=None,
        scale=alt.Scale(domain=kinds, range=["diamond" if c == GREY else "circle" for c in colours]),
    )
    bars = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", title=title), x2=alt.X2("high:Q"), color=colour)
    dots = base.mark_point(size=70, filled=True, opacity=1).encode(
        x=alt.X("effect:Q", title=title), color=colour, shape=shape
    )
    return (zero + bars + dots).properties(width=WIDTH - 140, height=alt.Step(26))


def _size(values: Sequence[float]) -> tuple[float, str]:
    most = max(abs(v) for v in values)
    return (1e6, "million ") if most >= 1e6 else (1e3, "thousand ") if most >= 1e4 else (1.0, "")


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as labels, shortened, and told apart where shortening made two the same."""
    found: list[str] = []
    for name in names:
        label = _name(name)
        number = 2
        while label in found:
            label = f"{_name(name)[: _LABEL - 4]} ({number})"
            number += 1
        found.append(label)
    return found
