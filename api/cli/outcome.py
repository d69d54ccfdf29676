"""How a command ends: an answer or a failure, and the exit code that scripts read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # rich is loaded only when something is drawn
    from rich.console import Console


class Code(IntEnum):
    """Exit codes; docs/cli.md explains them."""

    OK = 0
    FINDING = 1  # the command worked, and the answer is no: a difference, a failed check
    USAGE = 2  # the command line or the configuration is wrong
    UNREACHABLE = 3  # the store or the server does not answer, or somebody else holds the directory
    DATA = 4  # the data is not what was asked for: damaged file, unknown message, refused query
    INTERNAL = 5  # a bug of ours
    INTERRUPTED = 130  # Ctrl-C


class CommandError(Exception):
    """A command cannot do what it was asked. The message says what was wrong; `hint` says what to do."""

    def __init__(self, code: Code, message: str, *, kind: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.kind = kind or code.name.lower()
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Answer:
    """What a command found: `value` for machines, `show` for people, and the exit code.

    `show` None prints nothing on a terminal. `value` is anything `api.cli.frame.to_json` can encode.
    """

    value: Any
    show: Callable[[Console], None] | None = None
    code: Code = Code.OK
