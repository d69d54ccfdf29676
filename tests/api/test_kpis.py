"""Business measures by REST, from files and from other databases."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from analytics.kpis import KpiDefinition, series
from api.kpi_sources import KpiSource, SourceError, read_source, sources_from
from collector.settings import ConfigError
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import migrate
from tests.api.live import ROOT, Live, running

S = 1_000_000_000
CONFIG = """
[kpis.order_success]
numerator = "accepted orders"
denominator = "orders"
node = "trading"

[kpis.revenue]
kind = "sum"
unit = "USD"
node = "trading"
"""
KNOWN = {"order_success": KpiDefinition(), "revenue": KpiDefinition(kind="sum", unit="USD")}
MINUTE = time.time_ns() // (60 * S) * 60 * S - 600 * S


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(tmp_path_factory.mktemp("kpis"), CONFIG) as live:
        yield live


def test_values_come_in_and_corrections_replace_them(live: Live) -> None:
    def put(**value: Any) -> dict[str, Any]:
        with live.client() as client:
            answer = client.post("/v1/kpis", json={"values": [{"when": str(MINUTE), **value}]})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    assert put(name="order_success", numerator=97, denominator=100, region="eu") == {"intervals": 1, "messages": 0}
    put(name="order_success", numerator=98, denominator=100, region="eu")
    put(name="order_success", numerator=50, denominator=100, region="us")
    assert put(name="revenue", value=12.5, key="order:17") == {"intervals": 0, "messages": 1}
    with live.client() as client:
        found = client.get("/v1/kpis", params={"name": "order_success", "from": "-1h"}).json()
        assert [(one["value"], one["values"]) for one in found["kpis"]] == [(0.74, 2)]
        assert found["definitions"]["order_success"]["node"] == "trading"
        split = client.get("/v1/kpis", params={"name": "order_success", "by": "region", "from": "-1h"}).json()
        assert {one["region"]: one["value"] for one in split["kpis"]} == {"eu": 0.98, "us": 0.5}
        assert client.get("/v1/kpis", params={"by": "nope"}).status_code == 422


def test_a_wrong_value_says_which(live: Live) -> None:
    with live.client() as client:
        wrong = {"values": [{"name": "nope", "when": "-1m", "value": 1}]}
        answer = client.post("/v1/kpis", json=wrong)
        assert (answer.status_code, "'nope' is not declared" in answer.json()["detail"]) == (422, True)
        assert client.post("/v1/kpis", json={"values": []}).status_code == 422
        odd = {"values": [{"name": "revenue", "when": "soon", "value": 1}]}
        assert client.post("/v1/kpis", json=odd).status_code == 422


def _tailsight(data: Path, *words: str) -> tuple[int, dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-m", "api.cli", "--data", str(data), "--json", *words],
        cwd=ROOT, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout or done.stderr)


def test_files_come_in_once(tmp_path: Path) -> None:
    (tmp_path / "tailsight.toml").write_text(CONFIG)
    frame = pl.DataFrame(
        {
            "name": ["order_success", "revenue"], "ts_ns": [MINUTE, MINUTE], "numerator": [9.0, None],
            "denominator": [10.0, None], "value": [None, 3.5], "region": ["eu", None],
        }
    )  # fmt: skip
    frame.write_csv(tmp_path / "kpis.csv")
    frame.write_parquet(tmp_path / "kpis.parquet")
    for file in ("kpis.csv", "kpis.csv", "kpis.parquet"):
        code, answer = _tailsight(tmp_path, "import", "kpis", str(tmp_path / file))
        assert (code, answer["intervals"], answer["messages"]) == (0, 2, 0)
    code, answer = _tailsight(tmp_path, "query", "kpis", "--from", "-1h")
    assert code == 0
    assert {one["name"]: (one["value"], one["values"]) for one in answer["kpis"]} == {
        "order_success": (0.9, 1),
        "revenue": (3.5, 1),
    }
    (tmp_path / "wrong.csv").write_text("name,ts_ns,value\nrevenue,soon,1\n")
    code, answer = _tailsight(tmp_path, "import", "kpis", str(tmp_path / "wrong.csv"))
    assert code == 4
    assert "row 1" in json.dumps(answer)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_embedded(tmp_path / "store") as store:
        migrate(store)
        yield store


QUERY = """SELECT 'revenue' AS name, minute * 1000000000 AS ts_ns, amount AS value, area AS region FROM sales
WHERE minute * 1000000000 >= :from_ns"""


def _values(store: Store) -> dict[str, float | None]:
    found = series(store, KNOWN, from_ns=MINUTE, to_ns=MINUTE + 60 * S, by=["region"])
    return {one.region: one.value for one in found}


def test_a_sqlite_database_is_read_again_and_again(store: Store, tmp_path: Path) -> None:
    base = sqlite3.connect(tmp_path / "sales.sqlite")
    base.execute("CREATE TABLE sales (minute INTEGER, amount REAL, area TEXT)")
    base.execute("INSERT INTO sales VALUES (?, 10.0, 'eu')", (MINUTE // S,))
    base.commit()
    source = KpiSource(url=f"sqlite:///{tmp_path}/sales.sqlite", query=QUERY)
    assert read_source(store, "sales", source, KNOWN) == 1
    base.execute("UPDATE sales SET amount = 11.0")
    base.execute("INSERT INTO sales VALUES (?, 5.0, 'us')", (MINUTE // S,))
    base.commit()
    assert read_source(store, "sales", source, KNOWN) == 2
    assert _values(store) == {"eu": 11.0, "us": 5.0}
    base.close()


def test_a_source_that_fails_says_why_and_not_the_password(store: Store, tmp_path: Path) -> None:
    for source, words in (
        (KpiSource(url=f"sqlite:///{tmp_path}/x.sqlite", query="SELECT * FROM nope"), "no such table"),
        (KpiSource(url="nonsense://", query="SELECT 1"), "kpi_sources.s"),
        (KpiSource(url_env="TAILSIGHT_NO_SUCH", query="SELECT 1"), "TAILSIGHT_NO_SUCH is not set"),
        (KpiSource(url=f"sqlite:///{tmp_path}/x.sqlite", query="SELECT 1 AS nope"), "row 0"),
        (
            KpiSource(url=f"sqlite:///{tmp_path}/x.sqlite", query="SELECT 'x' AS name, 1 AS ts_ns, 1 AS value"),
            "declared",
        ),
        (KpiSource(url="postgresql+psycopg://u:secret@127.0.0.1:1/d", query="SELECT 1"), "kpi_sources.s"),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            read_source(store, "s", source, KNOWN)
        assert "secret" not in str(caught.value)
    for document in ({"url": "sqlite://"}, {"query": "SELECT 1"}, {"url": "a", "url_env": "B", "query": "SELECT 1"}):
        with pytest.raises(ConfigError, match=r"kpi_sources\.s"):
            sources_from({"kpi_sources": {"s": document}})


@pytest.fixture
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real PostgreSQL of this test's own: its URL."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("needs the package postgresql")
    binaries = found[-1].parent
    folder = tmp_path_factory.mktemp("postgres")
    folder.chmod(0o755)
    folder.parent.chmod(0o755)
    folder.parent.parent.chmod(0o755)
    asroot = os.geteuid() == 0
    prefix = ["runuser", "-u", "postgres", "--"] if asroot else []
    if asroot:
        shutil.chown(folder, "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    base = folder / "base"
    subprocess.run(
        [*prefix, str(binaries / "initdb"), "-D", str(base), "-U", "t", "-A", "trust"], check=True, capture_output=True
    )
    server = subprocess.Popen(
        [*prefix, str(binaries / "postgres"), "-D", str(base), "-p", str(port), "-h", "127.0.0.1", "-k", str(folder)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        end = time.monotonic() + 30
        while subprocess.run(
            [str(binaries / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)], capture_output=True
        ).returncode:
            assert time.monotonic() < end
            time.sleep(0.1)
        yield f"postgresql+psycopg://t@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [*prefix, str(binaries / "pg_ctl"), "-D", str(base), "stop", "-m", "immediate"], capture_output=True
        )
        server.wait(30)


def test_a_postgresql_database(store: Store, postgres: str) -> None:
    import psycopg

    with psycopg.connect(postgres.replace("+psycopg", "")) as base:
        base.execute("CREATE TABLE sales (minute bigint, amount numeric(10, 2), area text)")
        base.execute("INSERT INTO sales VALUES (%s, 12.25, 'eu'), (%s, 7, NULL)", (MINUTE // S, MINUTE // S))
    assert read_source(store, "sales", KpiSource(url=postgres, query=QUERY), KNOWN) == 2
    assert _values(store) == {"eu": 12.25, "": 7.0}
