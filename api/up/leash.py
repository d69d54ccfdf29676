"""`python -m api.up.leash MODULE ARG...`: run MODULE as a program that dies with the process that started it.

The kernel sends SIGTERM when the supervisor's starting thread ends (PR_SET_PDEATHSIG, prctl(2)), so that a supervisor
killed with -9 leaves nothing behind. It is asked for here, after exec, because Python code between fork and exec can
deadlock in a process that has threads; and it costs no second process.
"""

from __future__ import annotations

import ctypes
import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h


def main(argv: list[str]) -> None:
    """Tie this process to its parent and become MODULE; `argv` is [parent pid, module, argument...].

    Raises OSError when the kernel refuses; exits 1 when the parent is gone already.
    """
    parent, module, *arguments = argv
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != int(parent):  # it died before the leash was on
        sys.exit(1)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(sys.argv[1:])
