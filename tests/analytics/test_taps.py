"""One-way latency between two taps by key: from real packets in two namespaces to a stage of a path."""

from __future__ import annotations

import socket
import struct
import time
from pathlib import Path

from analytics.paths import paths_from
from analytics.stitch import stitch
from collector.points import points_from
from collector.store.blocks import constant, from_columns
from collector.store.embedded import open_embedded
from collector.store.schema import Retention, migrate, table_types
from tests.collector.packet.live.netns import inside, pair
from tests.collector.packet.live.test_source import PORT, RULE, Seen, opened, udp

COUNT = 500
WIRE = {
    "paths": {
        "wire": {
            "max_age": "1s",
            "stages": [
                {
                    "name": "switch",
                    "class": "network",
                    "from": {"point": "tap", "service": "near"},
                    "to": {"point": "tap", "service": "far"},
                }
            ],
        }
    }
}


def test_the_way_between_two_taps_is_a_stage(tmp_path: Path) -> None:
    path = paths_from(WIRE, points_from({}), "test")["wire"]
    with pair() as made:
        near = opened("l0", made.left, keys=(RULE,), taps={"l0": "near"}, outgoing=True)
        far = opened("r0", made.right, keys=(RULE,), taps={"r0": "far"})
        seen = [Seen(), Seen()]
        with inside(made.right):
            sink = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # so that nothing is answered with ICMP
            sink.bind(("10.99.0.2", PORT))
        with inside(made.left):
            sender = udp(("10.99.0.2", PORT))
        before = time.time_ns()
        for number in range(COUNT):
            sender.send(struct.pack(">Q", number) + bytes(56))
        for _ in range(8):
            for source, one in zip((near, far), seen, strict=True):
                one.poll(source)
        after = time.time_ns()
        near.close()
        far.close()
        sender.close()
        sink.close()
    sent = {row["key"]: row["ts_ns"] for row in seen[0].rows("stamps")}
    came = {row["key"]: row["ts_ns"] for row in seen[1].rows("stamps")}
    lost = seen[0].drops + seen[1].drops
    with open_embedded(tmp_path) as store:
        migrate(store, Retention())
        types = table_types()
        for batch, columns in enumerate([part for one in seen for part in one.columns["stamps"]], 1):
            extra = [
                constant("batch", "UInt64", batch, len(columns)),
                constant("seq", "UInt64", 0, len(columns)),
                constant("cut_day", "Date", 20_254, len(columns)),
            ]
            store.insert("stamps", from_columns(types["stamps"], columns, extra), token=f"taps/{batch}")
        found = stitch(store, path, before - 10**9, after + 10**9)
        assert found is not None
        rows = store.query(found.sql, dict(found.params)).select("key", "stage_ns").iter_rows()
        took = {key: stage[0] for key, stage in rows if stage[0] is not None}
    assert took == {key: came[key] - sent[key] for key in sent.keys() & came.keys()}
    assert COUNT - lost <= len(took) <= COUNT
    assert min(took.values()) >= 0  # one kernel, one clock
