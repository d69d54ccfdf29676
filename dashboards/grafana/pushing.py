"""Bringing a Grafana to what is wanted: first what would change, then the changes, in an order that Grafana takes.

Nothing is changed that is as wanted; what somebody provisions from files is never touched; what is no longer wanted is
removed only where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from dashboards.grafana import alert_rules
from dashboards.grafana.differences import dashboard_differences, differences, group_differences
from dashboards.grafana.remote import Grafana, GrafanaError, tagged

KINDS = ("source", "contact-points", "dashboards", "alerts", "annotations")
TAG, ID_TAG = "tailsight", "ts-id:"
_SHOWN = 20
Action = Literal["same", "create", "update", "delete", "extra", "blocked"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a Grafana shall hold. What is None is not looked at."""

    folder_uid: str = alert_rules.FOLDER_UID
    folder_title: str = alert_rules.FOLDER_TITLE
    source: Mapping[str, Any] | None = None
    password: str = ""
    renew_password: bool = False
    contact_points: Sequence[Mapping[str, Any]] | None = None
    dashboards: Mapping[str, Mapping[str, Any]] | None = None
    groups: Sequence[Mapping[str, Any]] | None = None
    annotations: Sequence[Mapping[str, Any]] | None = None
    annotations_ms: tuple[int, int] = (0, 0)
    editable: bool = False
    prune: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One thing in Grafana: what is to be done with it, why, and how."""

    kind: str
    name: str
    action: Action
    why: tuple[str, ...] = ()
    do: Callable[[], None] | None = field(default=None, compare=False, repr=False)

    @property
    def needed(self) -> bool:
        """Whether it is not as wanted."""
        return self.action not in ("same", "extra")


def planned(grafana: Grafana, wanted: Wanted) -> list[Change]:
    """Everything that is wanted, compared with what is there, in the order in which it is to be done."""
    found: list[Change] = []
    exists = False
    if wanted.dashboards is not None or wanted.groups is not None:
        one, exists = _folder(grafana, wanted)
        found.append(one)
    if wanted.source is not None:
        found.append(_source(grafana, wanted))
    if wanted.contact_points is not None:
        found += _contact_points(grafana, wanted)
    if wanted.dashboards is not None:
        found += [_dashboard(grafana, wanted, uid) for uid in wanted.dashboards]
        found += _extra_dashboards(grafana, wanted) if exists else []
    if wanted.groups is not None:
        found += [_group(grafana, wanted, group, exists) for group in wanted.groups]
        found += _extra_rules(grafana, wanted) if exists else []
    if wanted.annotations is not None:
        found += _annotations(grafana, wanted)
    return found


def pushed(changes: Sequence[Change], told: Callable[[Change], None] = lambda _: None) -> list[Change]:
    """Do what is to be done, and return that. Raises GrafanaError at the first refusal, naming what was being done."""
    done: list[Change] = []
    for change in changes:
        if change.do is None:
            continue
        try:
            change.do()
        except GrafanaError as error:
            raise GrafanaError(
                error.kind,
                f"{change.kind} {change.name}: {error}",
                f"{error.hint} {len(done)} changes were made before; pushing again goes on from there.".strip(),
            ) from error
        told(change)
        done.append(change)
    return done


def _change(kind: str, name: str, exists: bool, why: Sequence[str], do: Callable[[], None]) -> Change:
    if exists and not why:
        return Change(kind, name, "same")
    lines = tuple(why[:_SHOWN]) + ((f"and {len(why) - _SHOWN} more",) if len(why) > _SHOWN else ())
    return Change(kind, name, "update" if exists else "create", lines, do)


def _blocked(kind: str, name: str, why: Sequence[str], reason: str) -> Change:
    return Change(kind, name, "blocked", (reason, *why[:_SHOWN])) if why else Change(kind, name, "same")


def _folder(grafana: Grafana, wanted: Wanted) -> tuple[Change, bool]:
    uid, title = wanted.folder_uid, wanted.folder_title
    there = grafana.folder(uid)
    if there is None:
        return _change("folder", title, False, (), lambda: grafana.create_folder(uid, title)), False
    version = int(there.get("version") or 0)
    why = differences({"title": title}, there)
    return _change("folder", title, True, why, lambda: grafana.rename_folder(uid, title, version)), True


def _source(grafana: Grafana, wanted: Wanted) -> Change:
    body = dict(wanted.source or {})
    there = grafana.source(body["uid"])
    why = differences(body, there) if there is not None else []
    unset = there is not None and not (there.get("secureJsonFields") or {}).get("password")
    if wanted.password and (unset or (there is not None and wanted.renew_password)):
        why.append("the password is not set" if unset else "the password is set again")
    if there is not None and there.get("readOnly"):
        return _blocked("data source", body["name"], why, "it is provisioned from a file: change that file")
    if there is not None:
        # What an administrator has added (limits, headers) stays.
        body["jsonData"] = {**(there.get("jsonData") or {}), **body["jsonData"]}
        body["version"] = there.get("version")
    if wanted.password and (there is None or unset or wanted.renew_password):
        body["secureJsonData"] = {"password": wanted.password}
    exists = there is not None
    return _change("data source", body["name"], exists, why, lambda: grafana.put_source(body, exists=exists))


def _dashboard(grafana: Grafana, wanted: Wanted, uid: str) -> Change:
    document = dict((wanted.dashboards or {})[uid])
    title = str(document["title"])
    there = grafana.dashboard(uid)
    message = "tailsight dashboards push"
    if there is None:
        return _change(
            "dashboard",
            title,
            False,
            (),
            lambda: grafana.put_dashboard(document, wanted.folder_uid, None, message),
        )
    meta, found = there.get("meta") or {}, there.get("dashboard") or {}
    why = dashboard_differences(document, found)
    if meta.get("folderUid", "") != wanted.folder_uid:
        why.append(f"it lies in the folder {meta.get('folderTitle') or 'General'}")
    if meta.get("provisioned"):
        return _blocked("dashboard", title, why, "it is provisioned from a file: change that file, or remove it there")
    version = int(found.get("version") or meta.get("version") or 0)
    return _change(
        "dashboard", title, True, why, lambda: grafana.put_dashboard(document, wanted.folder_uid, version, message)
    )


def _extra_dashboards(grafana: Grafana, wanted: Wanted) -> list[Change]:
    found = []
    for one in grafana.dashboards_in(wanted.folder_uid):
        uid = str(one.get("uid"))
        if uid.startswith("tailsight-") and uid not in (wanted.dashboards or {}):
            found.append(
                _gone("dashboard", str(one.get("title")), wanted, lambda uid=uid: grafana.delete_dashboard(uid))  # type: ignore[misc]
            )
    return found


def _group(grafana: Grafana, wanted: Wanted, group: Mapping[str, Any], folder_exists: bool) -> Change:
    body, name = dict(group), str(group["title"])
    there = grafana.group(wanted.folder_uid, name) if folder_exists else None
    rules = (there or {}).get("rules") or []
    exists = bool(rules)
    why = group_differences(body, there or {}) if exists else []
    if any(rule.get("provenance") == "file" for rule in rules):
        return _blocked("alert rules", name, why, "they are provisioned from a file: change that file")
    if exists and not wanted.editable and any(not rule.get("provenance") for rule in rules):
        why.append("they can be changed in the page (--editable keeps it so)")
    return _change("alert rules", name, exists, why, lambda: grafana.put_group(body, editable=wanted.editable))


def _extra_rules(grafana: Grafana, wanted: Wanted) -> list[Change]:
    """Rules of ours in the folder whose objective is no more."""
    groups = {str(group["title"]) for group in wanted.groups or ()}
    found = []
    for rule in grafana.rules():
        uid = str(rule.get("uid"))
        if rule.get("folderUID") != wanted.folder_uid or not alert_rules.is_ours(uid):
            continue
        if rule.get("ruleGroup") in groups or rule.get("provenance") == "file":
            continue
        found.append(_gone("alert rule", str(rule.get("title")), wanted, lambda uid=uid: grafana.delete_rule(uid)))  # type: ignore[misc]
    return found


def _gone(kind: str, name: str, wanted: Wanted, do: Callable[[], None]) -> Change:
    if wanted.prune:
        return Change(kind, name, "delete", ("it is no longer wanted",), do)
    return Change(kind, name, "extra", ("it is no longer wanted; --prune removes it",))


def _contact_points(grafana: Grafana, wanted: Wanted) -> list[Change]:
    there = {str(one.get("uid")): one for one in grafana.contact_points()}
    found = []
    for given in wanted.contact_points or ():
        body, name = dict(given), str(given["name"])
        other = there.get(body["uid"])
        why = differences(body, other) if other is not None else []
        if other is not None and other.get("provenance") == "file":
            found.append(_blocked("contact point", name, why, "it is provisioned from a file: change that file"))
            continue

        def put(body: dict[str, Any] = body, exists: bool = other is not None) -> None:
            grafana.put_contact_point(body, exists=exists, editable=wanted.editable)

        found.append(_change("contact point", name, other is not None, why, put))
    return found


def _annotations(grafana: Grafana, wanted: Wanted) -> list[Change]:
    there = {}
    for one in grafana.annotations(*wanted.annotations_ms, TAG):
        if name := tagged(one.get("tags") or (), ID_TAG):
            there[name] = one
    found = []
    for given in wanted.annotations or ():
        body = dict(given)
        other = there.get(tagged(body["tags"], ID_TAG))
        why: list[str] = []
        if other is not None:
            # Grafana gives a point's own time as its end, and tags in its own order.
            shown = {**other, "timeEnd": other.get("timeEnd") or other.get("time"), "tags": sorted(other["tags"])}
            why = differences({**body, "tags": sorted(body["tags"])}, shown)

        def put(body: dict[str, Any] = body, number: int | None = None if other is None else int(other["id"])) -> None:
            grafana.put_annotation(body, number)

        found.append(_change("annotation", str(body["text"])[:60], other is not None, why, put))
    return found
