"""The part of the inventory that drivers are asked for: rings, coalescing, offloads, firmware, MTU."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from collector.nic.ethtool import Ethtool

_MOST = 64


def card_items(names: list[str], ethtool: Ethtool, root: Path = Path("/")) -> Iterator[tuple[str, str]]:
    """Items of each interface; what its driver does not answer is left out."""
    for name in sorted(names)[:_MOST]:
        try:
            for key, text in ethtool.driver(name).items():
                yield f"nic.{name}.{key}", text
        except OSError:
            pass
        for group, ask in (("ring", ethtool.rings), ("coalesce", ethtool.coalescing)):
            try:
                for key, number in ask(name).items():
                    yield f"nic.{name}.{group}.{key}", str(number)
            except OSError:
                continue
        try:
            on = sorted(feature for feature, is_on in ethtool.features(name).items() if is_on)
            yield f"nic.{name}.offloads", " ".join(on)
        except OSError:
            pass
        for key in ("mtu", "speed", "tx_queue_len", "gro_flush_timeout", "napi_defer_hard_irqs"):
            try:
                yield f"nic.{name}.{key}", (root / "sys/class/net" / name / key).read_text().strip()
            except OSError:  # a link that is down has no speed; another namespace's sysfs has none of it
                continue
