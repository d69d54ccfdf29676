"""How far the clocks of two hosts are apart, from nothing but the messages between them.

For messages from A to B the measured delay is `true delay + theta`, for those from B to A `true delay - theta`, where
theta = clock of B - clock of A. No message takes less than `least_ns`, so each one bounds theta from one side
(Cristian 1989; Marzullo and Owicki 1983 for the intersection). Asymmetry of the two ways cannot be seen and is inside
the bound. Drift: theta is a line over the window; it lies below the lower convex hull of one direction's points and
above the other's mirrored one (Paxson 1998; Moon, Skelly and Towsley 1999), and the extremes of all such lines are at
lines through two of the hulls' corners.

Pure functions over plain values; `analytics.clock_history` reads the stamps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

MAX_CORNERS = 48  # of each hull; further ones are dropped, which only widens the answer
MAX_SLEW = 500e-6  # no clock that NTP or the kernel disciplines runs further off (RFC 5905, MAXFREQ)
_SLACK_NS = 1e-3

Points = NDArray[np.float64]  # (n, 2): time in ns since the window's middle, measured delay in ns


@dataclass(frozen=True, slots=True)
class PairBound:
    """theta = clock of `b` - clock of `a` lies in [low_ns, high_ns] at the window's end.

    `drift_low_ppb` and `drift_high_ppb` bound its slope; None where the messages do not. `linear` is False when no
    line fits: a clock was stepped or changed its speed in the window, and the bound is null.
    """

    low_ns: float | None
    high_ns: float | None
    drift_low_ppb: float | None
    drift_high_ppb: float | None
    forth: int
    back: int
    linear: bool = True

    @property
    def offset_ns(self) -> float | None:
        """The middle; off by at most half of the bound's width."""
        return None if self.low_ns is None or self.high_ns is None else (self.low_ns + self.high_ns) / 2


def bound_pair(forth: Points, back: Points, at_ns: float, least_ns: float = 0.0) -> PairBound:
    """The bound on theta at time `at_ns` from delays A to B (`forth`) and B to A (`back`).

    With messages one way only there is one side of the bound, and nothing is stated: both are null.
    """
    n, m = len(forth), len(back)
    if not n or not m:
        return PairBound(None, None, None, None, n, m)
    upper = _thin(lower_hull(np.column_stack((forth[:, 0], forth[:, 1] - least_ns))))
    lower = _thin(lower_hull(np.column_stack((back[:, 0], back[:, 1] - least_ns)))) * (1.0, -1.0)
    if not (lower[0, 0] < upper[-1, 0] and upper[0, 0] < lower[-1, 0]):
        return _without_slope(upper, lower, at_ns, n, m)
    lines = _extreme_lines(upper, lower)
    if not len(lines):
        return PairBound(None, None, None, None, n, m, linear=False)
    at = lines[:, 0] + lines[:, 1] * at_ns
    slopes = lines[:, 1] * 1e9
    return PairBound(float(at.min()), float(at.max()), float(slopes.min()), float(slopes.max()), n, m)


def _without_slope(upper: Points, lower: Points, at_ns: float, n: int, m: int) -> PairBound:
    """The bound where the messages cross too few times to bound the slope: it is taken to be at most MAX_SLEW."""
    high = float((upper[:, 1] + MAX_SLEW * np.abs(upper[:, 0] - at_ns)).min())
    low = float((lower[:, 1] - MAX_SLEW * np.abs(lower[:, 0] - at_ns)).max())
    if low > high:
        return PairBound(None, None, None, None, n, m, linear=False)
    return PairBound(low, high, None, None, n, m)


def lower_hull(points: Points) -> Points:
    """The corners of the lower convex hull, by time (Andrew's monotone chain). O(n log n)."""
    order = np.lexsort((points[:, 1], points[:, 0]))
    hull: list[tuple[float, float]] = []
    for x, y in points[order].tolist():
        if hull and hull[-1][0] == x:
            continue  # a higher point of the same time
        while len(hull) >= 2:
            (x0, y0), (x1, y1) = hull[-2], hull[-1]
            if (x1 - x0) * (y - y0) - (y1 - y0) * (x - x0) > 0:
                break
            hull.pop()
        hull.append((x, y))
    return np.array(hull, dtype=np.float64).reshape(len(hull), 2)


def verdict(bound: PairBound, claim_ns: float | None) -> str:
    """The messages' bound against what the two hosts' clocks claim: |theta| <= claim_ns.

    consistent; contradiction, when no theta satisfies both, or no line fits; unknown, where one side states nothing.
    """
    if not bound.linear:
        return "contradiction"
    if bound.low_ns is None or bound.high_ns is None or claim_ns is None:
        return "unknown"
    return "contradiction" if bound.low_ns > claim_ns or bound.high_ns < -claim_ns else "consistent"


def _thin(hull: Points) -> Points:
    """At most MAX_CORNERS of a hull's corners, the ends among them."""
    if len(hull) <= MAX_CORNERS:
        return hull
    return hull[np.unique(np.linspace(0, len(hull) - 1, MAX_CORNERS).round().astype(np.intp))]


def _extreme_lines(upper: Points, lower: Points) -> Points:
    """Rows (theta at time 0, slope): all lines through two corners that pass below `upper` and above `lower`.

    The possible lines are a convex polygon in that plane; these are its corners. Empty when it has none.
    """
    corners = np.vstack((upper, lower))
    i, j = np.triu_indices(len(corners), k=1)
    dt = corners[j, 0] - corners[i, 0]
    apart = dt != 0
    i, j, dt = i[apart], j[apart], dt[apart]
    slope = (corners[j, 1] - corners[i, 1]) / dt
    start = corners[i, 1] - slope * corners[i, 0]
    slack = _SLACK_NS + 1e-12 * float(np.abs(corners[:, 1]).max(initial=0.0))
    below = (start[:, None] + slope[:, None] * upper[None, :, 0] <= upper[None, :, 1] + slack).all(axis=1)
    above = (start[:, None] + slope[:, None] * lower[None, :, 0] >= lower[None, :, 1] - slack).all(axis=1)
    possible = below & above
    return np.column_stack((start[possible], slope[possible]))
