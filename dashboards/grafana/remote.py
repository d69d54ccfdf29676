"""A Grafana over its HTTP API: the narrow door that everything goes through, with errors that say what to do.

The calls are grafana-client's; ids that are numbers and `folderId` are not used, because Grafana 13 ignores them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, urlsplit

OLDEST = (11, 6)  # the oldest that the data source's present releases run in
_MAX_ANNOTATIONS = 10_000
_PERMISSIONS = {
    "folder": "folders:read, folders:create, folders:write",
    "data source": "datasources:read, datasources:create, datasources:write (the role Admin has them)",
    "dashboard": "dashboards:read, dashboards:create, dashboards:write, dashboards:delete",
    "alert rules": "alert.provisioning:read and alert.provisioning:write (or alert.rules:* in the folder)",
    "contact point": "alert.provisioning:read and alert.provisioning:write (or alert.notifications:*)",
    "annotation": "annotations:read, annotations:create, annotations:write",
}


class GrafanaError(Exception):
    """Grafana cannot be asked, or refuses. `kind` is unreachable, unauthorized, forbidden, version or refused."""

    def __init__(self, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.hint = hint


class _AbsentError(GrafanaError):
    """What was asked for is not there."""


class Grafana:
    """One Grafana and one token. `verify` is a file of certificates, or False to trust anybody."""

    def __init__(
        self, url: str, token: str, *, verify: bool | str = True, timeout_s: float = 15, org: int | None = None
    ) -> None:
        from grafana_client import GrafanaApi

        parts = _checked(url, insecure=verify is False, token=bool(token))
        path = parts.path.strip("/")
        self.url = url.rstrip("/")
        self._api = GrafanaApi(
            auth=token or None,
            protocol=parts.scheme,
            host=f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname,
            port=parts.port,
            url_path_prefix=f"{path}/" if path else "",
            verify=verify,  # handed on to the session as it is
            timeout=timeout_s,
            organization_id=org,
            user_agent="tailsight",
        )
        # A POST that is led elsewhere arrives there as a GET and seems to have worked.
        self._api.client.s.max_redirects = 0

    def version(self) -> str:
        """Grafana's version. Raises GrafanaError, also for one that is too old."""
        # Not /api/health, which an administrator may close, and which says no version to strangers.
        settings = self._ask("", lambda: self._api.client.GET("/frontend/settings"), missing={})
        text = str((settings.get("buildInfo") or {}).get("version") or "")
        numbers = re.match(r"(\d+)\.(\d+)", text)
        if not numbers:
            raise GrafanaError(
                "refused", f"{self.url} does not say which Grafana it is", "Is this the address of a Grafana?"
            )
        if (int(numbers[1]), int(numbers[2])) < OLDEST:
            raise GrafanaError(
                "version",
                f"{self.url} is Grafana {text}; {OLDEST[0]}.{OLDEST[1]} or later is needed",
                "The data source's present releases need it, too.",
            )
        return text

    def folder(self, uid: str) -> dict[str, Any] | None:
        """A folder, None if there is none."""
        return self._one("folder", lambda: self._api.folder.get_folder(uid))

    def create_folder(self, uid: str, title: str) -> None:
        """Make a folder at the top."""
        self._do("folder", lambda: self._api.folder.create_folder(title, uid))

    def rename_folder(self, uid: str, title: str, version: int) -> None:
        """Give a folder another title."""
        self._do("folder", lambda: self._api.folder.update_folder(uid, title, version=version, overwrite=True))

    def source(self, uid: str) -> dict[str, Any] | None:
        """A data source, without its secrets."""
        return self._one("data source", lambda: self._api.datasource.get_datasource_by_uid(uid))

    def put_source(self, body: dict[str, Any], *, exists: bool) -> None:
        """Make or replace a data source."""
        if exists:
            self._do("data source", lambda: self._api.datasource.update_datasource_by_uid(body["uid"], body))
        else:
            self._do("data source", lambda: self._api.datasource.create_datasource(body))

    def dashboard(self, uid: str) -> dict[str, Any] | None:
        """A dashboard: `dashboard` and `meta`."""
        return self._one("dashboard", lambda: self._api.dashboard.get_dashboard(uid))

    def put_dashboard(self, document: dict[str, Any], folder_uid: str, version: int | None, message: str) -> None:
        """Save a dashboard over the version that was read; None makes a new one. Nothing else is overwritten."""
        body = {**document, "id": None, **({} if version is None else {"version": version})}
        command = {"dashboard": body, "folderUid": folder_uid, "message": message, "overwrite": False}
        self._do("dashboard", lambda: self._api.dashboard.update_dashboard(command))

    def delete_dashboard(self, uid: str) -> None:
        """Remove a dashboard."""
        self._do("dashboard", lambda: self._api.dashboard.delete_dashboard(uid))

    def dashboards_in(self, folder_uid: str) -> list[dict[str, Any]]:
        """What lies in a folder: uid and title of each dashboard."""
        found = self._ask(
            "dashboard",
            lambda: self._api.search.search_dashboards(type_="dash-db", folder_uids=[folder_uid], limit=5000),
            missing=[],
        )
        return list(found or [])

    def rules(self) -> list[dict[str, Any]]:
        """All alert rules of the organisation."""
        found = self._ask("alert rules", lambda: self._api.alertingprovisioning.get_alertrules_all(), missing=[])
        return list(found or [])

    def group(self, folder_uid: str, name: str) -> dict[str, Any] | None:
        """A group of alert rules."""
        return self._one(
            "alert rules", lambda: self._api.alertingprovisioning.get_rule_group(folder_uid, quote(name, safe=""))
        )

    def put_group(self, body: dict[str, Any], *, editable: bool) -> None:
        """Replace a group of alert rules as a whole."""
        self._do(
            "alert rules",
            lambda: self._api.alertingprovisioning.update_rule_group(
                body["folderUid"], quote(body["title"], safe=""), body, disable_provenance=editable
            ),
        )

    def delete_rule(self, uid: str) -> None:
        """Remove an alert rule."""
        self._do("alert rules", lambda: self._api.alertingprovisioning.delete_alertrule(uid))

    def contact_points(self) -> list[dict[str, Any]]:
        """All contact points, secrets as [REDACTED]."""
        found = self._ask("contact point", lambda: self._api.alertingprovisioning.get_contactpoints(), missing=[])
        return list(found or [])

    def put_contact_point(self, body: dict[str, Any], *, exists: bool, editable: bool) -> None:
        """Make or replace a contact point."""
        api = self._api.alertingprovisioning
        if exists:
            self._do("contact point", lambda: api.update_contactpoint(body["uid"], body, disable_provenance=editable))
        else:
            self._do("contact point", lambda: api.create_contactpoint(body, disable_provenance=editable))

    def annotations(self, from_ms: int, to_ms: int, tag: str) -> list[dict[str, Any]]:
        """Annotations with a tag. Raises GrafanaError when there are more than can be compared."""
        found = self._ask(
            "annotation",
            lambda: self._api.annotations.find_annotations(
                time_from=from_ms, time_to=to_ms, tags=[tag], ann_type="annotation", limit=_MAX_ANNOTATIONS
            ),
            missing=[],
        )
        if len(found) >= _MAX_ANNOTATIONS:
            raise GrafanaError(
                "refused", f"{self.url} has {_MAX_ANNOTATIONS} or more annotations of that time", "Take a shorter time."
            )
        return list(found)

    def put_annotation(self, body: dict[str, Any], number: int | None) -> None:
        """Make an annotation, or replace the one with this number."""
        fields = {"time_from": body["time"], "time_to": body["timeEnd"], "tags": body["tags"], "text": body["text"]}
        if number is None:
            self._do("annotation", lambda: self._api.annotations.add_annotation(**fields))
        else:
            self._do("annotation", lambda: self._api.annotations.update_annotation(number, **fields))

    def _ask(self, what: str, call: Callable[[], Any], missing: Any = None) -> Any:
        """The answer to a question; `missing` where Grafana says that there is none."""
        try:
            return self._do(what, call)
        except _AbsentError:
            return missing

    def _one(self, what: str, call: Callable[[], Any]) -> dict[str, Any] | None:
        """One thing, None if there is none."""
        found: dict[str, Any] | None = self._ask(what, call)
        return found

    def _do(self, what: str, call: Callable[[], Any]) -> Any:
        """What Grafana answers to an order. Raises GrafanaError."""
        with self._translated(what):
            found = call()
        if isinstance(found, str):
            raise self._no_json()
        return found

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        """Errors of the client as ours."""
        import niquests
        from grafana_client.client import GrafanaException

        try:
            yield
        except GrafanaException as error:
            raise self._refusal(what, error.status_code, _said(error.response) or str(error)) from error
        except niquests.TooManyRedirects as error:
            raise GrafanaError(
                "refused", f"{self.url} leads elsewhere", "Give the address that Grafana itself says (root_url)."
            ) from error
        except niquests.exceptions.SSLError as error:
            raise GrafanaError(
                "unreachable",
                f"{self.url}: the certificate is not trusted: {_first_line(error)}",
                "--ca FILE names the certificates to trust.",
            ) from error
        except (niquests.RequestException, OSError) as error:
            raise GrafanaError(
                "unreachable", f"{self.url} cannot be reached: {_first_line(error)}", "Check --url and that it runs."
            ) from error
        except ValueError as error:  # not JSON
            raise self._no_json() from error

    def _no_json(self) -> GrafanaError:
        return GrafanaError(
            "refused",
            f"{self.url} answered something that is not JSON, a page to log in perhaps",
            "Is this the address of a Grafana, and does what stands before it let tokens pass?",
        )

    def _refusal(self, what: str, status: int, said: str) -> GrafanaError:
        said = said[:500]
        if status == 0:
            return GrafanaError(
                "unreachable", f"{self.url} did not answer in time: {said}", "--timeout gives it longer."
            )
        if status == 401:
            return GrafanaError(
                "unauthorized",
                f"{self.url} does not know the token (401): {said}",
                "Make one under Administration, Users and access, Service accounts, and put it into GRAFANA_TOKEN.",
            )
        if status == 403:
            needed = _PERMISSIONS.get(what, "a service account with the role Admin")
            return GrafanaError(
                "forbidden",
                f"{self.url} does not let this token do it (403, {what or 'version'}): {said}",
                f"The service account needs {needed}.",
            )
        if status == 412:
            return GrafanaError(
                "refused", f"{what}: changed or made by somebody else meanwhile (412): {said}", "Look, and push again."
            )
        if status == 404:
            return _AbsentError("refused", f"{self.url} has no such {what or 'address'} (404): {said}")
        return GrafanaError("refused", f"{self.url} refuses ({status}, {what or 'version'}): {said}")


