from __future__ import annotations

from analytics.host_settings import host_history, host_items
from collector.record import HOSTS
from collector.store import Store
from tests.analytics.conftest import T0
from tests.analytics.test_clock_pairs import put


def test_the_last_reading_drift_and_history(store: Store) -> None:
    def row(at: int, host: str, item: str, value: str, state: str = "", expected: str = "") -> dict[str, object]:
        return {"ts_ns": T0 + at, "host": host, "item": item, "value": value, "state": state, "expected": expected}

    put(
        store, HOSTS,
        [
            row(0, "h1", "cpu.governor", "performance", "", "performance"),
            row(0, "h1", "nic.eth_0.mtu", "1500"), row(0, "h1", "nic.ethx0.mtu", "9000"), row(0, "h2", "cpu.smt", "on"),
            row(1, "h1", "cpu.governor", "powersave", "drift", "performance"),
            row(2, "h1", "cpu.governor", "powersave", "drift", "performance"),
            row(3, "h2", "cpu.smt", "", "gone"), row(3, "h2", "cpu.isolated", "", "gone", "2-3"),
        ],
    )  # fmt: skip
    now = {(i.host, i.item): i for i in host_items(store)}
    assert set(now) == {
        ("h1", "cpu.governor"), ("h1", "nic.eth_0.mtu"), ("h1", "nic.ethx0.mtu"), ("h2", "cpu.isolated"),
    }  # fmt: skip
    assert (now["h1", "cpu.governor"].value, now["h1", "cpu.governor"].shipped_ns) == ("powersave", T0 + 2)
    assert [i.item for i in host_items(store, drift=True)] == ["cpu.governor", "cpu.isolated"]
    assert [i.item for i in host_items(store, item="nic.eth_0*")] == ["nic.eth_0.mtu"]  # no wildcard of SQL's
    assert [i.item for i in host_items(store, host="h2")] == ["cpu.isolated"]
    values = host_history(store, "cpu.governor")
    assert [(v.ts_ns - T0, v.value) for v in values] == [(1, "powersave"), (0, "performance")]
    assert host_history(store, "nothing") == []
