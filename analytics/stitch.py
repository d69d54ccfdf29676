"""Stitching: stamps into messages, as one SQL statement that runs where the stamps are.

What makes stamps one message (the rules that `tests/analytics/reference.py` follows one stamp at a time):

- A message starts at a stamp of the path's first end with no other of its key in the `max_age` before it: that
separates
  reused keys. Its stamps lie in [start - skew, start + max_age]; where two uses of a key could claim a stamp, the
  earlier one
  has it.
- Links whose time lies in the same span lead on to children, up to `hops` of them. Every child without a child is a
  message that shares its parents' stamps (fan-out). Of several parents of one child the first or last link counts
  (`conflation`). The message's key is the key at the end.
- A first end that no link leaves, on a path with hops, is a message when it reached the last end or ended badly (error,
  rejected, shed, timeout); else it is ignored unless the path says `unlinked = "unfinished"`.
- Without a stamp at the last end the message is unfinished, its outcome `timeout` unless stated.
- Stamps at later ends that no start reaches are of a headless message: it is counted, and has no latency. Stamps in
  mode shadow or synthetic are left out. A parent that does not count has a start and is no message: neither are its
  stamps headless.
- Labels, outcome, mode, cache and data age are those of the latest stamp that states them.

Error of a stage: two stamps of one host and clock differ by that clock's drift alone, |d| x drift + one read; otherwise
error(from) + error(to), unknown (null) when either is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from string import Template
from typing import Any

from analytics.paths import End, Path
from collector.points import CHILD_END, CHILD_START
from collector.record import Cache, Mode, Outcome
from collector.settings import ConfigError, Section
from collector.store import Limits, Store


def _template(name: str) -> Template:
    return Template(resources.files("analytics").joinpath(name).read_text("utf-8"))


_STITCH, _STARTS, _HEADLESS = _template("stitch.sql"), _template("starts.sql"), _template("headless.sql")
_UNKNOWN_ERROR = 0xFFFFFFFF
_NO_DEPTH = 0x80000000
_BAD = (Outcome.ERROR, Outcome.REJECTED, Outcome.SHED, Outcome.TIMEOUT)
# A range of 10 s at full rate reads millions of stamps: the engine's own limits decide, not a query's usual 30 s.
STITCH_LIMITS = Limits(seconds=300.0, memory_bytes=8 << 30)


class ClockSettings(Section, frozen=True, kw_only=True):
    """How wrong two readings of one clock may be relative to each other.

    `drift_ppm` bounds the rate error of an undisciplined crystal; MONOTONIC is slewed by NTP within the same order.
    `read_ns` is what reading the clock twice adds.
    """

    drift_ppm: float = 50.0
    read_ns: int = 50

    def validate(self) -> None:
        """Raise ConfigError for negative bounds."""
        if not 0 <= self.drift_ppm <= 1_000_000:
            raise ConfigError("drift_ppm", f"must be 0 to 1,000,000 parts per million, got {self.drift_ppm}")
        if not 0 <= self.read_ns <= 1_000_000:
            raise ConfigError("read_ns", f"must be 0 to 1,000,000 ns, got {self.read_ns}")


@dataclass(frozen=True, slots=True)
class Stitch:
    """A SELECT of the columns `COLUMNS` of messages, and its bound parameters."""

    sql: str
    params: Mapping[str, Any]
    stamps: Mapping[int, int]  # at the path's points, per 10 s window (seconds) of the range and around it


COLUMNS = (
    "path", "window", "generation", "key", "start", "e2e_ns", "e2e_error_ns", "stage_ns", "stage_error_ns",
    "stage_host", "stage_thread", "stage_depth", "duplicates", "repeated", "host", "service", "outcome", "mode",
    "cache", "data_age_ns", "weight", "label_set", "completeness",
)  # fmt: skip


def stitch(
    store: Store,
    path: Path,
    from_ns: int,
    to_ns: int,
    *,
    clock: ClockSettings | None = None,
    generation: int = 0,
    generation_step: int = 0,
    shares: Mapping[int, float | None] | None = None,
) -> Stitch | None:
    """The statement for all messages of `path` that start in [from_ns, to_ns); None where there are no stamps.

    The first window's rows have `generation`, each next window's `generation_step` more, and the completeness that
    `shares` gives it. It reads once which hosts, clocks and services occur, so that the statement can carry them as
    small codes.
    """
    reach = {"from_ns": from_ns, "to_ns": to_ns, "max_age": path.max_age_ns, "skew": path.skew_ns}
    points = sorted({end.point for end in path.ends})
    seen = store.query(_SEEN, {**reach, "points": points}, limits=STITCH_LIMITS)
    if not len(seen):
        return None
    known = {window: share for window, share in (shares or {}).items() if share is not None} or {0: -1.0}
    clock = clock or ClockSettings()
    services = sorted({end.service for end in path.ends if end.service})
    params: dict[str, Any] = {
        **reach,
        "points": points,
        "point_codes": list(range(1, len(points) + 1)),
        "end_services": services or [""],
        "end_service_codes": list(range(1, len(services or [""]) + 1)),
        "drift_ppm": clock.drift_ppm,
        "read_ns": clock.read_ns,
        "path": path.name,
        "generation": generation,
        "generation_step": generation_step,
        "known_windows": list(known),
        "known_shares": list(known.values()),
    }
    for name, most in (("host", 65_535), ("clock", 255), ("service", 255)):
        values = sorted(set().union(*seen[f"{name}s"]))[:most] or [""]
        params |= {f"{name}s": values, f"{name}_codes": list(range(1, len(values) + 1))}
    return Stitch(_sql(path, points, services), params, dict(seen.select("window", "stamps").iter_rows()))


def headless(store: Store, path: Path, from_ns: int, to_ns: int) -> dict[int, int]:
    """How many messages without a start have their earliest stamp in [from_ns, to_ns), per 10 s window (seconds).

    Their stamps lie at other ends than the first, and no start of the path reaches them: the first end was lost, came
    more than `max_age` before, or was never stamped. Stamps of one key at most `max_age` apart are one message. Windows
    without any are absent.
    """
    age, skew = path.max_age_ns, path.skew_ns
    points = sorted({end.point for end in path.ends})
    services = sorted({end.service for end in path.ends if end.service})
    # A span below an entry is stamped on its parent's key whatever the parent is: it says nothing of a start.
    ends = (end for end in path.ends if not end.point.startswith((CHILD_START, CHILD_END)))
    spots = dict.fromkeys((end.point, end.service) for end in ends)
    del spots[(path.first_end.point, path.first_end.service)]
    sql = _HEADLESS.substitute(
        starts=_starts_sql(path, points, services),
        keys=_keys_sql(path, every=True),
        later_ends=" OR ".join(f"({_spot_sql(spot, points, services)})" for spot in spots) or "0",
    )
    params = {
        "first_ns": from_ns, "end_ns": to_ns, "from_ns": from_ns - 2 * age, "to_ns": to_ns + skew + 1,
        "max_age": age, "skew": skew, "points": points, "end_services": services or [""],
    }  # fmt: skip
    return {int(w): int(n) for w, n in store.query(sql, params, limits=STITCH_LIMITS).iter_rows()}


_SEEN = """
SELECT toInt64(intDiv(toUnixTimestamp64Nano(ts), 10000000000) * 10) AS window, count() AS stamps,
    groupUniqArray(host) AS hosts, groupUniqArray(clock) AS clocks, groupUniqArray(service) AS services
