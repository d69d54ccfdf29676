"""The kernel's own stamps of the order path's sockets (SO_TIMESTAMPING), where there are any.

Of a quote `kernel_rx`: the kernel has the first copy of it, the engine's thread has yet to read it. Of an order that
leaves a gateway `qdisc_tx`, `driver_tx` and `acked`.
"""

from __future__ import annotations

import logging
import socket
from typing import Any

import tailsight_probe as probe
from tailsight_probe.sockets import SocketStamps

from api.demo.place import Place

log = logging.getLogger(__name__)


def kernel_stamps(place: Place, sock: socket.socket, space: str, what: str) -> SocketStamps | None:
    """The socket's stamps; None, and a line in the log, where the kernel takes none: the messages pass all the same.

    Points are of the key space `space`; times are shown by the program's clock, which a fault may have stepped.
    """

    def stamp_at(time_ns: int, clock: str, point: Any, key: Any) -> None:
        probe.stamp_at(time_ns + place.clock_step_ns, clock, point, key)

    try:
        return SocketStamps(sock, space=space, stamp_at=stamp_at)
    except OSError as error:
        log.warning("%s: no kernel stamps, SO_TIMESTAMPING was refused: %s", what, error)
        return None
