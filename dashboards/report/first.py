"""The first page: latency, cost, how sure, budgets, reliability, what to fund, what changed."""

from __future__ import annotations

from analytics.report.cost import amount, found_by
from analytics.report.value import BudgetLine, Cost, PathLine, Quantile, Report
from analytics.report.words import clean, complete, duration, exactly, latency, many, money, number, percent, signed
from dashboards.report.blocks import Section, Table, Text, cell

_PATHS, _COSTS, _BUDGETS, _SCENARIOS, _TURNS = 5, 3, 4, 3, 2


def sections(report: Report) -> tuple[Section, ...]:
    """The sections of the first page, in the order in which they are asked for."""
    return (
        _latency(report),
        _cost(report),
        _sure(report),
        _budgets(report),
        _reliability(report),
        _funding(report),
        _changed(report),
    )


def _latency(report: Report) -> Section:
    rows = [
        (
            cell(one.name, 28), f"{one.count:,}", *(_now_before(q) for q in one.quantiles), _change(_tail(one)),
            f"{one.unfinished:,}", complete(one.completeness),
        )
        for one in report.paths[:_PATHS]
    ]  # fmt: skip
    head = ("path", "messages", "p50", "p99", "p99.9", "change of p99 (95 % interval)", "unfinished", "complete")
    blocks: list[Text | Table] = [Table("Latency, and in brackets that of the period before", head, tuple(rows))]
    if len(report.paths) > _PATHS:
        blocks.append(Text(f"{many(len(report.paths) - _PATHS, 'more path')} in the evidence.", "remark"))
    return Section("What happened to latency", tuple(blocks))


def _tail(one: PathLine) -> Quantile:
    return next(q for q in one.quantiles if q.name == "p99")


def _now_before(q: Quantile) -> str:
    if q.value_ns is None:
        return "too few"
    return f"{latency(q.value_ns)} ({latency(q.before_ns) if q.before_ns is not None else '-'})"


def _change(q: Quantile) -> str:
    if q.change_ns is None:
        return "not known"
    span = f"{signed(latency(q.change_low_ns))} to {signed(latency(q.change_high_ns))}"
    return f"{q.verdict}: {signed(latency(q.change_ns))} ({span})"


def _cost(report: Report) -> Section:
    if not report.costs:
        return Section("What it cost", (Text(_NO_COST, "unknown"),))
    rows = tuple(_cost_row(one) for one in report.costs[:_COSTS])
    head = (
        "measure, path",
        "value (before)",
        "effect of 1 ms more (95 % interval)",
        "since the last period",
        "found by",
    )
    return Section("What it cost", (Table("What latency does to business measures", head, rows),))


_NO_COST = (
    "Not known: no path names a revenue node (revenue_node) that has a declared business measure, or none was imported."
)


def _cost_row(one: Cost) -> tuple[str, ...]:
    name = f"{cell(one.kpi, 28)}, {cell(one.path, 28)}"
    value = f"{amount(one.value, one.kpi_unit)} ({amount(one.before, one.kpi_unit)})"
    if one.effect is None or one.effect.verdict == "refused":
        return name, value, "not known", "not known", "-"
    if not one.may_claim:
        return name, value, "no claim: a check failed", "not known", found_by(one.effect.design)
    if one.effect.verdict == "no detectable effect":
        least = amount(one.effect.detectable, one.kpi_unit, change=True).lstrip("+")
        return (
            name,
            value,
            f"no detectable effect (one of {least} would have been seen)",
            "none detectable",
            found_by(one.effect.design),
        )
    effect = _span(one.effect.estimate, one.effect.low, one.effect.high, one.kpi_unit)
    return (
        name,
        value,
        effect,
        _span(one.change, one.change_low, one.change_high, one.kpi_unit),
        found_by(one.effect.design),
    )


def _span(value: float | None, low: float | None, high: float | None, unit: str) -> str:
    if value is None:
        return "not known"
    ends = [amount(end, unit, change=True).replace(" percentage points", "") for end in (low, high)]
    return f"{amount(value, unit, change=True)} ({ends[0]} to {ends[1]})"


