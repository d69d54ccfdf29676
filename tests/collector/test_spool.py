"""The spool: what is durable survives, what is lost is booked, and nothing is sent under two numbers."""

from __future__ import annotations

import errno
import os
import random
import stat
import subprocess
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collector.frames import HEADER_BYTES, decode
from collector.spool import SpoolFullError
from collector.spool.fs import LockedError
from collector.spool.settings import SpoolSettings
from tests.collector.faulty_fs import FaultyFS, nth
from tests.collector.spool_kit import DAY, SMALL, Books, Producer, drain, kill, open_spool, rows


def changed(base: SpoolSettings = SMALL, **fields: object) -> SpoolSettings:
    import msgspec

    return msgspec.structs.replace(base, **fields)


def test_what_goes_in_comes_out_once_and_the_files_go(tmp_path: Path) -> None:
    spool, books = open_spool(tmp_path / "s"), Books()
    producer = Producer(spool)
    for _ in range(40):
        producer.poll(17, frames=2)
    drain(spool, books)
    assert books.values == dict.fromkeys(range(40 * 34), 1)
    assert books.difference(spool) == {1: 0}
    spool.close()
    left = [p.name for p in (tmp_path / "s").iterdir() if p.suffix == ".seg"]
    assert len(left) <= 1, left
    again = open_spool(tmp_path / "s")
    assert again.pending() == [] and again.positions == {"ring": 40 * 34} and again.stream.boot == 2
    assert [p for p in (tmp_path / "s").iterdir() if p.suffix == ".seg"] == []
    again.close()


def test_only_what_is_committed_is_durable_or_sent(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    Producer(spool).poll(10)
    assert (spool.next_seq, spool.durable_seq) == (10, 0) and spool.pending() == []
    assert spool.commit() and spool.durable_seq == 10
    assert spool.pending() == []  # the batch is still open
    spool.cut()
    assert [b.events for b in spool.pending()] == [10]
    for _ in range(3):
        Producer(spool).poll(30)  # the limit of 64 events ends a batch
    assert [b.events for b in spool.pending()] == [10], "whole, but not durable"
    spool.commit()
    assert [b.events for b in spool.pending()] == [10, 60]
    spool.close()


def test_one_writer_and_modes(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "s")
    Producer(spool).poll(1)
    with pytest.raises(LockedError, match="another agent"):
        open_spool(tmp_path / "s")
    spool.close()
    assert stat.S_IMODE((tmp_path / "s").stat().st_mode) == 0o700
    assert {stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "s").iterdir()} == {0o600}


