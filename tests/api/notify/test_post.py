"""One POST over TLS: the certificate of the name, at the address that was checked; and a hang before any answer."""

from __future__ import annotations

import datetime
import socket
import ssl
import time
from pathlib import Path

import pytest

from api.notify.address import Place, place
from api.notify.post import PostError, post
from tests.api.notify.kit import receiver, webhook


def certificate(folder: Path, host: str) -> Path:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), False)
        .sign(key, hashes.SHA256())
    )
    plain = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    file = folder / "both.pem"
    file.write_bytes(plain + made.public_bytes(serialization.Encoding.PEM))
    return file


def test_tls_is_of_the_name_and_the_connection_to_the_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = certificate(tmp_path, "hooks.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(file)
    with receiver(tls=context) as here:
        at = Place("127.0.0.1", here.port, "hooks.example", "/x", tls=True)
        with pytest.raises(PostError, match="self-signed"):
            post(at, b"{}", {}, 5)
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        assert post(at, b"{}", {}, 5).status == 200
        assert here.got[0][0]["Host"] == f"hooks.example:{here.port}"
        with pytest.raises(PostError, match="mismatch"):
            post(Place("127.0.0.1", here.port, "others.example", "/x", tls=True), b"{}", {}, 5)


@pytest.mark.parametrize("tls", [False, True])
def test_a_place_that_takes_connections_and_says_nothing_is_left_in_time(tls: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(PostError, match=r"no answer within 0\.2 s"):
            post(Place("127.0.0.1", silent.getsockname()[1], "x", "/", tls), b"{}", {}, 0.2)
        assert time.monotonic() - started < 10  # as long as the limit, not as long as a peer likes


def test_paths_and_queries_of_urls() -> None:
    assert place(webhook("http://127.0.0.1:8080"), "/api/v2/alerts").path == "/api/v2/alerts"
    assert place(webhook("http://127.0.0.1:8080/am/"), "/api/v2/alerts").path == "/am/api/v2/alerts"
    here = place(webhook("http://127.0.0.1:8080/hook?key=1"))
    assert (here.path, here.authority) == ("/hook?key=1", "127.0.0.1:8080")
