"""Files of JSON lines that are followed: every line once, whatever becomes of the file's name, and of the agent."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.agent.settings import AgentSettings
from collector.keys import key_of
from collector.lines.followed import Followed
from collector.lines.settings import Files, LinesSettings
from collector.lines.source import LinesSource
from collector.record import DropReason
from collector.settings import ConfigError, section
from tests.collector.sched.workloads import clock_now


class Following:
    """A source over some files, its positions made durable with every poll as the agent does, and what it found."""

    def __init__(self, *files: Files, **more: object) -> None:
        self.settings = LinesSettings(files=files, **({"settle": "0s"} | more))  # type: ignore[arg-type]
        self.durable: dict[str, int] = {}
        self.bodies: list[str] = []
        self.drops: Counter[DropReason] = Counter()
        self.rows: list[dict[str, object]] = []
        self.source = self._started()

    def _started(self) -> LinesSource:
        source = LinesSource("here", self.settings)
        self.availability = source.start(self.durable)
        return source

    def again(self) -> None:
        """Kill the agent and start it again."""
        self.source.close()
        self.source = self._started()

    def poll(self, *, lose: bool = False) -> None:
        """Poll until nothing more comes; the last poll is lost where the agent dies before it is durable."""
        while True:
            self.source._scan_s = 0.0
            poll = self.source.poll(clock_now())
            if lose:
                return
            self.durable |= poll.positions
            self.drops.update(poll.drops)
            for columns in poll.columns:
                columns.check()
                texts = {name: columns.text(name) for name in ("body", "service", "kind", "host", "attributes")}
                for n in range(len(columns)):
                    row: dict[str, object] = {name: values[n] for name, values in texts.items()}
                    self.rows.append(
                        row | {"key": int(columns.values["key"][n]), "ts": int(columns.values["ts_ns"][n])}
                    )
                    self.bodies.append(str(row["body"]))
            for gone in self.source.durable(self.durable):
                self.durable.pop(gone, None)
            if not (poll.columns or poll.drops or poll.positions or self.source.period_s < 0.1):
                return


def line(n: int, **more: object) -> str:
    return json.dumps({"body": str(n), "key": f"order:{n}", **more}) + "\n"


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def numbers(n: int, first: int = 0) -> list[str]:
    return [str(i) for i in range(first, first + n)]


def test_a_line_is_an_event_by_its_key(tmp_path: Path) -> None:
    log = tmp_path / "engine.jsonl"
    now_ns = time.time_ns()
    log.write_text(
        line(17, ts_ns=now_ns, kind="decision", reason="signal", inputs={"feed": 981}, model="m-12", config="c-3")
        + line(18)
    )
    following = Following(Files(path=str(log), service="engine", kind="note"))
    assert following.availability.status == "running"
    following.poll()
    first, second = following.rows
    assert first["key"] == key_of("order:17")
    assert (first["kind"], first["service"], first["host"], first["ts"]) == ("decision", "engine", "here", now_ns)
    assert json.loads(str(first["attributes"])) == {
        "reason": "signal", "inputs": {"feed": 981}, "model": "m-12", "config": "c-3",
    }  # fmt: skip
    assert (second["kind"], second["service"]) == ("note", "engine")


def test_an_unfinished_line_waits_for_its_end(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    whole = line(0)
    log.write_text(whole[:9])
    following = Following(Files(path=str(log)))
    following.poll()
    assert following.bodies == []
    append(log, whole[9:-1])
    following.poll()
    assert following.bodies == []
    append(log, "\n" + line(1)[:5])
    following.poll()
    assert following.bodies == ["0"]
    append(log, line(1)[5:])
    following.poll()
    assert following.bodies == ["0", "1"]


def test_rotation_by_rename_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0) + line(1))
    following = Following(Files(path=str(log)))
    following.poll()
    append(log, line(2))
    log.rename(tmp_path / "a.jsonl.1")
    append(tmp_path / "a.jsonl.1", line(3))  # the program has not opened the new one yet
    log.write_text(line(4))
    following.poll()
    append(log, line(5))
    following.poll()
    assert sorted(following.bodies) == numbers(6)
    assert following.source.figures()["finished"] == 1
    assert len(following.durable) == 1  # the rotated file need not be remembered


def test_a_pattern_that_matches_the_rotated_file_too_doubles_nothing(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0))
    following = Following(Files(path=str(tmp_path / "a.jsonl*")))
    following.poll()
    log.rename(tmp_path / "a.jsonl.1")
    log.write_text(line(1))
    following.poll()
    following.again()
    following.poll()
    assert following.bodies == ["0", "1"]


def test_a_rotated_file_is_held_until_it_is_still(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0))
    following = Following(Files(path=str(log)), settle="1h")
    following.poll()
    old = tmp_path / "a.jsonl.1"
    log.rename(old)
    following.poll()
    append(old, line(1))
    old.unlink()  # compressed and removed: it is open all the same
    following.poll()
    assert following.bodies == ["0", "1"]


def test_the_last_line_of_a_file_that_ended_needs_no_newline(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0) + line(1).rstrip("\n"))
    following = Following(Files(path=str(log)))
    following.poll()
    assert following.bodies == ["0"]
    log.rename(tmp_path / "gone")
    following.poll()
    assert following.bodies == ["0", "1"]


def test_truncation_starts_again_and_counts_a_line_that_was_cut(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0) + line(1) + line(2)[:7])
    following = Following(Files(path=str(log)))
    following.poll()
    os.truncate(log, 0)
    following.poll()
    append(log, line(3))
    following.poll()
    # Longer than before at once, so that the size alone does not show it.
    os.truncate(log, 0)
    append(log, line(4) + line(5) + line(6))
    following.poll()
    assert following.bodies == ["0", "1", "3", "4", "5", "6"]
    assert following.drops == {DropReason.SOURCE_LOST: 1}
    assert following.source.figures()["truncated"] == 2


def test_a_line_that_is_too_long_is_counted_and_costs_no_memory(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0) + line(1, pad="x" * 2_000) + line(2))
    following = Following(Files(path=str(log)), max_line_bytes=1_024)
    following.poll()
    assert following.bodies == ["0", "2"]
    assert following.drops == {DropReason.OVERSIZE: 1}
    append(log, "y" * 1_000_000)  # no end yet
    following.poll()
    following.again()
    following.poll()
    append(log, "y\n" + line(3))
    following.poll()
    assert following.bodies == ["0", "2", "3"]
    assert following.drops == {DropReason.OVERSIZE: 2}


def test_wrong_lines_are_counted_and_the_others_taken(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_bytes(b"\0\0\0\n[1]\n\xff\xfe\n" + b"[" * 100_000 + b"\n" + line(0).encode() + b'{"ts": 1}\n\n\r\n')
    following = Following(Files(path=str(log)), max_line_bytes=131_072)
    following.poll()
    assert following.bodies == ["0"]
    assert following.drops == {DropReason.REJECTED: 5}  # empty lines are nothing
    assert following.source.figures()["rejected"] == 5


@pytest.mark.parametrize("durable", [True, False])
def test_an_agent_that_was_killed_goes_on_behind_the_last_durable_line(tmp_path: Path, durable: bool) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0) + line(1))
    following = Following(Files(path=str(log)))
    following.poll()
    append(log, line(2))
    following.poll(lose=not durable)
    following.again()
    append(log, line(3))
    following.poll()
    assert following.bodies == numbers(4)


def test_a_file_that_was_renamed_while_the_agent_was_down_is_read_to_its_end(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text(line(0))
    following = Following(Files(path=str(log)))
    following.poll()
    following.source.close()
    append(log, line(1))
    log.rename(tmp_path / "a.jsonl.1")
    log.write_text(line(2))
    following.source = following._started()
    following.poll()
    assert sorted(following.bodies) == numbers(3)


def test_what_is_gone_is_forgotten_but_not_when_its_folder_is_away(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    folder.mkdir()
    log = folder / "a.jsonl"
    log.write_text(line(0))
    following = Following(Files(path=str(log)))
    following.poll()
    following.source.close()
    folder.rename(tmp_path / "unmounted")
    following.source = following._started()
    following.poll()
    following.again()
    (tmp_path / "unmounted").rename(folder)
    following.again()
    following.poll()
    assert following.bodies == ["0"]
    following.source.close()
    log.unlink()
    following.source = following._started()
    following.poll()
    assert following.durable == {}


def test_what_cannot_be_followed_is_named_with_what_helps(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    following = Following(Files(path=str(pipe)), Files(path=str(tmp_path / "none*")))
    following.poll()
    assert "pipe.jsonl: is not a regular file" in following.source.problem
    assert "none*: matches no file" in following.source.problem
    source = LinesSource("here")
    assert source.start({}).status == "degraded"
    assert "[agent.lines] files" in source.start({}).reason
    source._refuse("/var/log/x", PermissionError(13, "Permission denied"))
    assert f"setfacl -m u:{os.geteuid()}:r /var/log/x" in source.problem


def test_the_newest_of_too_many_files_are_followed(tmp_path: Path) -> None:
    for n in range(5):
        path = tmp_path / f"{n}.jsonl"
        path.write_text(line(n))
        os.utime(path, ns=(n * 10**9, n * 10**9))
    following = Following(Files(path=str(tmp_path / "*.jsonl")), max_files=2)
    following.poll()
    assert sorted(following.bodies) == ["3", "4"]
    assert "3 files are not followed" in following.source.problem
    append(tmp_path / "0.jsonl", line(9))  # the newest now
    following.poll()
    assert sorted(following.bodies) == ["0", "3", "4", "9"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"files": [{"path": "relative.jsonl"}]}, "agent.lines.files[0].path"),
        ({"files": [{"path": "/a"}, {"path": "/a"}]}, "agent.lines.files"),
        ({"max_line_bytes": 10}, "agent.lines.max_line_bytes"),
        ({"max_files": 0}, "agent.lines.max_files"),
        ({"settle": "soon"}, "agent.lines.settle"),
        ({"attributes": 0}, "agent.lines.attributes"),
    ],
)
def test_settings_that_make_no_sense_are_named(body: Mapping[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section({"lines": body}, AgentSettings, "agent")
    assert caught.value.field == field


DOINGS = st.lists(
    st.sampled_from(["write", "write", "part", "rename", "truncate", "poll", "poll", "lose", "restart"]), max_size=40
)


@settings(max_examples=60, deadline=None)
@given(DOINGS)
def test_every_line_comes_once_whatever_happens(tmp_path_factory: pytest.TempPathFactory, doings: list[str]) -> None:
    folder = tmp_path_factory.mktemp("lines")
    log = folder / "a.jsonl"
    log.write_text(line(0))
    following = Following(Files(path=str(log)))
    following.poll()
    written, rest, rotated = 1, "", 0
    for doing in doings:
        if doing == "write":
            append(log, rest + line(written))
            written, rest = written + 1, ""
        elif doing == "part" and not rest:
            text = line(written)
            append(log, text[: written % 5 + 3])
            written, rest = written + 1, text[written % 5 + 3 :]
        elif doing == "rename" and not rest:
            rotated += 1
            log.rename(folder / f"a.jsonl.{rotated}")
            log.write_text(line(written))
            written += 1
        elif doing == "truncate" and not rest:
            following.poll()  # what a truncation takes before it was read is lost, as always
            os.truncate(log, 0)
            append(log, line(written))
            written += 1
        elif doing in ("poll", "lose"):
            following.poll(lose=doing == "lose")
            if doing == "lose":
                following.again()
        elif doing == "restart":
            following.again()
    append(log, rest)
    following.poll()
    following.poll()
    following.source.close()
    assert sorted(following.bodies, key=int) == numbers(written)
    assert not following.drops


def test_a_reading_is_bounded(tmp_path: Path) -> None:
    log = tmp_path / "a.jsonl"
    log.write_text("".join(map(line, range(1000))))
    file = Followed(log)
    found = b""
    for _ in range(100):
        reading = file.read(2_000, 1_000)
        assert len(reading.lines) <= 2_000
        found += reading.lines
    file.close()
    assert found == log.read_bytes()
