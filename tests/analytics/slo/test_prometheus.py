"""Exported rules against promtool: they are accepted, and fire and clear when the product's own evaluation does."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
import yaml

from analytics.slo.prometheus import BAD, EVENTS, exported
from analytics.slo.rehearsal import run
from analytics.slo.scenario import Scenario, parse
from tests.needs import program

CASES = Path(__file__).with_name("cases")
STEP_S = 10


def scenario(text: str) -> Scenario:
    return parse("load orders.yaml\n" + text, "x.test", lambda name: (CASES / name).read_text())


def test_the_series_have_sloths_names_and_what_cannot_be_exported_is_named() -> None:
    made = exported(scenario("eval until 10s\nexpect order-latency page-1h never fires\n").objectives)
    names = {r.get("record") for g in made.document["groups"] for r in g["rules"]}
    for length in ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d"):
        assert f"slo:sli_error:ratio_rate{length}" in names
    assert {
        "slo:objective:ratio", "slo:error_budget:ratio", "slo:time_period:days", "slo:current_burn_rate:ratio",
        "slo:period_burn_rate:ratio", "slo:period_error_budget_remaining:ratio", "sloth_slo_info",
    } <= names  # fmt: skip
    assert made.left_out == ("order-minutes: time slices have no rule in Prometheus",)


@pytest.mark.parametrize(
    ("errors", "minutes", "until"), [(15, 10, 20), (100, 2, 12), (3, 40, 45)], ids=["15%", "outage", "3%"]
)
def test_promtool_fires_and_clears_at_the_same_ticks(tmp_path: Path, errors: int, minutes: int, until: int) -> None:
    promtool = program("promtool", "prometheus")
    case = scenario(f"""
events order-latency from -2h to 0s 100/s
events order-latency from 0s to {minutes}m 100/s errors {errors}%
events order-latency from {minutes}m to {until}m 100/s
eval until {until}m
expect order-latency blind never fires
""")
    (result,) = run(case)
    ours = [(int(at), h.kind) for at, h in result.heard if h.alert.rule == "page-1h"]
    assert ours
    one = next(o for o in case.objectives if o.name == "order-latency")
    # Two hours are enough for page-1h; promtool gives up on longer queries at this step.
    groups = [g for g in exported([one]).document["groups"] if "meta" not in g["name"]]
    for group in groups:
        group["interval"] = f"{STEP_S}s"
        group["rules"] = [
            r
            for r in group["rules"]
            if r.get("record", "").endswith(("rate5m", "rate1h")) or r.get("alert", "").endswith("page-1h")
        ]
    # Group by group in one file: alerts see what the recordings of the same tick wrote.
    together = [{"name": "all", "interval": f"{STEP_S}s", "rules": [r for g in groups for r in g["rules"]]}]
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": together}))
    before, during, after = 2 * 360, minutes * 6, (until - minutes) * 6
    every = f"0+{100 * STEP_S}x{before + during + after}"
    bad_at_end = errors * STEP_S * during
    bad = f"0x{before} {errors * STEP_S}+{errors * STEP_S}x{during - 1} {bad_at_end}x{after}"
    labels = {"severity": "page", "sloth_severity": "page", "sloth_service": "trading"}
    labels |= {"sloth_slo": "order-latency", "sloth_id": "trading-order-latency"}
    shown = {"title": "(page) order-latency burns its error budget too fast"}

    def expect(seconds: int, firing: bool) -> dict[str, object]:
        return {
            "eval_time": f"{7200 + seconds}s",
            "alertname": "order-latency page-1h",
            "exp_alerts": [{"exp_labels": labels, "exp_annotations": shown}] if firing else [],
        }

    checks = []
    for at, kind in ours:
        # Within one tick: it has not happened one tick before, and has one tick after.
        checks += [expect(at - STEP_S, kind != "firing"), expect(at + STEP_S, kind == "firing")]
    test = {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": f"{STEP_S}s",
        "tests": [
            {
                "interval": f"{STEP_S}s",
                "input_series": [
                    {"series": f'{EVENTS}{{objective="order-latency"}}', "values": every},
                    {"series": f'{BAD}{{objective="order-latency"}}', "values": bad},
                ],
                "alert_rule_test": checks,
            }
        ],
    }
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(test))
    checked = subprocess.run([promtool, "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    done = subprocess.run([promtool, "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_all_exported_rules_are_accepted(tmp_path: Path) -> None:
    promtool = program("promtool", "prometheus")
    made = exported(scenario("eval until 10s\nexpect order-latency page-1h never fires\n").objectives)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(made.document))
    checked = subprocess.run([promtool, "check", "rules", "rules.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
