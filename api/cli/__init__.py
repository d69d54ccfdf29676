"""The command line, `tailsight`. One module per command group; `frame` holds what all commands share.

Commands import what they need when they run, so that `tailsight --help` answers at once.
"""

from __future__ import annotations

import os
import sys


def main() -> None:
    """The entry point: run the command that `sys.argv` names and exit with its code (`api.cli.outcome.Code`)."""
    from api.cli.root import run

    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has had enough; nothing is left to say, also not at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)
