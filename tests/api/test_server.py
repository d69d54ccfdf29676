from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from tests.api.frames_kit import Agent, stamp
from tests.api.live import ROOT, Live, running


@pytest.fixture(scope="module")
def live(plain_server: Live) -> Live:
    return plain_server


def serve(*arguments: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "api.server", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def test_it_is_ready_when_it_says_so(live: Live) -> None:
    note = json.loads((live.data / "server.json").read_text())
    assert note["pid"] == live.process.pid
    with live.client() as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        ready = client.get("/readyz").json()
    assert ready["ready"] is True
    assert ready["degraded"] == []
    assert {check["name"] for check in ready["checks"]} == {"store", "migrations", "jobs", "running"}


def test_a_second_server_is_refused_and_told_who_runs(live: Live) -> None:
    second = serve("--data", str(live.data), "--port", "0")
    assert second.returncode == 3
    assert str(live.process.pid) in second.stderr
    assert live.url in second.stderr
    assert json.loads((live.data / "server.json").read_text())["url"] == live.url


def test_a_taken_port_is_said(live: Live, tmp_path: Path) -> None:
    port = live.url.rpartition(":")[2]
    refused = serve("--data", str(tmp_path), "--port", port)
    assert refused.returncode == 3
    assert f"port {port}" in refused.stderr
    assert "--port" in refused.stderr


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ('[server]\nhost = "0.0.0.0"\n', "server.host"),
        ("[server]\nport = 70000\n", "server.port"),
        ('[server]\ntls_cert = "x"\n', "server.tls_cert"),
        ("[server]\nbody_seconds = 0\n", "server.body_seconds"),
        ('[server]\nquery_rate = "often"\n', "server.query_rate"),
        ("[server]\nprot = 1\n", "prot"),
        ("[server]\ningest_queue_bytes = 1\n", "server.ingest_queue_bytes"),
        ("[server\n", "not valid TOML"),
    ],
)
def test_a_wrong_configuration_is_refused_by_name(toml: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "tailsight.toml").write_text(toml)
    refused = serve("--data", str(tmp_path))
    assert refused.returncode == 3
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
    assert not (tmp_path / "store").exists()


def test_the_log_is_json_and_says_what_happened(live: Live) -> None:
    lines = (live.data / "server.log").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert {"server_ready", "migrated"} <= {event["event"] for event in events}
    assert all({"ts", "level"} <= set(event) for event in events)


def test_the_store_is_restarted_and_the_doors_say_503_meanwhile(tmp_path: Path) -> None:
    with running(tmp_path) as live, live.client() as client:
        agent = Agent()
        headers, body = agent.batch([stamp(1, "app_ingress", time.time_ns())])
        assert client.post("/v1/ingest", headers=headers, content=body).status_code == 200
        os.kill(int((tmp_path / "store.lock").read_text()), signal.SIGKILL)
        statuses: list[int] = []
        end = time.monotonic() + 30
        while time.monotonic() < end and (not statuses or statuses[-1] != 200):
            answer = client.get("/v1/changes")
            statuses.append(answer.status_code)
            if answer.status_code == 503:
                assert int(answer.headers["retry-after"]) >= 1
                assert answer.json()["type"].endswith("store-unavailable")
            time.sleep(0.02)
        assert set(statuses) <= {200, 503}
        assert statuses[-1] == 200
        # The batch that was answered 200 is there, and is known as a duplicate.
        again = client.post("/v1/ingest", headers=headers | {"Tailsight-Attempt": "1"}, content=body)
        assert again.json()["status"] == "duplicate"
        assert client.get(f"/v1/ingest/batches/{headers['Tailsight-Batch']}").json()["stored"] == 1
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").json()["ready"] is True


def test_sigterm_ends_open_streams_and_the_process_and_a_restart_has_everything(tmp_path: Path) -> None:
    with running(tmp_path) as live:
        ended = threading.Event()
        opened = threading.Event()

        def follow() -> None:
            with live.client() as client, client.stream("GET", "/v1/stream") as response:
                for _ in response.iter_lines():
                    opened.set()
            ended.set()

        thread = threading.Thread(target=follow)
        thread.start()
        assert opened.wait(10)
        with live.client() as client:
            made = client.post("/v1/changes", json={"kind": "deploy", "what": "before the restart"}).json()
        assert live.stop() == 0
        assert ended.wait(10)
        thread.join()
        assert not (tmp_path / "server.json").exists()
    with running(tmp_path) as again, again.client() as client:
        assert [c["id"] for c in client.get("/v1/changes").json()["changes"]] == [made["id"]]


def test_a_killed_server_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    with running(tmp_path) as live:
        live.stop(signal.SIGKILL)
        assert (tmp_path / "server.json").exists()
    with running(tmp_path) as again, again.client() as client:
        assert client.get("/readyz").json()["ready"] is True
        assert json.loads((tmp_path / "server.json").read_text())["pid"] == again.process.pid


def test_off_loopback_every_route_but_healthz_needs_a_token(tmp_path: Path) -> None:
    with running(tmp_path, '[server]\nhost = "0.0.0.0"\nallow_plain_text = true\n') as live, live.client() as client:
        assert client.get("/healthz").status_code == 200
        paths = ("/readyz", "/metrics", "/v1/changes", "/v1/tokens", "/openapi.json", "/v1/stream")
        for path in paths:
            answer = client.get(path)
            assert answer.status_code == 401, path
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "tailsight token create" in answer.json()["detail"]


def test_tls_serves_with_a_certificate(tmp_path: Path) -> None:
    import datetime
    import ipaddress
    import ssl

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (tmp_path / "key.pem").write_bytes(pem)
    toml = f'[server]\ntls_cert = "{tmp_path}/cert.pem"\ntls_key = "{tmp_path}/key.pem"\n'
    with running(tmp_path / "data", toml) as live:
        assert live.url.startswith("https://")
        context = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        assert httpx.get(f"{live.url}/healthz", verify=context).json() == {"status": "ok"}
        port = int(live.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as plain:
            plain.settimeout(10)
            plain.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
            assert b"200 OK" not in plain.recv(200)
