"""What running burns cost, and what caused them: computed beside the evaluation, so that no page waits for it.

The evaluation takes what was computed last (at most half a minute old). What a page did not have yet is told
afterwards, once per episode, as a notification `explained`; an Alertmanager has it the next time it is told.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from analytics.money.burned import NS, Burned, Pricer, Revenue
from analytics.money.declared import Money
from analytics.paths import Path
from analytics.slo.counting import counted_path
from analytics.slo.episodes import BLIND, Alert
from analytics.slo.objectives import Objective
from analytics.tail.why import Explanation, explanation
from api.slo_book import SloBook
from collector.log import logger
from collector.store import Store, StoreError
from collector.store.blocks import from_rows
from collector.store.schema import table_types

WINDOW_NS = 300 * NS  # a burn's cost per hour is that of the last five minutes
_BEHIND_NS = 30 * NS  # windows are computed by then
_REVENUE_NS = 600 * NS  # how long a revenue that was read is taken for today's
_MOST_PRICED = 200  # objectives priced in one go; those that fire go first
_TRIES_NS = (0, 30 * NS, 90 * NS)  # after an alert has fired: windows may be behind at first
_MOST_EXPLAINED_NS = 3_600 * NS  # a longer episode is explained by its last hour
_log = logger("costs")


class CostBook:
    """The cost per hour of every priced objective, and the cost of every open episode, as of the last `refresh`."""

    def __init__(self, money: Money) -> None:
        self.money = money
        self._hourly: Mapping[str, Burned] = {}
        self._episodes: Mapping[str, Burned] = {}
        self._revenues: dict[str, Revenue] = {}
        self._revenues_ns = 0

    def refresh(self, store: Store, objectives: Sequence[Objective], firing: Sequence[Alert], now_ns: int) -> int:
        """Compute anew; how many objectives have a price. Raises StoreError, and keeps what it had."""
        if not self.money.values:
            return 0
        pricer = self.pricer(store, now_ns)
        to_ns = (now_ns - _BEHIND_NS) // (10 * NS) * 10 * NS
        alerting = {one.objective for one in firing}
        some = sorted((o for o in objectives if pricer.priced(o)), key=lambda o: (o.name not in alerting, o.name))
        hourly = {o.name: pricer.objective(o, to_ns - WINDOW_NS, to_ns, hourly=True) for o in some[:_MOST_PRICED]}
        by_name = {o.name: o for o in some}
        episodes = {
            one.episode: pricer.objective(by_name[one.objective], one.breach_ns, max(to_ns, one.breach_ns + 10 * NS))
            for one in firing
            if one.objective in by_name
        }
        self._hourly, self._episodes = hourly, episodes
        return len(hourly)

    def write(self, store: Store) -> int:
        """Store what the last `refresh` found, for dashboards; how many rows. Raises StoreError."""
        rows = [
            {
                "ts": one.to_ns,
                "objective": name,
                "path": one.path,
                "window_s": (one.to_ns - one.from_ns) // NS,
                "value": one.cost.value,
                "low": one.cost.low,
                "high": one.cost.high,
                "currency": one.cost.currency,
                "design": one.cost.design,
                "reason": one.cost.reason,
            }
            for name, one in self._hourly.items()
        ]
        if rows:
            # Computed twice for one moment it is the same block.
            store.insert("costs", from_rows(table_types()["costs"], rows), token=f"costs/{rows[0]['ts']}")
        return len(rows)

    def pricer(self, store: Store, now_ns: int) -> Pricer:
        """Prices of now, with revenues that were read in the last minutes."""
        if now_ns - self._revenues_ns > _REVENUE_NS:
            self._revenues, self._revenues_ns = {}, now_ns
        return Pricer(store, self.money.settings, self.money.values, now_ns, self._revenues)

    def fields(self, objective: str, episode: str = "", *, over: bool = False) -> dict[str, Any]:
        """What a notification says of money; nothing where nothing is declared or known yet."""
        found: dict[str, Any] = {}
        hourly = self._hourly.get(objective)
        if hourly is not None and hourly.cost.low is not None and not over:
            found |= {"cost": _shown(hourly)}
            if hourly.cost.value is not None:
                found["cost_per_hour"] = hourly.cost.value
        whole = self._episodes.get(episode)
        if whole is not None and whole.cost.low is not None and over:
            found["episode_cost"] = {**_shown(whole), "value": whole.cost.value, "to_ns": whole.to_ns}
        return found


def _shown(one: Burned) -> dict[str, Any]:
    fields = msgspec.to_builtins(one.cost)
    return {name: value for name, value in fields.items() if name != "value" and value not in (None, "", False)}


class Explainer:
    """Finds out, for one firing episode at a time, what made it and what it costs; three tries each."""

    def __init__(self, book: SloBook, costs: CostBook) -> None:
        self._book, self._costs = book, costs
        self._tries: dict[str, int] = {}

    def run(
        self, store: Store, objectives: Sequence[Objective], paths: Mapping[str, Path], now_ns: int | None = None
    ) -> int:
        """Explain the episode that waits longest; how many notifications came of it. Raises StoreError."""
        now = time.time_ns() if now_ns is None else now_ns
        by_name = {one.name: one for one in objectives}
        waiting = [a for a in self._book.unexplained() if a.rule != BLIND and a.objective in by_name]
        self._tries = {a.episode: self._tries.get(a.episode, 0) for a in waiting}
        alert = next((a for a in waiting if self._due(a, now)), None)
        if alert is None:
            return 0
        self._tries[alert.episode] += 1
        found = self._costs.fields(alert.objective)
        try:
            found |= self._cause(store, by_name[alert.objective], paths, alert, now)
        except ValueError as error:
            _log.info("episode_not_explained", episode=alert.episode, why=str(error))
        except StoreError as error:
            _log.warning("episode_not_explained", episode=alert.episode, error=str(error))
            if self._tries[alert.episode] < len(_TRIES_NS):
                return 0
        if not found:
            return 0
        # A cost alone waits for the cause as long as there are tries left.
        if "top_cause" not in found and self._tries[alert.episode] < len(_TRIES_NS):
            return 0
        return int(self._book.explain(alert.episode, found, now))

    def _due(self, alert: Alert, now_ns: int) -> bool:
        tries = self._tries[alert.episode]
        return tries < len(_TRIES_NS) and now_ns - alert.fired_ns >= _TRIES_NS[tries]

    def _cause(
        self, store: Store, one: Objective, paths: Mapping[str, Path], alert: Alert, now_ns: int
    ) -> dict[str, Any]:
        path = paths.get(counted_path(one.indicator) or "")
        if path is None:
            return {}
        to_ns = (now_ns - _BEHIND_NS) // (10 * NS) * 10 * NS
        # The burn began before its windows were full.
        from_ns = max(alert.breach_ns - WINDOW_NS, to_ns - _MOST_EXPLAINED_NS)
        if from_ns >= to_ns:
            return {}
        return cause_fields(explanation(store, path, from_ns=from_ns, to_ns=to_ns, paths=list(paths.values())))


def cause_fields(found: Explanation) -> dict[str, Any]:
    """The first cause of an explanation as a notification says it; empty without one."""
    if not found.causes:
        return {}
    first = found.causes[0]
    where = f" ({first.label})" if first.label else ""
    ends = f"95 % interval {100 * first.ci[0]:.0f} to {100 * first.ci[1]:.0f} %"
    said = f"{first.stage}{where}, {first.kind}: {100 * first.share:.0f} % of the added time ({ends})"
    return {
        "top_cause": said,
        "cause": {
            "path": found.path, "stage": first.stage, "layer": first.layer, "kind": first.kind, "label": first.label,
            "share": first.share, "ci": list(first.ci), "evidence": first.evidence, "from_ns": found.from_ns,
            "to_ns": found.to_ns,
        },
    }  # fmt: skip
