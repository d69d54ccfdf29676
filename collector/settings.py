"""One configuration file, `tailsight.toml`: each module owns a frozen section of it, read here.

A section is a frozen `msgspec.Struct` with its defaults beside the fields. Reading refuses unknown names and wrong
types, and a section's own `validate()` raises `ConfigError` that names the field, what it got and what to do.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

S = TypeVar("S", bound="Section")

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ns|us|ms|s|m|h|d)")
_UNIT_NS = {
    "ns": 1,
    "us": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
    "d": 86_400_000_000_000,
}


class ConfigError(ValueError):
    """A configuration is wrong: `field` is its dotted name, the message says what to do about it."""

    def __init__(self, field: str, problem: str, source: str = "") -> None:
        self.field = field
        self.problem = problem
        self.source = source
        where = f"{source}: " if source else ""
        super().__init__(f"{where}{field}: {problem}")

    def at(self, source: str) -> ConfigError:
        """The same error with the file it came from."""
        return ConfigError(self.field, self.problem, source)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Base of every configuration section."""

    def validate(self) -> None:
        """Raise ConfigError when values that have the right types do not make sense together."""


def duration_ns(text: str, field: str) -> int:
    """A duration such as "150us", "1.5s" or "10m" in nanoseconds. Raises ConfigError naming `field`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise ConfigError(field, f"{text!r} is not a duration; write a number and one of ns, us, ms, s, m, h, d")
    return round(float(match[1]) * _UNIT_NS[match[2]])


def read_toml(path: Path) -> dict[str, Any]:
    """The parsed file. Raises ConfigError naming the file when it is absent, unreadable or not TOML."""
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "file", "does not exist; pass --config FILE or leave it out for defaults", str(path)
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError("file", f"cannot be read: {error}", str(path)) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError("file", f"is not valid TOML: {error}", str(path)) from error


def section(document: Any, kind: type[S], name: str, source: str = "") -> S:
    """`document` as a validated section of type `kind`; `name` is its dotted place for error messages."""
    try:
        result = msgspec.convert(document, kind)
        result.validate()
    except msgspec.ValidationError as error:
        # msgspec writes "... - at `$.max_age_ms`"; turn the JSON path into the dotted field name.
        problem, _, path = str(error).partition(" - at `$")
        raise ConfigError((name + path.rstrip("`")).strip("."), problem, source) from error
    except ConfigError as error:
        # A section's validate() names its field with or without the section.
        field = error.field if error.field.startswith(name) else f"{name}.{error.field}"
        raise ConfigError(field, error.problem, source) from error
    return result
