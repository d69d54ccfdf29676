"""The control state, opened for one command, and who gives the command."""

from __future__ import annotations

import getpass
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from api.cli.frame import Run
from api.cli.outcome import Code, CommandError

if TYPE_CHECKING:
    from api.control import Control


def actor() -> str:
    """`user@host`, for the audit log."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


@contextmanager
def control_of(run: Run) -> Iterator[Control]:
    """The control state of the data directory; a server may have it open too."""
    from api.control import Control, ControlError

    try:
        control = Control(run.data / "control.sqlite")
    except ControlError as error:
        raise CommandError(Code.DATA, str(error), kind="control") from error
    try:
        yield control
    finally:
        control.close()