def _checked(url: str, *, insecure: bool, token: bool) -> Any:
    """The parts of an address. Raises GrafanaError for one that must not be used."""
    try:
        parts = urlsplit(url)
        bad = parts.scheme not in ("http", "https") or not parts.hostname or (parts.port or 1) < 1
    except ValueError:
        bad = True
    if bad:
        raise GrafanaError("refused", f"{url!r} is not an address; write https://grafana.example.com")
    if parts.username or parts.password:
        raise GrafanaError(
            "refused", "an address must not hold a password", "Put the token into GRAFANA_TOKEN or a file."
        )
    if parts.query or parts.fragment:
        raise GrafanaError("refused", f"{url!r} has more than an address")
    local = parts.hostname in ("localhost", "::1") or re.fullmatch(r"127(\.\d+){3}", parts.hostname or "")
    if parts.scheme == "http" and token and not local and not insecure:
        raise GrafanaError(
            "refused",
            f"{url} is not encrypted: anybody on the way could read the token",
            "Use https, or --insecure where the way is safe.",
        )
    return parts


def _said(response: Any) -> str:
    """What Grafana says in the body of a refusal."""
    if isinstance(response, dict):
        return str(response.get("message") or response.get("error") or response)
    return str(response or "")


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0][:300] if text else type(error).__name__


def tagged(tags: Iterable[str], prefix: str) -> str:
    """The rest of the first tag that begins with `prefix`, or ''."""
    return next((tag.removeprefix(prefix) for tag in tags if tag.startswith(prefix)), "")
