"""`tailsight slo`: validate and test, as scripts and pipelines use them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.api.cli.conftest import Tailsight

CASES = Path(__file__).resolve().parents[2] / "analytics" / "slo" / "cases"


def test_validate_names_every_problem_with_file_and_line(tailsight: Tailsight, tmp_path: Path) -> None:
    good = tailsight("slo", "validate", str(CASES))
    assert good.code == 0
    bad = tmp_path / "bad.yaml"
    bad.write_text((CASES / "orders.yaml").read_text().replace("target: 0.999", "target: 0.9"))
    found = tailsight("slo", "validate", str(bad), "--json")
    assert found.code == 1
    assert found.json["errors"] == 1
    (error,) = [p for p in found.json["problems"] if p["severity"] == "error"]
    assert (error["file"], error["line"]) == (str(bad), 30)
    assert "can never be exceeded" in error["message"]


def test_test_files_run_and_a_broken_expectation_is_exit_code_1(tailsight: Tailsight, tmp_path: Path) -> None:
    (tmp_path / "orders.yaml").write_text((CASES / "orders.yaml").read_text())
    text = "\n\n".join((CASES / "burn.test").read_text().split("\n\n")[:2])
    (tmp_path / "a.test").write_text(text)
    good = tailsight("slo", "test", str(tmp_path / "a.test"), "--json")
    assert good.code == 0, good.out
    assert (good.json["failed"], good.json["expectations"], len(good.json["cases"])) == (0, 9, 1)
    (tmp_path / "a.test").write_text(text.replace("5.76m", "5m"))
    bad = tailsight("slo", "test", str(tmp_path / "a.test"))
    assert bad.code == 1
    assert "fires at 5m within 10s: it fires at 350 s" in bad.out
    (tmp_path / "a.test").write_text("lode orders.yaml\n")
    broken = tailsight("slo", "test", str(tmp_path / "a.test"))
    assert broken.code == 4
    assert "a.test:1: 'lode' is no statement" in broken.err


def test_apply_puts_documents_in_force_and_refuses_wrong_ones_whole(tailsight: Tailsight, tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    (tmp_path / "slos").mkdir()
    file = tmp_path / "slos" / "orders.yaml"
    file.write_text((CASES / "orders.yaml").read_text().replace("target: 0.999", "target: 0.5"))
    refused = tailsight("slo", "apply", str(tmp_path / "slos"), *data)
    assert refused.code == 1
    assert "nothing was applied" in refused.out
    assert tailsight("slo", "list", *data).code == 1
    file.write_text((CASES / "orders.yaml").read_text())
    applied = tailsight("slo", "apply", str(tmp_path / "slos"), *data, "--json")
    assert applied.code == 0, applied.out
    assert len(applied.json["added"]) == 5
    listed = tailsight("slo", "list", *data, "--json").json["objectives"]
    assert [one["name"] for one in listed] == ["order-latency", "order-minutes", "order-pyrra"]
    exported = tailsight("slo", "export", *data)
    assert "slo:sli_error:ratio_rate5m" in exported.out
    assert "time slices have no rule" in exported.err
    again = tailsight("slo", "export", *data, "--format", "openslo")
    (tmp_path / "again.yaml").write_text(again.out)
    assert tailsight("slo", "apply", str(tmp_path / "again.yaml"), *data, "--json").json["added"] == []
    unknown = tailsight("slo", "show", "nothing", *data)
    assert unknown.code == 4
    assert "there are order-latency" in unknown.err


def test_maintenance_windows_are_added_listed_and_ended(tailsight: Tailsight, tmp_path: Path) -> None:
    data = ("--data", str(tmp_path / "data"))
    add = ("slo", "maintenance", "add", "upgrade", "--why", "firmware", *data)
    assert tailsight(*add, "--for", "2h").code == 2  # about nothing
    assert tailsight(*add, "--objective", "*").code == 2  # without an end
    assert tailsight(*add, "--objective", "*", "--for", "8d").code == 2
    made = tailsight(*add, "--objective", "*", "--for", "2h", "--budget", "pauses", "--json")
    assert made.code == 0, made.out
    assert (made.json["state"], made.json["budget"], made.json["send"]) == ("active", "pauses", "hold")
    assert tailsight(*add, "--objective", "*", "--for", "2h").code == 4
    assert "upgrade" in tailsight("slo", "maintenance", "list", *data).out
    assert tailsight("slo", "maintenance", "end", "upgrade", *data).code == 0
    assert tailsight("slo", "maintenance", "end", "nothing", *data).code == 4
    assert tailsight("slo", "maintenance", "list", *data, "--json").json["windows"] == []
    (past,) = tailsight("slo", "maintenance", "list", "--past", *data, "--json").json["windows"]
    assert past["ended_by"]


def test_a_gate_answers_with_its_exit_code(tailsight: Tailsight, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    rule = 'kpis = [{kpi = "order_errors", limit = 0.02}]'
    config = f"[kpis.order_errors]\n[gates.rollout]\n{rule}\n[gates.lenient]\n{rule}\non_unknown = 'open'\n"
    (data / "tailsight.toml").write_text(config)
    refused = tailsight("slo", "gate", "rollout", "--data", str(data))
    assert refused.code == 1
    assert "rollout: unknown, does not let pass: it was never judged" in refused.out
    passed = tailsight("slo", "gate", "lenient", "--data", str(data), "--json")
    assert (passed.code, passed.json["verdict"], passed.json["passes"]) == (0, "unknown", True)
    missing = tailsight("slo", "gate", "nowhere", "--data", str(data))
    assert missing.code == 4
    assert "no gate is called 'nowhere'; there are lenient, rollout" in missing.err
    every = tailsight("slo", "gate", "--data", str(data), "--json")
    assert (every.code, len(every.json["gates"])) == (1, 2)


def test_a_backtest_of_nothing_says_what_there_is(tailsight: Tailsight, tmp_path: Path) -> None:
    missing = tailsight("slo", "backtest", "nowhere", "--data", str(tmp_path / "data"))
    assert missing.code == 4
    assert "'nowhere' is neither a file nor an objective; there are none" in missing.err
    wrong = tailsight("slo", "backtest", str(CASES / "orders.yaml"), "--incident", "now", "--data", str(tmp_path))
    assert wrong.code == 2
    assert "is not FROM/TO" in wrong.err
