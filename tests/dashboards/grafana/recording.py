"""A small Grafana for tests: it records what it is asked, and refuses what the published API does not allow.

The shapes (required fields, lengths, enumerations, patterns, status codes) are those of Grafana's OpenAPI description,
as the client generated from it has them (grafana-openapi-client-go of 2026-07-24). It adds to what it stores what
Grafana adds, so that a client which compares without care would see differences. It is no Grafana: it draws and judges
nothing.
"""

from __future__ import annotations

import copy
import json
import re
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "glsa_test"  # noqa: S105 - of the server below
_UID = re.compile(r"[a-zA-Z0-9_-]{1,40}")
_SECRETS = {"password", "authorization_credentials", "url_secret"}
_RULE_KEYS = {
    "annotations", "condition", "data", "execErrState", "folderUID", "for", "id", "isPaused", "keep_firing_for",
    "labels", "missingSeriesEvalsToResolve", "noDataState", "notification_settings", "orgID", "provenance", "record",
    "ruleGroup", "title", "uid", "updated",
}  # fmt: skip
_REQUIRED = (
    "condition", "data", "execErrState", "folderUID", "for", "noDataState", "orgID", "ruleGroup", "title",
)  # fmt: skip
_SOURCE_KEYS = {
    "access", "basicAuth", "basicAuthUser", "database", "isDefault", "jsonData", "name", "secureJsonData", "type",
    "uid", "url", "user", "version", "withCredentials",
}  # fmt: skip


