"""What happens on each day of a history: how busy it is, what is deployed, what goes wrong, which days are special.

Everything of a day is drawn from the seed and the date alone, so that a day is the same in every history that has it.
Incidents are for the checker, like those that are ordered of the live demo; deploys are on record for everybody.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime

from api.demo.faults import KINDS, LINKS, Fault, checked
from api.demo.rss import used_queues

NS = 1_000_000_000
HOUR_NS = 3_600 * NS
DAY_NS = 24 * HOUR_NS
_MS = 1_000_000
_WEEKEND = 0.4  # of a working day's rate
_OPEN_H, _CLOSE_H = 9.0, 17.0
_SHARES = (0.02, 0.05, 0.1, 0.3)
_SERVICES = KINDS["bad_deploy"].places


@dataclass(frozen=True, slots=True)
class Deploy:
    """A new version of a program; `fault` when it was a bad one."""

    ts_ns: int
    place: str
    service: str
    version: str
    fault: Fault | None = None


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day. `rate` multiplies the mean rate; on a `campaign` day more customers come, and buy more easily."""

    start_ns: int
    seed: int
    rate: float
    campaign: bool
    deploys: tuple[Deploy, ...]
    incidents: tuple[Fault, ...]

    @property
    def faults(self) -> tuple[Fault, ...]:
        """All that goes wrong, oldest first."""
        bad = (deploy.fault for deploy in self.deploys if deploy.fault is not None)
        return tuple(sorted((*self.incidents, *bad), key=lambda fault: (fault.start_ns, fault.id)))


def day(seed: int, start_ns: int) -> Day:
    """The day that begins at `start_ns` (midnight, UTC)."""
    date = datetime.fromtimestamp(start_ns // NS, UTC)
    rng = random.Random(f"{seed}/{date:%Y-%m-%d}")  # noqa: S311 - the same seed must give the same day
    weekend = date.weekday() >= 5
    campaign = rng.random() < 0.1
    rate = (_WEEKEND if weekend else rng.uniform(0.85, 1.15)) * (1.5 if campaign else 1.0)
    deploys = tuple(_deploy(rng, start_ns, seed, n) for n in range(0 if weekend else rng.randrange(3)))
    incidents = tuple(_incident(rng, start_ns, seed, n) for n in range(rng.randrange(3)))
    return Day(start_ns, rng.randrange(2**32), rate, campaign, deploys, incidents)


def _deploy(rng: random.Random, start_ns: int, seed: int, number: int) -> Deploy:
    at_ns, place = _time(rng, start_ns), rng.choice(_SERVICES)
    version = f"{datetime.fromtimestamp(at_ns // NS, UTC):%Y.%m.%d-%H%M%S}"
    bad, share, lasts_min = rng.random() < 0.25, rng.choice(_SHARES), rng.uniform(20, 90)
    fault = None
    if bad:  # it is rolled back
        fault = _fault("bad_deploy", place, at_ns, lasts_min, share, 3 * _MS, seed, f"d{number}")
    return Deploy(at_ns, place, place.partition("-")[0], version, fault)


def _incident(rng: random.Random, start_ns: int, seed: int, number: int) -> Fault:
    kind = rng.choice([name for name in KINDS if name not in ("bad_deploy", "clock_step")])
    at_ns, place = _time(rng, start_ns), rng.choice(KINDS[kind].places)
    share, lasts_min = rng.choice(_SHARES), rng.uniform(3, 45)
    amount_ns, delay_ns, loss = KINDS[kind].amount_ns, 0, 0.0
    if kind == "link":
        delay_ns, share = rng.choice((1, 2, 5, 20)) * _MS, 1.0
        loss = rng.choice((0.0, 0.01)) if place in LINKS else 0.0
    queue = rng.choice(used_queues(place)) if kind == "lost_nic_queue" else None
    return _fault(kind, place, at_ns, lasts_min, share, amount_ns, seed, f"i{number}", delay_ns, loss, queue)


def _time(rng: random.Random, start_ns: int) -> int:
    """A whole second of the day's trading."""
    return start_ns + round(rng.uniform(_OPEN_H, _CLOSE_H) * 3_600) * NS


def _fault(
    kind: str, place: str, at_ns: int, lasts_min: float, share: float, amount_ns: int, seed: int, number: str,
    delay_ns: int = 0, loss: float = 0.0, queue: int | None = None,
) -> Fault:  # fmt: skip
    date = datetime.fromtimestamp(at_ns // NS, UTC)
    return checked(
        Fault(
            id=f"{kind}-history-{seed}-{date:%Y%m%d}-{number}", kind=kind, at=place, size=share, amount_ns=amount_ns,
            start_ns=at_ns, end_ns=at_ns + round(lasts_min * 60) * NS, delay_ns=delay_ns, loss=loss,
            queue=queue,
        )
    )  # fmt: skip
