"""Every dashboard, one module each; `BOARDS` is all of them in the order of the menu."""

from __future__ import annotations

from collections.abc import Callable

from dashboards.grafana.board import Board
from dashboards.grafana.boards import (
    business,
    feeds,
    hosts_clock,
    itself,
    message,
    nic_tcp,
    overview,
    path,
    queues,
    scheduler,
    slo,
    stage,
)

BOARDS: tuple[Callable[[], Board], ...] = (
    overview.board,
    slo.board,
    path.board,
    message.board,
    stage.board,
    queues.board,
    scheduler.board,
    nic_tcp.board,
    feeds.board,
    hosts_clock.board,
    business.board,
    itself.board,
)