FROM stamps
WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {skew:Int64}, 'UTC')
    AND ts <= fromUnixTimestamp64Nano({to_ns:Int64} + {max_age:Int64}, 'UTC')
    AND point IN {points:Array(String)}
GROUP BY window
"""


def _sql(path: Path, points: list[str], services: list[str]) -> str:
    spots = list(dict.fromkeys((end.point, end.service) for end in path.ends))
    conditions = [
        f"p = {points.index(point) + 1}" + (f" AND v = {services.index(service) + 1}" if service else "")
        for point, service in spots
    ]
    codes = ["transform(point, {points:Array(String)}, {point_codes:Array(UInt8)}, toUInt8(0)) AS p,"]
    if services:
        codes.append(
            "transform(service, {end_services:Array(String)}, {end_service_codes:Array(UInt8)}, toUInt8(0)) AS v,"
        )
    aggregates = [f"countIf({condition}) AS n{i}," for i, condition in enumerate(conditions)]
    for j, end in enumerate(path.ends):
        condition = conditions[spots.index((end.point, end.service))]
        pick = "Min" if end.which == "first" else "Max"
        aggregates += [
            f"{pick.lower()}If(t, {condition}) AS t{j},",
            # One aggregate for both halves: the state of ten ends of half a million messages has to fit the caches.
            f"arg{pick}If(seen, t, {condition}) AS y{j},",
            f"toUInt64(bitShiftRight(y{j}, 64)) AS w{j},",
            f"toUInt64(y{j}) AS x{j},",
        ]
    last_spot = spots.index((path.last_end.point, path.last_end.service))
    return _STITCH.substitute(
        starts=_starts_sql(path, points, services),
        keys=_keys_sql(path),
        group="leaf, root, s" if path.hops else "leaf, s",
        codes=_indent(codes, 12),
        aggregates=_indent(aggregates, 8),
        columns=_columns_sql(path, spots, last_spot),
        counts=_counts_sql(path, last_spot),
    )


def _starts_sql(path: Path, points: list[str], services: list[str]) -> str:
    first = path.first_end
    return _STARTS.substitute(first_end=_spot_sql((first.point, first.service), points, services)).rstrip()


def _spot_sql(spot: tuple[str, str], points: list[str], services: list[str]) -> str:
    """A stamp at this point and service, compared by value: this reads one point's stamps, not all."""
    point, service = spot
    sql = f"point = {{points:Array(String)}}[{points.index(point) + 1}]"
    return sql + (f" AND service = {{end_services:Array(String)}}[{services.index(service) + 1}]" if service else "")


