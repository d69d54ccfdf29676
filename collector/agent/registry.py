"""The collectors an agent may run, by name. Each is imported when it is wanted, so that the others cost nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from collector.agent.settings import AgentSettings
from collector.clock import ClockReading, HostClock, clock_columns
from collector.settings import ConfigError
from collector.sources import Availability, Poll, Source


class ClockSource:
    """What the host's clock said of itself: a sample every few seconds, and every step and loss of synchronisation.

    It lies in between no two events: each row is one reading. Cost: nothing beyond the readings that are made anyway.
    """

    name = "clock"

    def __init__(self, clock: HostClock, host: str, period_s: float) -> None:
        self.period_s = period_s
        self._clock = clock
        self._host = host

    def start(self, positions: Mapping[str, int]) -> Availability:  # noqa: ARG002 - a clock has no past to read
        """A clock is always there; degraded while nobody states how far it is from UTC."""
        return self.state()

    def state(self) -> Availability:
        """Degraded while no authority states a bound, with each one's reason."""
        reason = self._clock.no_bound_because
        if not reason:
            return Availability("running")
        what = "nobody states how far this clock is from UTC; run `apt-get install chrony`"
        return Availability("degraded", f"{what} ({reason})")

    def poll(self, clock: ClockReading) -> Poll:  # noqa: ARG002 - the events hold their own readings
        """The rows since the last poll."""
        events = self._clock.events()
        return Poll(columns=[clock_columns(self._host, events)] if events else [])

    def close(self) -> None:
        """There is nothing to release."""


def _probe(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.sources.probe import ProbeSource

    return ProbeSource(ring_dir(settings), host)


def _schedstat(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.sources.schedstat import SchedstatSource

    return SchedstatSource(host, ring_dir=ring_dir(settings))


def _scheduler(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.sched.source import SchedulerSource

    return SchedulerSource(host, Services(ring_dir(settings)), settings.scheduler)


def _packet(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.packet.live.source import PacketSource

    return PacketSource(host, settings.packet)


def _feeds(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.feeds.source import FeedsSource

    return FeedsSource(settings.feeds, host)


def _nic(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.nic.source import NicSource

    return NicSource(host, settings.nic)


def _host(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.host.source import HostSource

    return HostSource(host, settings.host)


class Services:
    """The services of the programs that stamp, by process: what their threads' delays are counted under.

    A program that has not said its name yet goes by its command name. Cost: a directory listing, and one short read
    per program until it has said its name.
    """

    def __init__(self, rings: Path) -> None:
        self._rings = rings
        self._known: dict[tuple[int, int], str] = {}

    def __call__(self) -> dict[int, str]:
        """The programs that run now."""
        from collector.sources.ring_dictionary import RingDictionary
        from collector.sources.ring_processes import identities

        present = identities(self._rings)
        self._known = {identity: name for identity, name in self._known.items() if identity in present}
        named = {}
        for pid, ticks in present:
            if (pid, ticks) not in self._known:
                dictionary = RingDictionary(self._rings / f"{pid}.{ticks}.dict")
                dictionary.refresh()
                if dictionary.service:
                    self._known[pid, ticks] = dictionary.service
            try:
                named[pid] = (
                    self._known.get((pid, ticks)) or Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
                )
            except OSError:
                continue  # it has ended
        return named


def _otlp(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.otlp.source import OtlpSource

    return OtlpSource(host, settings.otlp)


def _prometheus(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.prometheus.source import PrometheusSource

    return PrometheusSource(host, settings.prometheus)


def _probes(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.probes.source import ProbesSource

    return ProbesSource(host, settings.probes)


def _lines(settings: AgentSettings, host: str, clock: HostClock) -> Source:  # noqa: ARG001 - one signature for all
    from collector.lines.source import LinesSource

    return LinesSource(host, settings.lines)


def _clock(settings: AgentSettings, host: str, clock: HostClock) -> Source:
    return ClockSource(clock, host, settings.clock_s)


REGISTRY: Mapping[str, Callable[[AgentSettings, str, HostClock], Source]] = {
    "probe": _probe,
    "schedstat": _schedstat,
    "scheduler": _scheduler,
    "packet": _packet,
    "feeds": _feeds,
    "clock": _clock,
    "otlp": _otlp,
    "nic": _nic,
    "host": _host,
    "prometheus": _prometheus,
    "lines": _lines,
    "probes": _probes,
}


def ring_dir(settings: AgentSettings) -> Path:
    """Where the probe's rings are: the setting, the probe's own variable, or the probe's default for this user."""
    named = settings.ring_dir or os.environ.get("TAILSIGHT_PROBE_DIR", "")
    return Path(named) if named else Path(f"/dev/shm/tailsight-{os.getuid()}")  # noqa: S108 - made 0700 by the probe


def make_source(name: str, settings: AgentSettings, host: str, clock: HostClock) -> Source:
    """The collector called `name`. Raises ConfigError with the known names."""
    maker = REGISTRY.get(name)
    if maker is None:
        raise ConfigError("agent.collectors", f"there is no collector {name!r}; known are {', '.join(REGISTRY)}")
    return maker(settings, host, clock)
