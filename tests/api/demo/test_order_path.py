"""The four programs over real sockets, read back from the probe's rings."""

import itertools
import os
import signal
import socket
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from api.demo.kernel_stamps import kernel_stamps
from api.demo.place import Place
from api.demo.programs import Load, configuration, order_path
from api.up.supervisor import Supervisor, pids
from collector.clock import HostClock
from collector.points import points_from
from collector.record import Outcome
from collector.settings import read_toml
from collector.sources.probe import ProbeSource
from tests.whole_path import environment

SLACK_NS = 1_000_000  # the kernel's times are converted with a bracket of the two clocks
Stamps = dict[int, dict[str, list[tuple[int, int, int]]]]  # key -> point@service -> (time, outcome, depth)


class OrderPath:
    def __init__(self, folder: Path, load: Load) -> None:
        self.rings = folder / "rings"
        programs = order_path(folder, load)
        self.supervisor = Supervisor([replace(p, environment=environment(self.rings)) for p in programs])
        self.source = ProbeSource(self.rings, "here")
        self.stamps: Stamps = defaultdict(lambda: defaultdict(list))
        self.links: list[tuple[int, int]] = []
        self.drops: Counter[str] = Counter()

    def run(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.supervisor.tick()
            time.sleep(0.02)

    def until_orders_flow(self) -> None:
        """Programs take longer to start on a busy machine."""
        deadline = time.monotonic() + 20
        while not any("reported@engine" in places for places in self.stamps.values()):
            assert time.monotonic() < deadline, "no order was reported on"
            self.run(0.1)
            self.read()

    def read(self) -> None:
        poll = self.source.poll(HostClock().read())
        self.drops.update({reason.value: n for reason, n in poll.drops.items()})
        for columns in poll.columns:
            if columns.table.name == "stamps":
                places = [f"{p}@{s}" for p, s in zip(columns.text("point"), columns.text("service"), strict=True)]
                fields = [columns.values[name].tolist() for name in ("key", "ts_ns", "outcome", "depth")]
                for place, key, ts, outcome, depth in zip(places, *fields, strict=True):
                    self.stamps[key][place].append((ts, outcome, depth))
            elif columns.table.name == "links":
                self.links += zip(columns.values["parent"].tolist(), columns.values["child"].tolist(), strict=True)

    def kill(self, name: str) -> None:
        os.kill(pids(self.supervisor.slots)[name], signal.SIGKILL)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrderPath]:
    path = OrderPath(tmp_path_factory.mktemp("orders"), Load(400, 5))
    path.source.start({})
    path.supervisor.start()
    path.until_orders_flow()
    path.run(1.5)
    for name in ("venue-east", "gateway-east", "engine"):
        path.kill(name)
        path.run(0.8)
    path.run(0.7)
    path.supervisor.stop()
    path.read()
    yield path
    path.source.close()


def test_nothing_is_lost_on_the_way_to_the_rings(path: OrderPath) -> None:
    assert sum(path.drops.values()) == 0


def test_every_point_that_is_stamped_is_declared(path: OrderPath) -> None:
    declared = set(points_from(read_toml(configuration())))
    stamped = {place.partition("@")[0] for places in path.stamps.values() for place in places}
    assert stamped <= declared
    assert {"intended", "dequeued", "acknowledged", "reported"} <= stamped


def test_identity_changes_at_the_decision(path: OrderPath) -> None:
    orders = {key for key, places in path.stamps.items() if "app_egress@engine" in places}
    ticks = {key for key, places in path.stamps.items() if "app_ingress@engine" in places}
    assert not orders & ticks
    assert {child for _, child in path.links} == orders
    assert {parent for parent, _ in path.links} <= ticks
    per_tick = Counter(parent for parent, _ in path.links)
    assert set(per_tick.values()) == {1, 2}
    assert len(per_tick) < len(ticks)  # some ticks lead to no order


def test_the_points_of_an_order_are_passed_in_order(path: OrderPath) -> None:
    way = ("app_egress@engine", "app_ingress@gateway", "app_egress@gateway", "app_ingress@venue")
    way += ("app_egress@venue", "acknowledged@gateway", "reported@engine")
    whole = [places for places in path.stamps.values() if set(way) <= set(places)]
    assert len(whole) > 300
    for places in whole:
        times = [places[place][0][0] for place in way]
        assert times == sorted(times)


