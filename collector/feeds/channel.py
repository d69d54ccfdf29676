"""One channel of a feed: its lines, each followed for itself and all together, and its instruments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from collector.decode import DecodedColumns, Decoder, Fault, Halts
from collector.feeds.calendar import ALWAYS, Calendar, midnight_ns
from collector.feeds.numbering import STRAGGLER, Numbering
from collector.feeds.pairs import Pairs
from collector.feeds.rhythm import Halt, Rhythm
from collector.feeds.tracker import Gap, Tracker

Ints = NDArray[np.int64]

MOST_LINES = 63
ALL_LINES = ""  # the name of the row after arbitration
_DAY_NS = 86_400_000_000_000
_SAMPLES = 65_536
_EPOCHS = 16
_MOST_HALTS = 10_000  # that are told of in one report
_SUMMED = ("datagrams", "bytes", "heartbeats", "ends", "errors", "unknown", "won", "divergent", "pairs", "skew_ns")


@dataclass(slots=True)
class LineReport:
    """What one line (or all, `line` = "") did in an interval; every count adds up over intervals.

    Attributes:
        counts: name to number: `datagrams`, `bytes`, `heartbeats`, `ends` (of sessions), `errors` (datagrams that do
            not follow the protocol; their numbers count as missing), `unknown` (messages of an undeclared type, or
            shorter than theirs), `messages` (different numbers received), `duplicates`, `gaps`, `skipped`,
            `out_of_order`, `late`, `old`, `resets`, `sessions` (changes), `wraps`, `won` (messages this line brought
            first), `divergent` (of `pairs`: copies that differ from the first line's), `skew_ns` and `recovered_ns`
            (sums), `delays` and `delay_ns` (receipt minus send time: how many, sum).
        skew_max_ns, recovered_max_ns: the largest.
        skew_ns: the copies' lags behind the first copy; at most 65,536 of them.
        delay_min_ns, delay_max_ns: None without send times.
        silence_ns: since the last datagram; None if there never was one.
        gaps: holes that ended, and those that have been open for longer than the window, once.
    """

    line: str
    counts: dict[str, int]
    skew_max_ns: int
    recovered_max_ns: int
    skew_ns: Ints
    delay_min_ns: int | None
    delay_max_ns: int | None
    silence_ns: int | None
    gaps: list[Gap]

    @property
    def missing(self) -> int:
        """Messages passed over less those that came later; below 0 when more came than were lost in the interval."""
        return self.counts["skipped"] - self.counts["out_of_order"] - self.counts["late"]


@dataclass(frozen=True, slots=True)
class ToldHalt:
    """A halt of an instrument, by its text; `end_ns` None where it goes on."""

    instrument: str
    start_ns: int
    end_ns: int | None


@dataclass(slots=True)
class ChannelReport:
    """An interval of a channel.

    Attributes:
        lines: a report per line, then that of all together.
        open: whether the market is open.
        instruments: how many are followed.
        stale: (instrument, since, its usual time between updates) of those that are stale now.
        version: the largest schema version seen so far.
        session: the present one.
        kinds: messages by type, on all lines.
        halted: instruments whose trading is halted now.
        halts: halts that began or ended in the interval.
    """

    lines: list[LineReport]
    open: bool
    instruments: int
    stale: list[tuple[str, int, int]]
    version: int | None
    session: str
    kinds: dict[str, int] = field(default_factory=dict)
    halted: list[ToldHalt] = field(default_factory=list)
    halts: list[ToldHalt] = field(default_factory=list)


class Channel:
    """Follows a channel. Not thread-safe.

    Args:
        name: of the channel.
        lines: their names; the index of a line is its place.
        decoder: of its protocol, with digests when there are several lines.
        tracker: makes the state machine of one line.
        calendar: when its market is open.
        rhythm: of its instruments.
        names: what to call instruments, by the decoder's text of them.
    """

    def __init__(
        self,
        name: str,
        lines: Sequence[str],
        decoder: Decoder,
        *,
        tracker: Callable[[], Tracker] = Tracker,
        calendar: Calendar = ALWAYS,
        rhythm: Rhythm | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        if not 1 <= len(lines) <= MOST_LINES:
            raise ValueError(f"channel {name} has {len(lines)} lines; 1 to {MOST_LINES} can be followed")
        self.name = name
        self.lines = list(lines)
        self.decoder = decoder
        self.rhythm = Rhythm() if rhythm is None else rhythm  # an empty one is false
        self._calendar = calendar
        self._called = names or {}
        self._each = [Numbering(tracker(), decoder.sequence_bits) for _ in lines]
        self._all = Numbering(tracker(), decoder.sequence_bits)
        self._pairs = Pairs() if len(lines) > 1 else None
        self._epoch = 0
        self._last = np.full(len(lines), -1, dtype=np.int64)
        self._sums = {name: np.zeros(len(lines), dtype=np.int64) for name in _SUMMED}
        self._version: int | None = None
        self._delays = [_Delays() for _ in lines]
        self._skews: list[list[Ints]] = [[] for _ in lines]
        self._skew_max = np.zeros(len(lines), dtype=np.int64)
        self._told = [(0, 0) for _ in range(len(lines) + 1)]
        self._kinds: dict[str, int] = {}
        self._names: Mapping[int, str] = {}
        self._halts: list[Halt] = []  # that began or ended since the last report
        self.halts_untold = 0  # of them, those beyond what a report holds

    def take(self, line: Ints, data: NDArray[np.uint8], starts: Ints, lengths: Ints, time_ns: Ints) -> DecodedColumns:
        """Take datagrams of any of the lines, in their order of arrival.

        Args:
            line: index of each one's line.
            data: the buffer.
            starts, lengths: each datagram's payload.
            time_ns: when each arrived, epoch ns.

        Returns:
            What they hold.
        """
        got = self.decoder.decode(data, starts, lengths)
        self.accept(got, line, lengths, time_ns)
        return got

    def accept(self, got: DecodedColumns, line: Ints, lengths: Ints, time_ns: Ints) -> None:
        """The same for datagrams that have been decoded."""
        heads = got.datagrams
        good = (heads.fault == Fault.NONE) | (heads.fault == Fault.TRAILING)
        row = heads.row[good]
        lines, times = line[row], time_ns[row]
        self._add("datagrams", line)
        self._sums["bytes"] += np.bincount(line, lengths, len(self.lines)).astype(np.int64)
        self._add("errors", line)
        self._sums["errors"] -= np.bincount(lines, minlength=len(self.lines))
        self._add("heartbeats", lines[(heads.count[good] == 0) & ~heads.end[good]])
        self._add("ends", lines[heads.end[good]])
        self._add("unknown", line[got.row[got.message_row[got.kind == 0]]])
        np.maximum.at(self._last, line, time_ns)
        for kind, n in got.by_kind().items():
            self._kinds[kind] = self._kinds.get(kind, 0) + n
        self._names = got.sessions
        if got.version is not None:
            self._version = max(self._version or 0, got.version)
        if len(row):
            sent = None if heads.time_ns is None else heads.time_ns[good]
            self._follow(got, lines, times, good, sent)

    def unread(self, line: int, datagrams: int) -> None:
        """Count datagrams that came and could not be read: longer than there was room for."""
        self._sums["datagrams"][line] += datagrams
        self._sums["errors"][line] += datagrams

    def _follow(
        self, got: DecodedColumns, lines: Ints, times: Ints, good: NDArray[np.bool_], sent: Ints | None
    ) -> None:
        heads = got.datagrams
        session, low, count = heads.session[good], heads.sequence[good], heads.count[good]
        for i, numbering in enumerate(self._each):
            mine = lines == i if len(self.lines) > 1 else slice(None)
            numbering.apply(session[mine], low[mine], count[mine], times[mine], None if sent is None else sent[mine])
        changes = self._all.changes
        fresh, number, epoch = self._all.apply(session, low, count, times, sent)
        self._sums["won"] += np.bincount(lines, fresh, len(self.lines)).astype(np.int64)
        self._delay(got, lines, times, sent)
        # The unit's datagram, in the columns of the good ones.
        owner = np.searchsorted(heads.row[good], got.row)
        place = got.sequence - low[owner]
        if self._pairs is not None and len(got.digest):
            self._compare(self._pairs, number[owner] + place, lines[owner], times[owner], got.digest, epoch[owner])
        new = place >= (count - fresh)[owner]
        if self._all.changes != changes:
            self._halts += self.rhythm.trade_all(int(times[-1]))
        if got.halts is not None:
            self._halt(got.halts, new & (fresh[owner] > 0), times[owner])
        if self._calendar.opened_ns(int(times[-1])) is None:
            self.rhythm.pause()
        elif len(got.instrument):
            touched = new[got.instrument_row] & (fresh[owner] > 0)[got.instrument_row]
            self.rhythm.update(got.instrument[touched], times[owner][got.instrument_row][touched])

    def _halt(self, halts: Halts, new: NDArray[np.bool_], times: Ints) -> None:
        """Take what first copies say of halts."""
        first = new[halts.row]
        row = halts.row[first]
        self._halts += self.rhythm.halts(halts.instrument[first], halts.reason[first], halts.halted[first], times[row])
        if len(self._halts) > _MOST_HALTS:
            self.halts_untold += len(self._halts) - _MOST_HALTS
            del self._halts[_MOST_HALTS:]

    def _compare(
        self, pairs: Pairs, number: Ints, line: Ints, times: Ints, digest: NDArray[np.uint64], epoch: Ints
    ) -> None:
        # Where numbers start over more often than that, somebody plays games, and only the last are compared.
        for one in np.unique(epoch)[-_EPOCHS:].tolist():
            if one == STRAGGLER or one < self._epoch:
                continue
            if one != self._epoch:
                pairs.restart()
                self._epoch = one
            mine = epoch == one
            found = pairs.take(number[mine], line[mine], times[mine], digest[mine])
            self._add("pairs", found.line)
            self._add("divergent", found.line[found.divergent])
            self._sums["skew_ns"] += np.bincount(found.line, found.lag_ns, len(self.lines)).astype(np.int64)
            np.maximum.at(self._skew_max, found.line, found.lag_ns)
            for i in range(len(self.lines)):
                lags = found.lag_ns[found.line == i]
                if len(lags) and sum(map(len, self._skews[i])) < _SAMPLES:
                    self._skews[i].append(lags[:_SAMPLES])

    def _delay(self, got: DecodedColumns, lines: Ints, times: Ints, sent: Ints | None) -> None:
        """Receipt minus send time, per datagram or, where messages have times of their own, per unit."""
        if self.decoder.time_zone and got.time_ns is not None:
            timed = got.time_ns >= 0
            owner = np.searchsorted(got.datagrams.row, got.row[timed])
            # Rows of faulty datagrams have no units, so every owner is a good one.
            good = (got.datagrams.fault == Fault.NONE) | (got.datagrams.fault == Fault.TRAILING)
            owner = (np.cumsum(good) - 1)[owner]
            lines, times = lines[owner], times[owner]
            sent = _placed(self.decoder.time_zone, got.time_ns[timed], times)
        elif sent is None:
            return
        else:
            timed = sent > 0
            lines, times, sent = lines[timed], times[timed], sent[timed]
        for i, delays in enumerate(self._delays):
            delays.add((times - sent)[lines == i])

    def report(self, now_ns: int, error_ns: int = 0) -> ChannelReport:
        """What happened since the last report. `error_ns` bounds the clock between arrivals and now."""
        opened = self._calendar.opened_ns(now_ns) is not None
        if not opened:
            self.rhythm.pause()
        names, since, usual = self.rhythm.stale(now_ns, error_ns)
        stale = [(self._text(int(n)), int(s), int(u)) for n, s, u in zip(names, since, usual, strict=True)]
        reports = [self._line(i, numbering, now_ns) for i, numbering in enumerate([*self._each, self._all])]
        for name, total in self._sums.items():
            self._sums[name] = np.zeros_like(total)
        self._skew_max[:] = 0
        self._skews = [[] for _ in self.lines]
        self._delays = [_Delays() for _ in self.lines]
        kinds, self._kinds = self._kinds, {}
        session = self._all.session
        text = "" if not session else self._session_text(session)
        changed, self._halts = self._halts, []
        return ChannelReport(
            reports, opened, len(self.rhythm), stale, self._version, text, kinds,
            [self._told_halt(one) for one in self.rhythm.halted()], [self._told_halt(one) for one in changed],
        )  # fmt: skip

    def _told_halt(self, halt: Halt) -> ToldHalt:
        return ToldHalt(self._text(halt.instrument), halt.start_ns, halt.end_ns)

    def _text(self, instrument: int) -> str:
        text = self.decoder.describe(instrument)
        return self._called.get(text, text)

    def open_holes(self) -> list[tuple[int, int, int]]:
        """(low, high, noticed) of what is missing on all lines and still remembered."""
        return self._all.tracker.open_holes()

    def numbers(self) -> tuple[int, int] | None:
        """The first number heard of the present session, and the next expected; None before the first datagram."""
        tracker = self._all.tracker
        return None if tracker.next is None else (tracker.floor, tracker.next)

    def _session_text(self, session: int) -> str:
        return self._names.get(session, str(session))

    def _line(self, i: int, numbering: Numbering, now_ns: int) -> LineReport:
        whole = i == len(self.lines)
        at = slice(None) if whole else slice(i, i + 1)
        counts = {name: int(total[at].sum()) for name, total in self._sums.items()}
        taken = numbering.tracker.take()
        counts["messages"] = taken.fresh
        for name in ("duplicates", "gaps", "skipped", "out_of_order", "late", "old", "resets", "recovered_ns"):
            counts[name] = getattr(taken, name)
        changes, wraps = self._told[i]
        counts["sessions"], counts["wraps"] = numbering.changes - changes, numbering.wraps - wraps
        self._told[i] = numbering.changes, numbering.wraps
        delays = _Delays()
        for one in self._delays[at]:
            delays.join(one)
        counts["delays"], counts["delay_ns"] = delays.count, delays.total_ns
        samples = [lag for one in self._skews[at] for lag in one]
        last = int(self._last[at].max())
        return LineReport(
            line=ALL_LINES if whole else self.lines[i],
            counts=counts,
            skew_max_ns=int(self._skew_max[at].max()),
            recovered_max_ns=taken.recovered_max_ns,
            skew_ns=np.concatenate(samples) if samples else np.empty(0, dtype=np.int64),
            delay_min_ns=delays.min_ns,
            delay_max_ns=delays.max_ns,
            silence_ns=None if last < 0 else now_ns - last,
            gaps=[*numbering.tracker.take_closed(), *numbering.tracker.overdue(now_ns)],
        )

    def _add(self, name: str, line: Ints) -> None:
        self._sums[name] += np.bincount(line, minlength=len(self.lines))


@dataclass(slots=True)
class _Delays:
    count: int = 0
    total_ns: int = 0
    min_ns: int | None = None
    max_ns: int | None = None

    def add(self, delay_ns: Ints) -> None:
        if len(delay_ns):
            self.join(_Delays(len(delay_ns), int(delay_ns.sum()), int(delay_ns.min()), int(delay_ns.max())))

    def join(self, other: _Delays) -> None:
        if other.min_ns is None or other.max_ns is None:
            return
        self.count += other.count
        self.total_ns += other.total_ns
        self.min_ns = other.min_ns if self.min_ns is None else min(self.min_ns, other.min_ns)
        self.max_ns = other.max_ns if self.max_ns is None else max(self.max_ns, other.max_ns)


def _placed(zone: str, day_ns: Ints, times: Ints) -> Ints:
    """Epoch times of times of day, each on the day that brings it nearest to its arrival."""
    if not len(times):
        return times
    base = np.empty(len(times), dtype=np.int64)
    half = (times - day_ns + _DAY_NS // 2) // _DAY_NS  # the same day in UTC terms; refined by the zone below
    for one in np.unique(half).tolist():
        mine = half == one
        start = int((times[mine] - day_ns[mine]).min())
        base[mine] = midnight_ns(zone, start + _DAY_NS // 2)
    return base + day_ns
