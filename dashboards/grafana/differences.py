"""What is different between what is wanted and what a Grafana holds: plain values in, sentences out.

Grafana adds keys of its own (ids, versions, `builtIn` annotations, `intervalMs` in a query's model), drops what is
empty, and writes durations in its own way. Only what is wanted is compared: a key that we do not set may be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

REDACTED = "[REDACTED]"
_UNIT_S = {"w": 604_800, "d": 86_400, "h": 3_600, "m": 60, "s": 1}
# What Grafana decides itself: where a document is in its history, and the organisation of whoever asks.
_IGNORED = {"id", "version", "orgID", "provenance", "updated"}
_DURATIONS = {"for", "keep_firing_for"}


def differences(wanted: Any, found: Any, at: str = "") -> list[str]:
    """The places where `found` is not what is `wanted`, each as `place: is X, should be Y`."""
    if isinstance(wanted, Mapping) and isinstance(found, Mapping):
        return [
            line
            for key, value in wanted.items()
            if key not in _IGNORED
            for line in _of_key(key, value, found.get(key), f"{at}.{key}" if at else str(key))
        ]
    if _is_list(wanted) and _is_list(found):
        if len(wanted) != len(found):
            return [f"{at}: has {len(found)} entries, should have {len(wanted)}"]
        pairs = zip(wanted, found, strict=True)
        return [line for n, (one, other) in enumerate(pairs) for line in differences(one, other, f"{at}[{n}]")]
    if _same(wanted, found):
        return []
    return [f"{at}: is {_short(found)}, should be {_short(wanted)}"]


def dashboard_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The same of two dashboards. A newer Grafana may have raised `schemaVersion`."""
    there = dict(found)
    annotations = (found.get("annotations") or {}).get("list") or []
    ours = {one.get("name") for one in (wanted.get("annotations") or {}).get("list", ())}
    kept = [one for one in annotations if not one.get("builtIn") or one.get("name") in ours]
    there["annotations"] = {**(found.get("annotations") or {}), "list": kept}
    if int(found.get("schemaVersion") or 0) > int(wanted.get("schemaVersion") or 0):
        there["schemaVersion"] = wanted.get("schemaVersion")
    return differences(wanted, there)


def group_differences(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The same of two groups of alert rules, rule by rule."""
    lines = differences({key: value for key, value in wanted.items() if key != "rules"}, found)
    there = {str(rule.get("uid")): rule for rule in found.get("rules") or []}
    for rule in wanted["rules"]:
        other = there.pop(rule["uid"], None)
        if other is None:
            lines.append(f"rules: {rule['title']} is missing")
        else:
            lines += [f"{rule['title']}: {line}" for line in differences(rule, other)]
    lines += [f"rules: {rule.get('title') or uid} is too many" for uid, rule in there.items()]
    order = [str(rule.get("uid")) for rule in found.get("rules") or []]
    if not lines and order != [rule["uid"] for rule in wanted["rules"]]:
        lines.append("rules: are in another order")
    return lines


def seconds(text: str) -> int | None:
    """A duration of Prometheus (1h30m, 0s) in seconds; None if it is none."""
    parts = re.findall(r"(\d+)([wdhms])", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return None
    return sum(int(number) * _UNIT_S[unit] for number, unit in parts)


def _of_key(key: str, wanted: Any, found: Any, at: str) -> list[str]:
    if key in _DURATIONS and isinstance(wanted, str) and isinstance(found, str) and seconds(wanted) is not None:
        return differences(seconds(wanted), seconds(found), at)
    return differences(wanted, found, at)


def _same(wanted: Any, found: Any) -> bool:
    if isinstance(wanted, bool) != isinstance(found, bool) and wanted is not None and found is not None:
        return False
    # What is empty may have been left out; what it does not show us may be anything.
    return wanted == found or (_empty(wanted) and _empty(found)) or (found == REDACTED and isinstance(wanted, str))


def _empty(value: Any) -> bool:
    """Whether Grafana may leave a value out of its answer, or write another empty one."""
    return value is None or value is False or (isinstance(value, str | list | dict | int | float) and not value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:60]}... ({len(text)} characters)"
