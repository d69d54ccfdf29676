"""Versions, canaries and shadows: which runs when and serves what, on plain values and on files."""

import time
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.demo.control import FOLDER, Control
from api.demo.faults import Fault
from api.demo.instances import (
    LEAVING_NS,
    Instance,
    InstanceError,
    Instances,
    Ready,
    Routed,
    canary,
    checked,
    owner,
    shadows,
)
from api.demo.programs import Load, instance_ports, order_path
from api.demo.rollout import Change, Rollout
from api.demo.versions import brought, deployed_by, version_at
from api.up.programs import Program

S = 1_000_000_000
START = 1_800_000_000 * S
MONO = 5_000 * S


def deploy(name: str, start_ns: int, end_ns: int | None = None, at: str = "venue-east") -> Fault:
    return Fault(id=name, kind="bad_deploy", at=at, size=1.0, amount_ns=1, start_ns=start_ns, end_ns=end_ns)


def instance(**more: object) -> Instance:
    fields = {"id": "i", "role": "canary", "at": "inference", "share": 0.2, "version": 2, "start_ns": START, **more}
    return Instance(**fields)  # type: ignore[arg-type] # fields by name


def routed(**more: object) -> Routed:
    return Routed(instance(**more), Ready(START + S, MONO))


def test_each_deploy_has_a_number_of_its_own_and_a_rollback_goes_back() -> None:
    faults = [deploy("a", START, START + 10 * S), deploy("b", START + 20 * S, START + 30 * S)]
    told = [version_at("venue-east", faults, START + at * S) for at in (-1, 0, 9, 10, 20, 29, 30)]
    assert told == [1, 2, 2, 1, 3, 3, 1]
    assert version_at("venue-west", faults, START) == 1
    assert [deployed_by(fault, faults) for fault in faults] == [2, 3]


def test_of_two_deploys_the_newer_one_runs_and_each_version_has_its_own_fault_alone() -> None:
    other = msgspec.structs.replace(deploy("c", START), kind="gc_pauses")
    faults = [deploy("a", START), deploy("b", START + S, START + 2 * S), other]
    assert [version_at("venue-east", faults, START + at * S) for at in (0, 1, 2)] == [2, 3, 2]
    assert brought(faults, "venue-east", 1) == [other]
    assert brought(faults, "venue-east", 3) == [faults[1], other]
    assert brought(faults, "venue-west", 3) == []


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 1.0])
def test_a_canary_takes_its_share_and_always_the_same(share: float) -> None:
    one = routed(share=share)
    taken = [key for key in range(20_000) if canary([one], "inference", key * 7919, START + S)]
    assert abs(len(taken) / 20_000 - share) < 0.015
    assert canary([one], "engine", taken[0] * 7919, START + S) is None
    assert shadows([one], "inference", taken[0] * 7919, START + S) == []


@given(at=st.integers(-5 * S, 20 * S), key=st.integers(0, 2**64 - 1))
@settings(max_examples=200, derandomize=True)
def test_two_programs_agree_on_who_owns_a_message(at: int, key: int) -> None:
    one = routed(at="engine", share=0.5, end_ns=START + 10 * S)
    mine = owner([one], "engine", key, MONO + at)
    assert mine == ("i" if 0 <= at < 9 * S and one.instance.owns(key) else "")


def test_nothing_is_routed_to_an_instance_that_does_not_listen_yet() -> None:
    assert not Routed(instance(share=1.0)).takes(1, START + 100 * S)
    assert not Routed(instance(share=1.0)).takes_sent_at(1, MONO)
    one = routed(share=1.0, role="shadow", end_ns=START + 5 * S)
    assert [one.takes(1, START + at * S) for at in (0, 1, 4, 5)] == [False, True, True, False]
    assert shadows([one], "inference", 1, START + S) == [one.instance]


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"at": "venue-east"}, "venue is not ours"),
        ({"at": "nowhere"}, "it can at inference, engine"),
        ({"role": "shadow", "at": "engine"}, "send orders of its own"),
        ({"share": 0.0}, "above 0 %"),
        ({"share": 1.5}, "at most 100 %"),
        ({"size": 0.0}, "size"),
        ({"version": 0}, "1 to 65535"),
        ({"slower": -0.1}, "slower"),
    ],
)
def test_an_instance_that_cannot_be_is_refused(fields: dict[str, object], said: str) -> None:
    with pytest.raises(InstanceError, match=said):
        checked(instance(**fields))


