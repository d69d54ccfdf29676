"""The state of one alert, as a pure function: what it was, what its rule says now, what it is next.

    inactive -> pending -> firing -> resolved -> (pending | firing, as a new episode)

An episode begins with the first breach and has one id, over restarts, kills and hand-overs: its id is made of the
objective, the rule and the time of the first breach. `acknowledged` is a firing alert that somebody has taken.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import msgspec

from analytics.slo.burn import Answer
from collector.keys import hash64

State = Literal["inactive", "pending", "firing", "acknowledged", "resolved"]
TICK_NS = 10_000_000_000
OPEN: tuple[State, ...] = ("firing", "acknowledged")
BLIND = "blind"  # the name of the rule of an objective that cannot be evaluated


@dataclass(frozen=True, slots=True)
class Alert:
    """Where one rule of one objective stands. Times are epoch nanoseconds, 0 where they have not come."""

    objective: str
    rule: str
    state: State = "inactive"
    since_ns: int = 0  # of the state
    breach_ns: int = 0  # the first breach of the episode
    fired_ns: int = 0
    resolved_ns: int = 0
    held_ns: int = 0  # since when nothing certain could be said
    episode: str = ""
    acknowledged_by: str = ""
    why: str = ""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """An alert that has fired, for the record. Times are epoch nanoseconds; `resolved_ns` 0: it still fires."""

    episode: str
    objective: str
    rule: str
    severity: str
    breach_ns: int
    fired_ns: int
    resolved_ns: int


@dataclass(frozen=True, slots=True)
class Transition:
    """A change that somebody has to hear of."""

    kind: Literal["firing", "resolved", "acknowledged"]
    alert: Alert
    at_ns: int


def episode_id(objective: str, rule: str, breach_ns: int) -> str:
    """The id of an episode, the same wherever it is computed."""
    return f"{hash64('episode', f'{objective} {rule} {breach_ns}'):016x}"


def step(
    alert: Alert, answer: Answer, now_ns: int, *, for_s: int = 0, why: str = ""
) -> tuple[Alert, Transition | None]:
    """The alert after one tick, and the transition if there is one.

    Held answers change nothing but how long they have been held. `insufficient` ends what is pending and, where the
    whole long window has passed without enough events, what is firing.
    """
    if answer == "held":
        return replace(alert, held_ns=alert.held_ns or now_ns, why=why), None
    alert = replace(alert, held_ns=0, why=why)
    if answer == "over":
        return _over(alert, now_ns, for_s)
    if alert.state in OPEN:
        ended = replace(alert, state="resolved", since_ns=now_ns, resolved_ns=now_ns)
        return ended, Transition("resolved", ended, now_ns)
    if alert.state == "pending":
        return replace(alert, state="inactive", since_ns=now_ns, breach_ns=0, episode=""), None
    return alert, None


def _over(alert: Alert, now_ns: int, for_s: int) -> tuple[Alert, Transition | None]:
    if alert.state in OPEN:
        return alert, None
    if alert.state != "pending":
        alert = replace(
            alert,
            state="pending",
            since_ns=now_ns,
            breach_ns=now_ns,
            fired_ns=0,
            resolved_ns=0,
            acknowledged_by="",
            episode=_fresh_id(alert, now_ns),
        )
    # A clock that was set back must not make the wait longer than it is.
    since = min(alert.since_ns, now_ns)
    if now_ns - since < for_s * 1_000_000_000:
        return replace(alert, since_ns=since), None
    fired = replace(alert, state="firing", since_ns=now_ns, fired_ns=now_ns)
    return fired, Transition("firing", fired, now_ns)


def _fresh_id(alert: Alert, now_ns: int) -> str:
    """By the tick, not the nanosecond: two servers that do not hear each other give one episode the same id."""
    found = episode_id(alert.objective, alert.rule, now_ns - now_ns % TICK_NS)
    return found if found != alert.episode else episode_id(alert.objective, alert.rule, now_ns)


def acknowledge(alert: Alert, who: str, now_ns: int) -> tuple[Alert, Transition]:
    """The alert taken by somebody. Raises ValueError when it is not firing."""
    if alert.state != "firing":
        raise ValueError(f"{alert.objective}/{alert.rule} is {alert.state}, only a firing alert can be acknowledged")
    taken = replace(alert, state="acknowledged", since_ns=now_ns, acknowledged_by=who)
    return taken, Transition("acknowledged", taken, now_ns)
