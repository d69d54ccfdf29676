"""What chronyd says of REALTIME, through pychrony (the extra `clock`).

Question: how far may REALTIME be from chronyd's reference now? Bound, by chrony's own documentation of `tracking`:
|offset| + root dispersion + root delay / 2. Cost: 20 us of a core per question, in the clock's own thread.
"""

from __future__ import annotations

import os
import socket
import struct
from contextlib import suppress
from typing import Any

from collector.clock import Bound

_UNSYNCHRONISED = 3
_LOCAL_REFERENCE = 0x7F7F0101  # 127.127.1.1: `local`, its own clock; the zero delay it states bounds nothing
_SOCKET = "/run/chrony/chronyd.sock"
_PATIENCE = struct.pack("ll", 1, 0)


def bound_of_tracking(
    offset_s: float, root_delay_s: float, root_dispersion_s: float, *, leap: int, reference: int,
    frequency_ppm: float = 0.0, skew_ppm: float = 0.0,
) -> Bound:  # fmt: skip
    """The bound that one `tracking` answer states; times in seconds, as chronyd gives them.

    `offset_s` is positive where REALTIME is slow. None when chronyd is not synchronised or its reference is its own
    clock.
    """
    if leap == _UNSYNCHRONISED:
        return Bound(None, "chrony", reason="not synchronised")
    if reference == _LOCAL_REFERENCE:
        return Bound(None, "chrony", reason="its reference is its own clock (`local`)")
    error = abs(offset_s) + root_dispersion_s + root_delay_s / 2
    return Bound(
        round(error * 1e9), "chrony", frequency_ppm * 1e3, round(offset_s * 1e9), drift_ppm=abs(skew_ppm),
    )  # fmt: skip


class Chrony:
    """Asks a chronyd. `address` is a socket path or ADDRESS:PORT of its command port; "" tries the usual ones."""

    name = "chrony"

    def __init__(self, address: str = "") -> None:
        self._address = address

    def ask(self) -> Bound:
        """What chronyd says now; the reason where it does not."""
        try:
            import pychrony
        except ImportError:
            return Bound(None, "chrony", reason="pychrony is not installed; run `pip install 'tailsight[clock]'`")
        try:
            with pychrony.ChronyConnection(self._usual() if not self._address else self._address) as connection:
                _be_impatient(connection)
                tracking = connection.get_tracking()
        except (pychrony.ChronyError, OSError, ValueError) as error:
            return Bound(None, "chrony", reason=_first_sentence(error))
        return bound_of_tracking(
            tracking.offset,
            tracking.root_delay,
            tracking.root_dispersion,
            leap=tracking.leap_status.value,
            reference=tracking.reference_id,
            frequency_ppm=tracking.frequency,
            skew_ppm=tracking.skew,
        )

    def _usual(self) -> str:
        """The socket where we may use it, which needs root or chronyd's user, else the command port."""
        return _SOCKET if os.access(_SOCKET, os.W_OK) else "127.0.0.1:323"


def _first_sentence(error: Exception) -> str:
    """What went wrong; pychrony's errors go on with advice that does not fit a status line."""
    text = str(error).partition("\n")[0].partition(". ")[0]
    return (text.rpartition(": ")[2] or repr(error))[:200]


def _be_impatient(connection: Any) -> None:
    """Let a question end after a second.

    libchrony waits for an answer without end: a chronyd that is stopped, or killed with the question unread, would
    hold this thread for ever.
    """
    fd = getattr(connection, "_fd", None)
    if isinstance(fd, int) and fd >= 0:
        with suppress(OSError), socket.socket(fileno=os.dup(fd)) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENCE)