def test_one_canary_runs_beside_a_program_at_a_time(tmp_path: Path) -> None:
    instances = Instances(tmp_path)
    first = instances.order(instance())
    with pytest.raises(InstanceError, match="stop it first"):
        instances.order(instance())
    shadow = instances.order(instance(role="shadow"))
    assert first.id.startswith("inference.canary-")
    assert instances.end([], START, "canary") == [msgspec.structs.replace(first, end_ns=START + LEAVING_NS)]
    assert instances.end([], START, "canary") == []
    assert instances.end([shadow.id], START)[0].role == "shadow"
    assert [one.instance.id for one in instances.read()] == sorted([first.id, shadow.id])


def test_a_file_that_is_no_record_does_not_stop_the_others(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    instances = Instances(tmp_path)
    one = instances.order(instance())
    for name, content in (("half.json", b'{"id": "x"'), ("other.json", b'{"id": 1}'), ("bytes.json", b"\xff")):
        (tmp_path / "instances" / name).write_bytes(content)
    assert [routed.instance for routed in instances.read()] == [one]
    assert "half.json is not read" in caplog.text


def options(program: Program) -> dict[str, list[str]]:
    """The words of a program as options, each with its values."""
    found: dict[str, list[str]] = {}
    for name, value in zip(program.arguments[::2], program.arguments[1::2], strict=True):
        found.setdefault(name, []).append(value)
    return found


@pytest.fixture
def told() -> list[Change]:
    return []


@pytest.fixture
def rollout(tmp_path: Path, told: list[Change]) -> Rollout:
    return Rollout(tmp_path, order_path(tmp_path, Load()), told.append)


def test_a_bad_deploy_restarts_the_program_in_its_new_version_and_back(
    tmp_path: Path, rollout: Rollout, told: list[Change]
) -> None:
    control, before = Control(tmp_path / FOLDER), rollout.programs()
    assert rollout.replan() is None
    control.start(deploy("", time.time_ns()))
    plan = rollout.replan()
    assert plan is not None
    assert rollout.replan() is None
    differ = [new for old, new in zip(before, plan, strict=True) if old != new]
    assert [(p.name, options(p)["--version"]) for p in differ] == [("venue-east", ["2"])]
    control.stop([], time.time_ns())
    assert rollout.replan() == before
    assert [(c.what, c.service, c.version) for c in told] == [
        ("venue-east 1 -> 2", "venue", 2),
        ("venue-east 2 -> 1 (rolled back)", "venue", 1),
    ]
    assert told[0].labels == {"place": "venue-east", "from_version": "1", "to_version": "2"}


def test_an_instance_is_a_program_of_its_own_with_its_own_ports(
    tmp_path: Path, rollout: Rollout, told: list[Change]
) -> None:
    instances = Instances(tmp_path / FOLDER)
    for at in ("inference", "engine", "gateway-west"):
        instances.order(instance(at=at, version=7, start_ns=time.time_ns(), ports=instance_ports(at)))
    plan = rollout.replan() or []
    mains = {program.name: program for program in plan}
    added = [program for program in plan if "." in program.name]
    assert [program.name.partition(".")[0] for program in added] == ["inference", "engine", "gateway-west"]
    for program in added:
        main = mains[program.name.partition(".")[0]]
        assert (program.module, program.phase) == (main.module, main.phase)
        given, own = options(main), options(program)
        assert own.pop("--version") == ["7"]
        assert own.pop("--instance") == [program.name]
        assert own.keys() == given.keys()
        changed = {name for name in own if own[name] != given[name]}
        assert changed == ({"--line", "--signals"} if "engine" in program.name else {"--listen"})
        assert len(own.get("--line", given.get("--line", []))) == len(given.get("--line", []))
    assert [c.what for c in told] == [f"canary of {p.name.partition('.')[0]} begins: version 7, 20 %" for p in added]


def test_an_instance_goes_when_it_has_ended_and_does_not_come_again_with_the_next_session(
    tmp_path: Path, rollout: Rollout, told: list[Change]
) -> None:
    instances, now_ns = Instances(tmp_path / FOLDER), time.time_ns()
    instances.order(instance(start_ns=now_ns, ports=instance_ports("inference")))
    assert rollout.replan() is not None
    again = Rollout(tmp_path, order_path(tmp_path, Load()))
    assert not [program for program in again.replan() or again.programs() if "." in program.name]
    plan = rollout.replan()
    assert plan is not None
    assert not [program for program in plan if "." in program.name]
    assert told[-1].what == "canary of inference ended: version 2, 20 %"
