"""`tailsight import pcap` as a process: JSON, tables, damage and exit codes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tests.collector.packet import writing
from tests.collector.packet.writing import START

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight

PACKETS = [
    (START, writing.tcp4(seq=1, flags=2)),
    (START + 30_000, writing.tcp4(seq=7, ack=2, flags=0x12, forward=False)),
    (START + 40_000, writing.tcp4(seq=2, ack=8)),
    (START + 50_000, writing.tcp4(seq=2, ack=8, payload=b"ask")),
    (START + 90_000_000, writing.tcp4(seq=2, ack=8, payload=b"ask")),
]


def test_json_and_table(tailsight: Tailsight, tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(PACKETS))
    done = tailsight("import", "pcap", str(file), "--json")
    assert done.code == 0
    assert done.json["packets"] == 5
    assert done.json["retransmissions"] == 1
    assert done.json["rtt"]["max_ns"] == 30_000
    shown = tailsight("import", "pcap", str(file))
    assert shown.code == 0
    for text in ("5 packets", "10.0.0.1:1234", "30.0 us", "retransmissions"):
        assert text in shown.out


def test_a_damaged_file_is_a_finding_that_names_the_byte(tailsight: Tailsight, tmp_path: Path) -> None:
    raw = writing.pcap(PACKETS)
    file = tmp_path / "a.pcap"
    file.write_bytes(raw[:-3])
    done = tailsight("import", "pcap", str(file), "--json")
    assert done.code == 1
    assert done.json["packets"] == 4
    assert done.json["files"][0]["damage_offset"] == len(writing.pcap(PACKETS[:4]))
    assert f"at byte {len(writing.pcap(PACKETS[:4]))}" in tailsight("import", "pcap", str(file)).out.replace("\n", "")


def test_what_is_no_capture_is_refused(tailsight: Tailsight, tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_text("hello")
    done = tailsight("import", "pcap", str(file), "--json")
    assert done.code == 4
    assert "neither pcap, pcapng nor ERF" in done.json["error"]["message"]


def test_messages_are_decoded_and_stored_once(tailsight: Tailsight, tmp_path: Path) -> None:
    from tests.collector.feeds.captures import two_lines

    file = two_lines(tmp_path / "feed.pcap")
    words = ("import", "pcap", str(file), "--decode", "auto", "--port", "7001+7002", "--data", str(tmp_path / "data"))
    done = tailsight(*words, "--store", "--json")
    assert done.code == 1, done.err  # a message is missing on both lines
    (channel,) = done.json["decoded"]
    assert (channel["protocol"], channel["lines"][-1]["missing"], channel["messages"]) == ("demo", 1, 17)
    assert (done.json["stored"]["stamps"], done.json["stored"]["already"]) == (17, False)
    again = tailsight(*words, "--store", "--json").json["stored"]
    assert (again["stamps"], again["already"]) == (17, True)
    shown = tailsight(*words)
    for text in ("demo 7001+7002: Q Quote 17", "numbers 1 to 10", "7002"):
        assert text in shown.out


def test_what_cannot_be_decoded_with_is_said(tailsight: Tailsight, tmp_path: Path) -> None:
    file = tmp_path / "a.pcap"
    file.write_bytes(writing.pcap(PACKETS))
    for words, kind in (
        (("--decode", "pitch"), "decoder"),
        (("--port", "1"), "usage"),
        (("--decode", "itch", "--port", "1+1"), "usage"),
    ):
        done = tailsight("import", "pcap", str(file), *words, "--json")
        assert (done.code, done.json["error"]["kind"]) == (2, kind)
