from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.api.live import Live


@pytest.fixture(scope="module")
def description(plain_server: Live) -> dict[str, Any]:
    with plain_server.client() as client:
        return client.get("/openapi.json").json()


def operations(description: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in description["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def test_everything_is_described(description: dict[str, Any]) -> None:
    for where, operation in operations(description):
        assert operation["summary"], where
        assert len(operation["description"]) > 20, where
        assert operation["x-tailsight-scope"] in ("public", "agent", "read", "operate", "executive"), where
        for parameter in operation.get("parameters", ()):
            assert parameter.get("description"), f"{where} {parameter['name']}"
    for name, schema in description["components"]["schemas"].items():
        if name == "Heartbeat":
            continue
        assert schema.get("description"), name
        for field, body in schema.get("properties", {}).items():
            assert body.get("description"), f"{name}.{field}"


def test_every_error_is_a_problem(description: dict[str, Any]) -> None:
    for where, operation in operations(description):
        responses = operation["responses"]
        assert {"422", "429", "500"} <= set(responses), where
        if operation["x-tailsight-scope"] != "public":
            assert {"401", "403"} <= set(responses), where
        for status, response in responses.items():
            if status.startswith(("4", "5")) and not (where == "GET /readyz" and status == "503"):
                assert list(response["content"]) == ["application/problem+json"], f"{where} {status}"
    assert "HTTPValidationError" not in json.dumps(description)


def test_every_reference_leads_somewhere(description: dict[str, Any]) -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            for inner in value.values():
                yield from references(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from references(inner)

    found = set(references(description))
    assert len(found) > 15
    for reference in found:
        place: Any = description
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]


def test_operation_ids_are_unique(description: dict[str, Any]) -> None:
    ids = [operation["operationId"] for _, operation in operations(description)]
    assert len(ids) == len(set(ids))


def test_tables_come_in_four_formats(description: dict[str, Any]) -> None:
    tables = ["latency", "latency/series", "latency/histogram", "latency/heatmap", "messages", "messages/{key}"]
    tables += [
        "completeness",
        "collectors",
        "ledger",
        "changes",
        "clock",
        "hosts",
        "gauges",
        "gauges/names",
        "scheduler",
        "scheduler/budget",
    ]
    for name in tables:
        content = description["paths"][f"/v1/{name}"]["get"]["responses"]["200"]["content"]
        assert len(content) == 4, name
        assert "application/json" in content
