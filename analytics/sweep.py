"""Stale generations: rows that no reader sees any more, because a later one was committed or theirs never was."""

from __future__ import annotations

from collector.store import Store

# Longer than any reader holds on to a generation it has read as current, and than any run takes from its first row to
# its commit: generations are times.
STALE_NS = 600_000_000_000
_MOST = 2_000  # generations per statement

# Generations of summaries whose window has a later one that is committed, or that were never committed. Summaries are
# written before counts and before the commit, and so name every generation that has counts.
_STALE = """
SELECT generation FROM (
    SELECT DISTINCT level, window, generation FROM stage_windows
    WHERE path = {path:String} AND generation < {before:UInt64}
) WHERE (level, window, generation) NOT IN (
    SELECT level, window, max(generation) FROM windows WHERE path = {path:String} GROUP BY level, window
) ORDER BY generation LIMIT {most:UInt32}
"""
_COUNTED = """
SELECT DISTINCT generation FROM stage_counts
WHERE path = {path:String} AND generation IN {stale:Array(UInt64)}
"""
_DELETE = "DELETE FROM {table} WHERE path = {{path:String}} AND generation IN {{stale:Array(UInt64)}}"


def sweep(store: Store, now_ns: int) -> int:
    """Delete rows of stale generations of every path, at most 2,000 generations of each; returns how many it found.

    Call it every ten minutes or so. Messages and counts go first, summaries only when a sweep finds their counts gone:
    readers of coarse levels tell from the summaries whether counts of other generations are about. Raises StoreError.
    """
    found = 0
    for (path,) in store.query("SELECT DISTINCT toString(path) FROM windows").iter_rows():
        params = {"path": path, "before": now_ns - STALE_NS, "most": _MOST}
        stale = [int(g) for (g,) in store.query(_STALE, params).iter_rows()]
        if not stale:
            continue
        found += len(stale)
        counted = {int(g) for (g,) in store.query(_COUNTED, {"path": path, "stale": stale}).iter_rows()}
        for table, generations in (
            ("messages", stale),
            ("stage_counts", sorted(counted)),
            ("stage_windows", [g for g in stale if g not in counted]),
        ):
            if generations:
                store.execute(_DELETE.format(table=table), {"path": path, "stale": generations})
    return found
