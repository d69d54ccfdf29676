"""Pushing to a Grafana: what is wanted arrives, a second push changes nothing, and refusals say what to do."""

from __future__ import annotations

import copy
import ssl
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from analytics.slo.episodes import Alert
from dashboards.grafana import bodies
from dashboards.grafana.alert_rules import api_group, mirrored, uid_of
from dashboards.grafana.differences import dashboard_differences, differences, seconds
from dashboards.grafana.exporting import exported, written
from dashboards.grafana.files import burn_panel, documents
from dashboards.grafana.pushing import Change, Wanted, planned, pushed
from tests.dashboards.grafana.recording import TOKEN, Recording, serving
from tests.dashboards.grafana.test_alert_rules import example
from tests.needs import program

pytest.importorskip(
    "grafana_client", reason="needs the package grafana-client (extra grafana): pip install 'tailsight[grafana]'"
)
from dashboards.grafana.remote import Grafana, GrafanaError

POINTS = {
    "contactPoints": [
        {
            "name": "pager",
            "receivers": [
                {
                    "uid": "pager1",
                    "type": "webhook",
                    "settings": {"url": "https://hooks.example", "password": "${PAGER}"},
                }
            ],
        }
    ]
}
CHANGE = {
    "ts_ns": 1_000_000_000_000, "id": "0b1e", "kind": "deploy", "who": "ann", "what": "engine", "host": "",
    "service": "engine", "version": "2.4.1", "url": "",
}  # fmt: skip
EPISODE = Alert(
    "order-latency", "page-1h", "firing", fired_ns=1_500_000_000_000, episode="00ff00ff00ff00ff", why="burn 20 over 1 h"
)


ORDER = ["folder", "data source", "contact point", "dashboard", "alert rules", "annotation"]


def wanted(**more: Any) -> Wanted:
    groups = [api_group(group, "tailsight", "tailsight") for group in mirrored(example(), burn_panel()).groups]
    return replace(
        Wanted(
            source=bodies.source("http://127.0.0.1:8472"),
            password="secret",  # noqa: S106
            contact_points=bodies.contact_points(POINTS, {"PAGER": "hush"}),
            dashboards={document["uid"]: document for document in documents().values()},
            groups=groups,
            annotations=[bodies.change_annotation(CHANGE), bodies.episode_annotation(EPISODE, "page")],
            annotations_ms=(1, 10_000_000),
        ),
        **more,
    )


@pytest.fixture
def held() -> Iterator[Recording]:
    with serving(Recording()) as server:
        yield server


def _push(held: Recording, what: Wanted) -> list[Change]:
    grafana = Grafana(held.url, TOKEN)
    grafana.version()
    return pushed(planned(grafana, what))


@pytest.mark.parametrize("version", ["11.6.0", "12.4.1", "13.0.1", "13.2.0-pre"])
def test_a_second_push_changes_nothing(version: str) -> None:
    with serving(Recording(version)) as held:
        done = _push(held, wanted())
        assert {one.action for one in done} == {"create"}
        kinds = [one.kind for one in done]
        assert list(dict.fromkeys(kinds)) == ORDER
        assert kinds == sorted(kinds, key=ORDER.index)
        assert (len(held.dashboards), len(held.rules), len(held.annotations)) == (12, 7, 2)
        held.asked.clear()
        plan = planned(Grafana(held.url, TOKEN), wanted())
        assert [one for one in plan if one.action != "same"] == []
        assert pushed(plan) == []
        assert held.writes() == []


def test_what_arrives_is_what_was_wanted(held: Recording) -> None:
    _push(held, wanted())
    assert held.sources["tailsight"]["secureJsonData"] == {"password": "secret"}
    assert held.points["pager1"]["settings"]["password"] == "hush"  # noqa: S105
    assert {one["meta"]["folderUid"] for one in held.dashboards.values()} == {"tailsight"}
    rule = held.rules[uid_of("order-latency", "page-1h")]
    assert rule["provenance"] == "api"
    assert rule["annotations"]["__dashboardUid__"] == "tailsight-slo"
    point, span = held.annotations[1], held.annotations[2]
    assert point["text"] == "deploy: engine 2.4.1 (ann)"
    assert {"tailsight", "service:engine", "ts-id:0b1e"} <= set(point["tags"])
    assert (span["time"], span["timeEnd"]) == (1_500_000, 1_500_000)


