"""A report with every part filled, of invented figures, and the same with hostile text in every name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from analytics.money.effects import Words
from analytics.money.response import response
from analytics.money.scenario_files import example, scenarios_from
from analytics.money.sensitivity import Observations, sensitivity
from analytics.report.changes import changes_of
from analytics.report.cost import Estimated, Measure, cost_of
from analytics.report.funding import funding
from analytics.report.headline import headline
from analytics.report.notes import GLOSSARY, METHOD
from analytics.report.period import NS, Period
from analytics.report.quality import quality
from analytics.report.reliability import reliability
from analytics.report.value import (
    AgreementLine,
    BudgetLine,
    DebtLine,
    EpisodeLine,
    GapLine,
    PathLine,
    Point,
    Quantile,
    Report,
    StageLine,
    TurnLine,
)

T0 = 1_794_787_200 * NS  # 2026-11-16 00:00 UTC, a Monday
DAY = 86_400 * NS
WEEK = Period(T0 - 7 * DAY, T0, "2026-W46")
HOSTILE = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    '#panic("typst") $x^2$ \\ #eval("1") @label <label> *b* _i_ `c` = h // c /* */',
    "{{ 7*7 }} {% raw %} {# #}",
    "=HYPERLINK(1)",
    "שלום עולם مرحبا",
    "abc\u202etxt.exe",
    "a\x00b\x1b[31mc\nd\u2028e",
    "W" * 600,
    "名前" * 40,
    "🚀" * 30,
    "",
)


AGREEMENTS = (
    AgreementLine(
        name="carrier", provider="Carrier Ltd", path="order", stage="gateway_transit", percentile=99.0,
        limit_ns=5_000_000, value_ns=5_400_000, near_ns=5_250_000, far_ns=5_600_000, verdict="broken", over=True,
        credit=12_000.0, sentence="Carrier Ltd: p99 of gateway_transit was 5.4 ms, promised 5 ms; 12,000 USD are due.",
    ),
)  # fmt: skip
DEBTS = (
    DebtLine(
        name="old-parser", what="the parser copies every message", owner="engine team", stage="order, signal",
        per_month=18_400.0, low=9_000.0, high=27_000.0, fix_cost=60_000.0, payback_months=3.26,
        sentence="18,400 USD a month (9,000 to 27,000).",
    ),
)  # fmt: skip


def path_line(name: str, scale: float = 1.0) -> PathLine:
    def quantile(label: str, ms: float, change: float, verdict: Any) -> Quantile:
        at = int(ms * scale * 1e6)
        moved = int(change * 1e6)
        return Quantile(
            name=label, value_ns=at, low_ns=int(at * 0.97), high_ns=int(at * 1.04), before_ns=at - moved,
            change_ns=moved, change_low_ns=moved - 350_000, change_high_ns=moved + 420_000, verdict=verdict,
        )  # fmt: skip

    rng = np.random.default_rng(7)
    series = tuple(
        Point(
            start_ns=WEEK.from_ns + i * DAY // 4, count=5000, p50_ns=int(4.1e6 * scale * (1 + 0.1 * rng.random())),
            p99_ns=int(14e6 * scale * (1 + 0.4 * rng.random())),
        )
        for i in range(28)
    )  # fmt: skip
    stages = tuple(
        StageLine(
            name=stage, kind=kind, mean_ns=ms * 1e6 * scale, mean_before_ns=ms * 0.9e6 * scale, share=ms / 4.6,
            p99_ns=int(ms * 4e6), p99_before_ns=int(ms * 3.5e6), budget_ns=int(ms * 2e6) if kind != "queue" else None,
        )
        for stage, kind, ms in (
            ("feed_transit", "network", 0.6), ("signal", "compute", 1.4), ("queue_wait", "queue", 0.3),
            ("decide", "compute", 0.4), ("gateway_transit", "network", 0.9), ("venue", "compute", 0.5),
            ("unattributed", "unattributed", 0.5),
        )
    )  # fmt: skip
    return PathLine(
        name=name, description="an order, from the quote that led to it to the report on it", count=612_345,
        before_count=598_001, unfinished=412, before_unfinished=120, headless=12, negative=0, completeness=0.99987,
        mean_ns=5.2e6 * scale, mean_before_ns=4.6e6 * scale, max_error_ns=1_400,
        quantiles=(
            quantile("p50", 4.2, 0.1, "no clear change"), quantile("p99", 16.4, 2.6, "slower"),
            quantile("p99.9", 41.0, 9.0, "slower"),
        ),
        series=series, stages=stages,
        sentence=f"{name}: half of 612,345 messages took at most 4.20 ms; one in a hundred took longer than 16.4 ms.",
    )  # fmt: skip


def estimated(effect: float = -0.0045, seed: int = 3) -> Estimated:
    """Twelve days of converting customers, whose chance falls with latency."""
    rng = np.random.default_rng(seed)
    n = 24_000
    day = np.repeat(np.arange(12), n // 12)
    load = rng.gamma(4, 0.25, n)
    ms = 3 + 2 * load + rng.gamma(2, 1.0, n)
    y = (rng.random(n) < np.clip(0.4 + effect * ms + 0.04 * load, 0, 1)).astype(float)
    block = np.arange(n) // 500
    words = Words("conversion", "", "latency", "ms")
    found = sensitivity(
        Observations(kpi=y, exposure=ms, cluster=block, load=load, hour=np.arange(n) // 1000 % 24), words
    )
    cohorts = []
    for i, who in enumerate(("retail", "professional", "institutional")):
        mine = np.arange(n) % 3 == i
        one = sensitivity(Observations(kpi=y[mine], exposure=ms[mine], cluster=block[mine], load=load[mine]), words)
        cohorts.append(("cohort", who, one.answer))
    return Estimated(found=found, curve=response(y, ms, day), cohorts=cohorts)


def sample(effect: float = -0.02) -> Report:
    paths = (path_line("order"), path_line("tick", 0.4))
    measure = Measure(name="conversion", unit="ratio", good="up", value=0.412, before=0.417)
    costs = (cost_of(paths[0], measure, estimated(effect)),)
    given = scenarios_from(__import__("tomllib").loads(example()))
    episodes = [
        EpisodeLine(
            episode=f"e{i}", objective="order-latency", rule="page-1h", breach_ns=T0 - (5 - i) * DAY,
            fired_ns=T0 - (5 - i) * DAY + 95 * NS,
            resolved_ns=None if i == 3 else T0 - (5 - i) * DAY + (i + 1) * 1500 * NS,
        )
        for i in range(4)
    ]  # fmt: skip
    dependable = dataclasses.replace(
        reliability(episodes, [], WEEK, objectives=3, revenue=(2_400_000.0, "USD")),
        gaps=(
            GapLine(
                channel="itch-a", host="rx1", gaps=14, missing=3, recovery_mean_ns=4.1e6, recovery_max_ns=98_000_000
            ),
        ),
    )
    budgets = tuple(
        BudgetLine(
            objective=name, name=name, indicator="order end_to_end within 20 ms", target=target, window="30d",
            total=612_345, bad=bad, uncertain=12, burned=burned, burned_before=burned / 2, left=1 - 2.1 * burned,
        )
        for name, target, bad, burned in (
            ("order-latency", 0.99, 9_200, 0.351), ("order-errors", 0.95, 11_000, 0.084),
            ("completeness", 0.999, 81, 0.031),
        )
    )  # fmt: skip
    rows: list[dict[str, object]] = [
        {"ts_ns": T0 - i * DAY // 3, "kind": "deploy", "service": "engine", "what": f"engine 2.4.{i}", "who": "ci"}
        for i in range(6)
    ]
    changed = dataclasses.replace(
        changes_of(rows, {"deploy": 5, "config": 1}, 3, [], ""),
        turns=(
            TurnLine(
                path="order", name="p99", stage="signal", at_ns=T0 - 2 * DAY, before_ns=4_100_000, after_ns=6_900_000,
                beside=("engine 2.4.6",),
                sentence="order, signal p99: from 4.10 ms to 6.90 ms at 2026-11-14 00:00 UTC. Near it in time, which"
                " need not be the cause: engine 2.4.6.",
            ),
        ),
    )  # fmt: skip
    funded = funding(given, 2_000)
    from analytics.completeness import Share

    return Report(
        format=1, title="Latency and what it costs", made_ns=T0 + 6 * 3600 * NS, from_ns=WEEK.from_ns, to_ns=WEEK.to_ns,
        before_from_ns=WEEK.before.from_ns, asked=WEEK.asked, population="",
        headline=headline(paths, costs, budgets, dependable, funded), paths=paths, costs=costs, budgets=budgets,
        budgets_unknown="", reliability=dependable, funding=funded, agreements=AGREEMENTS, debts=DEBTS, currency="USD",
        changes=changed,
        quality=quality(Share(WEEK.from_ns, WEEK.to_ns, 9_123_456, 1_204, 0.99987), paths), method=METHOD,
        glossary=GLOSSARY,
    )  # fmt: skip


def changed_text(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text changed, however deep; dictionary keys too."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, tuple):
        return tuple(changed_text(one, change) for one in value)
    if isinstance(value, dict):
        return {change(key): changed_text(one, change) for key, one in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.replace(
            value, **{f.name: changed_text(getattr(value, f.name), change) for f in dataclasses.fields(value)}
        )
    return value


KEPT = {
    "p50",
    "p99",
    "p99.9",
    "effect",
    "no detectable effect",
    "refused",
    "slower",
    "faster",
    "no clear change",
    "ratio",
}


def hostile() -> Report:
    """Hostile text in every name, sentence and unit; words that choose what is drawn stay."""
    turn = iter(range(1_000_000))

    def change(text: str) -> str:
        return text if text in KEPT else f"{HOSTILE[next(turn) % len(HOSTILE)]}{text}"[:3_000]

    changed: Report = changed_text(sample(), change)
    return changed
