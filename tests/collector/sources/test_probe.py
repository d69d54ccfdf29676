"""From ring files to columns: times, errors, positions, refusals."""

from __future__ import annotations

import fcntl
import threading
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailsight_probe import Probe, layout
from tailsight_probe.rings import boot_id, start_ticks

from collector.clock import ClockReading
from collector.keys import hash64
from collector.record import Columns, DropReason
from collector.sources import Poll, Source
from collector.sources.probe import ProbeSource

CLOCK = ClockReading(
    realtime_ns=1_700_000_000_000_000_000,
    monotonic_ns=5_000_000,
    offset_ns=1_699_999_999_995_000_000,
    bracket_ns=40,
    error_ns=2_000,
    source="adjtimex",
)
DEAD = (2**22 + 1, 7)  # beyond pid_max


@pytest.fixture
def probe(tmp_path: Path) -> Probe:
    return Probe("engine", tmp_path, 1024, compiled=False)


@pytest.fixture
def source(tmp_path: Path) -> ProbeSource:
    source = ProbeSource(tmp_path, "h1")
    assert source.start({}).status == "running"
    return source


def table(poll: Poll, name: str) -> Columns:
    (columns,) = (c for c in poll.columns if c.table.name == name)
    columns.check()
    return columns


def slot(sequence: int, **fields: int) -> bytes:
    values: dict[str, int] = {
        "begin": sequence + 1,
        "time_ns": 100,
        "value": layout.NO_AGE,
        "error_ns": layout.NO_ERROR,
        "depth": layout.NO_DEPTH,
        "point": 1,
        "end": sequence + 1,
        **fields,
    }
    return layout.SLOT.pack(*(values.get(name, 0) for name, _, _ in layout.FIELDS))


def write_ring(directory: Path, slots: list[bytes], *, version: int = 1, boot: bytes | None = None) -> Path:
    """A ring of a program that is no more, made by hand."""
    pid, ticks = DEAD
    header = layout.Header(version, 8, pid, 42, ticks, 9_000_000, 4_000_000, boot_id() if boot is None else boot, 42)
    (directory / f"{pid}.{ticks}.dict").write_text('["service",1,"old"]\n["point",1,"app_ingress"]\n')
    path = directory / f"{pid}.{ticks}.0.ring"
    path.write_bytes(layout.pack_header(header).ljust(4096, b"\0") + b"".join(slots).ljust(8 * 64, b"\0"))
    return path


def test_times_become_utc_and_errors_are_the_clocks(probe: Probe, source: ProbeSource) -> None:
    point = probe.point("app_ingress")
    before = time.monotonic_ns()
    probe.stamp(point, 1)
    after = time.monotonic_ns()
    probe.stamp_at(77, "monotonic", point, 1)
    probe.stamp_at(78, "monotonic", point, 1, error_ns=5)
    probe.stamp_at(79, "realtime", point, 1)
    probe.stamp_at(80, "phc0", point, 1)
    probe.stamp_at(81, "phc0", point, 1, error_ns=0)
    stamps = table(source.poll(CLOCK), "stamps")
    times = stamps.values["ts_ns"].tolist()
    assert before + CLOCK.offset_ns <= times[0] <= after + CLOCK.offset_ns
    assert times[1:] == [77 + CLOCK.offset_ns, 78 + CLOCK.offset_ns, 79, 80, 81]
    assert stamps.text("clock") == ["monotonic"] * 3 + ["realtime"] + ["phc0"] * 2
    errors = zip(stamps.values["error_ns"].tolist(), stamps.nulls["error_ns"].tolist(), strict=True)
    assert list(errors) == [(2_040, False), (2_040, False), (5, False), (2_000, False), (0, True), (0, False)]
    assert set(stamps.values["thread"].tolist()) == {threading.get_native_id()}


def test_an_unknown_bound_stays_unknown(probe: Probe, source: ProbeSource) -> None:
    probe.stamp("app_ingress", 1)
    unknown = ClockReading(0, 0, 0, 40, None, "adjtimex")
    assert table(source.poll(unknown), "stamps").nulls["error_ns"].tolist() == [True]


def test_label_sets_travel_with_their_first_stamp_only(probe: Probe, source: ProbeSource) -> None:
    for _ in range(2):
        probe.stamp("app_ingress", 1, labels={"symbol": "ABC"})
    poll = source.poll(CLOCK)
    name = hash64("labels", '{"symbol":"ABC"}')
    assert table(poll, "label_sets").values["label_set"].tolist() == [name]
    assert table(poll, "label_sets").text("labels") == ['{"symbol":"ABC"}']
    assert table(poll, "stamps").values["label_set"].tolist() == [name] * 2
    probe.stamp("app_ingress", 1, labels={"symbol": "ABC"})
    assert [c.table.name for c in source.poll(CLOCK).columns] == ["stamps"]


def test_polls_are_bounded_and_fair(probe: Probe, tmp_path: Path) -> None:
    Probe("busy", tmp_path / "x", 1 << 16, compiled=False)  # another probe of this process does not disturb
    busy = Probe("engine", tmp_path / "busy", 1 << 16, compiled=False)
    for n in range(60_000):
        busy.stamp("app_ingress", n)
    for n in range(10):
        probe.stamp("app_egress", n)
    source = ProbeSource([tmp_path, tmp_path / "busy"], "h1", max_rows=10_000)
    source.start({})
    sizes = []
    points = set()
    while columns := source.poll(CLOCK).columns:
        sizes.append(sum(len(c) for c in columns))
        points |= set(columns[-1].text("point")) if len(sizes) == 1 else set()
    assert max(sizes) <= 10_000
    assert sum(sizes) == 60_010
    assert points == {"app_ingress", "app_egress"}


