"""What the first page rests on: courses, stages, estimates, cohorts, scenarios, changes, method and words."""

from __future__ import annotations

from analytics.report.cost import amount, found_by
from analytics.report.value import Cost, PathLine, Quantile, Report
from analytics.report.words import clean, duration, exactly, latency, many, moment, money, number, percent, signed
from dashboards.report import charts
from dashboards.report.blocks import Block, Chart, Section, Table, Text, cell

_EPISODES, _CHANGES, _COHORTS, _BUDGETS = 12, 15, 20, 30


def sections(report: Report) -> tuple[Section, ...]:
    """Everything that a first page's sentence can be checked against."""
    found = [_path(one) for one in report.paths]
    found += [_cost(one) for one in report.costs]
    found += [
        _budgets(report),
        _reliability(report),
        _funding(report),
        _agreements(report),
        _debts(report),
        _changes(report),
        _quality(report),
    ]
    found.append(Section("How the figures are made", tuple(Text(said) for said in report.method)))
    words = tuple((word, meaning) for word, meaning in report.glossary)
    found.append(Section("Words", (Table("What the words of this report mean", ("word", "meaning"), words, 2),)))
    return tuple(section for section in found if section.blocks)


def _path(one: PathLine) -> Section:
    title = f"Latency of {cell(one.name, 40)}"
    blocks: list[Block] = []
    if one.description:
        blocks.append(Text(f"What it is: {clean(one.description, 300)}.", "remark"))
    blocks.append(Text(clean(one.sentence, 900)))
    if not one.count:
        return Section(title, tuple(blocks))
    blocks.append(
        Table(
            "Percentiles of this period and the one before",
            ("percentile", "this period (95 % interval)", "before", "change (95 % interval)", "verdict"),
            tuple(_quantile(q) for q in one.quantiles),
        )
    )
    drawn = charts.course(one)
    if drawn is None:
        blocks.append(Text("There are too few points of time for a course.", "unknown"))
    else:
        blocks.append(Chart(f"p50 and p99 of {cell(one.name, 40)} over the period", one.sentence, drawn))
    drawn = charts.stages(one)
    if drawn is None:
        blocks.append(Text("No stage of it was measured.", "unknown"))
        return Section(title, tuple(blocks))
    worst = max((s for s in one.stages if s.mean_ns is not None), key=lambda s: s.mean_ns or 0.0)
    alt = f"Most of the mean time is in {cell(worst.name, 40)}: {latency(worst.mean_ns)}."
    blocks.append(Chart(f"Where the mean time of {cell(one.name, 40)} goes, by stage", alt, drawn))
    rows = tuple(
        (
            cell(s.name, 40), s.kind, percent(s.share, 2), latency(s.p99_ns) if s.p99_ns is not None else "too few",
            latency(s.p99_before_ns) if s.p99_before_ns is not None else "too few",
            latency(s.budget_ns) if s.budget_ns is not None else "none",
        )
        for s in one.stages
    )  # fmt: skip
    head = ("stage", "kind", "share of the mean", "p99", "p99 before", "latency budget")
    blocks.append(Table("Stages in their order", head, rows, 2))
    return Section(title, tuple(blocks))


def _quantile(q: Quantile) -> tuple[str, ...]:
    if q.value_ns is None:
        return q.name, clean(q.refused, 80), "-", "-", "-"
    change = "not known"
    if q.change_ns is not None:
        span = f"{signed(latency(q.change_low_ns))} to {signed(latency(q.change_high_ns))}"
        change = f"{signed(latency(q.change_ns))} ({span})"
    now = f"{latency(q.value_ns)} ({latency(q.low_ns)} to {latency(q.high_ns)})"
    return q.name, now, latency(q.before_ns) if q.before_ns is not None else "-", change, q.verdict


