"""The customers of a history: what its orders led to, into the same blotter and by the same rule as the live demo's."""

from __future__ import annotations

import uuid
from pathlib import Path

import msgspec

from api.demo.back_office import ORDERS_PER_QUOTE
from api.demo.blotter import Blotter, Settled
from api.demo.business import Business
from api.demo.history.calendar import DAY_NS, NS, Day
from api.demo.history.hours import Settings
from api.demo.history.making import Made
from api.demo.outcome_rule import LoadMeter
from api.demo.truth import settled

CAMPAIGN = 0.05  # added to the chance to convert on a campaign's day
_RUN_BITS = 62


class Customers:
    """Writes DIR/demo/business.sqlite. The rule is in DIR/demo/truth, under a run of the history's own."""

    def __init__(self, folder: Path, collector: uuid.UUID, settings: Settings, seed: int | None) -> None:
        run = collector.int >> (128 - _RUN_BITS)  # the same for the same history
        self._truth = settled(folder, run, seed, ORDERS_PER_QUOTE * settings.rate)
        self._business = Business(folder)

    def react(self, hour: Made, day: Day) -> None:
        """Settle an hour's orders; what is there already stays. Raises sqlite3.Error."""
        rule = self._truth.rule
        if day.campaign:
            rule = msgspec.structs.replace(rule, base=rule.base + CAMPAIGN)
        blotter = Blotter(rule, LoadMeter(self._truth.usual_per_s), lambda at_ns: at_ns % DAY_NS / NS)
        rows: list[Settled] = []
        for at_ns, copy in hour.copies:
            rows += blotter.settle(at_ns)
            blotter.take(copy)
        self._business.add(rows + blotter.close())

    def close(self) -> None:
        """Give the file back."""
        self._business.close()
