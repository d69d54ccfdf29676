"""The `.hlog` text format: interval histograms with times, tags and compressed V2 payloads; lines in, intervals out.

Format: https://github.com/HdrHistogram/HdrHistogram, HistogramLogWriter and HistogramLogReader. A line is
`[Tag=X,]start_s,length_s,max,base64`; `#[StartTime: s ...]` and `#[BaseTime: s ...]` say from when `start_s` counts.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from hdrh.histogram import HdrHistogram

_TIME = re.compile(r"#\[(StartTime|BaseTime):\s*(\d+(?:\.\d+)?)")
_YEAR_S = 365 * 24 * 3600
_OLD_COOKIES = {0x1C849301: 1, 0x1C849302: 1, 0x1C849308: 0, 0x1C849309: 0}
_V2_COMPRESSED = 0x1C849304
_V2 = 0x1C849303
_MAX_PAYLOAD = 64 << 20
_MOST_CORRECTED = 1_000_000


@dataclass(frozen=True, slots=True)
class Interval:
    """One line of a log: when, under which tag, and the payload as it stood there."""

    line: int
    tag: str
    start_ns: int
    length_ns: int
    max_text: float
    payload: str
    digits: int


@dataclass(frozen=True, slots=True)
class LineError:
    """A line that could not be read, and why. The others are kept."""

    line: int
    problem: str


def read(lines: Iterable[str]) -> Iterator[Interval | LineError]:
    """Every interval of a log in order, and an error for every line that is none."""
    start_s: Decimal | None = None
    base_s: Decimal | None = None
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        header = _TIME.match(line)
        if header is not None:
            if header[1] == "StartTime":
                start_s = Decimal(header[2])
            else:
                base_s = Decimal(header[2])
            continue
        if not line or line.startswith(("#", '"StartTimestamp"')):
            continue
        try:
            tag, at, length, largest, payload = _fields(line)
            if start_s is None:
                start_s = at
            if base_s is None:  # as Java reads it: times more than a year before StartTime count from it
                base_s = start_s if at < start_s - _YEAR_S else Decimal(0)
            digits = check(payload)
        except ValueError as error:
            yield LineError(number, str(error))
            continue
        yield Interval(number, tag, int((at + base_s) * 10**9), int(length * 10**9), float(largest), payload, digits)


def check(payload: str) -> int:
    """The significant digits of a compressed V2 payload. Raises ValueError saying what is wrong with it."""
    try:
        blob = base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise ValueError(f"the histogram is not base64 ({error}); the line may be cut off") from error
    if len(blob) < 8:
        raise ValueError(f"the histogram has {len(blob)} bytes, at least 8 are its head; the line may be cut off")
    cookie, length = struct.unpack(">II", blob[:8])
    version = _OLD_COOKIES.get(cookie & 0xFFFFFF0F)
    if version is not None:
        raise ValueError(
            f"the histogram is encoded as V{version}; only V2 is read: write the log again with HdrHistogram >= 2.1.9"
        )
    if cookie & 0xFFFFFF0F != _V2_COMPRESSED:
        raise ValueError(f"the histogram's cookie is {cookie:#010x}, want a compressed V2 one")
    if len(blob) != 8 + length:
        raise ValueError(
            f"the histogram says {length} compressed bytes, there are {len(blob) - 8}; the line may be cut off"
        )
    try:
        opened = zlib.decompressobj()
        body = opened.decompress(blob[8:], _MAX_PAYLOAD)
    except zlib.error as error:
        raise ValueError(f"the histogram does not decompress: {error}") from error
    if len(body) < 40 or not opened.eof:
        raise ValueError("the histogram's payload is cut off or larger than 64 MiB")
    inner, size, _, digits = struct.unpack(">IIII", body[:16])
    if inner & 0xFFFFFF0F != _V2 or size != len(body) - 40 or not 0 <= digits <= 5:
        raise ValueError("the histogram's payload is not a V2 one, or its length is wrong")
    return int(digits)


def recorded(payload: str, expected_interval_ns: int = 0) -> dict[tuple[int, int], int]:
    """{(lowest, highest equivalent value): count} of a payload that `check` has passed.

    With `expected_interval_ns` coordinated omission is corrected once: for each value v also v - i, v - 2i, ... >= i.
    Raises ValueError when that would add more than a million values for one.
    """
    histogram = decode(payload)
    if expected_interval_ns:
        fixed = HdrHistogram(1, histogram.highest_trackable_value, max(1, histogram.significant_figures))
        for item in histogram.get_recorded_iterator():
            value, n = item.value_iterated_to, item.count_at_value_iterated_to
            if value // expected_interval_ns > _MOST_CORRECTED:
                raise ValueError(
                    f"correcting {value} ns for an interval of {expected_interval_ns} ns adds more than "
                    f"{_MOST_CORRECTED:,} values; is the interval in nanoseconds?"
                )
            fixed.record_value(value, n)
            # Not the port's record_corrected_value: it also records the remainder below one interval, Java does not.
            for missing in range(value - expected_interval_ns, expected_interval_ns - 1, -expected_interval_ns):
                fixed.record_value(missing, n)
        histogram = fixed
    return {
        (histogram.get_lowest_equivalent_value(v), histogram.get_highest_equivalent_value(v)): n
        for v, n in ((i.value_iterated_to, i.count_at_value_iterated_to) for i in histogram.get_recorded_iterator())
    }


def decode(payload: str) -> HdrHistogram:
    """The histogram of a payload that `check` has passed."""
    return HdrHistogram.decode(payload)


def write(intervals: Iterable[Interval], start_ns: int, comments: Iterable[str] = ()) -> Iterator[str]:
    """The lines of a log, as HistogramLogWriter writes them: times absolute, the largest value in ms."""
    yield "#[Logged with Tailsight]\n"
    for comment in comments:
        yield f"#[{comment}]\n"
    yield "#[Histogram log format version 1.3]\n"
    yield f"#[StartTime: {start_ns / 1e9:.3f} (seconds since epoch)]\n"
    yield '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'
    for one in intervals:
        tag = f"Tag={one.tag}," if one.tag else ""
        yield f"{tag}{one.start_ns / 1e9:.3f},{one.length_ns / 1e9:.3f},{one.max_text:.3f},{one.payload}\n"


def _fields(line: str) -> tuple[str, Decimal, Decimal, Decimal, str]:
    tag = ""
    if line.startswith("Tag="):
        tag, comma, line = line[4:].partition(",")
        if not comma:
            raise ValueError("the line ends after its tag")
    parts = line.split(",")
    if len(parts) != 4:
        raise ValueError(f"want start,length,max,histogram, got {len(parts)} fields; the line may be cut off")
    try:
        at, length, largest = (Decimal(p.strip()) for p in parts[:3])
    except InvalidOperation:
        raise ValueError(f"start, length and max must be numbers, got {parts[:3]}") from None
    if not (
        at.is_finite()
        and length.is_finite()
        and largest.is_finite()
        and 0 <= at < 9 * 10**9
        and 0 <= length < 9 * 10**9
    ):
        raise ValueError(f"start {at} and length {length} must be seconds, not negative")
    return tag, at, length, largest, parts[3].strip()
