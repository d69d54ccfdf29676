# ruff: noqa: S106, S608 - a deduplication token is no password; 18.16 cannot bind parameters
"""The wire, against the real ClickHouse 18.16 of Debian: it speaks the protocol, not today's SQL."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from clickhouse_driver.bufferedwriter import BufferedSocketWriter
from clickhouse_driver.columns.service import write_column
from clickhouse_driver.context import Context

from collector.settings import ConfigError, section
from collector.store import OutcomeUnknownError, StoreError
from collector.store.blocks import from_arrays, from_rows
from collector.store.columns import driver_column, needs_lists
from collector.store.connections import store_errors
from collector.store.embedded import EmbeddedStore
from collector.store.native import Block, BlockColumn
from collector.store.server import ClickHouseStore
from collector.store.settings import StoreSettings

USERS = """<yandex><profiles><default>
<allow_experimental_low_cardinality_type>1</allow_experimental_low_cardinality_type>
</default></profiles><quotas><default/></quotas><users><tail>
<password>secret</password><networks><ip>127.0.0.1</ip></networks><profile>default</profile><quota>default</quota>
</tail></users></yandex>"""
CONFIG = """<yandex><logger><level>error</level><log>{dir}/log</log><errorlog>{dir}/err</errorlog></logger>
<tcp_port>{port}</tcp_port><listen_host>127.0.0.1</listen_host><path>{dir}/data/</path><tmp_path>{dir}/tmp/</tmp_path>
<users_config>{dir}/users.xml</users_config><default_profile>default</default_profile><timezone>UTC</timezone>
<default_database>default</default_database><mark_cache_size>5368709</mark_cache_size></yandex>"""

needs_server = pytest.mark.skipif(
    shutil.which("clickhouse-server") is None, reason="needs the package clickhouse-server (Debian: 18.16)"
)


class Server:
    """A real server on a loopback port of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        (folder / "users.xml").write_text(USERS)
        (folder / "config.xml").write_text(CONFIG.format(dir=folder, port=self.port))
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            ["clickhouse-server", f"--config-file={self.folder}/config.xml"],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        end = time.monotonic() + 30
        while time.monotonic() < end:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            assert self.process.poll() is None, (self.folder / "err").read_text()
            time.sleep(0.05)
        raise AssertionError("the server did not start")

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def settings(self, *others: Server) -> StoreSettings:
        hosts = [f"127.0.0.1:{server.port}" for server in (self, *others)]
        password = self.folder / "password"
        password.write_text("secret")
        password.chmod(0o600)
        return section(
            {"hosts": hosts, "user": "tail", "database": "default", "password_file": str(password)},
            StoreSettings,
            "store",
        )


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("clickhouse"))
    running.start()
    yield running
    running.kill()


@pytest.fixture
def remote(server: Server) -> Iterator[ClickHouseStore]:
    store = ClickHouseStore(server.settings())
    yield store
    store.close()


@needs_server
def test_our_kinds_of_columns_over_the_wire(remote: ClickHouseStore) -> None:
    remote.execute("DROP TABLE IF EXISTS kinds")
    remote.execute(
        "CREATE TABLE kinds (ts Int64, key UInt64, point LowCardinality(String), thread UInt32, "
        "error_ns Nullable(UInt32),"
        " outcome Enum8('unset' = 0, 'ok' = 1), value Float64, day Date, collector UUID, hash FixedString(4), "
        "text String,"
        " reasons Array(String), counts Array(UInt64)) ENGINE = MergeTree ORDER BY ts"
    )
    types = {
        "ts": "Int64", "key": "UInt64", "point": "LowCardinality(String)", "thread": "UInt32",
        "error_ns": "Nullable(UInt32)", "outcome": "Enum8('unset' = 0, 'ok' = 1)", "value": "Float64", "day": "Date",
        "collector": "UUID", "hash": "FixedString(4)", "text": "String", "reasons": "Array(String)",
        "counts": "Array(UInt64)",
    }  # fmt: skip
    one = {
        "ts": 2**62 + 1, "key": 2**64 - 1, "point": "tap", "thread": 7, "error_ns": None, "outcome": "ok", "value": 0.1,
        "day": 20_000, "collector": uuid.UUID(int=2**127 + 5), "hash": b"abcd", "text": "é'\n", "reasons": ["a", "b"],
        "counts": [1, 2**64 - 1],
    }  # fmt: skip
    two = {**one, "ts": 1, "error_ns": 9, "reasons": [], "counts": [], "outcome": "unset", "point": "acked"}
    remote.insert("kinds", from_rows(types, [one, two]), token="kinds")
    got = remote.query(
        "SELECT ts, key, point, thread, error_ns, outcome, value, toUInt16(day) AS day, collector, text, reasons, "
        "counts "
        "FROM kinds ORDER BY ts"
    )
    wanted = [{**row, "outcome": row["outcome"] == "ok", "collector": row["collector"].bytes} for row in (two, one)]  # type: ignore[attr-defined]
    assert got.drop("outcome").to_dicts() == [
        {k: v for k, v in r.items() if k not in ("hash", "outcome")} for r in wanted
    ]
    assert got["outcome"].to_list() == [0, 1]
    assert got.schema["error_ns"] == pl.UInt32 and got.schema["outcome"] == pl.Int8