def _keys_sql(path: Path, *, every: bool = False) -> str:
    """CTEs up to `keys`: (k, leaf, root, s, lo, hi, links), one row per message and key on its way.

    With `every`, also the keys of what started and came to no message, because another parent of its child counts.
    """
    if not path.hops:
        return (
            "keys AS (SELECT root AS k, root AS leaf, root, s, lo, s + {max_age:Int64} AS hi, toUInt8(0) AS links "
            "FROM starts),"
        )
    # Of several links to one child within reach of the start, one parent counts.
    wins = (
        "arrayLast(x -> x.1 <= s + {max_age:Int64}, inbound)"
        if path.conflation == "last"
        else "arrayFirst(x -> x.1 >= s - {skew:Int64}, inbound)"
    )
    ctes = [
        "near AS (SELECT parent, child, toUnixTimestamp64Nano(ts) AS t FROM links"
        " WHERE ts >= fromUnixTimestamp64Nano({from_ns:Int64} - {skew:Int64}, 'UTC')"
        " AND ts <= fromUnixTimestamp64Nano({to_ns:Int64} + {max_age:Int64}, 'UTC')),",
        "parents AS (SELECT child, arraySort(groupUniqArray((t, parent))) AS inbound FROM near GROUP BY child),",
        "steps AS (SELECT child, inbound, arrayJoin(inbound) AS link, link.1 AS linked, link.2 AS parent"
        " FROM parents),",
        "onward AS (SELECT parent, groupArray(t) AS leaves_at FROM near GROUP BY parent),",
        "chain0 AS (SELECT root, s, lo, root AS leaf, [root] AS chain FROM starts),",
    ]
    leaves = []
    within = "BETWEEN s - {skew:Int64} AND s + {max_age:Int64}"
    for level in range(path.hops):
        ctes.append(
            f"chain{level + 1} AS (SELECT DISTINCT root, s, lo, child AS leaf, arrayPushBack(chain, child) AS chain"  # noqa: S608 - fixed text, values are bound
            f" FROM chain{level} AS c INNER JOIN steps ON c.leaf = steps.parent"
            f" WHERE linked {within} AND {wins} = (linked, steps.parent)),"
        )
        only_ends = f" LEFT JOIN onward ON c.leaf = onward.parent WHERE NOT arrayExists(x -> x {within}, leaves_at)"
        leaves.append(
            f"SELECT root, s, lo, leaf, chain, toUInt8({level}) AS links FROM chain{level} AS c"  # noqa: S608 - fixed text, values are bound
            + ("" if every else only_ends)
        )
    leaves.append(f"SELECT root, s, lo, leaf, chain, toUInt8({path.hops}) AS links FROM chain{path.hops}")  # noqa: S608 - fixed text, values are bound
    ctes.append(
        "keys AS (SELECT arrayJoin(arrayDistinct(chain)) AS k, leaf, root, s,"  # noqa: S608 - fixed text, values are bound
        " if(k = root, lo_root, s - {skew:Int64}) AS lo, s + {max_age:Int64} AS hi, links FROM ("
        "SELECT root, s, lo AS lo_root, leaf, chain, links FROM (" + " UNION ALL ".join(leaves) + "))),"
    )
    return "\n".join(ctes)


