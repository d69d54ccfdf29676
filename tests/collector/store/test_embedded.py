# ruff: noqa: S106 - a deduplication token is no password
from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from collector.store import Limits, OutcomeUnknownError, StoreError
from collector.store.blocks import from_arrays
from collector.store.embedded import EmbeddedStore, open_embedded
from collector.store.messages import QueryLimits, Request, dial, send

ROOT = Path(__file__).parents[3]
SLEEP = "SELECT sum(sleepEachRow(0.1)) FROM numbers(600) SETTINGS max_block_size = 1"


def until(condition, seconds: float = 20.0) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.01)


def running(store: EmbeddedStore) -> int:
    """Queries in the engine beside this one."""
    return int(store.query("SELECT count() - 1 FROM system.processes").item())


def numbers(store: EmbeddedStore, table: str) -> None:
    store.execute(
        f"CREATE TABLE IF NOT EXISTS {table} (n UInt64) ENGINE = MergeTree ORDER BY n "
        "SETTINGS non_replicated_deduplication_window = 100, fsync_after_insert = 1, fsync_part_directory = 1"
    )


def block(first: int, count: int):  # type: ignore[no-untyped-def]
    return from_arrays({"n": "UInt64"}, {"n": np.arange(first, first + count, dtype=np.uint64)})


def test_parameters_arrive_as_they_are(store: EmbeddedStore) -> None:
    texts = ["it's", "back\\slash", "tab\tnewline\n", "\0", "\\N", "é{}", ""]
    got = store.query(
        "SELECT {n:UInt64} AS n, {t:String} AS t, {l:Array(String)} AS l, {m:Nullable(Int32)} AS m, {f:Float64} AS f",
        {"n": 2**64 - 1, "t": "'; DROP TABLE stamps; --\\", "l": texts, "m": None, "f": 1e-300},
    )
    assert got.row(0) == (2**64 - 1, "'; DROP TABLE stamps; --\\", texts, None, 1e-300)


def test_an_empty_result_keeps_its_columns(store: EmbeddedStore) -> None:
    assert store.query("SELECT 1 AS a, 'x' AS b WHERE 0").columns == ["a", "b"]


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("DROP TABLE stamps", 164),
        ("SELECT 1; DROP TABLE stamps", 164),
        ("SELECT 1 INTO OUTFILE '/tmp/never'", 164),
        ("SET max_memory_usage = 0", 164),
        ("SELECT * FROM file('/etc/passwd', 'LineAsString')", 497),
        ("SELECT * FROM url('http://127.0.0.1:9', 'LineAsString')", 497),
        ("SELECT nothing FROM stamps", 47),
        ("SELECT 1 +", 62),
        ("SELECT {absent:UInt8}", 456),
    ],
)
def test_query_only_reads_and_names_errors(store: EmbeddedStore, sql: str, code: int) -> None:
    with pytest.raises(StoreError) as caught:
        store.query(sql)
    assert caught.value.code == code
    assert caught.value.name
    assert not isinstance(caught.value, OutcomeUnknownError)


@pytest.mark.parametrize(
    ("sql", "limits", "name"),
    [
        ("SELECT * FROM numbers(100)", Limits(result_rows=10), "TOO_MANY_ROWS_OR_BYTES"),
        ("SELECT count() FROM numbers(100) WHERE number > 1", Limits(rows_to_read=10), "TOO_MANY_ROWS"),
        ("SELECT groupArray(number) FROM numbers(10000000)", Limits(memory_bytes=1 << 22), "MEMORY_LIMIT_EXCEEDED"),
        (SLEEP, Limits(seconds=1), "TIMEOUT_EXCEEDED"),
    ],
)
def test_limits_hold_for_one_query_only(store: EmbeddedStore, sql: str, limits: Limits, name: str) -> None:
    with pytest.raises(StoreError, match=name):
        store.query(sql, limits=limits)
    assert store.query("SELECT count() FROM numbers(1000)").item() == 1000


def test_a_query_ends_when_its_client_leaves(store: EmbeddedStore) -> None:
    client = dial(store._data, 5)
    send(client, Request("query", sql=SLEEP, limits=QueryLimits()))
    until(lambda: running(store) == 1)
    client.close()
    until(lambda: running(store) == 0)


def test_an_insert_cut_short_is_not_started(store: EmbeddedStore) -> None:
    numbers(store, "cut")
    client = dial(store._data, 5)
    request = Request("insert", table="cut", columns=("n",), token="cut")
    send(client, request, [b"\1\1\1n\6UInt64" + b"\0" * 4])  # four bytes short of the row it announces
    client.close()
    store.settle("cut")
    assert store.query("SELECT count() FROM cut").item() == 0


def test_garbage_on_the_socket_harms_nobody(store: EmbeddedStore) -> None:
    for garbage in (b"\xff" * 64, b"GET / HTTP/1.0\r\n\r\n", b"\4\0\0\0" + b"\0" * 8 + b"\xc1\xc1\xc1\xc1"):
        with dial(store._data, 5) as client:
            client.sendall(garbage)
            with contextlib.suppress(ConnectionResetError):  # closed with our bytes unread
                assert client.recv(1) == b""
    assert store.query("SELECT 1").item() == 1


def test_the_token_drops_a_repeated_insert(store: EmbeddedStore) -> None:
    numbers(store, "tokens")
    for token in ("a", "a", "b"):
        store.insert("tokens", block(0, 10), token=token)
    assert store.query("SELECT count() FROM tokens").item() == 20