@needs_server
def test_numpy_columns_go_as_columns(remote: ClickHouseStore) -> None:
    n = 200_000
    remote.execute("DROP TABLE IF EXISTS wide")
    remote.execute(
        "CREATE TABLE wide (ts Int64, key UInt64, point LowCardinality(String)) ENGINE = MergeTree ORDER BY ts"
    )
    keys = np.arange(n, dtype=np.uint64) << np.uint64(44)
    block = Block(
        n,
        (
            BlockColumn("ts", "Int64", np.arange(n, dtype=np.int64)),
            BlockColumn("key", "UInt64", keys),
            BlockColumn(
                "point", "LowCardinality(String)", (np.arange(n) % 3).astype(np.uint16), ["tap", "acked", "on_cpu"]
            ),
        ),
    )
    remote.insert("wide", block, token="wide")
    got = remote.query("SELECT count() AS n, max(key) AS k, countIf(point = 'on_cpu') AS p, sum(ts) AS s FROM wide")
    assert got.row(0) == (n, int(keys[-1]), n // 3, n * (n - 1) // 2)


@needs_server
def test_what_the_driver_would_cast_is_refused(remote: ClickHouseStore) -> None:
    remote.execute("DROP TABLE IF EXISTS narrow")
    remote.execute("CREATE TABLE narrow (n UInt8) ENGINE = MergeTree ORDER BY n")
    with pytest.raises(TypeError, match="column n Int64: the server has UInt8"):
        remote.insert("narrow", from_arrays({"n": "Int64"}, {"n": np.array([300])}), token="narrow")
    with pytest.raises(TypeError, match="column n UInt8: values have dtype int64"):
        remote.insert("narrow", from_arrays({"n": "UInt8"}, {"n": np.array([300])}), token="narrow")
    assert remote.query("SELECT count() AS n FROM narrow").item() == 0


@needs_server
def test_errors_have_codes_and_the_connection_goes_on(remote: ClickHouseStore) -> None:
    for sql, code, name in (("SELECT * FROM absent", 60, "UNKNOWN_TABLE"), ("DROP TABLE wide", 164, "READONLY")):
        with pytest.raises(StoreError) as caught:
            remote.query(sql)
        assert (caught.value.code, caught.value.name) == (code, name)
    assert remote.query("SELECT 1 AS one").item() == 1
    with pytest.raises(StoreError, match=r"cannot bind parameters; 22\.8"):
        remote.query("SELECT {x:UInt8}", {"x": 1})
    assert remote.query("SELECT 1 AS a, 'x' AS b WHERE 0").columns == ["a", "b"]


@needs_server
def test_a_wrong_password_is_certain_and_final(server: Server) -> None:
    wrong = server.folder / "wrong"
    wrong.write_text("guess")
    wrong.chmod(0o600)
    store = ClickHouseStore(StoreSettings(hosts=(f"127.0.0.1:{server.port}",), user="tail", password_file=str(wrong)))
    with pytest.raises(StoreError, match="WRONG_PASSWORD") as caught:
        store.execute("SELECT 1")
    assert (caught.value.code, caught.value.retryable) == (193, False)
    assert not store.health().ok
    store.close()


@needs_server
def test_a_dead_host_is_passed_over(server: Server, tmp_path: Path) -> None:
    dead = Server(tmp_path)
    store = ClickHouseStore(dead.settings(server))
    assert store.query("SELECT 1 AS one").item() == 1
    store.settle("nothing#")
    store.close()
    alone = ClickHouseStore(dead.settings())
    with pytest.raises(StoreError, match="no ClickHouse server can be reached") as caught:
        alone.query("SELECT 1")
    assert caught.value.retryable and not isinstance(caught.value, OutcomeUnknownError)
    alone.close()


@needs_server
def test_settle_ends_an_insert_under_way(remote: ClickHouseStore) -> None:
    remote.execute("DROP TABLE IF EXISTS slow")
    remote.execute("CREATE TABLE slow (n UInt8) ENGINE = MergeTree ORDER BY n")
    failed: list[StoreError] = []

    def run() -> None:
        client = remote._connections.client(numpy=True)
        try:
            with store_errors(client, writing=True):
                client.execute("INSERT INTO slow SELECT toUInt8(count() % 2) FROM system.numbers", query_id="batch#0~1")
        except StoreError as error:
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    end = time.monotonic() + 20
    while not remote.query("SELECT count() AS n FROM system.processes WHERE query_id = 'batch#0~1'").item():
        assert time.monotonic() < end
    remote.settle("batch#")
    thread.join(20)
    assert isinstance(failed[0], OutcomeUnknownError)
    assert remote.query("SELECT count() AS n FROM slow").item() == 0


@needs_server
def test_kill_nine_in_mid_stream_loses_and_doubles_nothing(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    own = Server(tmp_path)
    own.start()
    request.addfinalizer(own.kill)
    store = ClickHouseStore(own.settings())
    store.execute("CREATE TABLE t (n UInt64, batch UInt64) ENGINE = MergeTree ORDER BY n")
    boots = {store.boot_id()}
    outcomes: list[str] = []
    batches, number, attempt = 120, 0, 0
    while number < batches:
        if number == 60 and len(boots) == 1:
            killer = threading.Timer(0.004, own.kill)
            killer.start()
            boots.add("killed")
        block = from_arrays(
            {"n": "UInt64", "batch": "UInt64"},
            {"n": np.arange(number * 50, number * 50 + 50, dtype=np.uint64), "batch": np.full(50, number, np.uint64)},
        )
        try:
            if attempt:
                present = store.query(f"SELECT count() AS n FROM t WHERE batch = {number}").item()
                assert present in (0, 50)
                if present:
                    number, attempt = number + 1, 0
                    continue
            store.insert("t", block, token=f"{number}#{attempt}")
            number, attempt = number + 1, 0
        except StoreError as error:
            outcomes.append(type(error).__name__)
            attempt += 1
            killer.join()
            if own.process is not None and own.process.poll() is not None:
                own.start()
    assert outcomes
    assert store.query("SELECT count() AS c, uniqExact(n) AS u FROM t").row(0) == (batches * 50, batches * 50)
    store.close()


class Sink:
    """The socket that the driver's writer needs."""

    def __init__(self) -> None:
        self.sent = bytearray()

    def sendall(self, data: bytes) -> None:
        self.sent += data


@pytest.mark.parametrize("numpy_mode", [True, False])
def test_the_drivers_own_encoder_makes_bytes_that_todays_engine_reads(store: EmbeddedStore, numpy_mode: bool) -> None:
    """Types that 18.16 does not know: the driver encodes our columns, today's engine decodes them."""
    types = {
        "ts": "DateTime64(9, 'UTC')", "lc": "LowCardinality(String)", "d": "DateTime('UTC')",
        "e": "Enum8('a' = 1, 'b' = -2)",
    }  # fmt: skip
    if not numpy_mode:
        types |= {
            "n": "Nullable(Int64)",
            "alc": "Array(LowCardinality(String))",
            "an": "Array(Nullable(Int64))",
            "u": "UUID",
        }
    value = {
        "ts": 1_795_000_000_123_456_789, "lc": "x", "d": 1_795_000_000, "e": "b", "n": None, "alc": ["p", "q"],
        "an": [None, 2**62], "u": uuid.UUID(int=77),
    }  # fmt: skip
    rows = [{name: value[name] for name in types}, {name: value[name] for name in types} | {"lc": "y", "e": "a"}]
    block = from_rows(types, rows)
    assert needs_lists(block) != numpy_mode
    context = Context()
    context.client_settings = {"use_numpy": numpy_mode, "strings_as_bytes": False, "strings_encoding": "utf-8"}
    context.settings = {}
    sink = Sink()
    out = BufferedSocketWriter(sink, 1 << 20)
    head = bytes([len(block.columns), block.rows])
    out.write(head)
    for column in block.columns:
        for text in (column.name.encode(), column.type.encode()):
            out.write(bytes([len(text)]) + text)
        write_column(context, column.name, column.type, driver_column(column, lists=not numpy_mode), out)
    out.flush()

    store.execute("DROP TABLE IF EXISTS encoded")
    store.execute(
        f"CREATE TABLE encoded ({', '.join(f'{n} {t}' for n, t in types.items())}) ENGINE = MergeTree ORDER BY ts"
    )
    from collector.store.messages import Request, dial, receive_bytes, receive_lengths, send

    with dial(store._data, 5) as client:
        send(
            client,
            Request("insert", table="encoded", columns=tuple(types), token=f"enc{numpy_mode}"),
            [bytes(sink.sent)],
        )
        head_size, _ = receive_lengths(client)
        assert b"error" not in receive_bytes(client, head_size)
    got = store.query("SELECT * REPLACE (toUnixTimestamp64Nano(ts) AS ts) FROM encoded ORDER BY lc").to_dicts()
    numbers = {"b": -2, "a": 1}
    assert got == [
        {**r, "e": numbers[str(r["e"])], **({"u": r["u"].bytes} if "u" in r else {})}  # type: ignore[attr-defined]
        for r in rows
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "field"),
    [
        ({"hosts": ["a:b"]}, "hosts"),
        ({"hosts": ["a:70000"]}, "hosts"),
        ({"ca": "x.pem"}, "secure"),
        ({"secure": True, "cert": "x.pem"}, "key"),
        ({"password_file": "a", "password_env": "B"}, "password_env"),
        ({"password": "secret"}, "store"),
    ],
)
def test_settings_name_what_is_wrong(document: dict[str, object], field: str) -> None:
    with pytest.raises(ConfigError) as caught:
        section(document, StoreSettings, "store")
    assert field in str(caught.value)


def test_a_password_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "password"
    path.write_text("secret")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        StoreSettings(hosts=("a",), password_file=str(path)).password()
