"""Synthetic messages of a path with known truth."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from analytics.paths import Path
from tests.analytics.world import HOUR, path

THREE = """
max_age = "1s"
[[stages]]
name = "decide"
class = "compute"
budget = "150us"
from = {point = "app_ingress", service = "engine"}
to = {point = "app_decision", service = "engine"}
[[stages]]
name = "wire"
class = "compute"
budget = "500us"
from = {point = "app_decision", service = "engine"}
to = {point = "nic_rx", service = "venue"}
[[stages]]
name = "match"
class = "compute"
from = {point = "nic_rx", service = "venue"}
to = {point = "app_egress", service = "venue"}
"""
S = 1_000_000_000


def three() -> Path:
    return path(THREE)


def messages(
    stages: np.ndarray, *, extra: np.ndarray | None = None, per_s: float = 50.0, **columns: Any
) -> pl.DataFrame:
    """A population's frame of int64[n, k] stage latencies, `per_s` messages a second, all finished."""
    n, k = stages.shape
    e2e = stages.sum(axis=1) + (0 if extra is None else extra)
    base: dict[str, Any] = {
        "key": np.arange(n, dtype=np.uint64),
        "start_ns": HOUR + (np.arange(n) * (S / per_s)).astype(np.int64),
        "e2e_ns": e2e,
        "host": ["a"] * n,
        "service": ["venue"] * n,
        "outcome": ["ok"] * n,
        "mode": ["normal"] * n,
        "cache": ["unset"] * n,
        "data_age_ns": pl.Series([None] * n, dtype=pl.Int64),
        "label_set": np.zeros(n, dtype=np.uint64),
        "window_s": ((HOUR + (np.arange(n) * (S / per_s)).astype(np.int64)) // S // 10 * 10).astype(np.uint32),
    }
    for i in range(k):
        base |= {f"ns_{i}": stages[:, i], f"host_{i}": ["a"] * n, f"thread_{i}": np.full(n, i + 1, dtype=np.uint32)}
    return pl.DataFrame({**base, **columns})


def calm(n: int, seed: int = 1, k: int = 3) -> np.ndarray:
    """Log-normal stages of some 100 us."""
    rng = np.random.default_rng(seed)
    return rng.lognormal(np.log(100_000), 0.5, size=(n, k)).astype(np.int64)