class RefusedError(Exception):
    """An answer that is not 2xx."""

    def __init__(self, status: int, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.body = status, {"message": message, **more}


class Recording:
    """What the server holds and what it was asked. `version`: what it says that it is; `denied`: what it forbids."""

    def __init__(self, version: str = "13.0.1") -> None:
        self.version = version
        self.denied: dict[str, str] = {}
        self.asked: list[tuple[str, str]] = []
        self.folders: dict[str, dict[str, Any]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.dashboards: dict[str, dict[str, Any]] = {}
        self.rules: dict[str, dict[str, Any]] = {}
        self.intervals: dict[tuple[str, str], int] = {}
        self.points: dict[str, dict[str, Any]] = {}
        self.annotations: dict[int, dict[str, Any]] = {}
        self.broken = ""
        self.url = ""

    def writes(self) -> list[tuple[str, str]]:
        """What was asked to change."""
        return [one for one in self.asked if one[0] != "GET"]

    def answer(self, method: str, path: str, query: dict[str, list[str]], body: Any, headers: Any) -> tuple[int, Any]:
        """The status and body for one request."""
        if headers.get("Authorization") != f"Bearer {TOKEN}":
            raise RefusedError(401, "Invalid API key")
        for pattern, permission in self.denied.items():
            if re.fullmatch(pattern, f"{method} {path}"):
                raise RefusedError(
                    403, f"You'll need additional permissions to perform this action. Permissions needed: {permission}"
                )
        for pattern, name in _ROUTES:
            match = re.fullmatch(pattern, f"{method} {path}")
            if match:
                found: tuple[int, Any] = getattr(self, name)(
                    *map(unquote, match.groups()), query=query, body=body, headers=headers
                )
                return found
        raise RefusedError(404, "Not found")

    def settings(self, **_: Any) -> tuple[int, Any]:
        return 200, {"buildInfo": {"version": self.version, "edition": "Open Source"}}

    def get_folder(self, uid: str, **_: Any) -> tuple[int, Any]:
        return 200, _there(self.folders, uid, "folder not found")

    def new_folder(self, body: Any, **_: Any) -> tuple[int, Any]:
        _only(body, {"title", "uid", "parentUid", "description"})
        _need(_UID.fullmatch(body["uid"]) and body["title"], "invalid folder")
        _need(body["uid"] not in self.folders, "the folder has been changed by someone else", 412)
        self.folders[body["uid"]] = {**body, "id": 7, "version": 1, "canSave": True, "url": "/dashboards/f/x"}
        return 200, self.folders[body["uid"]]

    def set_folder(self, uid: str, body: Any, **_: Any) -> tuple[int, Any]:
        _only(body, {"title", "version", "overwrite", "description"})
        one = _there(self.folders, uid, "folder not found", copied=False)
        one.update(title=body["title"], version=one["version"] + 1)
        return 200, one

    def get_source(self, uid: str, **_: Any) -> tuple[int, Any]:
        one = _there(self.sources, uid, "Data source not found")
        secrets = one.pop("secureJsonData", {})
        return 200, {**one, "secureJsonFields": dict.fromkeys(secrets, True)}

    def new_source(self, body: Any, **_: Any) -> tuple[int, Any]:
        _only(body, _SOURCE_KEYS)
        _need(body["uid"] not in self.sources, "data source with the same uid already exists", 409)
        _need(body["type"] and body["name"] and body["access"] in ("proxy", "direct"), "bad request data")
        self.sources[body["uid"]] = {"id": 3, "orgId": 1, "url": "", "version": 1, "isDefault": False, **body}
        return 200, {"id": 3, "message": "Datasource added", "name": body["name"]}

    def set_source(self, uid: str, body: Any, **_: Any) -> tuple[int, Any]:
        _only(body, _SOURCE_KEYS)
        one = _there(self.sources, uid, "Data source not found", copied=False)
        _need(not one.get("readOnly"), "Cannot update read-only data source", 403)
        _need(body.get("version") == one["version"], "Datasource has already been updated by someone else", 409)
        secrets = {**one.get("secureJsonData", {}), **body.get("secureJsonData", {})}
        one.update({**body, "secureJsonData": secrets, "version": one["version"] + 1})
        return 200, {"message": "Datasource updated"}

    def get_dashboard(self, uid: str, **_: Any) -> tuple[int, Any]:
        return 200, _there(self.dashboards, uid, "Dashboard not found")

    def save_dashboard(self, body: Any, **_: Any) -> tuple[int, Any]:
        _only(body, {"dashboard", "folderUid", "message", "overwrite"})  # folderId is ignored by Grafana 13
        document = body["dashboard"]
        _need(document.get("id") is None and document["title"] and len(document["uid"]) <= 40, "bad request data")
        _need(body["folderUid"] in self.folders, "folder not found", 400)
        there = self.dashboards.get(document["uid"])
        if there is not None:
            _need(not there["meta"].get("provisioned"), "Cannot save provisioned dashboard")
            _need(
                body["overwrite"] or document.get("version") == there["meta"]["version"],
                "The dashboard has been changed by someone else", 412,
            )  # fmt: skip
        version = there["meta"]["version"] + 1 if there else 1
        stored = copy.deepcopy(document)
        stored |= {"id": 11, "version": version, "preload": False, "fiscalYearStartMonth": 0}
        stored["schemaVersion"] = max(stored.get("schemaVersion", 0), 42)
        stored.setdefault("annotations", {}).setdefault("list", []).insert(
            0,
            {"builtIn": 1, "name": "Annotations & Alerts", "type": "dashboard", "datasource": {"uid": "-- Grafana --"}},
        )
        for panel in stored["panels"]:
            panel["pluginVersion"] = "13.0.1"
        folder = self.folders[body["folderUid"]]
        meta = {"folderUid": folder["uid"], "folderTitle": folder["title"], "version": version, "provisioned": False}
        self.dashboards[document["uid"]] = {"dashboard": _without_nulls(stored), "meta": meta}
        return 200, {"status": "success", "uid": document["uid"], "version": version, "url": "/d/x"}

    def drop_dashboard(self, uid: str, **_: Any) -> tuple[int, Any]:
        _there(self.dashboards, uid, "Dashboard not found")
        del self.dashboards[uid]
        return 200, {"message": "Dashboard deleted"}

    def search(self, query: dict[str, list[str]], **_: Any) -> tuple[int, Any]:
        folders = query["folderUIDs"]
        return 200, [
            {"uid": uid, "title": one["dashboard"]["title"], "type": "dash-db", "folderUid": one["meta"]["folderUid"]}
            for uid, one in self.dashboards.items()
            if one["meta"]["folderUid"] in folders
        ]

    def all_rules(self, **_: Any) -> tuple[int, Any]:
        return 200, copy.deepcopy(list(self.rules.values()))

    def get_group(self, folder: str, name: str, **_: Any) -> tuple[int, Any]:
        rules = [r for r in self.rules.values() if (r["folderUID"], r["ruleGroup"]) == (folder, name)]
        _need(rules, "", 404)
        interval = self.intervals[folder, name]
        return 200, copy.deepcopy({"title": name, "folderUid": folder, "interval": interval, "rules": rules})

    def set_group(self, folder: str, name: str, body: Any, headers: Any, **_: Any) -> tuple[int, Any]:
        _only(body, {"folderUid", "interval", "rules", "title"})
        _need(body["interval"] > 0 and body["interval"] % 10 == 0, "interval must be a multiple of 10 seconds")
        _need(folder in self.folders, "folder does not exist", 400)
        provenance = "" if headers.get("X-Disable-Provenance") == "true" else "api"
        old = {uid for uid, r in self.rules.items() if (r["folderUID"], r["ruleGroup"]) == (folder, name)}
        for rule in body["rules"]:
            _checked_rule(rule)
            there = self.rules.get(rule["uid"])
            _need(not there or there.get("provenance") != "file", "cannot change provenance from 'file' to 'api'", 409)
            receiver = (rule.get("notification_settings") or {}).get("receiver")
            _need(not receiver or receiver in {p["name"] for p in self.points.values()}, "receiver does not exist")
            titles = [r["title"] for u, r in self.rules.items() if r["folderUID"] == folder and u != rule["uid"]]
            _need(rule["title"] not in titles, "a conflicting alert rule is found: rule title under the folder", 409)
        for uid in old - {rule["uid"] for rule in body["rules"]}:
            del self.rules[uid]
        for rule in body["rules"]:
            stored = copy.deepcopy(rule)
            for entry in stored["data"]:
                entry["model"] = {"intervalMs": 1000, "maxDataPoints": 43200, **entry["model"]}
            stored |= {"id": 5, "updated": "2026-11-21T10:00:00Z", "ruleGroup": name, "folderUID": folder}
            stored["for"] = stored["for"].replace("1h", "60m")
            if provenance:
                stored["provenance"] = provenance
            self.rules[rule["uid"]] = stored
        self.intervals[folder, name] = body["interval"]
        return 200, body

    def drop_rule(self, uid: str, **_: Any) -> tuple[int, Any]:
        self.rules.pop(uid, None)
        return 204, None

    def all_points(self, **_: Any) -> tuple[int, Any]:
        found = copy.deepcopy(list(self.points.values()))
        for one in found:
            one["settings"] = {k: "[REDACTED]" if k in _SECRETS else v for k, v in one["settings"].items()}
        return 200, found

    def new_point(self, body: Any, headers: Any, **_: Any) -> tuple[int, Any]:
        self._point(body, headers)
        return 202, body

    def set_point(self, uid: str, body: Any, headers: Any, **_: Any) -> tuple[int, Any]:
        _need(uid in self.points, "contact point not found", 404)
        self._point({**body, "uid": uid}, headers)
        return 202, {"message": "contactpoint updated"}

    def _point(self, body: Any, headers: Any) -> None:
        _only(body, {"disableResolveMessage", "name", "provenance", "settings", "type", "uid"})
        _need(_UID.fullmatch(body["uid"]) and body["type"] and isinstance(body["settings"], dict), "invalid")
        provenance = {} if headers.get("X-Disable-Provenance") == "true" else {"provenance": "api"}
        self.points[body["uid"]] = {**copy.deepcopy(body), **provenance}

    def find_annotations(self, query: dict[str, list[str]], **_: Any) -> tuple[int, Any]:
        from_ms, to_ms = int(query["from"][0]), int(query["to"][0])
        found = [
            one
            for one in self.annotations.values()
            if set(query["tags"]) <= set(one["tags"]) and from_ms <= one["timeEnd"] and one["time"] <= to_ms
        ]
        return 200, copy.deepcopy(found[: int(query["limit"][0])])

    def new_annotation(self, body: Any, **_: Any) -> tuple[int, Any]:
        _only(body, {"dashboardId", "dashboardUID", "data", "panelId", "tags", "text", "time", "timeEnd"})
        _need(isinstance(body["text"], str) and body["text"], "text field should not be empty")
        number = len(self.annotations) + 1
        self.annotations[number] = {
            "id": number, "login": "sa", "text": body["text"], "tags": body["tags"][::-1], "time": body["time"],
            "timeEnd": body["timeEnd"] or body["time"],
        }  # fmt: skip
        return 200, {"id": number, "message": "Annotation added"}

    def set_annotation(self, number: str, body: Any, **_: Any) -> tuple[int, Any]:
        one = _there(self.annotations, int(number), "Annotation not found", copied=False)
        one.update(body)
        return 200, {"message": "Annotation updated"}


_ROUTES = [
    ("GET /api/frontend/settings", "settings"),
    ("GET /api/folders/([^/]+)", "get_folder"),
    ("POST /api/folders", "new_folder"),
    ("PUT /api/folders/([^/]+)", "set_folder"),
    ("GET /api/datasources/uid/([^/]+)", "get_source"),
    ("POST /api/datasources", "new_source"),
    ("PUT /api/datasources/uid/([^/]+)", "set_source"),
    ("GET /api/dashboards/uid/([^/]+)", "get_dashboard"),
    ("POST /api/dashboards/db", "save_dashboard"),
    ("DELETE /api/dashboards/uid/([^/]+)", "drop_dashboard"),
    ("GET /api/search", "search"),
    ("GET /api/v1/provisioning/alert-rules", "all_rules"),
    ("DELETE /api/v1/provisioning/alert-rules/([^/]+)", "drop_rule"),
    ("GET /api/v1/provisioning/folder/([^/]+)/rule-groups/([^/]+)", "get_group"),
    ("PUT /api/v1/provisioning/folder/([^/]+)/rule-groups/([^/]+)", "set_group"),
    ("GET /api/v1/provisioning/contact-points", "all_points"),
    ("POST /api/v1/provisioning/contact-points", "new_point"),
    ("PUT /api/v1/provisioning/contact-points/([^/]+)", "set_point"),
    ("GET /api/annotations", "find_annotations"),
    ("POST /api/annotations", "new_annotation"),
    (r"PUT /api/annotations/(\d+)", "set_annotation"),
]


def _checked_rule(rule: dict[str, Any]) -> None:
    _only(rule, _RULE_KEYS)
    for name in _REQUIRED:
        _need(rule.get(name) is not None, f"{name} is required")
    _need(_UID.fullmatch(rule["uid"]), "invalid alert rule: cannot create rule with UID")
    _need(all(1 <= len(rule[name]) <= 190 for name in ("title", "ruleGroup")), "invalid length")
    _need(rule["noDataState"] in ("Alerting", "NoData", "OK"), "unknown NoData state")
    _need(rule["execErrState"] in ("OK", "Alerting", "Error"), "unknown Error state")
    _need(re.fullmatch(r"(\d+[wdhms])+", rule["for"]), "not a valid duration string")
    refs = set()
    for entry in rule["data"]:
        _only(entry, {"datasourceUid", "model", "queryType", "refId", "relativeTimeRange"})
        span = entry["relativeTimeRange"]
        _need(isinstance(span["from"], int) and span["from"] > span["to"] >= 0, "invalid relative time range")
        _need(entry["model"]["refId"] == entry["refId"], "refId differs")
        refs.add(entry["refId"])
    _need(rule["condition"] in refs, "condition does not exist")
    for texts in (rule.get("labels", {}), rule.get("annotations", {})):
        _need(all(isinstance(one, str) for one in texts.values()), "labels and annotations are strings")


def _need(holds: Any, message: str, status: int = 400) -> None:
    if not holds:
        raise RefusedError(status, message)


def _only(body: Any, keys: set[str]) -> None:
    _need(isinstance(body, dict), "bad request data")
    _need(set(body) <= keys, f"unknown fields {sorted(set(body) - keys)}")


def _there(among: dict[Any, Any], name: Any, message: str, *, copied: bool = True) -> Any:
    _need(name in among, message, 404)
    return copy.deepcopy(among[name]) if copied else among[name]


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(one) for key, one in value.items() if one is not None}
    return [_without_nulls(one) for one in value] if isinstance(value, list) else value


@contextmanager
def serving(held: Recording, secured: ssl.SSLContext | None = None) -> Iterator[Recording]:
    """The server on a free port of this machine, with TLS where a context is given."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            text = self.rfile.read(length)
            held.asked.append((self.command, parts.path))
            if held.broken:
                return self._send(200, held.broken.encode(), "text/html")
            try:
                body = json.loads(text) if text else None
                status, value = held.answer(self.command, parts.path, parse_qs(parts.query), body, self.headers)
            except RefusedError as error:
                status, value = error.status, error.body
            if status == 302:
                self.send_response(302)
                self.send_header("Location", "https://elsewhere.invalid/")
                self.send_header("Content-Length", "0")
                return self.end_headers()
            return self._send(status, b"" if value is None else json.dumps(value).encode(), "application/json")

        def _send(self, status: int, content: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = _any  # noqa: N815 - the library's names

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    if secured is not None:
        server.socket = secured.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    held.url = f"{'https' if secured else 'http'}://127.0.0.1:{server.server_port}"
    try:
        yield held
    finally:
        server.shutdown()
        server.server_close()
