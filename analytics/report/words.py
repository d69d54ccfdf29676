"""Numbers and names in words that a reader needs no help with; names are made harmless for every format."""

from __future__ import annotations

import math
import unicodedata
from datetime import UTC, datetime

MINUS = "\N{MINUS SIGN}"
_UNITS = ((86_400e9, "days"), (3_600e9, "h"), (60e9, "min"), (1e9, "s"), (1e6, "ms"), (1e3, "µs"), (1.0, "ns"))
_LATENCY = tuple(one for one in _UNITS if one[0] <= 1e9)


def clean(text: str, most: int = 200) -> str:
    """A name as it may be shown: control and direction characters become U+FFFD, and no more than `most` characters.

    A direction override would turn the text beside it round; a control character ends some formats.
    """
    shown = "".join("\N{REPLACEMENT CHARACTER}" if _harmful(c) else c for c in text[: most + 1])
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def _harmful(character: str) -> bool:
    # Zero width joiners are how some scripts are written, and turn nothing round.
    return character not in "\u200c\u200d" and unicodedata.category(character) in (
        "Cc",
        "Cf",
        "Cs",
        "Co",
        "Cn",
        "Zl",
        "Zp",
    )


def number(value: float, digits: int = 3) -> str:
    """A number with so many significant digits and thousands separators: 1,230, 0.0123."""
    if not math.isfinite(value):
        return "more than can be said" if value > 0 else "-"
    if value == 0:
        return "0"
    places = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    rounded = round(value, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{rounded:,.{min(places, 9)}f}"
    return text.replace("-", MINUS)


def latency(ns: float | None) -> str:
    """A latency: 850 ns, 12.3 µs, 4.56 ms, 2.1 s."""
    return "not known" if ns is None else _in(_LATENCY, ns)


def duration(ns: float | None) -> str:
    """A length of time: 12.3 ms, 4.5 min, 2.1 h, 3 days."""
    return "not known" if ns is None else _in(_UNITS, ns)


def _in(units: tuple[tuple[float, str], ...], ns: float) -> str:
    # 95 s say more than 1.58 min: minutes, hours and days begin at two.
    size, unit = next((one for one in units if abs(ns) >= one[0] * (2 if one[0] > 1e9 else 1)), units[-1])
    return f"{number(ns / size)} {unit}"


def signed(text: str) -> str:
    """A change: with its sign."""
    return text if text.startswith(MINUS) or text == "0" else f"+{text}"


def percent(share: float | None, digits: int = 3) -> str:
    """A share of one as percent."""
    return "not known" if share is None else f"{number(100 * share, digits)} %"


def complete(share: float | None) -> str:
    """A completeness as percent, rounded down: 99.9999 % are not all."""
    if share is None:
        return "not known"
    return f"{math.floor(share * 1e6) / 1e4:.10g} %"


def exactly(share: float) -> str:
    """A share that somebody has set, as percent: 99.95 %."""
    return f"{100 * share:.10g} %"


def money(amount: float, currency: str) -> str:
    """An amount of money: 1.23 million USD, 45,600 USD."""
    size = abs(amount)
    if size >= 1e9:
        return f"{number(amount / 1e9)} billion {currency}"
    if size >= 1e6:
        return f"{number(amount / 1e6)} million {currency}"
    return f"{number(amount)} {currency}"


def moment(ns: int) -> str:
    """A time in UTC to the minute."""
    return f"{datetime.fromtimestamp(ns // 1_000_000_000, UTC):%Y-%m-%d %H:%M}"


def many(count: int, one: str, more: str = "") -> str:
    """`1 alert`, `3 alerts`."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def listed(names: tuple[str, ...] | list[str], most: int = 5) -> str:
    """Names in a sentence, the first few by name."""
    shown = list(names[:most])
    if len(names) > most:
        shown.append(f"{len(names) - most} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"