@given(cuts=st.lists(st.integers(0, 30), min_size=1, max_size=8))
@settings(max_examples=25, deadline=None)
def test_any_restart_of_the_agent_reads_every_stamp_once(
    cuts: list[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rings = tmp_path_factory.mktemp("rings")
    probe = Probe("engine", rings, 256, compiled=False)
    positions: dict[str, int] = {}
    got: list[int] = []
    made = 0
    for count in cuts:
        for _ in range(count):
            probe.stamp("app_ingress", made)
            made += 1
        source = ProbeSource(rings, "h1")
        source.start(positions)
        poll = source.poll(CLOCK)
        positions |= poll.positions
        got += [key for c in poll.columns for key in c.values["key"].tolist()]
        source.close()
    assert got == [hash64("order", key) for key in range(made)]


def test_new_programs_are_found_while_it_runs(source: ProbeSource, tmp_path: Path) -> None:
    assert source.poll(CLOCK).columns == []
    probe = Probe("late", tmp_path, 64, compiled=False)
    probe.stamp("app_ingress", 1)
    assert table(source.poll(CLOCK), "stamps").text("service") == ["late"]
    assert source.pids() == {int(next(tmp_path.glob("*.ring")).name.split(".")[0]): "late"}


def test_a_ring_of_an_unknown_version_is_refused_and_kept(tmp_path: Path) -> None:
    path = write_ring(tmp_path, [slot(0)], version=9)
    source = ProbeSource(tmp_path, "h1")
    available = source.start({})
    assert available.status == "degraded"
    assert "version 9 is not known" in available.reason
    assert str(path) in available.reason
    assert source.poll(CLOCK).columns == []
    source.durable({})
    assert path.exists()


@pytest.mark.parametrize("size", [0, 100, 4096, 4097])
def test_a_damaged_ring_is_refused_and_others_are_read(probe: Probe, tmp_path: Path, size: int) -> None:
    path = write_ring(tmp_path, [slot(0)])
    path.write_bytes(path.read_bytes()[:size])
    probe.stamp("app_ingress", 1)
    source = ProbeSource(tmp_path, "h1")
    assert "damaged" in source.start({}).reason or size >= 4096
    assert source.availability().status == "degraded"
    assert len(table(source.poll(CLOCK), "stamps")) == 1


def test_codes_without_a_dictionary_line_are_rejected_and_counted(tmp_path: Path) -> None:
    slots = [slot(0), slot(1, point=9), slot(2, space=3), slot(3, clock=5), slot(4, labels=2**32 - 1), slot(5, flags=8)]
    write_ring(tmp_path, [*slots, slot(6, point=0, clock=4), slot(7)])
    source = ProbeSource(tmp_path, "h1")
    source.start({})
    poll = source.poll(CLOCK)
    assert len(table(poll, "stamps")) == 2
    assert poll.drops == {DropReason.REJECTED: 6}
    assert list(poll.positions.values()) == [8]


def test_a_half_written_dictionary_line_is_waited_for(tmp_path: Path) -> None:
    write_ring(tmp_path, [slot(0), slot(1)])
    (dictionary,) = tmp_path.glob("*.dict")
    with dictionary.open("a") as file:
        file.write('nonsense\n["point",2,"app_eg')
    source = ProbeSource(tmp_path, "h1")
    source.start({})
    assert table(source.poll(CLOCK), "stamps").text("point") == ["app_ingress"] * 2


def test_stamps_of_an_earlier_boot_keep_that_boots_offset(tmp_path: Path) -> None:
    write_ring(tmp_path, [slot(0)], boot=b"another boot id.")
    source = ProbeSource(tmp_path, "h1")
    source.start({})
    stamps = table(source.poll(CLOCK), "stamps")
    assert stamps.values["ts_ns"].tolist() == [100 + 9_000_000 - 4_000_000]
    assert stamps.nulls["error_ns"].tolist() == [True]


def test_gone_files_release_their_positions(tmp_path: Path) -> None:
    write_ring(tmp_path, [slot(0)])
    source = ProbeSource(tmp_path, "h1")
    source.start({})
    positions = dict(source.poll(CLOCK).positions)
    assert source.durable({}) == []
    assert source.durable(positions) == list(positions)
    assert list(tmp_path.iterdir()) == []
    assert source.poll(CLOCK).positions == {}


def test_a_living_programs_files_stay(probe: Probe, source: ProbeSource, tmp_path: Path) -> None:
    probe.stamp("app_ingress", 1)
    poll = source.poll(CLOCK)
    assert source.durable(poll.positions) == []
    assert len(list(tmp_path.iterdir())) == 2
    assert start_ticks() > 0


def test_a_lock_keeps_a_program_of_another_pid_namespace_alive(tmp_path: Path) -> None:
    write_ring(tmp_path, [slot(0)])
    (dictionary,) = tmp_path.glob("*.dict")
    with dictionary.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        source = ProbeSource(tmp_path, "h1")
        source.start({})
        assert source.durable(source.poll(CLOCK).positions) == []
        assert len(list(tmp_path.iterdir())) == 2


def test_a_missing_directory_is_no_trouble(tmp_path: Path) -> None:
    source = ProbeSource(tmp_path / "none", "h1")
    assert source.start({}).status == "running"
    assert source.poll(CLOCK).columns == []


def test_it_is_a_source(source: ProbeSource) -> None:
    as_source: Source = source
    assert as_source.name == "probe"
    assert 0 < as_source.period_s <= 0.1