def test_the_kernel_stamps_the_first_copy_of_a_quote_and_every_order_that_leaves(path: OrderPath) -> None:
    """Dead programs cost some; what is there is in order, and never twice."""
    quotes = [places for places in path.stamps.values() if "app_ingress@engine" in places]
    heard = [places for places in quotes if "kernel_rx@engine" in places]
    assert len(heard) > 0.95 * len(quotes) > 100
    for places in heard:
        ((came_ns, _, _),) = places["kernel_rx@engine"]
        assert places["app_egress@feed"][0][0] - SLACK_NS <= came_ns <= places["app_ingress@engine"][0][0] + SLACK_NS
    sent = [places for places in path.stamps.values() if "app_ingress@venue" in places]
    way = ("app_egress@gateway", "qdisc_tx@gateway", "driver_tx@gateway", "acked@gateway")
    stamped = [places for places in sent if set(way) <= set(places)]
    assert len(stamped) > 0.8 * len(sent) > 100
    for places in stamped:
        assert all(len(places[place]) == 1 for place in way)
        times = [places[place][0][0] for place in way]
        assert all(after - before > -SLACK_NS for before, after in itertools.pairwise(times))


def test_a_socket_without_kernel_stamps_says_why_and_works_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    closed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    closed.close()
    assert kernel_stamps(Place("engine", "engine", tmp_path), closed, "feed", "line a") is None
    assert "line a: no kernel stamps, SO_TIMESTAMPING was refused" in caplog.text


def test_orders_are_accepted_and_rejected_for_reasons_of_their_own(path: OrderPath) -> None:
    outcomes = Counter(
        places["reported@engine"][0][1] for places in path.stamps.values() if "reported@engine" in places
    )
    assert outcomes[Outcome.OK] > 3 * outcomes[Outcome.REJECTED] > 0
    assert outcomes[Outcome.ERROR] > 0  # while the gateway or the venue was dead, and said so


def test_every_program_comes_back_and_the_path_works_again(path: OrderPath) -> None:
    restarts = {slot.program.name: slot.restarts for slot in path.supervisor.slots}
    assert {name for name, n in restarts.items() if n} == {"venue-east", "gateway-east", "engine"}
    assert set(restarts.values()) == {0, 1}
    last = max(places["app_egress@feed"][0][0] for places in path.stamps.values() if "app_egress@feed" in places)
    finished = [
        places["reported@engine"][0][0]
        for places in path.stamps.values()
        if "app_ingress@venue" in places and "reported@engine" in places
    ]
    assert last - max(finished) < 500_000_000
    # A restarted engine takes new order ids: no order has left it twice.
    assert all(
        len(places["app_egress@engine"]) == 1 for places in path.stamps.values() if "app_egress@engine" in places
    )


def test_a_full_queue_sheds_and_says_so(tmp_path: Path) -> None:
    path = OrderPath(tmp_path, Load(5_000, 5))
    slots = path.supervisor.slots
    engine = next(slot for slot in slots if slot.program.name == "engine")
    engine.program = replace(engine.program, arguments=(*engine.program.arguments, "--queue", "1"))
    path.source.start({})
    path.supervisor.start()
    path.until_orders_flow()
    path.run(1.0)
    path.supervisor.stop()
    path.read()
    handled = [places["app_transform@engine"][0] for places in path.stamps.values() if "app_transform@engine" in places]
    shed = [key for key, places in path.stamps.items() if _outcome(places) == Outcome.SHED]
    assert shed
    assert {depth for _, _, depth in handled} == {0, 1}
    for key in shed:
        assert path.stamps[key]["app_transform@engine"][0][2] == 1  # the depth it met
        assert "dequeued@engine" not in path.stamps[key]


def _outcome(places: dict[str, list[tuple[int, int, int]]]) -> int:
    return places["app_transform@engine"][0][1] if "app_transform@engine" in places else 0


def test_a_compressed_day_goes_by_with_its_backup(tmp_path: Path) -> None:
    path = OrderPath(tmp_path, Load(300, 5, "day", compression=3_600))  # an hour of the day in a second
    path.source.start({})
    path.supervisor.start()
    path.run(8.3)
    path.supervisor.stop()
    path.read()
    assert {slot.program.name for slot in path.supervisor.slots} >= {"backup"}
    assert (tmp_path / "demo" / "backup.bin").stat().st_size > 100_000  # it ran between eleven and half past one
    arguments = path.supervisor.slots[-1].program.arguments
    epoch_ns = int(arguments[arguments.index("--epoch") + 1])
    sent = [places["app_egress@feed"][0][0] for places in path.stamps.values() if "app_egress@feed" in places]
    hours = Counter(8 + (at - epoch_ns) // 1_000_000_000 for at in sent)
    assert hours[15] > 1.3 * hours[12] > 0  # the afternoon, the quiet noon