def _cost(one: Cost) -> Section:
    kpi = cell(one.kpi, 40)
    blocks: list[Block] = [Text(clean(one.sentence, 900), "plain" if one.effect is not None else "unknown")]
    if one.effect is not None:
        basis = f"{many(one.effect.n, 'observation')} in {many(one.effect.clusters, 'cluster')}"
        blocks.append(Text(f"Estimated from {basis}, by {found_by(one.effect.design)}.", "remark"))
    if one.curve is not None:
        end = "No change is detectable beyond it." if one.curve.saturated_from_ms is None else ""
        if one.curve.saturated_from_ms is not None:
            end = f"Beyond {number(one.curve.saturated_from_ms)} ms no further change is detectable."
        points = one.curve.points
        alt = (
            f"From {number(points[0].at_ms)} to {number(points[-1].at_ms)} ms the measure goes from"
            f" {amount(points[0].level, one.kpi_unit)} to {amount(points[-1].level, one.kpi_unit)}. {end}"
        )
        drawn = charts.response(one.curve, one.kpi, one.kpi_unit)
        blocks.append(
            Chart(f"Response of {kpi} to the latency of {cell(one.path, 40)}, with its 95 % band", alt, drawn)
        )
        blocks.append(
            Text(f"{alt} It is an association over {many(one.curve.days, 'day')}; outside of them nothing is said.")
        )
    elif one.effect is not None:
        blocks.append(
            Text("There is no response curve: too few days, or too little variation, for its band.", "unknown")
        )
    shown = [c for c in one.cohorts if c.effect.estimate is not None][:_COHORTS]
    drawn_cohorts = charts.cohorts(shown, one.kpi_unit)
    if drawn_cohorts is not None:
        seen = [c for c in shown if c.effect.verdict == "effect"]
        alt = f"Of {many(len(shown), 'group')}, {len(seen)} show an effect."
        blocks.append(Chart(f"Effect of one ms more on {kpi}, by group of customers", alt, drawn_cohorts))
        blocks.append(
            Text(f"{alt} Of twenty groups without an effect, one is expected to show one by chance.", "remark")
        )
    elif one.effect is not None:
        blocks.append(Text("No effect by group of customers is known.", "unknown"))
    for said in (*one.notes, *one.checks, one.naive):
        if said:
            blocks.append(Text(clean(said, 500), "remark"))
    return Section(f"What the latency of {cell(one.path, 40)} does to {kpi}", tuple(blocks))


def _budgets(report: Report) -> Section:
    if not report.budgets:
        return Section("", ())
    rows = tuple(
        (
            cell(one.name, 50), cell(one.indicator, 70), exactly(one.target), cell(one.window, 10),
            f"{one.bad:,} of {one.total:,}", f"{one.uncertain:,}", percent(one.burned), percent(one.left),
        )
        for one in report.budgets[:_BUDGETS]
    )  # fmt: skip
    head = ("objective", "an event is good when", "target", "over", "bad", "uncertain", "burned", "left")
    blocks: list[Block] = [Table("All objectives", head, rows, 2)]
    blocks += [Text(clean(one.cost_sentence, 500)) for one in report.budgets[:_BUDGETS] if one.cost_sentence]
    return Section("Error budgets in full", tuple(blocks))


def _reliability(report: Report) -> Section:
    one = report.reliability
    blocks: list[Block] = [Text(said) for said in one.sentences]
    if one.episodes:
        rows = tuple(
            (
                cell(e.objective, 50), cell(e.rule, 30), moment(e.breach_ns), duration(e.fired_ns - e.breach_ns),
                "goes on" if e.resolved_ns is None else duration(e.resolved_ns - e.breach_ns),
                "not known" if e.cost is None else money(e.cost, cell(report.currency, 12)),
            )
            for e in one.episodes[:_EPISODES]
        )  # fmt: skip
        blocks.append(
            Table(
                "Alerts, the longest first",
                ("objective", "rule", "first breach", "detected after", "over after", "cost"),
                rows,
                2,
            )
        )
    if one.gaps:
        gaps = tuple(
            (
                cell(g.channel, 50), cell(g.host, 40), f"{g.gaps:,}", f"{g.missing:,}",
                duration(g.recovery_mean_ns) if g.recovery_mean_ns is not None else "-",
                duration(g.recovery_max_ns) if g.recovery_max_ns is not None else "-",
            )
            for g in one.gaps[:_EPISODES]
        )  # fmt: skip
        head = ("feed", "host", "gaps", "never came", "mean recovery", "longest recovery")
        blocks.append(Table("Gaps in feeds, and how long until what was missing was there", head, gaps, 2))
    return Section("Reliability in full", tuple(blocks))


