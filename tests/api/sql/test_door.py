"""The SQL door of a running server, as curl and ClickHouse's own drivers see it."""

from __future__ import annotations

import gzip
import time
from collections.abc import Iterator

import clickhouse_connect
import httpx
import pytest

from api.auth import Tokens
from api.control import Control
from tests.api.live import Live, running
from tests.api.sql.judging import judged


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with running(
        tmp_path_factory.mktemp("sql"),
        "[server]\nsql_rows = 5000\nquery_seconds = 2.0\nsql_rows_to_read = 1000000000000\n",
    ) as live:
        yield live


def test_curl_like_requests(live: Live) -> None:
    with live.client() as client:
        assert client.get("/clickhouse/ping").text == "Ok.\n"
        assert client.get("/clickhouse/").text == "Ok.\n"
        assert client.get("/clickhouse", params={"query": "SELECT count() FROM stamps"}).text == "0\n"
        answer = client.post("/clickhouse/?default_format=JSONEachRow&unknown_setting=1", content="SELECT 1 AS a;")
        assert (answer.json(), answer.headers["x-clickhouse-format"]) == ({"a": 1}, "JSONEachRow")
        assert answer.headers["x-clickhouse-server-display-name"] == "tailsight"
        answer = client.post("/clickhouse?param_n=3", content="SELECT number FROM numbers({n:UInt64}) FORMAT CSV")
        assert answer.text == "0\n1\n2\n"
        many = client.stream("POST", "/clickhouse", content="SELECT number, toString(number) FROM numbers(900)")
        with many as stream:
            raw = b"".join(stream.iter_raw())
        assert len(gzip.decompress(raw).splitlines()) == 900
        plain = client.post(
            "/clickhouse", content="SELECT number FROM numbers(900)", headers={"Accept-Encoding": "identity"}
        )
        assert "content-encoding" not in plain.headers
        described = client.post(
            "/clickhouse?default_format=TabSeparatedWithNames", content="DESC TABLE tailsight.links"
        )
        assert described.text.startswith("name\ttype\tdefault_type")
        assert client.post("/clickhouse", content="SELECT * FROM system.settings").text.count("\n") == 2
        assert client.post("/clickhouse", content="SELECT count() FROM links WHERE child = 1").text == "0\n"


@pytest.mark.parametrize(
    ("sql", "status", "code"),
    [
        ("SELEC 1", 400, 62),
        ("SELECT nope FROM stamps", 404, 47),
        ("SELECT 1 FROM nope", 404, 60),
        ("SELECT file('/etc/passwd')", 403, 497),
        ("SELECT * FROM system.processes", 403, 497),
        ("DROP TABLE stamps", 403, 164),
        ("SELECT number FROM numbers(20000)", 500, 396),
        ("SELECT {x:UInt8}", 400, 456),
        ("SELECT 1 FORMAT Template", 400, 73),
        ("SELECT count() FROM numbers(100000000000) WHERE number % 7 = 3", 500, 159),
    ],
)
def test_errors_have_clickhouses_form(live: Live, sql: str, status: int, code: int) -> None:
    with live.client() as client:
        answer = client.post("/clickhouse", content=sql)
    assert (answer.status_code, answer.headers["x-clickhouse-exception-code"]) == (status, str(code)), answer.text
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert "/store/" not in answer.text


def test_a_pages_of_another_site_gets_nothing(live: Live) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Host": "evil.example"}, {"X-Forwarded-For": "10.0.0.1"}):
        with live.client() as client:
            answer = client.post("/clickhouse", content="SELECT 1", headers=headers)
        assert (answer.status_code, answer.headers["x-clickhouse-exception-code"]) == (401, "516")


def test_a_token_of_its_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    config = '[server]\nrequire_token = "always"\n'
    with running(tmp_path_factory.mktemp("sqltoken"), config) as live:
        control = Control(live.data / "control.sqlite")
        tokens = {scope: Tokens(control).create(scope, [scope])[1] for scope in ("sql", "read")}
        control.close()
        time.sleep(0.01)
        url = f"{live.url}/clickhouse"
        assert httpx.post(url, content="SELECT 1").status_code == 401
        assert httpx.post(url, content="SELECT 1", auth=("any", "")).status_code == 401
        assert httpx.post(url, content="SELECT 1", auth=("any", tokens["read"])).status_code == 403
        for headers in (
            httpx.Headers({"Authorization": f"Bearer {tokens['sql']}"}),
            httpx.Headers({"X-ClickHouse-User": "grafana", "X-ClickHouse-Key": tokens["sql"]}),
        ):
            assert httpx.post(url, content="SELECT 1", headers=headers).text == "1\n"
        assert httpx.post(url, content="SELECT 1", auth=("grafana", tokens["sql"])).text == "1\n"
        # It opens nothing else.
        other = httpx.get(f"{live.url}/v1/paths", headers={"Authorization": f"Bearer {tokens['sql']}"})
        assert other.status_code == 403


def test_clickhouse_connect(live: Live) -> None:
    host, port = live.url.removeprefix("http://").rsplit(":", 1)
    client = clickhouse_connect.get_client(host=host, port=int(port), proxy_path="clickhouse")
    assert client.query("SELECT 1 AS a, 'x' AS b").result_rows == [(1, "x")]
    assert client.query("SELECT number FROM numbers({n:UInt8})", parameters={"n": 3}).result_columns == [[0, 1, 2]]
    assert client.query_df("SELECT toDateTime64(0, 9) AS t").shape == (1, 1)
    assert client.command("SELECT count() FROM messages") == 0
    with pytest.raises(clickhouse_connect.driver.exceptions.DatabaseError, match="497"):
        client.query("SELECT file('/etc/passwd')")
    client.close()


def test_the_driver_of_grafanas_data_source(live: Live) -> None:
    address = live.url.removeprefix("http://")
    ping, typed, described, functions, empty, refused, wrong = judged(
        address,
        [
            "SELECT toDateTime64('2026-01-01 00:00:00.123456789', 9, 'UTC') AS t, toLowCardinality('x') AS l,"
            " CAST(NULL AS Nullable(Int64)) AS n, [1, 2] AS a, map('k', 'v') AS m, toUInt64(18446744073709551615) AS u",
            'DESC TABLE "tailsight"."links"',
            "SELECT name, is_aggregate, case_insensitive, alias_to, create_query, origin, description, syntax,"
            " arguments, returned_value, categories FROM system.functions LIMIT 10000",
            "SELECT key, ts FROM stamps WHERE ts > now() - 60 SETTINGS max_execution_time=10",
            "SELECT file('/etc/passwd')",
            "SELECT nope FROM stamps",
        ],
    )
    assert ping["error"] == ""
    assert typed["types"] == [
        "DateTime64(9, 'UTC')", "LowCardinality(String)", "Nullable(Int64)", "Array(UInt8)", "Map(String, String)",
        "UInt64",
    ]  # fmt: skip
    assert typed["rows"] == [
        ["2026-01-01 00:00:00.123456789 +0000 UTC", "x", "<nil>", "[1 2]", "map[k:v]", "18446744073709551615"]
    ]
    assert [row[0] for row in described["rows"]][:2] == ["ts", "parent"]
    assert functions["error"] == ""
    assert functions["count"] > 1_000
    assert (empty["count"], empty["error"]) == (0, "")
    assert "Code: 497" in refused["error"]
    assert "Code: 47" in wrong["error"]
