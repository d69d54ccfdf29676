"""The read-only user for Grafana, as the engine of today takes it: chDB reads the same users file.

But for one line: chDB does not read the server's `settings_constraints_replace_previous`, which a server's own
config.xml sets, and without it refuses `changeable_in_readonly`.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path

from collector.store.schema import table_types
from collector.store.wall import HIDDEN

FILE = Path(__file__).resolve().parents[2] / "deploy/clickhouse/grafana.xml"

# Its own process: one engine per process, and its user is whom the file says.
_TRY = """
import sys
from chdb.session import Session
session = Session("store?config-file=reader.xml")
for sql in sys.argv[1:]:
    try:
        session.query(sql)
        print("ok")
    except RuntimeError as error:
        print(str(error).partition("Code: ")[2].partition(".")[0])
"""


def test_every_table_is_granted_and_the_audit_log_is_not() -> None:
    grants = [str(query.text) for query in ElementTree.parse(FILE).iter("query")]  # noqa: S314 - our own file
    expected = [f"GRANT SELECT, SHOW ON tailsight.{table}" for table in sorted(table_types()) if table not in HIDDEN]
    assert grants == expected


def test_the_engine_holds_the_user_to_it(tmp_path: Path) -> None:
    (tmp_path / "reader.xml").write_text("<clickhouse><users_config>reader_users.xml</users_config></clickhouse>")
    create = (
        "CREATE DATABASE tailsight; CREATE TABLE tailsight.stamps (a Int8) ENGINE = Log; "
        "CREATE TABLE tailsight.audit (a Int8) ENGINE = Log"
    )
    make = textwrap.dedent(f"""
        from chdb.session import Session
        session = Session("store")
        for sql in {create.split("; ")!r}:
            session.query(sql)
        """)
    subprocess.run([sys.executable, "-c", make], cwd=tmp_path, check=True, capture_output=True)
    text = (
        FILE.read_text()
        .replace("grafana>", "default>")
        .replace("<password_sha256_hex>REPLACE_WITH_SHA256</password_sha256_hex>", "<password/>")
    )
    text = text.replace("<changeable_in_readonly/>", "").replace("<profiles>", "<profiles><default/>")
    (tmp_path / "reader_users.xml").write_text(text.replace("<users>", "<quotas><default/></quotas><users>"))
    asked = {
        "SELECT a FROM tailsight.stamps": "ok",
        "SELECT a FROM tailsight.stamps SETTINGS max_memory_usage = 1": "164",
        "SELECT a FROM tailsight.audit": "497",
        "INSERT INTO tailsight.stamps VALUES (1)": "497",
        "DROP TABLE tailsight.stamps": "497",
        "SELECT * FROM url('http://127.0.0.1:1/', 'LineAsString')": "497",
    }
    done = subprocess.run(
        [sys.executable, "-c", _TRY, *asked], cwd=tmp_path, check=True, capture_output=True, text=True
    )
    assert dict(zip(asked, done.stdout.split(), strict=True)) == asked