def test_an_episode_that_ends_gets_its_end(held: Recording) -> None:
    _push(held, wanted())
    over = bodies.episode_annotation(replace(EPISODE, state="resolved", resolved_ns=1_600_000_000_000), "page")
    (one,) = _push(held, wanted(annotations=[bodies.change_annotation(CHANGE), over]))
    assert (one.action, one.kind) == ("update", "annotation")
    assert (len(held.annotations), held.annotations[2]["timeEnd"]) == (2, 1_600_000)


def test_only_what_somebody_changed_is_put_right(held: Recording) -> None:
    _push(held, wanted())
    held.dashboards["tailsight-path"]["dashboard"]["panels"][2]["title"] = "Mine"
    held.rules[uid_of("order-errors", "page-6h")]["data"][1]["model"]["conditions"][0]["evaluator"]["params"] = [99]
    del held.rules[uid_of("order-latency", "ticket-3d")]
    held.sources["tailsight"]["jsonData"]["port"] = 9
    held.sources["tailsight"]["jsonData"]["rowLimit"] = 500
    held.folders["tailsight"]["title"] = "Elsewhere"
    plan = planned(Grafana(held.url, TOKEN), wanted())
    changes = {(one.kind, one.name): one.why for one in plan if one.needed}
    assert set(changes) == {
        ("folder", "Tailsight"), ("data source", "Tailsight"), ("dashboard", "Tailsight / Path"),
        ("alert rules", "order-errors"), ("alert rules", "order-latency"),
    }  # fmt: skip
    assert changes["dashboard", "Tailsight / Path"][0].startswith("panels[2].title: is 'Mine', should be ")
    assert "params[0]: is 99, should be 1" in changes["alert rules", "order-errors"][0]
    assert changes["alert rules", "order-latency"] == ("rules: order-latency ticket-3d is missing",)
    held.asked.clear()
    assert len(pushed(plan)) == len(held.writes()) == 5
    assert held.sources["tailsight"]["jsonData"]["rowLimit"] == 500  # an administrator's own stays
    assert held.sources["tailsight"]["secureJsonData"] == {"password": "secret"}
    assert [one for one in planned(Grafana(held.url, TOKEN), wanted()) if one.needed] == []


def test_a_password_is_set_again_only_when_asked(held: Recording) -> None:
    _push(held, wanted())
    assert _push(held, wanted(password="other")) == []  # noqa: S106 - nobody can see that it differs
    (one,) = _push(held, wanted(password="other", renew_password=True))  # noqa: S106
    assert one.why == ("the password is set again",)
    assert held.sources["tailsight"]["secureJsonData"] == {"password": "other"}


def test_what_is_provisioned_from_files_is_left_alone(held: Recording) -> None:
    _push(held, wanted())
    held.dashboards["tailsight-slo"]["meta"]["provisioned"] = True
    held.dashboards["tailsight-slo"]["dashboard"]["title"] = "Old"
    held.dashboards["tailsight-path"]["meta"]["provisioned"] = True  # and as it should be
    held.sources["tailsight"] |= {"readOnly": True, "name": "Other"}
    for rule in held.rules.values():
        rule["provenance"] = "file"
    held.rules[uid_of("order-errors", "page-6h")]["title"] = "Old"
    held.points["pager1"] |= {"provenance": "file", "name": "Old"}
    held.asked.clear()
    plan = planned(Grafana(held.url, TOKEN), wanted())
    blocked = {(one.kind, one.name) for one in plan if one.action == "blocked"}
    assert blocked == {
        ("data source", "Tailsight"), ("dashboard", "Tailsight / Objectives"), ("alert rules", "order-errors"),
        ("contact point", "pager"),
    }  # fmt: skip
    assert pushed(plan) == []
    assert held.writes() == []