def _funding(report: Report) -> Section:
    one = report.funding
    if not one.scenarios:
        return Section("", ())
    blocks: list[Block] = [Text(one.sentence)]
    drawn = charts.scenarios(one.scenarios, one.currency)
    if drawn is not None:
        blocks.append(Chart(f"What each investment is worth over {one.months} months", one.sentence, drawn))
    best = one.scenarios[0]
    drawn = charts.tornado(best, one.currency)
    if drawn is not None:
        alt = f"What moves the value of {cell(best.name, 40)} most is {cell(best.tornado[0].name, 40)}."
        blocks.append(Chart(f"What decides the value of {cell(best.name.replace('_', ' '), 40)}", alt, drawn))
    rows = tuple(
        (
            cell(s.name.replace("_", " "), 40), cell(s.description, 80), money(s.npv, one.currency),
            "none" if s.irr is None else percent(s.irr), _pays_at(s.break_even_effect),
        )
        for s in one.scenarios
    )  # fmt: skip
    blocks.append(
        Table(
            "Scenarios, best first",
            ("scenario", "what it is", "value today", "return per year", "effect at which it pays"),
            rows,
            2,
        )
    )
    if one.beats_next is not None:
        blocks.append(Text(f"The first is worth more than the second in {percent(one.beats_next)} of the draws."))
    for s in one.scenarios:
        if s.clamped_ms > 0:
            said = (
                f"{cell(s.name, 40)}: {number(s.clamped_ms)} ms of its gain are not counted, beyond what was measured."
            )
            blocks.append(Text(said, "remark"))
    source = f" ({clean(one.effect_source, 200)})" if one.effect_source else ""
    blocks.append(Text(f"The effect that they rest on is: {one.effect_design}{source}.", "remark"))
    return Section("Investments in full", tuple(blocks))


def _agreements(report: Report) -> Section:
    rows = tuple(
        (
            cell(one.provider, 40), cell(f"{one.path}, {one.stage}", 60),
            f"p{one.percentile:g} {latency(one.limit_ns)}",
            latency(one.value_ns), f"{latency(one.near_ns)} to {latency(one.far_ns)}", cell(one.verdict, 30),
            money(one.credit, cell(report.currency, 12)) if one.over else "period goes on",
        )
        for one in report.agreements
    )  # fmt: skip
    if not rows:
        return Section("", ())
    head = ("provider", "path, stage", "contract", "measured", "surely between", "verdict", "credit due")
    said = [Text(clean(one.sentence, 500), "remark") for one in report.agreements]
    return Section(
        "Agreements with providers", (Table("What was promised and what was measured", head, rows, 2), *said)
    )


def _debts(report: Report) -> Section:
    currency = cell(report.currency, 12)
    rows = tuple(
        (
            cell(one.what or one.name, 80), cell(one.owner, 30), cell(one.stage, 50),
            "not known" if one.per_month is None else money(one.per_month, currency),
            "not known" if one.fix_cost is None else money(one.fix_cost, currency),
            "not known" if one.payback_months is None else f"{number(one.payback_months)} months",
        )
        for one in report.debts
    )  # fmt: skip
    if not rows:
        return Section("", ())
    head = ("debt", "owner", "path, stage", "costs a month", "to pay it off", "paid back after")
    said = [Text(f"{cell(one.name, 40)}: {clean(one.sentence, 400)}", "remark") for one in report.debts]
    return Section("Technical debt", (Table("What is known to be slow, and what that costs", head, rows, 3), *said))


def _pays_at(effect: float | None) -> str:
    return "never" if effect is None else f"{number(100 * effect)} % per ms"


def _changes(report: Report) -> Section:
    one = report.changes
    blocks: list[Block] = [Text(clean(turn.sentence, 400)) for turn in one.turns]
    if one.shown:
        rows = tuple(
            (moment(c.ts_ns), c.kind, cell(c.service, 30), cell(c.what, 90), cell(c.who, 30))
            for c in one.shown[:_CHANGES]
        )
        more = f", the newest {_CHANGES} of {one.count:,}" if one.count > _CHANGES else ""
        blocks.append(Table(f"Recorded changes{more}", ("when", "kind", "service", "what", "who"), rows, 5))
    elif not one.turns:
        blocks.append(Text("No change was recorded in this period.", "unknown"))
    return Section("Changes in full", tuple(blocks))


def _quality(report: Report) -> Section:
    return Section("How good the data are", tuple(Text(clean(said, 500)) for said in report.quality.sentences))
