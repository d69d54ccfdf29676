"""The few lines of /proc that tell of waiting for a CPU, parsed. Every function takes text and touches nothing."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sched:
    """/proc/PID/task/TID/schedstat, totals since the thread began."""

    run_ns: int
    run_delay_ns: int
    slices: int

    def since(self, before: Sched) -> Sched | None:
        """What was added since `before`; None when a number went back (another thread took this one's id)."""
        change = Sched(
            self.run_ns - before.run_ns, self.run_delay_ns - before.run_delay_ns, self.slices - before.slices
        )
        return None if min(change.run_ns, change.run_delay_ns, change.slices) < 0 else change


def parse_schedstat(text: str) -> Sched:
    """The three numbers of a schedstat file. Raises ValueError when there are not three."""
    fields = text.split()
    if len(fields) != 3:
        raise ValueError(f"schedstat is {text!r}, want three numbers")
    return Sched(int(fields[0]), int(fields[1]), int(fields[2]))


def parse_steal(text: str) -> int | None:
    """Jiffies that the hypervisor gave to others, all CPUs: the 8th number of the first line of /proc/stat."""
    line = text.partition("\n")[0].split()
    return int(line[8]) if line[:1] == ["cpu"] and len(line) > 8 else None


def parse_pressure(text: str) -> dict[str, int]:
    """Total stall time in ns per kind (`some`, `full`) of a /proc/pressure file; the kernel counts microseconds."""
    totals: dict[str, int] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        for item in rest.split():
            name, _, value = item.partition("=")
            if name == "total":
                totals[kind] = int(value) * 1_000
    return totals
