"""One side of a comparison: latencies counted by cluster and bucket, and what its messages came to.

A cluster is what may share a cause: an instance, or a block of time. Messages of one cluster are not independent, and
every test here can allow for that because it sees clusters and not only their sum.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from analytics import buckets
from analytics.percentiles import rank

Ints = NDArray[np.int64]
Clustering = Literal["instance", "time", "none"]
# Below so many clusters a variance between them says nothing.
LEAST_CLUSTERS = 8


@dataclass(frozen=True, slots=True)
class Arm:
    """Latencies of one population.

    `n[c, k]` latencies of cluster c lie in bucket `bucket[k]` (ascending). `cluster[c]` names it; equal names on both
    sides are the same time or instance. `total[c]` messages are in cluster c, finished or not, and `shares[name][c]` of
    them were so: `errors`, `rejected`, `unfinished`; what the source does not know is absent.
    """

    name: str
    source: str
    bucket: Ints
    n: Ints
    cluster: Sequence[str]
    clustering: Clustering
    total: Ints
    shares: Mapping[str, Ints] = field(default_factory=dict)
    instances: int = 0
    from_ns: int | None = None
    to_ns: int | None = None
    completeness: float | None = None

    @property
    def count(self) -> int:
        """How many latencies there are."""
        return int(self.n.sum())

    @property
    def by_bucket(self) -> Ints:
        """Latencies per bucket, all clusters together."""
        return np.asarray(self.n.sum(axis=0), dtype=np.int64)

    def above(self, threshold: int) -> Ints:
        """How many latencies of each cluster lie in buckets above `threshold` (a bucket): int64[clusters]."""
        return np.asarray(self.n[:, self.bucket > threshold].sum(axis=1), dtype=np.int64)

    def quantile_bucket(self, quantile: float) -> int:
        """The bucket of the order statistic of rank max(1, ceil(p N)). The arm must not be empty."""
        return bucket_at(self.bucket, self.by_bucket, quantile)


def bucket_at(bucket: Ints, n: Ints, quantile: float) -> int:
    """The bucket in which the order statistic of rank max(1, ceil(p N)) lies."""
    cumulative = np.cumsum(n)
    return int(bucket[int(np.searchsorted(cumulative, rank(quantile, int(cumulative[-1])), side="left"))])


def of_values(
    name: str,
    values: NDArray[Any],
    cluster: NDArray[Any] | None = None,
    *,
    clustering: Clustering = "time",
    unfinished: int = 0,
    source: str = "messages",
) -> Arm:
    """An arm of latencies in ns, int64[n], and the cluster of each (None: nothing is known of clusters)."""
    v = np.asarray(values, dtype=np.int64)
    of = np.zeros(len(v), dtype=np.int64) if cluster is None else np.asarray(cluster)
    return of_rows(
        name,
        of,
        buckets.index(v),
        np.ones(len(v), dtype=np.int64),
        clustering="none" if cluster is None else clustering,
        source=source,
        unfinished=unfinished,
    )


def of_rows(
    name: str,
    cluster: NDArray[Any],
    bucket: Ints,
    n: Ints,
    *,
    clustering: Clustering,
    source: str,
    unfinished: int = 0,
) -> Arm:
    """An arm of rows (cluster, bucket, n)."""
    names, at = np.unique(cluster, return_inverse=True)
    values, column = np.unique(bucket, return_inverse=True)
    table = np.bincount(at * max(1, len(values)) + column, weights=n, minlength=len(names) * len(values))
    counted = table.astype(np.int64).reshape(len(names), len(values))
    total = counted.sum(axis=1)
    shares = {}
    if unfinished:
        # Which cluster they are of is not known: they are put where most messages are.
        lost = np.zeros(len(names), dtype=np.int64)
        lost[int(np.argmax(total))] = unfinished
        shares["unfinished"], total = lost, total + lost
    return Arm(name, source, values.astype(np.int64), counted, [str(one) for one in names], clustering, total, shares)


def together(a: Arm, b: Arm) -> tuple[Ints, Ints, Ints]:
    """Both arms on the same buckets: bucket int64[k], n of a and of b int64[k]."""
    bucket = np.union1d(a.bucket, b.bucket)
    counted = []
    for arm in (a, b):
        n = np.zeros(len(bucket), dtype=np.int64)
        n[np.searchsorted(bucket, arm.bucket)] = arm.by_bucket
        counted.append(n)
    return bucket, counted[0], counted[1]