def test_readers_and_writers_at_once(store: EmbeddedStore) -> None:
    numbers(store, "busy")
    wrong: list[tuple[int, int]] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            count, last = store.query("SELECT count() AS c, max(n) AS m FROM busy").row(0)
            if count and count != last + 1:
                wrong.append((count, last))

    with ThreadPoolExecutor(6) as pool:
        reading = [pool.submit(read) for _ in range(6)]
        for number in range(30):
            store.insert("busy", block(number * 1000, 1000), token=f"busy{number}")
        stop.set()
        for future in reading:
            future.result()
    assert wrong == []
    assert store.query("SELECT count() FROM busy").item() == 30_000


def test_health_says_what_it_holds(store: EmbeddedStore) -> None:
    health = store.health()
    assert health.ok and health.engine == "chdb" and health.boot_id == store.boot_id()
    assert health.resident_bytes and health.resident_bytes > 50_000_000
    assert health.disk_free_bytes and health.disk_free_bytes > 0
    assert set(health.extra["confinement"]) == {"network", "user", "privileges", "paths", "core", "files"}


def test_the_socket_is_the_users_own(store: EmbeddedStore) -> None:
    assert (store._data / "store.sock").stat().st_mode & 0o777 == 0o600


def test_a_second_process_is_refused_in_words(store: EmbeddedStore) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "collector.store.process", "--data", str(store._data)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert second.returncode == 3
    assert f"is held by the store process {store.health().extra['pid']}; use its socket" in second.stderr


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-m", "collector.store.process", "--data", str(tmp_path / "absent")],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert run.returncode == 3
    assert "absent" in run.stderr


def test_a_start_that_fails_says_why(data: Path) -> None:
    data.mkdir()
    (data / "store").write_text("not a directory")
    with pytest.raises(StoreError, match=r"did not start \(exit 4\): .*cannot open"):
        open_embedded(data)


def test_long_paths_racing_starters_and_the_last_owner(tmp_path: Path) -> None:
    """One process for four starters; data survives; it ends when the owner and then the last client are gone."""
    data = tmp_path / ("d" * 120) / "with space & ünïcode?"
    data.parent.mkdir()
    with ThreadPoolExecutor(4) as pool:
        stores = list(pool.map(lambda _: open_embedded(data), range(4)))
    assert len({store.health().extra["pid"] for store in stores}) == 1
    assert sum(store._child is not None for store in stores) == 1
    owner = next(store for store in stores if store._child is not None)
    pid = owner.health().extra["pid"]
    numbers(owner, "kept")
    owner.insert("kept", block(0, 5), token="kept")
    process = owner._child.process  # type: ignore[union-attr]
    owner.close()
    others = [store for store in stores if store is not owner]
    assert others[0].query("SELECT count() FROM kept").item() == 5
    for store in others:
        store.close()
    process.wait(20)
    with open_embedded(data) as again:
        assert again.query("SELECT count() FROM kept").item() == 5
        assert again.health().extra["pid"] != pid


def test_an_owner_killed_takes_its_store_along(data: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from collector.store.embedded import open_embedded\n"
        "print(open_embedded(Path(sys.argv[1])).health().extra['pid'], flush=True); time.sleep(60)"
    )
    owner = subprocess.Popen([sys.executable, "-c", code, str(data)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    owner.kill()
    owner.wait()
    owner.stdout.close()
    until(lambda: not Path(f"/proc/{pid}/cmdline").exists() or not Path(f"/proc/{pid}/cmdline").read_bytes())


def test_sigterm_ends_it_cleanly(data: Path) -> None:
    data.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-m", "collector.store.process", "--data", str(data)], cwd=ROOT, stderr=subprocess.DEVNULL
    )
    until(lambda: (data / "store.sock").exists())
    store = EmbeddedStore(data)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 0
    assert not (data / "store.sock").exists()
    with pytest.raises(StoreError, match="no store process answers") as caught:
        store.query("SELECT 1")
    assert caught.value.retryable
    store.close()


def kill_during_inserts(data: Path, kills: int, seed: int) -> None:
    """Kill the engine at random moments; what was acknowledged is there once, what was not is read back."""
    rng = np.random.default_rng(seed)
    store = open_embedded(data)
    numbers(store, "t")
    acknowledged, unknown, batch = 0, 0, 0
    for _ in range(kills):
        pid, boot = store.health().extra["pid"], store.boot_id()
        timer = threading.Timer(float(rng.uniform(0.0, 0.15)), os.kill, (pid, signal.SIGKILL))
        timer.start()
        while True:
            try:
                store.insert("t", block(batch * 100, 100), token=f"{batch}#0")
            except OutcomeUnknownError:
                unknown += 1
                break
            except StoreError:
                break
            batch += 1
            acknowledged += 1
        timer.join()
        until(lambda boot=boot: store.health().ok and store.boot_id() != boot, 30)
        present = store.query("SELECT count() FROM t WHERE n >= {first:UInt64}", {"first": batch * 100}).item()
        assert present in (0, 100), "an insert is atomic"
        if not present:
            store.insert("t", block(batch * 100, 100), token=f"{batch}#1")
        batch += 1
    rows, distinct = store.query("SELECT count() AS c, uniqExact(n) AS u FROM t").row(0)
    assert (rows, distinct) == (batch * 100, batch * 100), f"{acknowledged} acknowledged, {unknown} unknown"
    store.close()


def test_kill_nine_loses_and_doubles_nothing(data: Path) -> None:
    kill_during_inserts(data, kills=3, seed=1)


@pytest.mark.fault
@pytest.mark.timeout(900)
def test_kill_nine_250_times(data: Path) -> None:
    kill_during_inserts(data, kills=250, seed=2)
