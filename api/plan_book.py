"""Investment scenarios that somebody has saved, in the control state."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from typing import Any

from analytics.money.scenario_files import Scenarios, scenarios_from
from api.control import Control

MOST = 100
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")


class PlanError(ValueError):
    """A plan that cannot be saved or found: why, and what to do."""


class PlanBook:
    """The saved scenarios of one data directory, by name."""

    def __init__(self, control: Control) -> None:
        self._control = control

    def save(self, name: str, document: Mapping[str, Any], who: str) -> None:
        """Keep scenarios under a name; what had it is replaced. Raises PlanError, and ConfigError for wrong ones."""
        check_name(name)
        scenarios_from(document)
        body = json.dumps(document, sort_keys=True)
        with self._control.transaction() as db:
            others = db.execute("SELECT count(*) FROM scenarios WHERE name != ?", (name,)).fetchone()[0]
            if others >= MOST:
                raise PlanError(f"{others} plans are saved already, at most {MOST}: remove one first")
            db.execute(
                "INSERT INTO scenarios VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET body = excluded.body, "
                "saved_ns = excluded.saved_ns, saved_by = excluded.saved_by",
                (name, body, time.time_ns(), who),
            )

    def remove(self, name: str) -> None:
        """Forget scenarios. Raises PlanError for an unknown name."""
        with self._control.transaction() as db:
            if not db.execute("DELETE FROM scenarios WHERE name = ?", (name,)).rowcount:
                raise PlanError(f"no plan is called {name[:64]!r}")

    def names(self) -> list[dict[str, Any]]:
        """Name, when and by whom each was saved."""
        rows = self._control.rows("SELECT name, saved_ns, saved_by FROM scenarios ORDER BY name")
        return [dict(row) for row in rows]

    def load(self, name: str) -> Scenarios:
        """The scenarios of a name. Raises PlanError with the names there are."""
        rows = self._control.rows("SELECT body FROM scenarios WHERE name = ?", (name,))
        if not rows:
            known = ", ".join(one["name"] for one in self.names()) or "none"
            raise PlanError(f"no plan is called {name[:64]!r}; there are {known}")
        return scenarios_from(json.loads(rows[0]["body"]))


def check_name(name: str) -> None:
    """Raise PlanError for a name that is none."""
    if not _NAME.fullmatch(name):
        raise PlanError(f"{name[:80]!r} is no name: 1 to 64 of a-z, 0-9, _, - and ., a letter or digit first")
