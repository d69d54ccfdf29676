"""What a KPI is asked to answer to: a latency, slowness beyond a threshold, the p99 around, or the age of the data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from analytics.money.effects import SensitivityError
from analytics.paths import Path

NS = 1_000_000_000
MS = 1_000_000
END_TO_END = "end_to_end"
UNATTRIBUTED = "unattributed"
Kind = Literal["latency", "exceedance", "p99", "data_age"]


@dataclass(frozen=True, slots=True)
class Exposure:
    """What every message (or interval) was exposed to.

    `latency`: milliseconds of `stage`, a stage of the path or `end_to_end`. `exceedance`: 1 where that took longer than
    `threshold_ns`, else 0; an unfinished message did. `p99`: the 99th percentile, in milliseconds, of the window of
    `window_s` seconds that the message starts in. `data_age`: how old the data were, in milliseconds.
    """

    kind: Kind = "latency"
    stage: str = END_TO_END
    threshold_ns: int | None = None
    window_s: int = 60

    @property
    def words(self) -> str:
        """Its name for people."""
        whole = "latency" if self.stage == END_TO_END else f"the latency of {self.stage}"
        if self.kind == "data_age":
            return "data age"
        if self.kind == "exceedance":
            return f"{whole} beyond {(self.threshold_ns or 0) / MS:g} ms"
        return whole if self.kind == "latency" else f"the p99 of {whole} per {self.window_s} s"

    @property
    def unit(self) -> str:
        """What one of it is: a millisecond, or slow instead of not."""
        return "slow message" if self.kind == "exceedance" else "ms"

    @property
    def in_ms(self) -> bool:
        """Whether it is a time, and not slow or not."""
        return self.kind != "exceedance"

    def checked(self, path: Path) -> Exposure:
        """Itself. Raises SensitivityError naming what does not fit the path."""
        names = [stage.name for stage in path.stages]
        if self.stage != END_TO_END and self.stage not in names:
            raise SensitivityError(f"stage: path {path.name} has no {self.stage!r}; it has {', '.join(names)}")
        if self.kind == "data_age" and self.stage != END_TO_END:
            raise SensitivityError("stage: the age of the data is of the whole message; leave the stage out")
        if (self.kind == "exceedance") != (self.threshold_ns is not None):
            raise SensitivityError("threshold: goes together with the exposure `exceedance`, and with no other")
        if self.threshold_ns is not None and self.threshold_ns <= 0:
            raise SensitivityError("threshold: must be more than nothing")
        if not 1 <= self.window_s <= 86_400:
            raise SensitivityError("window: must be 1 s to 1 day")
        return self

    def column(self, path: Path) -> str:
        """The column of `messages` that it is made of, in nanoseconds, as SQL."""
        if self.kind == "data_age":
            return "data_age_ns"
        if self.stage == END_TO_END:
            return "e2e_ns"
        return f"stage_ns[{[stage.name for stage in path.stages].index(self.stage) + 1}]"
