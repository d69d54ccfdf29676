"""A small shop in the store: messages in bunches, which are slower and buy more, and what each of them bought."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from analytics.kpis import KpiDefinition, KpiValue, record
from analytics.paths import Path
from collector.store import Store
from collector.store.blocks import from_rows
from collector.store.schema import table_types
from tests.analytics.world import HOUR, path

S = 1_000_000_000
MS = 1_000_000
DAY = 86_400 * S
BEGIN = HOUR - HOUR % DAY
KNOWN = {
    "bought": KpiDefinition(kind="level", unit="percentage points"),
    "late": KpiDefinition(kind="level", unit="EUR"),
}
SHOP: Path = path()


@dataclass(frozen=True)
class Shop:
    """What was put there: columns of n messages."""

    start_ns: np.ndarray
    latency_ms: np.ndarray
    value: np.ndarray
    cohort: np.ndarray
    dose: np.ndarray
    key: np.ndarray
    account: np.ndarray


def shop(
    store: Store, seed: int, *, per_ms: float = -2.0, days: int = 10, bunches: int = 160, confounding: float = 12.0,
    dose_ms: float = 0.0, name: str = "bought", unfinished: float = 0.0, by_message: bool = True, cohorts: bool = True,
    accounts: int = 1, struck_ms: float = 0.0,
) -> Shop:  # fmt: skip
    """Ten days of messages. Bunched ones are slower by `3 ms log(n)` and buy more by `confounding log(n)`.

    `per_ms` is what a millisecond changes; `dose_ms` more latency goes to a half of them by chance, or to a half
    of the `accounts`. `struck_ms` is what the retail cohort gets slower by in the second half.
    """
    rng = np.random.default_rng(seed)
    starts, loads = [], []
    for day in range(days):
        for at in np.sort(rng.choice(86_400 // 20, bunches, replace=False)) * 20:
            n = int(rng.integers(1, 9))
            starts += [BEGIN + day * DAY + int(at) * S + int(t) for t in np.sort(rng.integers(0, 5 * S, n))]
            loads += [np.log(i + 1) for i in range(n)]
    start, load = np.array(starts, dtype=np.int64), np.array(loads)
    order = np.argsort(start, kind="stable")
    start, load = start[order], load[order]
    n = len(start)
    account = rng.integers(0, accounts, n)
    dose = dose_ms * (rng.integers(0, 2, n) if accounts == 1 else account % 2)
    cohort = rng.choice(["retail", "professional"], n)
    struck = struck_ms * ((cohort == "retail") & (start >= BEGIN + days * DAY // 2))
    latency = 2 + 3 * load + rng.gamma(2.0, 0.8, n) + dose + struck
    value = 50 + per_ms * latency + confounding * load + 5.0 * (cohort == "retail") + rng.normal(0, 6, n)
    key = rng.integers(1, 2**63, n, dtype=np.uint64)
    lost = rng.random(n) < unfinished
    _messages(store, start, latency, key, lost, account, rng)
    if by_message:
        values = [
            KpiValue(name=name, ts_ns=int(start[i]), value=float(value[i]), key=hex(int(key[i])), version=1,
                     **({"cohort": str(cohort[i])} if cohorts else {}))
            for i in range(n)
        ]  # fmt: skip
        for first in range(0, n, 10_000):
            record(store, values[first : first + 10_000], KNOWN, 1)
    return Shop(start, latency, value, cohort, dose, key, account)


def _messages(
    store: Store, start: Any, latency: Any, key: Any, lost: Any, account: Any, rng: np.random.Generator
) -> None:
    types = table_types()
    blank = {
        "path": SHOP.name, "generation": 1, "e2e_error_ns": None, "stage_error_ns": [None, None],
        "stage_host": ["a", "a"], "stage_thread": [1, 1], "stage_depth": [None, None], "duplicates": 0, "repeated": 0,
        "host": "a", "service": "engine", "outcome": 1, "mode": 1, "cache": 0, "weight": 1.0,
        "completeness": 1.0,
    }  # fmt: skip
    rows = []
    for i in range(len(start)):
        whole = None if lost[i] else round(latency[i] * MS)
        rows.append({
            **blank, "window": int(start[i]) // S // 10 * 10, "key": int(key[i]), "start": int(start[i]),
            "label_set": 7 + int(account[i]),
            "e2e_ns": whole,
            "stage_ns": [None if whole is None else whole // 4, None if whole is None else whole - whole // 4],
            "data_age_ns": int(rng.integers(1, 50)) * MS, "written": 1_760_000_000,
        })  # fmt: skip
    names = types["messages"].keys()
    for day in sorted({row["window"] // 86_400 for row in rows}):
        part = [{name: row[name] for name in names if name in row} for row in rows if row["window"] // 86_400 == day]
        store.insert("messages", from_rows(types["messages"], part), token=f"shop/{day}/{start[0]}/{key[0]}")
    windows = sorted({row["window"] for row in rows})
    store.insert("windows", from_rows(types["windows"], [
        {"path": SHOP.name, "level": 10, "window": at, "generation": 1, "state": 2, "messages": 1, "finished": 1,
         "unfinished": 0, "headless": 0, "stamps": 2, "completeness": 1.0, "basis": 1, "computed": HOUR}
        for at in windows
    ]), token=f"shop/windows/{start[0]}/{key[0]}")  # fmt: skip
    store.insert("label_sets", from_rows(types["label_sets"], [
        {"label_set": 7 + int(one), "labels": json.dumps({"region": "emea", "account": str(one)}), "batch": 1,
         "seq": int(one), "cut_day": 20_254}
        for one in np.unique(account)
    ]), token=f"shop/labels/{key[0]}")  # fmt: skip
