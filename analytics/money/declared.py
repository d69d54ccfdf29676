"""All that the configuration says of money, read together: `[money]`, `[value]`, `[actions]`, `[showback]`, `[debts]`,
`[agreements]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from analytics.kpis import KpiDefinition
from analytics.money.actions import Action, actions_from
from analytics.money.agreements import Agreement, agreements_from
from analytics.money.burned import Pricer
from analytics.money.debts import Debt, debts_from
from analytics.money.showback import ShowbackCost, showback_from
from analytics.money.value import MoneySettings, PathValue, values_from
from analytics.paths import Path
from collector.settings import section
from collector.store import Store


@dataclass(frozen=True, slots=True)
class Money:
    """What is declared of money; empty by default, and then nothing becomes money."""

    settings: MoneySettings = field(default_factory=MoneySettings)
    values: Mapping[str, PathValue] = field(default_factory=dict)
    actions: Mapping[str, Action] = field(default_factory=dict)
    showback: Mapping[str, ShowbackCost] = field(default_factory=dict)
    debts: Mapping[str, Debt] = field(default_factory=dict)
    agreements: Mapping[str, Agreement] = field(default_factory=dict)

    def pricer(self, store: Store, now_ns: int) -> Pricer:
        """Prices as of a moment."""
        return Pricer(store, self.settings, self.values, now_ns)


SECTIONS = ("money", "value", "actions", "showback", "debts", "agreements")


def money_from(
    document: Mapping[str, Any], paths: Mapping[str, Path], kpis: Mapping[str, KpiDefinition], source: str = ""
) -> Money:
    """The sections of a configuration. Raises ConfigError naming the section and field."""
    kinds = {name: one.kind for name, one in kpis.items()}
    return Money(
        settings=section(document.get("money", {}), MoneySettings, "money", source),
        values=values_from(document, paths, kinds, source),
        actions=actions_from(document, paths, source),
        showback=showback_from(document, paths, kinds, source),
        debts=debts_from(document, paths, source),
        agreements=agreements_from(document, paths, source),
    )
