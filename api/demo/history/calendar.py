"""What happens on each day of a history: how busy it is, what is deployed, what runs beside it, what goes wrong.

Everything of a day is drawn from the seed and the date alone, so that a day is the same in every history that has it.
Incidents are for the checker, like those that are ordered of the live demo; deploys are on record for everybody.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from api.demo.faults import KINDS, LINKS, Fault, checked
from api.demo.history.beside import Timeline
from api.demo.instances import MOST_VERSION, PLACES, Instance
from api.demo.instances import checked as admitted
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
    """A new version of a program; `fault` when it was a bad one. It was a `canary` before, where there can be one."""

    ts_ns: int
    place: str
    service: str
    version: str
    fault: Fault | None = None
    canary: Instance | None = None

    def runs(self, now_ns: int) -> bool:
        """Whether it has been deployed by then and not been rolled back."""
        return self.ts_ns <= now_ns and (self.fault is None or now_ns < (self.fault.end_ns or 0))


@dataclass(frozen=True, slots=True)
class Day:
    """One UTC day. `rate` multiplies the mean rate; on a `campaign` day more customers come, and buy more easily."""

    start_ns: int
    seed: int
    rate: float
    campaign: bool
    deploys: tuple[Deploy, ...]
    incidents: tuple[Fault, ...]
    shadow: Instance | None = None

    @property
    def beside(self) -> tuple[Instance, ...]:
        """The canaries and the shadow, oldest first."""
        found = (*(deploy.canary for deploy in self.deploys), self.shadow)
        return tuple(sorted((one for one in found if one is not None), key=lambda one: (one.start_ns, one.id)))

    def name_of(self, instance: Instance) -> str:
        """The version of an instance of the day, as it is labelled."""
        found = (deploy.version for deploy in self.deploys if deploy.canary == instance)
        return next(found, f"{_date(self.start_ns)}-{instance.role}")

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
    deploys = _one_canary([_deploy(rng, start_ns, seed, n) for n in range(0 if weekend else rng.randrange(3))])
    incidents = tuple(_incident(rng, start_ns, seed, n) for n in range(rng.randrange(3)))
    return Day(start_ns, rng.randrange(2**32), rate, campaign, deploys, incidents, _shadow(start_ns, seed))


def timelines(days: Iterable[Day]) -> dict[str, Timeline]:
    """Per place, which version ran from when on, newest first, as far as `days` say."""
    deploys = [deploy for one in days for deploy in one.deploys]
    found = {}
    for place in {deploy.place for deploy in deploys}:
        mine = sorted((one for one in deploys if one.place == place), key=lambda one: one.ts_ns)
        cuts = {0, *(one.ts_ns for one in mine), *(one.fault.end_ns or 0 for one in mine if one.fault)}
        found[place] = tuple((at_ns, _running(mine, at_ns)) for at_ns in sorted(cuts, reverse=True))
    return found


def _running(deploys: Sequence[Deploy], now_ns: int) -> str:
    return next((one.version for one in reversed(deploys) if one.runs(now_ns)), "1")


def _deploy(rng: random.Random, start_ns: int, seed: int, number: int) -> Deploy:
    at_ns, place = _time(rng, start_ns), rng.choice(_SERVICES)
    version = f"{datetime.fromtimestamp(at_ns // NS, UTC):%Y.%m.%d-%H%M%S}"
    bad, share, lasts_min = rng.random() < 0.25, rng.choice(_SHARES), rng.uniform(20, 90)
    fault = None
    if bad:  # it is rolled back
        fault = _fault("bad_deploy", place, at_ns, lasts_min, share, 3 * _MS, seed, f"d{number}")
    canary = None
    if place in PLACES["canary"]:
        canary = _canary(place, at_ns, seed, number, share if bad else 0.0)
    return Deploy(at_ns, place, place.partition("-")[0], version, fault, canary)


def _one_canary(deploys: Sequence[Deploy]) -> tuple[Deploy, ...]:
    """There is one canary of a program at a time: who comes while another is there has none."""
    kept: list[Deploy] = []
    for one in deploys:
        new = one.canary
        others = [d.canary for d in kept if d.canary is not None and d.place == one.place]
        if new and any(new.start_ns < (o.end_ns or 0) and o.start_ns < (new.end_ns or 0) for o in others):
            one = replace(one, canary=None)
        kept.append(one)
    return tuple(kept)


def _canary(place: str, until_ns: int, seed: int, number: int, bad_share: float) -> Instance:
    """A deploy's canary: it ends when the version is deployed; a bad version is as bad in it."""
    rng = random.Random(f"{seed}/{until_ns}/{place}/canary")  # noqa: S311 - a stream of its own: days stay as they were
    return admitted(
        Instance(
            id=f"{place}.canary-history-{seed}-{_date(until_ns)}-{number}", role="canary", at=place, share=0.2,
            version=1 + until_ns // NS % MOST_VERSION, start_ns=until_ns - rng.randrange(20, 60) * 60 * NS,
            end_ns=until_ns, extra_ns=3 * _MS if bad_share else 0, size=bad_share or 1.0,
        )
    )  # fmt: skip


def _shadow(start_ns: int, seed: int) -> Instance | None:
    """On some days a shadow runs for some hours: as fast as the main instance, or slower."""
    rng = random.Random(f"{seed}/{start_ns}/shadow")  # noqa: S311 - as above
    if rng.random() >= 0.3:
        return None
    place, at_ns = rng.choice(PLACES["shadow"]), _time(rng, start_ns)
    return admitted(
        Instance(
            id=f"{place}.shadow-history-{seed}-{_date(start_ns)}", role="shadow", at=place, share=0.25,
            version=1 + at_ns // NS % MOST_VERSION, start_ns=at_ns, end_ns=at_ns + rng.randrange(60, 180) * 60 * NS,
            slower=rng.choice((0.0, 0.1)), extra_ns=rng.choice((0, 2 * _MS)), size=0.05,
        )
    )  # fmt: skip


def _date(at_ns: int) -> str:
    return f"{datetime.fromtimestamp(at_ns // NS, UTC):%Y.%m.%d}"


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
