"""Recordings: the same file gives the same bytes, and a file that is damaged anywhere is refused."""

from __future__ import annotations

import os
import random
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import msgspec
import pytest

from analytics.paths import paths_from
from analytics.window_settings import WindowSettings
from api.demo.faults import KINDS, Fault
from api.demo.history.calendar import NS
from api.demo.history.feed import sent
from api.demo.history.hours import measured
from api.demo.history.plan import PlanError
from api.demo.history.recorder import _cut
from api.demo.history.recording import MAGIC, Inputs, RecordingError, decode, encode, read
from api.demo.history.replay import digest, play, replay
from api.demo.market import Market
from api.demo.programs import configuration
from api.demo.tap import RECORD, Tap
from collector.points import points_from
from collector.settings import read_toml
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate

BEGIN = (time.time_ns() // (3_600 * NS) - 3) * 3_600 * NS


def inputs(seconds: int = 5, seed: int = 3) -> Inputs:
    datagrams = tuple(sent(Market(50.0, seed), BEGIN, BEGIN + seconds * NS))
    fault = Fault(
        id="bad_deploy-1", kind="bad_deploy", at="engine", size=0.1, amount_ns=KINDS["bad_deploy"].amount_ns,
        start_ns=BEGIN, end_ns=BEGIN + seconds * NS,
    )  # fmt: skip
    return Inputs(
        from_ns=BEGIN, to_ns=BEGIN + seconds * NS, monotonic_ns=0, seed=seed, load={"rate": "50"}, faults=(fault,),
        delays=dict(measured()), datagrams=datagrams,
    )  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_embedded(tmp_path_factory.mktemp("replay"))
    migrate(opened, Retention())
    yield opened
    opened.close()


def test_what_is_written_is_read() -> None:
    assert decode(encode(inputs())) == inputs()
    assert encode(inputs()) == encode(inputs())


def test_played_twice_it_is_the_same_to_the_byte() -> None:
    one, again = play(decode(encode(inputs()))).tape, play(inputs()).tape
    assert digest(one) == digest(again)
    for a, b in zip(one.columns(), again.columns(), strict=True):
        assert {n: v.tobytes() for n, v in a.values.items()} == {n: v.tobytes() for n, v in b.values.items()}
    assert digest(play(msgspec.structs.replace(inputs(), faults=())).tape) != digest(one)
    assert digest(play(msgspec.structs.replace(inputs(), seed=4)).tape) != digest(one)
    assert len(one) > 3_000


def test_in_the_store_it_is_the_same_messages_once(store: Store, tmp_path: Path) -> None:
    document = read_toml(configuration())
    points = points_from(document, "demo")
    paths = paths_from(document, points, "demo")

    def into() -> tuple[object, list[tuple[object, ...]]]:
        found = replay(store, tmp_path, points, paths, WindowSettings(), inputs(), 7)
        rows = store.query(
            "SELECT path, key, start, e2e_ns, toString(stage_ns) AS s FROM messages ORDER BY path, start, key"
        )
        return found, rows.rows()

    first, rows = into()
    second, again = into()
    assert rows == again
    assert len(rows) > 500
    assert (first.duplicates, second.duplicates, first.difference, first.quarantined) == (0, 1, 0, 0)  # type: ignore[attr-defined]
    assert first.digest == second.digest  # type: ignore[attr-defined]
    assert first.messages == second.messages == len(rows)  # type: ignore[attr-defined]
    for table in ("stamps", "links", "label_sets", "batches", "messages", "stage_counts", "stage_windows", "windows"):
        store.execute(f"TRUNCATE TABLE {table}")
    assert into()[1] == rows
    with pytest.raises(PlanError, match="has stamps of 'history'"):
        replay(store, tmp_path, points, paths, WindowSettings(), inputs(), 8)


def test_a_file_cut_anywhere_is_refused() -> None:
    data = encode(inputs(1))
    for length in (0, 1, 7, 12, 23, 24, 30, len(data) // 2, len(data) - 5, len(data) - 1):
        with pytest.raises(RecordingError, match=r"truncated|no recording"):
            decode(data[:length])
    with pytest.raises(RecordingError, match="3 bytes follow"):
        decode(data + b"abc")


def test_a_file_with_a_flipped_bit_is_refused() -> None:
    data = encode(inputs(1))
    dice = random.Random(1)  # noqa: S311 - which bits, no secret
    for at in (*range(28), *(dice.randrange(28, len(data)) for _ in range(60))):
        broken = bytearray(data)
        broken[at] ^= 1 << dice.randrange(8)
        with pytest.raises(RecordingError, match=r"no recording|damaged|truncated|version"):
            decode(bytes(broken))


def test_a_file_of_a_later_version_and_a_file_that_lies_are_refused(tmp_path: Path) -> None:
    head = struct.pack("<8sHHII", MAGIC, 2, 0, 0, 0)
    with pytest.raises(RecordingError, match="version 2, this program reads version 1"):
        decode(head + struct.pack("<I", google_crc32c.value(head)) + b"\0" * 4)
    head = struct.pack("<8sHHII", MAGIC, 1, 0, 1 << 31, 1 << 31)
    with pytest.raises(RecordingError, match="at most"):
        decode(head + struct.pack("<I", google_crc32c.value(head)))
    with pytest.raises(RecordingError, match=r"absent\.tsr cannot be read"):
        read(tmp_path / "absent.tsr")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"to_ns": BEGIN - 1}, "times make no sense"),
        ({"to_ns": BEGIN + 3_601 * NS}, "times make no sense"),
        ({"delays": {}}, "are not ascending quantiles"),
        ({"delays": {**measured(), "line-a": ((0.0, 5), (1.0, 4))}}, "'line-a' are not ascending"),
        ({"delays": {**measured(), "line-a": ((0.0, -5), (1.0, 4))}}, "from 0 ns to one hour"),
        (
            {"faults": (msgspec.structs.replace(inputs(1).faults[0], at="nowhere"),)},
            "fault 'bad_deploy-1': .* cannot strike",
        ),
        ({"datagrams": tuple(reversed(inputs(1).datagrams))}, "out of order"),
    ],
)
def test_whole_files_with_impossible_content_are_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        decode(encode(msgspec.structs.replace(inputs(1), **change)))


def test_the_tap_copies_to_whoever_reads_and_never_waits(tmp_path: Path) -> None:
    tap = Tap(tmp_path)
    tap.look()
    tap.copy(b"nobody reads")
    os.mkfifo(tmp_path / "tap")
    tap.look()
    reader = os.open(tmp_path / "tap", os.O_RDONLY | os.O_NONBLOCK)
    tap.look()
    tap.copy(b"one")
    tap.copy(b"two")
    assert [data for _, data in _cut(os.read(reader, 65_536))] == [b"one", b"two"]
    for _ in range(200):  # more than a pipe holds: the reader loses it rather than a part of it
        tap.copy(b"x" * 1_000)
    held = b""
    while part := os.read(reader, 65_536):  # ends, because the writer has closed
        held += part
    assert 0 < len(held) < 200 * 1_010
    assert len(held) % (RECORD.size + 1_000) == 0
    os.close(reader)
    tap.copy(b"gone")