def test_what_is_no_more_goes_only_when_asked(held: Recording) -> None:
    _push(held, wanted())
    theirs = copy.deepcopy(held.dashboards["tailsight-path"])
    held.dashboards["theirs"] = theirs
    held.rules["theirs"] = {**copy.deepcopy(next(iter(held.rules.values()))), "uid": "theirs", "title": "Theirs"}
    held.rules["theirs"]["ruleGroup"] = "theirs"
    held.intervals["tailsight", "theirs"] = 60
    less = wanted()
    less = replace(
        less,
        dashboards={uid: one for uid, one in (less.dashboards or {}).items() if uid != "tailsight-feeds"},
        groups=[group for group in less.groups or () if group["title"] != "order-errors"],
    )
    plan = planned(Grafana(held.url, TOKEN), less)
    assert [one.action for one in plan if one.action != "same"] == ["extra"] * 4
    assert not any(one.needed for one in plan)
    assert pushed(plan) == []
    done = _push(held, replace(less, prune=True))
    assert {one.action for one in done} == {"delete"}
    assert "tailsight-feeds" not in held.dashboards
    assert {"theirs"} <= set(held.dashboards)
    assert {rule["ruleGroup"] for rule in held.rules.values()} == {"order-latency", "tailsight", "theirs"}


def test_rules_can_stay_editable(held: Recording) -> None:
    _push(held, wanted(editable=True))
    assert all("provenance" not in rule for rule in held.rules.values())
    assert _push(held, wanted(editable=True)) == []
    done = _push(held, wanted())
    assert {one.kind for one in done} == {"alert rules"}
    assert {rule["provenance"] for rule in held.rules.values()} == {"api"}


def test_a_receiver_has_to_be_there(held: Recording) -> None:
    groups = [api_group(group, "tailsight", "tailsight", "pager") for group in mirrored(example(), 1).groups]
    _push(held, wanted(groups=groups))
    assert {rule["notification_settings"]["receiver"] for rule in held.rules.values()} == {"pager"}
    nobody = [api_group(group, "tailsight", "tailsight", "nobody") for group in mirrored(example(), 1).groups]
    with pytest.raises(GrafanaError, match=r"alert rules order-latency: .*receiver does not exist") as caught:
        _push(held, wanted(groups=nobody))
    assert "0 changes were made before" in caught.value.hint


def test_an_edit_between_look_and_push_is_not_overwritten(held: Recording) -> None:
    _push(held, wanted())
    held.dashboards["tailsight-path"]["dashboard"]["title"] = "Mine"
    plan = planned(Grafana(held.url, TOKEN), wanted())
    held.dashboards["tailsight-path"]["meta"]["version"] += 1  # somebody saves meanwhile
    with pytest.raises(GrafanaError, match="somebody else") as caught:
        pushed(plan)
    assert "push again" in caught.value.hint


@pytest.mark.parametrize(
    ("call", "permission"),
    [
        ("POST /api/folders", "folders:create"),
        ("POST /api/datasources", "datasources:create"),
        ("POST /api/dashboards/db", "dashboards:create"),
        ("GET /api/dashboards/uid/.*", "dashboards:read"),
        ("PUT /api/v1/provisioning/folder/.*", "alert.provisioning:write"),
        ("POST /api/v1/provisioning/contact-points", "alert.provisioning:write"),
        ("POST /api/annotations", "annotations:create"),
    ],
)
def test_a_refusal_names_the_permission(held: Recording, call: str, permission: str) -> None:
    held.denied[call] = permission
    with pytest.raises(GrafanaError, match=rf"\(403.*Permissions needed: {permission}") as caught:
        _push(held, wanted())
    assert caught.value.kind == "forbidden"
    assert permission in caught.value.hint
    assert TOKEN not in str(caught.value) + caught.value.hint


def test_a_push_that_was_interrupted_goes_on(held: Recording) -> None:
    held.denied["PUT /api/v1/provisioning/folder/.*"] = "alert.provisioning:write"
    with pytest.raises(GrafanaError) as caught:
        _push(held, wanted())
    assert "15 changes were made before" in caught.value.hint
    held.denied.clear()
    assert {one.kind for one in _push(held, wanted())} == {"alert rules", "annotation"}


