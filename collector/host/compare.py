"""Two inventories compared, and one with its declared profile. Pure functions over dictionaries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from collector.keys import hash64

MAX_VALUE = 1_000


@dataclass(frozen=True, slots=True)
class Difference:
    """One item that changed. A value is None where the item is not there; `was` is "" where only its hash is known."""

    item: str
    was: str | None
    now: str | None

    @property
    def sentence(self) -> str:
        """In words, for `changes`."""
        if self.now is None:
            return f"{self.item} is gone; it was {_quoted(self.was or '?')}"
        if self.was is None:
            return f"{self.item} is new: {_quoted(self.now)}"
        if self.was == UNKNOWN:
            return f"{self.item} is {_quoted(self.now)}; it was different when the agent last ran"
        return f"{self.item}: {_quoted(self.was)} -> {_quoted(self.now)}"


UNKNOWN = "\0unknown"


def fitted(value: str) -> str:
    """A value as the store takes it: control characters to blanks; a long one cut, with the hash of the whole."""
    text = "".join(c if c.isprintable() else " " for c in value)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 20]}...#{hash64('host', text):016x}"


def differences(before: Mapping[str, str], now: Mapping[str, str]) -> list[Difference]:
    """What changed between two inventories, by item."""
    return [
        Difference(item, before.get(item), now.get(item))
        for item in sorted(before.keys() | now.keys())
        if before.get(item) != now.get(item)
    ]


def condensed(found: Sequence[Difference], before: Collection[str], now: Collection[str]) -> list[Difference]:
    """The differences with all items of an interface that came or went as one: containers make and remove many.

    `before` and `now` are the items of the two inventories.
    """
    had, has = _interfaces(before), _interfaces(now)
    kept: dict[str, Difference] = {}
    for one in found:
        card = _interface(one.item)
        if card is None or (card in had) == (card in has):
            kept[one.item] = one
        elif card in has:
            kept[card] = Difference(card, None, "a network interface")
        else:
            kept[card] = Difference(card, "a network interface", None)
    return list(kept.values())


def _interface(item: str) -> str | None:
    """`nic.eth0` of `nic.eth0.ring.rx`. A name with a dot (a VLAN) counts with the device that carries it."""
    parts = item.split(".", 2)
    return ".".join(parts[:2]) if parts[0] == "nic" and len(parts) == 3 else None


def _interfaces(items: Collection[str]) -> frozenset[str]:
    return frozenset(card for item in items if (card := _interface(item)) is not None)


def since_last_run(hashes: Mapping[str, int], now: Mapping[str, str]) -> list[Difference]:
    """What changed since the agent last ran, of which only hashes are kept; none when it never did."""
    if not hashes:
        return []
    found = []
    for item in sorted(hashes.keys() | now.keys()):
        if item not in hashes:
            found.append(Difference(item, None, now[item]))
        elif item not in now:
            if hashes[item]:
                found.append(Difference(item, UNKNOWN, None))
        elif hashes[item] != name_of(now[item]):
            found.append(Difference(item, UNKNOWN if hashes[item] else None, now[item]))
    return found


def name_of(value: str | None) -> int:
    """A value's hash as a source position; 0 for an item that is gone."""
    return 0 if value is None else hash64("host", value) or 1


def drift(now: Mapping[str, str], profile: Mapping[str, str]) -> list[str]:
    """Items that are not as the profile says: another value, or not there."""
    return [item for item, want in sorted(profile.items()) if item not in now or not fnmatchcase(now[item], want)]


def _quoted(value: str) -> str:
    return "unknown" if value == UNKNOWN else f"{value[:300]}..." if len(value) > 300 else value or "(empty)"