def _sure(report: Report) -> Section:
    said = [Text(sentence) for sentence in report.quality.sentences[:1]]
    designs = {one.effect.design for one in report.costs if one.effect is not None and one.may_claim and one.change}
    if designs - {"experiment", "natural experiment"}:
        said.append(Text("Effects found by comparing what is alike are associations; only an experiment proves one."))
    failed = [
        one for one in report.costs if one.effect is not None and not one.may_claim and one.effect.verdict != "refused"
    ]
    if failed:
        said.append(
            Text(f"For {many(len(failed), 'measure')} a check that must show nothing failed: no effect is claimed.")
        )
    return Section("How sure this is", tuple(said))


def _budgets(report: Report) -> Section:
    if not report.budgets:
        return Section("Error budgets", (Text(report.budgets_unknown, "unknown"),))
    costs = any(one.cost is not None for one in report.budgets)
    rows = tuple(_budget_row(one, report, costs) for one in report.budgets[:_BUDGETS])
    head: tuple[str, ...] = ("objective", "target", "bad events", "burned (before)", "left of the whole budget")
    blocks: list[Text | Table] = [
        Table(
            "Share of each objective's budget that this period took",
            head + (("cost (95 % interval)",) if costs else ()),
            rows,
        )
    ]
    if not costs:
        blocks.append(
            Text(
                "What the burned budget cost is not known: no objective has a price that holds.",
                "remark",
            )
        )
    return Section("Error budgets", tuple(blocks))


def _budget_row(one: BudgetLine, report: Report, costs: bool) -> tuple[str, ...]:
    bad = f"{one.bad:,} of {one.total:,}" if one.total else "no events"
    row = (
        cell(one.name, 40), exactly(one.target), bad,
        f"{percent(one.burned)} ({'-' if one.burned_before is None else percent(one.burned_before)})",
        percent(one.left),
    )  # fmt: skip
    if not costs:
        return row
    span = ""
    if one.cost_low is not None and one.cost_high is not None:
        span = f" ({number(one.cost_low)} to {number(one.cost_high)})"
    return (*row, "not known" if one.cost is None else f"{money(one.cost, cell(report.currency, 12))}{span}")


def _reliability(report: Report) -> Section:
    one = report.reliability
    blocks: list[Text | Table] = []
    if one.unknown:
        blocks.append(Text(one.unknown, "unknown"))
    if one.episodes:
        recovery = (
            f"{duration(one.recovery_median_ns)} (at most {duration(one.recovery_max_ns)})"
            if one.recovery_max_ns is not None
            else "not over yet"
        )
        detection = (
            f"{duration(one.detection_median_ns)} (at most {duration(one.detection_max_ns)})"
            if one.detection_max_ns is not None
            else "not known"
        )
        exposed = money(one.exposed, cell(one.exposed_unit, 12)) if one.exposed is not None else "not known"
        head = ("alerts", "time in breach", "detection", "recovery", "revenue exposed meanwhile")
        row = (
            f"{many(len(one.episodes), 'alert')}, {one.open:,} open",
            f"{duration(one.in_breach_ns)} ({percent(one.share_of_time)})",
            detection,
            recovery,
            exposed,
        )
        blocks.append(Table("Alerts: the middle one, and the longest", head, (row,)))
        blocks += [Text(said) for said in one.sentences[-1:]]
    else:
        blocks += [Text(said) for said in one.sentences]
    return Section("Reliability", tuple(blocks))


def _funding(report: Report) -> Section:
    one = report.funding
    if one.unknown:
        return Section("What to fund", (Text(one.unknown, "unknown"),))
    head = ("scenario, best first", "value today", "nine in ten draws", "chance to pay", "brings, times what it takes")
    rows = tuple(
        (
            cell(s.name.replace("_", " "), 40), money(s.npv, one.currency),
            f"{money(s.p5, one.currency)} to {money(s.p95, one.currency)}", percent(s.p_positive),
            f"{_times(s.multiple)} ({'passes' if s.passes_gate else 'below'} {one.gate:g})",
        )
        for s in one.scenarios[:_SCENARIOS]
    )  # fmt: skip
    return Section("What to fund", (Table(f"Investments over {one.months} months", head, rows),))


def _times(multiple: float | None) -> str:
    return "any" if multiple is None else number(multiple, 2)


def _changed(report: Report) -> Section:
    one = report.changes
    said = [Text(one.sentence)]
    said += [Text(clean(turn.sentence, 260)) for turn in one.turns[:_TURNS]]
    if one.unknown:
        said.append(Text(one.unknown, "remark"))
    return Section("What changed since the last period", tuple(said))
