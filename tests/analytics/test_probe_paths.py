"""Checks as messages: stages that add up, failures that are bad, and no user's number with a check in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from analytics import tally
from analytics.probe_paths import declared_paths, path_of
from analytics.slo import stored
from analytics.slo.compiled import compiled
from analytics.slo.openslo_read import read
from analytics.windows import WindowJob, WindowSettings
from collector.points import BUILT_IN
from collector.probes.settings import Check
from collector.record import Mode, Outcome
from collector.settings import ConfigError
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate
from tests.analytics.world import HOUR, put, stamp

MS = 1_000_000
CHECK = Check(kind="http", target="https://venue.example/health")
SLO = """
apiVersion: openslo/v1
kind: SLO
metadata: {name: venue, annotations: {tailsight.dev/rules: workbook}}
spec:
  service: trading
  indicator:
    metadata: {name: venue-answers}
    spec:
      ratioMetric:
        rawType: success
        raw: {metricSource: {type: tailsight, spec: {latency: {path: probe.venue, threshold: 30ms%s}}}}
  timeWindow: [{duration: 30d, isRolling: true}]
  budgetingMethod: Occurrences
  objectives: [{target: 0.99}]
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    made = open_embedded(tmp_path_factory.mktemp("probes"))
    migrate(made, Retention(**dict.fromkeys(Retention.__struct_fields__, 175200)))
    yield made
    made.close()


def test_every_kind_has_a_path_of_its_phases() -> None:
    expected = {
        ("tcp", False): ["resolve", "connect"],
        ("tls", False): ["resolve", "connect", "tls"],
        ("udp", False): ["resolve", "reply"],
        ("fix", False): ["resolve", "connect", "logon"],
        ("fix", True): ["resolve", "connect", "tls", "logon"],
    }
    for (kind, tls), stages in expected.items():
        check = Check(kind=kind, target="h:1", sender="A", receiver="B", tls=tls)  # type: ignore[arg-type]
        made = path_of("x", check)
        made.validate()
        assert [stage.name for stage in made.stages] == stages
    assert path_of("x", CHECK).stages[-1].name == "body"
    document = {"probes": {"a": {"kind": "tcp", "target": "h:1", "timeout": "3s"}}}
    paths = declared_paths(document, BUILT_IN)
    assert paths["probe.a"].max_age_ns == 5_000_000_000
    with pytest.raises(ConfigError, match=r"probes\.a\.kind"):
        declared_paths({"probes": {"a": {"kind": "x", "target": "h:1"}}}, BUILT_IN)


def test_checks_are_counted_apart_and_failures_are_bad_where_they_are_asked_for(store: Store) -> None:
    path = path_of("venue", CHECK)
    about = {"service": "probe-venue", "mode": int(Mode.SYNTHETIC)}
    stamps = []
    for key in range(1, 11):
        at = HOUR + key * 500 * MS
        ends = [("probe_start", 0), ("probe_resolved", 1), ("probe_connected", 3)]
        outcome = Outcome.OK if key <= 8 else Outcome.TIMEOUT
        if outcome is Outcome.OK:
            ends += [("probe_secured", 8), ("probe_first_byte", 18), ("probe_done", 20 if key <= 6 else 40)]
        stamps += [stamp(key, point, at + ms * MS, outcome=int(outcome), **about) for point, ms in ends]
    put(store, stamps)
    objectives = [
        one
        for asked in (", rollup: mode=synthetic", "")
        for one in compiled(read(SLO % asked, "t").objects, paths={"probe.venue"}).objectives
    ]
    asked, users = objectives[0], objectives[1]
    assert asked.version != users.version
    WindowJob(WindowSettings()).run_due(store, {path.name: path}, HOUR + 3_600_000 * MS)
    at_s = HOUR // 10**9
    found = tally.stored(store, path.name, at_s, at_s + 10, rollup="mode=synthetic")
    counted = {stage: cell for (_, stage), cell in found.items()}
    assert (counted["end_to_end"].sums["n"], counted["end_to_end"].sums["unfinished"]) == (8, 2)
    assert counted["tls"].max_ns == 5 * MS
    assert counted["unattributed"].max_ns == 0  # the phases add up to the whole
    assert sum(cell.sums["n"] for cell in tally.stored(store, path.name, at_s, at_s + 10).values()) == 0
    stored.recount(store, path, [asked, users], {}, at_s, at_s + 10)
    rows = {
        version: (good, total)
        for version, good, total in store.query(
            "SELECT version, good, total FROM objective_counts WHERE level = 10 AND objective = 'venue'"
        ).iter_rows()
    }
    assert rows[asked.version] == (6, 10)  # two were too slow, two never answered
    assert rows.get(users.version, (0, 0)) == (0, 0)