def _columns_sql(path: Path, spots: list[tuple[str, str]], last_spot: int) -> str:
    ends = path.ends
    finished = f"n{last_spot} > 0"

    def spot(end: End) -> int:
        return spots.index((end.point, end.service))

    def there(start: End, end: End) -> str:
        return f"n{spot(start)} > 0 AND n{spot(end)} > 0"

    def value(start: End, end: End) -> str:
        return f"if({there(start, end)}, t{ends.index(end)} - t{ends.index(start)}, NULL)"

    def error(start: End, end: End) -> str:
        a, b = ends.index(start), ends.index(end)
        drift = (
            f"least(4294967294, {{read_ns:Int64}} + toInt64(ceil(abs(t{b} - t{a}) * {{drift_ppm:Float64}} / 1000000)))"
        )
        summed = f"least(4294967294, toInt64(bitShiftRight(x{a}, 32) + bitShiftRight(x{b}, 32)))"
        unknown = f"bitShiftRight(x{a}, 32) = {_UNKNOWN_ERROR} OR bitShiftRight(x{b}, 32) = {_UNKNOWN_ERROR}"
        same = f"bitShiftRight(w{a}, 40) = bitShiftRight(w{b}, 40)"
        return f"toUInt32(multiIf(NOT ({there(start, end)}), NULL, {same}, {drift}, {unknown}, NULL, {summed}))"

    def host(place: str) -> str:
        return f"{{hosts:Array(String)}}[bitShiftRight({place}, 48)]"

    later = [ends.index(s.end) for s in path.stages]
    earlier = [ends.index(s.start) for s in path.stages]
    place = f"if({finished}, w{ends.index(path.last_end)}, latest)"
    repeated = [(s.start, s.end) for s in path.stages] + [(path.first_end, path.last_end)]
    duplicates = " + ".join(f"greatest(n{i}, 1) - 1" for i in range(len(spots)))
    masks = " + ".join(
        f"bitShiftLeft(toUInt64(n{spot(a)} > 1 OR n{spot(b)} > 1), {bit})" for bit, (a, b) in enumerate(repeated)
    )
    columns = {
        "path": "{path:String}",
        "window": "toDateTime(intDiv(s, 10000000000) * 10, 'UTC')",
        "generation": (
            "{generation:UInt64} + toUInt64(intDiv(s, 10000000000) - intDiv({from_ns:Int64}, 10000000000))"
            " * {generation_step:UInt64}"
        ),
        "key": "leaf",
        "start": "fromUnixTimestamp64Nano(s, 'UTC')",
        "e2e_ns": value(path.first_end, path.last_end),
        "e2e_error_ns": error(path.first_end, path.last_end),
        "stage_ns": _array((value(s.start, s.end) for s in path.stages), "Nullable(Int64)"),
        "stage_error_ns": _array((error(s.start, s.end) for s in path.stages), "Nullable(UInt32)"),
        "stage_host": _array((f"{host(f'w{i}')}" for i in later), "String"),
        "stage_thread": _array((f"toUInt32(bitAnd(w{i}, 4294967295))" for i in later), "UInt32"),
        "stage_depth": _array(
            (
                f"if(n{spot(ends[i])} = 0 OR bitAnd(x{i}, 4294967295) = {_NO_DEPTH}, NULL, "
                f"reinterpretAsInt32(toUInt32(bitAnd(x{i}, 4294967295))))"
                for i in earlier
            ),
            "Nullable(Int32)",
        ),
        "duplicates": f"toUInt16(least(65535, {duplicates}))",
        "repeated": masks,
        "host": host(place),
        "service": f"{{services:Array(String)}}[bitAnd(bitShiftRight({place}, 32), 255)]",
        "outcome": (
            f"if(outcome_said = 'unset', CAST(if({finished}, 'ok', 'timeout'), '{_enum(Outcome)}'), outcome_said)"
        ),
        "mode": f"if(mode_said = 'unset', CAST('normal', '{_enum(Mode)}'), mode_said)",
        "cache": f"CAST(cache_said, '{_enum(Cache)}')",
        "data_age_ns": "age",
        "weight": "toFloat32(1)",
        "label_set": "labels",
        "completeness": (
            "toFloat32(nullIf(transform(intDiv(s, 10000000000) * 10, {known_windows:Array(Int64)},"
            " {known_shares:Array(Float64)}, -1.), -1.))"
        ),
    }
    return _indent([f"{columns[name]} AS {name}," for name in COLUMNS], 4).rstrip(",")


def _counts_sql(path: Path, last_spot: int) -> str:
    """Which stitched rows are messages of the path."""
    if not path.hops or path.unlinked == "unfinished":
        return "1"
    bad = ", ".join(f"'{outcome.name.lower()}'" for outcome in _BAD)
    return f"n{last_spot} > 0 OR links > 0 OR outcome_said IN ({bad})"


def _enum(kind: type[Outcome] | type[Mode] | type[Cache]) -> str:
    return "Enum8(" + ", ".join(f"\\'{member.name.lower()}\\' = {int(member)}" for member in kind) + ")"


def _array(items: Any, kind: str) -> str:
    return f"CAST([{', '.join(items)}], 'Array({kind})')"


def _indent(lines: list[str], spaces: int) -> str:
    return "\n".join(" " * spaces + line for line in lines)
