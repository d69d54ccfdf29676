"""Logs that the Java HdrHistogram wrote, against the numbers that it gives for them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from analytics import buckets, hlog, latency
from collector.store import Store
from collector.store.embedded import open_embedded
from collector.store.schema import MAX_HOURS, Retention, migrate

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    opened = open_embedded(tmp_path_factory.mktemp("logs"))
    migrate(opened, Retention(**dict.fromkeys(Retention.__struct_fields__, MAX_HOURS)))
    yield opened
    opened.close()


def test_the_java_log_gives_its_own_numbers(store: Store, real_data: Path) -> None:
    file = real_data / "hlog" / "jHiccup-2.0.7S.logV2.hlog"
    done = hlog.import_hlog(store, file, path="jhiccup")
    assert (done.intervals, done.values, done.digits, done.lossless, done.errors) == (62, 48_761, 2, True, [])
    assert done.from_ns == 1_441_812_279_601_000_000
    fine = hlog.accumulated(store, "jhiccup", "end_to_end", 3)
    assert (fine.get_value_at_percentile(99.9), fine.get_max_value()) == (1_745_879_039, 1_796_210_687)
    own = hlog.accumulated(store, "jhiccup", "end_to_end")
    assert (own.get_value_at_percentile(99.9), own.get_max_value()) == (1_753_219_071, 1_803_550_719)
    (answer,) = latency.percentiles(store, "jhiccup")
    assert (answer.count, answer.max_ns) == (48_761, 1_803_550_719)
    assert answer.p999_ns is not None
    assert buckets.index(answer.p999_ns) == buckets.index(1_753_219_071)
    assert hlog.import_hlog(store, file, path="jhiccup").already
    assert [a.count for a in latency.percentiles(store, "jhiccup")] == [48_761]


def test_tags_become_stages(store: Store, real_data: Path) -> None:
    done = hlog.import_hlog(store, real_data / "hlog" / "tagged-Log.logV2.hlog", path="tagged")
    # 32,290 values in the file, half of them under the tag: what hdrh's own log reader counts, too.
    assert done.stages == {"end_to_end": 16_145, "A": 16_145}
