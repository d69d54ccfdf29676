"""HdrHistogram logs through the command line, on a store that each command opens itself."""

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from hdrh.histogram import HdrHistogram

from api.cli.hlog import default_path

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight


def log(values: range) -> str:
    histogram = HdrHistogram(1, 3_600_000_000_000, 2)
    for value in values:
        histogram.record_value(value)
    payload = histogram.encode().decode()
    assert base64.b64decode(payload)
    head = '#[StartTime: 1441812279.474 (seconds since epoch)]\n"StartTimestamp","Interval_Length"\n'
    return f"{head}0.127,1.007,2.769,{payload}\n"


def test_a_log_goes_in_and_comes_out(tailsight: "Tailsight", tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"), "--json")
    file = tmp_path / "jHiccup 2.hlog"
    file.write_text(log(range(1_000, 101_000, 100)))
    done = tailsight("import", "hlog", str(file), *data)
    assert done.code == 0, done
    assert (done.json["path"], done.json["values"], done.json["lossless"]) == ("jhiccup_2", 1_000, True)
    assert tailsight("import", "hlog", str(file), *data).json["already"] is True

    done = tailsight("query", "percentiles", "--path", "jhiccup_2", *data)
    (stage,) = done.json["stages"]
    assert (stage["stage"], stage["count"]) == ("end_to_end", 1_000)
    assert abs(stage["p50_ns"] / 50_950 - 1) < 0.01
    assert stage["p999_ns"] is None

    done = tailsight("export", "hlog", "--path", "jhiccup_2", *data)
    assert done.json["hlog"].startswith("#[")
    again = tmp_path / "again.hlog"
    again.write_text(done.json["hlog"])
    assert tailsight("import", "hlog", str(again), *data).json["values"] == 1_000


def test_a_damaged_log_is_refused(tailsight: "Tailsight", tmp_path: Path) -> None:
    file = tmp_path / "bad.hlog"
    file.write_text("0.1,1.0,2.0,HISTFAAAnonsense\n")
    done = tailsight("import", "hlog", str(file), "--data", str(tmp_path / "data"), "--json")
    assert done.code == 4
    assert done.json["error"]["kind"] == "hlog"
    done = tailsight("export", "hlog", "--path", "nothing", "--data", str(tmp_path / "data"), "--json")
    assert (done.code, done.json["error"]["kind"]) == (4, "nothing_to_export")


def test_path_names_are_made_from_file_names() -> None:
    assert default_path(Path("/x/jHiccup 2.hlog")) == "jhiccup_2"
    assert default_path(Path("20260101.hlog")) == "log_20260101"