def test_an_unknown_token_an_old_version_and_something_else_are_told_apart(held: Recording) -> None:
    def kind(token: str = TOKEN, **more: Any) -> str:
        with pytest.raises(GrafanaError) as caught:
            Grafana(held.url, token, **more).version()
        return f"{caught.value.kind}: {caught.value}"

    assert "unauthorized" in kind("glsa_wrong")
    held.version = "11.5.3"
    assert "version: " in kind()
    assert "is Grafana 11.5.3; 11.6 or later" in kind()
    held.version = ""
    assert "does not say which Grafana" in kind()
    held.broken = "<html>hello</html>"
    assert "refused" in kind()
    with pytest.raises(GrafanaError, match="cannot be reached"):
        Grafana("http://127.0.0.1:1", TOKEN).version()


def test_a_push_is_not_led_elsewhere(held: Recording) -> None:
    def lead(*_: Any, **__: Any) -> tuple[int, Any]:
        return 302, None

    held.settings = lead  # type: ignore[method-assign]
    with pytest.raises(GrafanaError, match="leads elsewhere"):
        Grafana(held.url, TOKEN).version()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("grafana.example", "is not an address"),
        ("https://user:word@grafana.example", "must not hold a password"),
        ("https://grafana.example/?verify=0", "more than an address"),
        ("http://grafana.example", "could read the token"),
        ("http://[::1", "is not an address"),
    ],
)
def test_addresses_that_must_not_be_used_are_refused(url: str, why: str) -> None:
    with pytest.raises(GrafanaError, match=why):
        Grafana(url, TOKEN)
    Grafana("http://grafana.example", TOKEN, verify=False)
    assert Grafana("http://[::1]:3000/grafana/", TOKEN)._api.client.url == "http://[::1]:3000/grafana/api"


def test_a_certificate_of_ones_own_has_to_be_named(tmp_path: Any) -> None:
    file, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    openssl = program("openssl", "openssl")
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    subprocess.run([*make, *names, "-out", str(file), "-keyout", str(key)], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file, key)
    with serving(Recording(), context) as held:
        assert held.url.startswith("https://")
        with pytest.raises(GrafanaError, match="certificate is not trusted") as caught:
            Grafana(held.url, TOKEN).version()
        assert "--ca FILE" in caught.value.hint
        assert held.asked == []  # nobody has heard the token
        assert Grafana(held.url, TOKEN, verify=str(file)).version() == "13.0.1"
        assert Grafana(held.url, TOKEN, verify=False).version() == "13.0.1"


def test_what_is_there_is_written_as_files(held: Recording, tmp_path: Any) -> None:
    _push(held, wanted())
    names = written(exported(Grafana(held.url, TOKEN), "tailsight"), tmp_path)
    assert len(names) == 15
    assert "dashboards/tailsight-path.json" in names
    assert '"version"' not in (tmp_path / "dashboards/tailsight-path.json").read_text().split('"panels"')[0]


def test_differences_ignore_what_grafana_adds() -> None:
    assert differences({"a": None, "b": [], "c": False, "for": "1h"}, {"x": 1, "for": "60m"}) == []
    assert differences({"a": True}, {"a": 1}) == ["a: is 1, should be True"]
    assert differences({"a": [1]}, {"a": [1, 2]}) == ["a: has 2 entries, should have 1"]
    assert differences({"for": "1h"}, {"for": "2h"}) == ["for: is 7200, should be 3600"]
    assert dashboard_differences({"schemaVersion": 39}, {"schemaVersion": 42}) == []
    assert dashboard_differences({"schemaVersion": 42}, {"schemaVersion": 39}) != []
    assert [seconds(text) for text in ("1h30m", "0s", "5", "x5m")] == [5_400, 0, None, None]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"contactPoints": []}, "no list"),
        ({"contactPoints": [{"receivers": []}]}, "has no name"),
        ({"contactPoints": [{"name": "a"}]}, "no receivers"),
        ({"contactPoints": [{"name": "a", "receivers": [{"uid": "x"}]}]}, "no type"),
        ({"contactPoints": [{"name": "a", "receivers": [{"type": "email", "settings": {}}]}]}, "uid of its own"),
        ({"contactPoints": [{"name": "a", "receivers": [{"type": "email", "uid": "x"}]}]}, "no settings"),
        (POINTS, "PAGER, which is not set"),
        ("text", "no list"),
    ],
)
def test_files_of_contact_points_that_are_wrong_are_refused(change: Any, why: str) -> None:
    with pytest.raises(bodies.ContactPointsError, match=why):
        bodies.contact_points(change, {})