def test_batches_respect_limits_days_and_attempts_count(tmp_path: Path) -> None:
    spool, producer_day = open_spool(tmp_path), DAY
    for i in range(6):
        spool.append([rows(i * 30, 30)], created_ns=producer_day + (i // 3) * 86_400_000_000_000)
    spool.cut()
    batches = spool.pending()
    assert [(b.first, b.end) for b in batches] == [(0, 60), (60, 90), (90, 150), (150, 180)]
    assert spool.claim(batches[0]) == 0
    first = spool.read(batches[0])
    kill(spool)
    again = open_spool(tmp_path)
    batch = again.pending()[0]
    assert (batch.first, batch.end) == (0, 60)
    assert again.claim(batch) == 1, "the outcome of attempt 0 is unknown"
    assert again.read(batch) == first
    again.close()


def test_a_lost_cursor_sends_everything_again_in_the_same_batches(tmp_path: Path) -> None:
    spool, books = open_spool(tmp_path), Books()
    producer = Producer(spool)
    for _ in range(3):
        producer.poll(20)
        spool.cut()
        producer.poll(50)
    drain(spool, books, limit=2)
    kill(spool)
    (tmp_path / "cursor").write_bytes(b"00000000 {}")
    (tmp_path / "identity").unlink()
    again = open_spool(tmp_path)
    assert again.stream.collector == spool.stream.collector and again.stream.boot == 2
    assert again.positions == {"ring": 210}
    drain(again, books)
    assert books.values == dict.fromkeys(range(210), 1)
    again.close()


@pytest.mark.parametrize("frames", [1, 3])
def test_a_tail_torn_at_any_byte_loses_only_the_last_poll(tmp_path: Path, frames: int) -> None:
    spool = open_spool(tmp_path / "s", changed(segment_bytes=1 << 19))
    producer = Producer(spool)
    for _ in range(4):
        producer.poll(5)
    spool.commit()
    (segment,) = [p for p in (tmp_path / "s").iterdir() if p.suffix == ".seg"]
    before = segment.stat().st_size
    producer.poll(5, frames=frames)
    whole = segment.read_bytes()
    spool.close()
    (tmp_path / "s" / "cursor").unlink()
    for cut in range(before, len(whole), 1 if frames == 1 else 7):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / segment.name).write_bytes(whole[:cut])
        again, books = open_spool(folder), Books()
        assert again.positions == {"ring": 20}
        drain(again, books)
        assert books.values == dict.fromkeys(range(20), 1)
        torn = folder / (segment.name + ".torn")
        assert (torn.read_bytes() if torn.exists() else b"") == whole[before:cut]
        again.close()


def test_flipped_bits_never_change_a_value_and_are_booked_exactly(tmp_path: Path) -> None:
    spool = open_spool(tmp_path / "s", changed(segment_bytes=2048))
    producer = Producer(spool)
    for _ in range(20):
        producer.poll(7)
    spool.commit()
    kill(spool)
    files = {p.name: p.read_bytes() for p in (tmp_path / "s").iterdir() if p.is_file()}
    segments = sorted(n for n in files if n.endswith(".seg"))
    rng = random.Random(7)  # noqa: S311 - a seed makes the run repeatable
    for run in range(100):
        folder = tmp_path / f"r{run}"
        folder.mkdir()
        for name, data in files.items():
            (folder / name).write_bytes(data)
        name = rng.choice(segments)
        damaged = bytearray(files[name])
        at = rng.randrange(len(damaged))
        damaged[at] ^= 1 << rng.randrange(8)
        (folder / name).write_bytes(damaged)
        again, books = open_spool(folder), Books()
        drain(again, books)
        lost = 140 - books.events(1) + books.reasons["corrupt"]
        # The boot's last frame is told from a torn tail only while its header is whole; its poll is read again then.
        tail = name == segments[-1] and again.positions["ring"] == 133
        assert lost in (0, 7) or books.reasons["corrupt"] == 7
        assert sum(books.values.values()) == 133 and set(books.values.values()) == {1}
        assert set(books.values) < set(range(140))
        assert books.reasons["corrupt"] == 7 or tail
        assert books.difference(again)[1] == 0
        again.close()


def test_a_flip_while_running_is_found_when_the_batch_is_read(tmp_path: Path) -> None:
    spool, books = open_spool(tmp_path, changed(segment_bytes=1 << 19)), Books()
    producer = Producer(spool)
    for _ in range(3):
        producer.poll(9)
    spool.cut()
    (segment,) = [p for p in tmp_path.iterdir() if p.suffix == ".seg"]
    raw = bytearray(segment.read_bytes())
    raw[len(raw) // 2] ^= 0x10
    segment.write_bytes(raw)
    drain(spool, books)
    assert books.reasons == {"corrupt": 9} and sum(books.values.values()) == 18
    assert spool.counters == {"corrupt": 9} and books.difference(spool) == {1: 0}
    spool.close()


def test_a_cursor_never_runs_ahead_of_what_is_durable(tmp_path: Path) -> None:
    spool = open_spool(tmp_path)
    producer = Producer(spool)
    producer.poll(5)
    spool.cut()
    (segment,) = [p for p in tmp_path.iterdir() if p.suffix == ".seg"]
    durable = segment.stat().st_size
    producer.poll(5)
    spool.claim(spool.pending()[0])  # writes the cursor while five events are not durable
    kill(spool)
    os.truncate(segment, durable)
    again = open_spool(tmp_path)
    assert again.positions == {"ring": 5}
    again.close()


def test_a_segment_outlives_a_cursor_that_cannot_be_written(tmp_path: Path) -> None:
    fs, books = FaultyFS(), Books()
    spool = open_spool(tmp_path, changed(segment_bytes=600), fs)
    producer = Producer(spool)
    for _ in range(4):
        producer.poll(30)
    spool.commit()
    first = spool.pending()[0]
    spool.claim(first)
    books.receive(first.name, spool.read(first))
    fs.fail = lambda call, path: errno.EIO if call == "rename" and path.name == "cursor" else None
    spool.ack(first)
    assert "cursor" in spool.problem and first.segment.path.exists()
    kill(spool)
    again = open_spool(tmp_path)
    drain(again, books)
    assert books.values == dict.fromkeys(range(120), 1) and not books.reasons
    again.close()


def test_an_unknown_version_is_left_alone(tmp_path: Path) -> None:
    import struct

    import google_crc32c

    spool = open_spool(tmp_path)
    Producer(spool).poll(5)
    spool.commit()
    kill(spool)
    (segment,) = [p for p in tmp_path.iterdir() if p.suffix == ".seg"]
    raw = bytearray(segment.read_bytes())
    raw[4] = 9
    raw[HEADER_BYTES - 8 : HEADER_BYTES - 4] = struct.pack("<I", google_crc32c.value(bytes(raw[: HEADER_BYTES - 8])))
    segment.write_bytes(raw)
    again = open_spool(tmp_path)
    assert "version 9" in again.problem and again.pending() == []
    again.close()
    assert segment.read_bytes() == raw


def test_refused_batches_go_to_quarantine_and_are_booked(tmp_path: Path) -> None:
    spool, books = open_spool(tmp_path), Books()
    Producer(spool).poll(12)
    spool.cut()
    (batch,) = spool.pending()
    spool.claim(batch)
    body = spool.read(batch)
    spool.reject(batch, "422 unknown table")
    kill(spool)
    again = open_spool(tmp_path)
    (batch,) = again.pending()
    assert again.claim(batch) == 1
    drop = again.read(batch)
    books.receive(batch.name, drop)
    again.ack(batch)
    assert books.reasons == {"rejected": 12} and again.counters == {"rejected": 12}
    (kept,) = (tmp_path / "quarantine").glob("*.frames")
    assert kept.read_bytes() == body and len(list(decode(body))) == 1
    assert "unknown table" in next((tmp_path / "quarantine").glob("*.json")).read_text()
    again.close()


def test_full_block_takes_nothing_and_goes_on_after_an_ack(tmp_path: Path) -> None:
    spool, books = open_spool(tmp_path, changed(max_bytes=20_000)), Books()
    producer = Producer(spool)
    with pytest.raises(SpoolFullError, match="full"):
        for _ in range(1000):
            producer.poll(20)
    produced = spool.next_seq
    assert spool.problem and spool.size_bytes <= 20_000
    drain(spool, books)
    producer.poll(20)
    drain(spool, books)
    assert not spool.problem
    assert books.values == dict.fromkeys(range(produced + 20), 1)
    spool.close()


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_full_drops_are_exact_and_bounded(tmp_path: Path, policy: str) -> None:
    spool, books = open_spool(tmp_path, changed(max_bytes=20_000, when_full=policy)), Books()
    producer = Producer(spool)
    for _ in range(100):
        producer.poll(20)
    spool.commit()
    assert spool.size_bytes <= 20_000 + (20_000 if policy == "drop_newest" else 0)
    reason = "full_oldest" if policy == "drop_oldest" else "full_newest"
    dropped = spool.counters[reason]
    kill(spool)
    again = open_spool(tmp_path)
    drain(again, books)
    assert books.reasons == {reason: dropped} and 0 < dropped < 2000
    assert sum(books.values.values()) == 2000 - dropped and set(books.values.values()) == {1}
    kept = 0 if policy == "drop_newest" else 1999
    assert kept in books.values
    assert books.difference(again)[1] == 0
    again.close()


def test_drop_frames_of_two_days_stay_two_batches(tmp_path: Path) -> None:
    spool = open_spool(tmp_path, changed(max_bytes=20_000, when_full="drop_oldest", segment_bytes=9_000))
    for i in range(200):
        spool.append([rows(i * 10, 10)], created_ns=DAY + (i * 86_400_000_000_000) // 20)
    spool.commit()
    assert spool.counters["full_oldest"] > 0
    kill(spool)
    again = open_spool(tmp_path)
    for batch in again.pending():
        assert len({f.header.created_ns // 86_400_000_000_000 for f in decode(again.read(batch))}) == 1
    again.close()


@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_enospc_leaves_no_partial_frame_and_recovers_alone(tmp_path: Path, policy: str) -> None:
    full = [False]
    fs = FaultyFS(lambda call, path: errno.ENOSPC if full[0] and call == "write" and path.suffix == ".seg" else None)
    spool, books = open_spool(tmp_path, changed(when_full=policy), fs), Books()
    producer = Producer(spool)
    producer.poll(10)
    spool.commit()
    full[0] = True
    for _ in range(3):
        try:
            producer.poll(10)
        except SpoolFullError:
            assert policy == "block"
    assert "No space" in spool.problem or "injected" in spool.problem
    drain(spool, books)  # a full disk does not stop the sending
    assert sum(books.values.values()) in (0, 10)
    full[0] = False
    producer.poll(10)
    spool.tick()
    drain(spool, books)
    assert spool.problem == ""
    stored, lost = sum(books.values.values()), sum(books.reasons.values())
    assert (stored, lost) == ((20, 0) if policy == "block" else (50 - lost, lost))
    assert policy == "block" or lost > 0
    assert books.difference(spool) == {1: 0}
    spool.close()


@pytest.mark.parametrize("call", ["sync", "write", "create", "sync_dir", "rename", "unlink", "truncate"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_any_failing_call_loses_nothing_that_was_durable(tmp_path: Path, call: str, code: int) -> None:
    for number in range(12):
        folder, books = tmp_path / str(number), Books()
        fs = FaultyFS()
        spool = open_spool(folder, changed(segment_bytes=1500), fs)
        fs.fail = nth(call, number, code)
        producer = Producer(spool)
        for i in range(12):
            try:
                producer.poll(10, frames=1 + i % 2)
            except SpoolFullError:
                continue
            spool.tick()
            if i % 3 == 0:
                spool.commit()
            if i % 4 == 3:
                try:
                    drain(spool, books, limit=2)
                except OSError:
                    spool._claimed.clear()
        durable = spool.durable_seq
        fs.fail = lambda _call, _path: None
        fs.power_cut(random.Random(number))  # noqa: S311 - repeatable
        kill(spool)
        again = open_spool(folder)
        drain(again, books)
        assert books.events(1) >= durable
        assert set(books.values.values()) <= {1}
        position = again.positions.get("ring", 0)
        assert set(range(position)) == set(books.values), f"{call} {number}"
        again.close()


def test_after_a_failed_fsync_the_descriptor_is_never_synced_again(tmp_path: Path) -> None:
    fs = FaultyFS()
    spool, books = open_spool(tmp_path, fs=fs), Books()
    synced: list[Path] = []
    bad: list[Path] = []

    def fail(call: str, path: Path) -> int | None:
        if call == "sync" and path.suffix == ".seg":
            synced.append(path)
            if len(synced) == 2:
                bad.append(path)
                return errno.EIO
        return None

    fs.fail = fail
    producer = Producer(spool)
    for _ in range(3):
        producer.poll(10)
        spool.commit()
    assert spool.durable_seq >= 10
    assert bad[0] not in synced[2:], "the failed file was synced again"
    spool.tick()
    drain(spool, books)
    assert books.values == dict.fromkeys(range(30), 1)
    assert spool.problem == ""
    spool.close()


class SpoolMachine(RuleBasedStateMachine):
    """Any order of appends, commits, sends, power cuts and kills against what a model says must be there."""

    @initialize(seed=st.integers(0, 2**32 - 1))
    def start(self, seed: int) -> None:
        import tempfile

        self.rng = random.Random(seed)  # noqa: S311 - repeatable
        self.place = tempfile.TemporaryDirectory()
        self.folder = Path(self.place.name)
        self.books = Books()
        self.settings = changed(segment_bytes=1200, batch_events=40)
        self.open()

    def open(self) -> None:
        self.fs = FaultyFS()
        self.spool = open_spool(self.folder, self.settings, self.fs)
        self.producer = Producer(self.spool)
        self.durable: dict[int, int] = getattr(self, "durable", {})
        self.safe = self.producer.next

    @rule(n=st.integers(1, 25), frames=st.integers(1, 3), dropped=st.sampled_from([0, 0, 3]))
    def append(self, n: int, frames: int, dropped: int) -> None:
        self.producer.poll(n, frames, dropped)

    @rule()
    def commit(self) -> None:
        assert self.spool.commit()
        self.safe = self.producer.next

    @rule()
    def cut(self) -> None:
        self.spool.cut()

    @rule(
        answered=st.sampled_from(["stored", "stored", "lost answer", "lost request", "refused"]), newest=st.booleans()
    )
    def send(self, answered: str, newest: bool) -> None:
        pending = self.spool.pending()
        if not pending:
            return
        batch = pending[-1 if newest else 0]
        attempt = self.spool.claim(batch)
        body = self.spool.read(batch)
        assert body == self.spool.read(batch)
        if answered == "refused" and attempt == 0 and not batch.rejected:
            self.refused = getattr(self, "refused", 0) + sum(
                len(f.columns) for f in decode(body) if f.columns is not None
            )
            self.spool.reject(batch, "400")
            return
        if answered != "lost request":
            self.books.receive(batch.name, body)
        if answered == "stored":
            self.spool.ack(batch)
        else:
            self.spool.release(batch)

    @rule(power=st.booleans())
    def crash(self, power: bool) -> None:
        number, durable = self.spool.stream.boot, self.spool.durable_seq
        self.durable[number] = durable
        if power:
            self.fs.power_cut(self.rng)
        kill(self.spool)
        safe = self.safe
        self.open()
        assert self.producer.next >= safe, "a position that was durable went back"

    @rule()
    def restart(self) -> None:
        self.durable[self.spool.stream.boot] = self.spool.next_seq
        self.spool.close()
        self.open()

    @invariant()
    def the_law_holds(self) -> None:
        if hasattr(self, "spool"):
            assert set(self.books.difference(self.spool).values()) <= {0}
            assert set(self.books.values.values()) <= {1}, "a value was stored twice"

    def teardown(self) -> None:
        if not hasattr(self, "spool"):
            return
        self.spool.commit()
        drain(self.spool, self.books)
        self.durable[self.spool.stream.boot] = self.spool.next_seq
        for boot, durable in self.durable.items():
            assert self.books.events(boot) >= durable, f"boot {boot} lost durable events"
        # Pages of what was never durable reach the disk in any order: a hole in them is booked, the rest read again.
        assert all(first >= self.durable[boot] for boot, first in self.books.corrupt), "a durable frame was damaged"
        missing = set(range(self.producer.next)) - set(self.books.values)
        refused = getattr(self, "refused", 0)
        assert refused <= len(missing) <= refused + self.books.reasons["corrupt"]
        self.spool.close()
        self.place.cleanup()


TestSpoolMachine = SpoolMachine.TestCase
TestSpoolMachine.settings = settings(
    max_examples=30, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.fault
@pytest.mark.parametrize("policy", ["block", "drop_oldest", "drop_newest"])
def test_a_disk_of_8_mib_fills_and_recovers(tmp_path: Path, policy: str) -> None:
    """A real tmpfs: the process lives, the policy is exact, and it goes on alone once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)], check=False).returncode:
        pytest.skip("mounting a tmpfs needs root")
    try:
        limits = changed(
            segment_bytes=1 << 17, max_bytes=1 << 30, when_full=policy, batch_events=5000, reserve_bytes=1 << 19
        )
        spool, books = open_spool(disk / "s", limits), Books()
        producer, refused = Producer(spool), 0
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(7 << 20))
        for _ in range(300):
            try:
                producer.poll(2000)
            except SpoolFullError:
                refused += 1
            spool.tick()
        assert spool.problem or policy == "drop_oldest"
        assert (refused > 0) == (policy == "block")
        drain(spool, books, limit=3)
        assert books.events(1), "a full disk does not stop the sending"
        ballast.unlink()
        spool.tick()
        drain(spool, books)
        producer.poll(2000)
        drain(spool, books)
        assert spool.problem == ""
        assert set(books.values.values()) == {1}
        assert sum(books.values.values()) + sum(books.reasons.values()) == producer.next
        assert (sum(books.reasons.values()) > 0) == (policy != "block")
        assert books.difference(spool) == {1: 0}
        spool.close()
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)
