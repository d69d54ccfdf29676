"""`[agent.prometheus]`: what is scraped, how often, and within which bounds."""

from __future__ import annotations

from urllib.parse import urlsplit

from collector.settings import ConfigError, Section, duration_ns


class Target(Section, frozen=True, kw_only=True):
    """One address. `service` is what its rows are of; empty: the address's host and port."""

    url: str
    service: str = ""

    def validate(self) -> None:
        """Raise ConfigError when the url is not one of http or https."""
        try:
            parts = urlsplit(self.url)
            good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            good = False
        if not good:
            raise ConfigError("url", f"{self.url!r} must be http://HOST[:PORT]/PATH or https://...")


class PrometheusSettings(Section, frozen=True, kw_only=True):
    """The scraping collector's section. Bytes and seconds; limits are per target."""

    targets: tuple[Target, ...] = ()
    interval: str = "15s"
    timeout_s: float = 5.0  # for the whole of one scrape
    max_body_bytes: int = 16 << 20
    max_samples: int = 20_000
    label_sets: int = 20_000  # distinct label sets of all targets; later ones are left out
    stale: str = "5m"  # a sample with a timestamp of its own older than this is left out

    def validate(self) -> None:
        """Raise ConfigError for targets, durations and limits that make no sense, naming the field."""
        for index, target in enumerate(self.targets):
            try:
                target.validate()
            except ConfigError as error:
                raise ConfigError(f"targets[{index}].{error.field}", error.problem) from error
        if len({target.url for target in self.targets}) != len(self.targets):
            raise ConfigError("targets", "names a url twice")
        if duration_ns(self.interval, "interval") < 1_000_000_000:
            raise ConfigError("interval", f"{self.interval!r} must be at least 1s")
        if not 0 < self.timeout_s <= duration_ns(self.interval, "interval") / 1e9:
            raise ConfigError("timeout_s", f"{self.timeout_s} must be positive and at most the interval")
        for name in ("max_body_bytes", "max_samples", "label_sets"):
            if getattr(self, name) < 1:
                raise ConfigError(name, f"{getattr(self, name)} must be at least 1")
        duration_ns(self.stale, "stale")
