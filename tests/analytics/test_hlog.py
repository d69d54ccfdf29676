"""`.hlog`: logs written by the Java HdrHistogram come in with its numbers, and go out again through another reader."""

from __future__ import annotations

from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram
from hdrh.log import HistogramLogReader

from analytics import buckets, hlog, latency
from analytics.hlog_file import recorded
from collector.store import Store

HEAD = "#[StartTime: 1750000000.000 (seconds since epoch), x]\n"
LEGEND = '"StartTimestamp","Interval_Length","Interval_Max","Interval_Compressed_Histogram"\n'


def payload(values: dict[int, int], digits: int = 2) -> str:
    histogram = HdrHistogram(1, 1 << 40, digits)
    for value, n in values.items():
        histogram.record_value(value, n)
    return str(histogram.encode().decode())


def log(tmp_path: Path, *lines: str) -> Path:
    file = tmp_path / "some.hlog"
    file.write_text(HEAD + LEGEND + "".join(line + "\n" for line in lines))
    return file


def test_two_digits_fold_without_loss_and_three_do_not() -> None:
    values = dict.fromkeys((0, 1, 127, 128, 255, 256, 257, 1000, 10**6, 10**9, 10**12), 1)
    spans = recorded(payload(values))
    folded = hlog.fold(spans.items())
    assert {(int(buckets.low(b)), int(buckets.high(b))): n for b, n in folded.items()} == spans
    fine = recorded(payload({1_000_000: 1, 1_001_000: 1}, 3))
    assert len(fine) == 2
    assert len(hlog.fold(fine.items())) == 1


def test_what_is_exported_reads_back_through_another_reader(store: Store, tmp_path: Path) -> None:
    values = {1: 3, 255: 2, 256: 5, 9_999: 7, 123_456_789: 1}
    hlog.import_hlog(
        store, log(tmp_path, f"Tag=decide,3.5,1.0,0.1,{payload(values)}", f"14.0,1.0,0.1,{payload(values)}"), path="p"
    )
    out = tmp_path / "out.hlog"
    out.write_text(hlog.export_hlog(store, "p"))
    reader = HistogramLogReader(str(out), HdrHistogram(1, 1 << 40, 2))
    found = {}
    while (one := reader.get_next_interval_histogram()) is not None:
        found[one.get_tag(), int(one.get_start_time_stamp())] = {
            i.value_iterated_to: i.count_at_value_iterated_to for i in one.get_recorded_iterator()
        }
    reader.close()
    highest = {int(buckets.high(buckets.index(v))): n for v, n in values.items()}
    assert found == {("decide", 1_750_000_000_000): highest, ("end_to_end", 1_750_000_010_000): highest}


def test_bad_lines_are_named_and_the_good_ones_kept(store: Store, tmp_path: Path) -> None:
    good = payload({500: 4})
    file = log(
        tmp_path,
        f"1.0,1.0,0.1,{good}",
        "nonsense",
        "2.0,1.0,0.1,HISTEwAAAAN42pNpmSzMwMA",
        f"3.0,1.0,0.1,{good[:20]}",
        f"x,1.0,1.0,{good}",
    )
    done = hlog.import_hlog(store, file, path="p")
    assert (done.intervals, done.values) == (1, 4)
    assert [e.split(":")[0] for e in done.errors] == ["line 4", "line 5", "line 6", "line 7"]


def test_old_encodings_are_refused_by_name(store: Store, tmp_path: Path) -> None:
    import base64
    import struct

    v1 = base64.b64encode(struct.pack(">II", 0x1C849302, 0)).decode()
    with pytest.raises(hlog.HlogError, match=r"line 3: the histogram is encoded as V1; only V2 is read"):
        hlog.import_hlog(store, log(tmp_path, f"1.0,1.0,0.1,{v1}"), path="p")


def test_omission_is_corrected_only_when_asked(store: Store, tmp_path: Path) -> None:
    file = log(tmp_path, f"1.0,1.0,0.1,{payload({1_000_000: 10_000, 100_000_000_000: 1})}")
    assert hlog.import_hlog(store, file, path="raw").values == 10_001
    done = hlog.import_hlog(store, file, path="fixed", expected_interval_ns=10_000_000)
    # The pause is known as its bucket's largest value: 100.4 s, hence 39 more than the 20,000 of an exact recording.
    pause = int(buckets.high(buckets.index(100_000_000_000)))
    assert (done.values, done.expected_interval_ns) == (10_000 + pause // 10_000_000, 10_000_000)


def test_two_logs_of_one_window_add_up(store: Store, tmp_path: Path) -> None:
    hlog.import_hlog(store, log(tmp_path, f"1.0,1.0,0.1,{payload({500: 4})}"), path="p")
    hlog.import_hlog(store, log(tmp_path, f"2.0,1.0,0.1,{payload({700: 3})}"), path="p")
    (answer,) = latency.percentiles(store, "p")
    assert (answer.count, answer.min_ns, answer.max_ns) == (
        7,
        int(buckets.low(buckets.index(500))),
        int(buckets.high(buckets.index(700))),
    )
