"""Statements that say how far a burn rule is over its factors, for Grafana's alert rules on the same counts.

A rule's statement returns one row with one number: the smallest of `burn / factor` over the rule's windows. Above 1
every window burns faster than its factor. It judges as `analytics.slo.burn.judge` does: strictly, on the lower bound of
what is bad, and where one bad event alone would decide, only if an exact binomial test says that chance hardly explains
them.
"""

from __future__ import annotations

from collections.abc import Mapping

from analytics.slo.burn import ALPHA
from analytics.slo.objectives import Objective
from analytics.slo.rules import Over, Rule

COLUMN = "times_its_factor"
AGE_COLUMN = "silent_s"
# Nine digits are kept, so that 15 bad of 1,000 at 99.9 % are a burn of 15 and not of a little less; what may be equal
# is lifted by more than the last of them.
_DIGITS, _LIFT = 9, 1 + 1e-8
_TERMS = 1_000  # of the binomial tail: they fall from the first on, and are nothing after a few dozen


def rule_sql(one: Objective, rule: Rule, known: Mapping[str, Objective]) -> str:
    """The statement of one rule. Raises KeyError for a side that names an objective that is not in `known`."""
    longest = max(rule.overs, key=lambda over: over.window_s)
    sides = [
        _side(known[over.objective] if over.objective else one, over, guarded=over is longest) for over in rule.overs
    ]
    return f"SELECT round(min(side), {_DIGITS}) AS {COLUMN} FROM ({' UNION ALL '.join(sides)})"


def silence_sql() -> str:
    """Seconds since any collector was heard of last; a day where none was within a day."""
    end = "toUnixTimestamp($__toTime)"
    return (
        f"SELECT toFloat64(least(86400, {end} - max(toUnixTimestamp(ts)))) AS {AGE_COLUMN} FROM heartbeats "
        "WHERE ts > $__toTime - 86400 AND ts <= $__toTime"
    )


def _side(one: Objective, over: Over, *, guarded: bool) -> str:
    """`burn / factor` of one window, as a subselect."""
    share = over.factor * (1 - one.target)
    value = f"(total - good - uncertain) / greatest(total, 1) / {share!r}"
    if over.or_equal:
        value = f"{value} * {_LIFT!r}"
    if guarded:
        value = f"if(total * {share!r} <= 1 AND {_chance(share)} > {ALPHA!r}, 0, {value})"
    return (
        f"SELECT {value} AS side FROM (SELECT sum(g) AS good, sum(t) AS total, sum(u) AS uncertain FROM ("
        "SELECT argMax(good, generation) AS g, argMax(total, generation) AS t, argMax(uncertain, generation) AS u "
        f"FROM objective_counts WHERE objective = '{_quoted(one.name)}' AND version = {one.version} "
        f"AND {_window(over.window_s)} GROUP BY level, window))"
    )


def _window(seconds: int) -> str:
    """The cells of the last `seconds` before `$__toTime`, from the levels that the evaluation takes."""
    end = "intDiv(toUnixTimestamp($__toTime), 10) * 10"
    coarse = 0 if seconds <= 6 * 3_600 else 60 if seconds <= 4 * 86_400 else 3_600
    if not coarse:
        return f"level = 10 AND window >= toDateTime({end} - {seconds}) AND window < toDateTime({end})"
    cut = f"intDiv({end}, {coarse}) * {coarse}"
    first = f"intDiv({end} - {seconds}, {coarse}) * {coarse}"
    return (
        f"((level = 10 AND window >= toDateTime({cut}) AND window < toDateTime({end}))"
        f" OR (level = {coarse} AND window >= toDateTime({first}) AND window < toDateTime({cut})))"
    )


def _chance(share: float) -> str:
    """P(X >= bad) for X ~ Binomial(total, share); 1 without a bad event."""
    if share >= 1:
        return "1"
    n, bad = "toUInt64(least(total, 100000000))", "toUInt64(greatest(total - good - uncertain, 0))"
    ways = f"lgamma({n} + 1) - lgamma(k + 1) - lgamma({n} - k + 1)"
    term = f"exp({ways} + k * log({share!r}) + ({n} - k) * log1p(-{share!r}))"
    return f"if({bad} = 0, 1, arraySum(k -> {term}, range({bad}, least({n}, {bad} + {_TERMS}) + 1)))"


def _quoted(text: str) -> str:
    # A dollar sign would begin one of Grafana's macros.
    if "$" in text:
        raise ValueError(f"the objective {text!r} has a $ in its name, which Grafana would expand")
    return text.replace("\\", "\\\\").replace("'", "\\'")
