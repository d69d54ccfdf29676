"""The test language: the product's own cases hold, wrong expectations fail, and every mistake has its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.slo.rehearsal import run
from analytics.slo.scenario import Scenario, ScenarioError, parse, seconds

CASES = Path(__file__).with_name("cases")


def load(name: str) -> str:
    return (CASES / name).read_text()


def scenario() -> Scenario:
    return parse(load("burn.test"), "burn.test", load)


@pytest.mark.parametrize("number", range(13))
def test_the_products_cases_hold(number: int) -> None:
    whole = scenario()
    assert len(whole.cases) == 13
    (result,) = run(Scenario(whole.file, whole.objectives, (whole.cases[number],)))
    assert [str(f) for f in result.failures] == []
    assert result.expectations


def cases_of(name: str) -> list[tuple[str, int]]:
    return [(name, number) for number in range(len(parse(load(name), name, load).cases))]


@pytest.mark.parametrize(("name", "number"), [*cases_of("kpis.test"), *cases_of("gates.test")])
def test_the_cases_of_business_measures_and_gates_hold(name: str, number: int) -> None:
    whole = parse(load(name), name, load)
    (result,) = run(Scenario(name, whole.objectives, (whole.cases[number],), whole.kpis, whole.gates))
    assert [str(f) for f in result.failures] == []
    assert result.expectations


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("expect at 9m gate rollout is closed", "it is open"),
        ("expect at 12m gate rollout passes", "it refuses: order_errors: "),
        ("expect gate rollout never triggers", "it triggers at 6"),
        ("expect gate rollout triggers 2", "it triggers at 6"),
        ("expect gate rollout triggers at 10m", "it triggers at 6"),
        ("expect at 60m gate rollout is open", "the case ends before"),
        ("expect order-success page-1h fires at 10m", "it fires at no time"),
    ],
)
def test_what_is_not_so_of_a_gate_fails_with_what_is(wrong: str, found: str) -> None:
    text = load("gates.test").split("case within")[0].split("eval")[0] + "eval until 15m\n" + wrong
    (result,) = run(parse(text, "x.test", load))
    assert found in result.failures[0].found


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        ("expect order-latency page-1h fires at 5m within 10s", "it fires at 350 s"),
        ("expect order-latency page-1h fires at 6m", "it fires at 350 s"),
        ("expect order-latency page-1h never fires", "it fired at 350 s"),
        ("expect order-latency page-1h resolves at 15m", "it resolves at 880 s"),
        ("expect order-latency page-1h episodes 2", "it fired 1 times"),
        ("expect at 10m order-latency page-1h is inactive", "it is firing: burn 25 over 1 h; burn 150 over 5 m"),
        ("expect at 10m order-latency page-1h says under", "it says over"),
        ("expect at 10m order-latency page-1h burn 1h > 25.1", "it is 25"),
        ("expect at 10m order-latency page-1h burn 2h > 1", "does not look at 7200 s"),
        ("expect at 10m order-latency budget remaining 50%", "it is 96.5278 %"),
        ("expect at 10m order-latency exhausted in 1h", "it is in"),
        ("expect at 21m order-latency page-1h is resolved", "the case ends before"),
    ],
)  # fmt: skip
def test_what_is_not_so_fails_with_what_is(wrong: str, found: str) -> None:
    text = load("burn.test").split("case a full outage")[0]
    head = text.split("expect", 1)[0]
    line = len(head.splitlines()) + 1
    (result,) = run(parse(head + wrong + "\n", "x.test", load))
    (failure,) = result.failures
    assert found in failure.found
    assert str(failure).startswith(f"x.test:{line} (15 % errors")


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("lode x", "x.test:2: 'lode' is no statement"),
        ("load nowhere.yaml", "nowhere.yaml cannot be read"),
        ("events nothing from 0s to 1s 1/s", "there is no objective 'nothing'; loaded are order-latency"),
        ("events order-latency from 1s to 1s 1/s", "is no time"),
        ("events order-latency from 0s to 1s fast", "is not a rate"),
        ("events order-latency from 0s to 1s 1/s errors 150%", "is not a share"),
        ("eval until tomorrow", "is not a time"),
        ("tick 15s", "multiple of 10s"),
        ("expect order-latency page-2h fires at 1m", "has no rule 'page-2h'; it has page-1h, page-6h, ticket-3d"),
        ("expect at 1m order-latency page-1h is burning", "cannot read"),
        ("eval until 400d", "more than"),
        ("case empty", "never says `eval until TIME`"),
        ("eval until 1m", "expects nothing"),
        ("values x from 0s to 1m every 1m value 1", "there is no KPI 'x'; loaded are none; load a .toml file"),
        ("load business.toml\nvalues slippage from 0s to 1m every 1m", "write values KPI from"),
        ("load business.toml\nvalues slippage from 0s to 1m every 1m value x", "'x' is not a number"),
        ("load business.toml\nvalues slippage from 0s to 9d every 1s value 1", "more than 100000 values"),
        ("load business.toml\nvalues slippage from 0s to 1m every 1m value 1 late 1m at 1m", "write values KPI"),
        ("load business.toml\nload business.yaml\nevents order-success from 0s to 1m 1/s", "counts a KPI"),
        ("expect gate nowhere never triggers", "there is no gate 'nowhere'; loaded are none"),
        ("load business.toml\nexpect gate careful is open", "cannot read"),
    ],
)
def test_mistakes_have_their_line(statement: str, says: str) -> None:
    with pytest.raises(ScenarioError, match=r"x\.test:\d+: ") as error:
        parse(f"load orders.yaml\n{statement}\n", "x.test", load)
    assert says in str(error.value)


def test_times_are_exact() -> None:
    assert seconds("14m31.2s") * 10 == 8712
    assert seconds("-3d") == -259_200
    with pytest.raises(ValueError, match="longer than"):
        seconds("999d")
