"""Live figures, asked from the server as any client would ask."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

_PATIENCE_S = 60.0
_PERIOD_S = 2.0
_WINDOW_S = 60
_AGAIN_S = 15.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What the server said last. `problem` says why there is nothing yet."""

    ready: bool = False
    problem: str = "the server is starting"
    ready_after_s: float | None = None
    latency: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    collectors: list[dict[str, Any]] = field(default_factory=list)
    messages_per_s: float | None = None
    completeness: float | None = None
    freshness_s: float | None = None
    waited_s: float = 0.0  # since the server was ready
    degraded: list[str] = field(default_factory=list)  # what is late though the server can work

    @property
    def complete(self) -> bool:
        """Whether there is something to show of every kind: of every path, or of some after a minute's wait."""
        counted = [any(stage["count"] for stage in stages) for stages in self.latency.values()]
        enough = any(counted) if self.waited_s > _PATIENCE_S else bool(counted) and all(counted)
        return self.ready and bool(self.collectors) and self.freshness_s is not None and enough


class Poller:
    """Asks every two seconds in a thread of its own; `latest` is never half filled."""

    def __init__(self, url: str, token: str = "") -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="figures", daemon=True)
        self._started_s = time.monotonic()
        self._ready_after_s: float | None = None
        self._known: dict[str, tuple[int | None, float, list[dict[str, Any]]]] = {}
        self.latest = Figures()

    def start(self) -> None:
        """Begin asking."""
        self._thread.start()

    def stop(self) -> None:
        """Ask no more."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3)

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=2.0, trust_env=False) as client:
            while not self._stop.is_set():
                try:
                    self.latest = self._ask(client)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    problem = str(error) or type(error).__name__
                    self.latest = Figures(problem=problem, ready_after_s=self._ready_after_s)
                self._stop.wait(_PERIOD_S if self.latest.ready else 0.25)

    def _latency(self, client: httpx.Client, path: str, end_ns: int | None) -> list[dict[str, Any]]:
        """The stages of a path; asked again when another window is there, and now and then for what came late."""
        now = time.monotonic()
        known = self._known.get(path)
        if known is None or known[0] != end_ns or now - known[1] > _AGAIN_S:
            self._known[path] = known = (end_ns, now, _latency(client, path, end_ns))
        return known[2]

    def _covered_s(self) -> float:
        """How much of the last minute there has been anything to count: a new session's figures start small."""
        return max(10.0, min(float(_WINDOW_S), time.monotonic() - self._started_s))

    def _ask(self, client: httpx.Client) -> Figures:
        answer = client.get("/readyz")
        if answer.status_code in (401, 403):
            return Figures(problem=answer.json()["detail"], ready_after_s=self._ready_after_s)
        if answer.status_code != 200:
            return Figures(problem="the server is not ready yet", ready_after_s=self._ready_after_s)
        if self._ready_after_s is None:
            self._ready_after_s = round(time.monotonic() - self._started_s, 2)
        paths = _json(client, "/v1/paths")["paths"]
        latency = {path["name"]: self._latency(client, path["name"], path["computed_to_ns"]) for path in paths}
        ends = [path["computed_to_ns"] for path in paths if path["computed_to_ns"]]
        whole = [stage for stages in latency.values() for stage in stages if stage["stage"] == "end_to_end"]
        known = [stage["completeness"] for stage in whole if stage["completeness"] is not None]
        return Figures(
            ready=True,
            problem="",
            ready_after_s=self._ready_after_s,
            waited_s=time.monotonic() - self._started_s - self._ready_after_s,
            latency=latency,
            collectors=_json(client, "/v1/collectors")["collectors"],
            messages_per_s=sum(stage["count"] for stage in whole) / self._covered_s(),
            completeness=min(known, default=None),
            freshness_s=max(0.0, (time.time_ns() - max(ends)) * 1e-9) if ends else None,
            degraded=answer.json()["degraded"],
        )


def _latency(client: httpx.Client, path: str, end_ns: int | None) -> list[dict[str, Any]]:
    """The stages over the last minute that has been computed: what comes after it is not known yet."""
    if end_ns is None:
        reach = {"from": f"-{_WINDOW_S}s"}
    else:
        reach = {"from": str(end_ns - _WINDOW_S * 1_000_000_000), "to": str(end_ns)}
    stages: list[dict[str, Any]] = _json(client, "/v1/latency", path=path, **reach)["stages"]
    return stages


def _json(client: httpx.Client, route: str, **params: str) -> dict[str, Any]:
    answer = client.get(route, params=params)
    answer.raise_for_status()
    value: dict[str, Any] = answer.json()
    return value
