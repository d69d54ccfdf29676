"""Arms in files: two `.hlog` files against each other, and a saved baseline to compare later runs with.

A baseline is JSON: counts by cluster and bucket, so that a comparison with it allows for clusters as one with the
store does. It is checked when it is read: sizes, types, order, and that the counts add up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path as File

import msgspec
import numpy as np

from analytics import buckets, hlog_file
from analytics.compare.arms import Arm, Clustering, of_rows

FORMAT = "tailsight comparison baseline 1"
MOST_BYTES = 64 << 20
MOST_CLUSTERS = 100_000
_MOST_BUCKET = 1 << 14
_MOST_COUNT = 1 << 53


class ArmFileError(ValueError):
    """A file is no baseline and no `.hlog`, or damaged; the message says where."""


class Saved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A baseline as it is written: `rows` of (cluster, bucket, n)."""

    format: str
    name: str
    path: str
    stage: str
    source: str
    clustering: Clustering
    clusters: list[str]
    rows: list[tuple[int, int, int]]
    total: list[int]
    shares: dict[str, list[int]]
    instances: int
    from_ns: int | None
    to_ns: int | None
    completeness: float | None


def save(arm: Arm, path: str, stage: str) -> bytes:
    """The arm as a baseline file."""
    cluster, column = np.nonzero(arm.n)
    rows = [
        (int(c), int(arm.bucket[k]), int(arm.n[c, k])) for c, k in zip(cluster.tolist(), column.tolist(), strict=True)
    ]
    saved = Saved(
        format=FORMAT,
        name=arm.name,
        path=path,
        stage=stage,
        source=arm.source,
        clustering=arm.clustering,
        clusters=list(arm.cluster),
        rows=rows,
        total=[int(n) for n in arm.total],
        shares={name: [int(n) for n in values] for name, values in arm.shares.items()},
        instances=arm.instances,
        from_ns=arm.from_ns,
        to_ns=arm.to_ns,
        completeness=arm.completeness,
    )
    return msgspec.json.encode(saved) + b"\n"


def load(file: File, *, stage: str | None = None) -> tuple[Arm, str, str]:
    """An arm of a baseline or `.hlog` file, its path and its stage ("" where the file does not say).

    Of a `.hlog` with tags `stage` chooses one; intervals are clusters. Raises ArmFileError and OSError.
    """
    if file.stat().st_size > MOST_BYTES:
        raise ArmFileError(f"{file}: larger than {MOST_BYTES >> 20} MiB")
    body = file.read_bytes()
    if body.lstrip()[:1] == b"{":
        return _baseline(file, body)
    return _hlog(file, body, stage), "", stage or ""


def _baseline(file: File, body: bytes) -> tuple[Arm, str, str]:
    try:
        saved = msgspec.json.decode(body, type=Saved)
    except msgspec.DecodeError as error:
        raise ArmFileError(f"{file}: not a baseline: {error}") from error
    if saved.format != FORMAT:
        raise ArmFileError(f"{file}: format {saved.format[:60]!r}, this version reads {FORMAT!r}")
    clusters = len(saved.clusters)
    table = np.array(saved.rows, dtype=object).reshape(-1, 3)
    shares: Mapping[str, list[int]] = {"total": saved.total, **saved.shares}
    if clusters > MOST_CLUSTERS or len(set(saved.clusters)) != clusters:
        raise ArmFileError(f"{file}: clusters are repeated or more than {MOST_CLUSTERS:,}")
    if any(not 0 <= c < clusters or abs(b) >= _MOST_BUCKET or not 0 < n < _MOST_COUNT for c, b, n in table.tolist()):
        raise ArmFileError(f"{file}: a row has a cluster, bucket or count that cannot be")
    if any(len(v) != clusters or any(not 0 <= n < _MOST_COUNT for n in v) for v in shares.values()):
        raise ArmFileError(f"{file}: totals or shares do not fit the clusters")
    counted = np.array(table, dtype=np.int64).reshape(-1, 3)
    bucket = np.unique(counted[:, 1])
    if clusters * max(1, len(bucket)) > 50_000_000:
        raise ArmFileError(f"{file}: {clusters:,} clusters of {len(bucket):,} buckets are too many")
    n = np.zeros((clusters, len(bucket)), dtype=np.int64)
    np.add.at(n, (counted[:, 0], np.searchsorted(bucket, counted[:, 1])), counted[:, 2])
    total = np.array(saved.total, dtype=np.int64)
    if (n.sum(axis=1) > total).any():
        raise ArmFileError(f"{file}: a cluster has more latencies than messages")
    arm = Arm(
        saved.name or str(file), f"baseline {file.name}", bucket, n, saved.clusters, saved.clustering, total,
        {name: np.array(v, dtype=np.int64) for name, v in saved.shares.items()}, saved.instances,
        saved.from_ns, saved.to_ns, saved.completeness,
    )  # fmt: skip
    return arm, saved.path, saved.stage


def _hlog(file: File, body: bytes, stage: str | None) -> Arm:
    cluster: list[int] = []
    bucket: list[int] = []
    n: list[int] = []
    first: int | None = None
    last = 0
    tags: set[str] = set()
    for one in hlog_file.read(body.decode("utf-8", "replace").splitlines()):
        if isinstance(one, hlog_file.LineError):
            raise ArmFileError(f"{file}, line {one.line}: {one.problem}")
        tags.add(one.tag)
        if stage is not None and one.tag not in ("", stage):
            continue
        first = one.start_ns if first is None else min(first, one.start_ns)
        last = max(last, one.start_ns + one.length_ns)
        for (low, high), count in hlog_file.recorded(one.payload).items():
            cluster.append(one.start_ns // 1_000_000_000)
            bucket.append(int(buckets.index((low + high) // 2)))
            n.append(count)
    if first is None:
        raise ArmFileError(f"{file}: no interval{f' of {stage!r}' if stage else ''}; tags: {sorted(tags) or 'none'}")
    if stage is None and len(tags) > 1:
        raise ArmFileError(f"{file}: has tags {', '.join(sorted(tags))}; choose one with --stage")
    found = of_rows(
        file.name,
        np.array(cluster, dtype=np.int64),
        np.array(bucket, dtype=np.int64),
        np.array(n, dtype=np.int64),
        clustering="time",
        source="hlog",
    )
    return replace(found, from_ns=first, to_ns=last)
