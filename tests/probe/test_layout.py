from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tailsight_probe import layout

from collector.sources.ring import SLOT

u32 = st.integers(0, 2**32 - 1)
u64 = st.integers(0, 2**64 - 1)
i64 = st.integers(-(2**63), 2**63 - 1)
headers = st.builds(
    layout.Header,
    version=st.just(1),
    capacity=st.integers(0, 20).map(lambda n: 1 << n),
    pid=u32,
    tid=u32,
    start_ticks=u64,
    created_realtime_ns=i64,
    created_monotonic_ns=i64,
    boot_id=st.binary(min_size=16, max_size=16),
    owner=u32,
)
HEADER = layout.Header(1, 8, 10, 11, 12, 13, 14, b"b" * 16, 15)
SIZE = 4096 + 8 * 64


@given(header=headers)
@settings(max_examples=50)
def test_a_header_comes_back_as_it_was_packed(header: layout.Header) -> None:
    packed = layout.pack_header(header)
    assert layout.unpack_header(packed.ljust(4096, b"\0"), 4096 + header.capacity * 64) == header


@given(bit=st.integers(0, (layout.OWNER_OFFSET) * 8 - 1))
@settings(max_examples=50)
def test_every_flipped_bit_before_the_owner_is_noticed(bit: int) -> None:
    packed = bytearray(layout.pack_header(HEADER))
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(layout.LayoutError):
        layout.unpack_header(packed, SIZE)


def test_a_newer_version_is_told_apart_from_damage() -> None:
    packed = layout.pack_header(HEADER._replace(version=2))
    with pytest.raises(layout.UnknownVersionError, match=r"version 2 .* upgrade the agent"):
        layout.unpack_header(packed, SIZE)


@pytest.mark.parametrize("size", [SIZE - 1, SIZE + 64, 4096])
def test_a_file_of_another_size_is_refused(size: int) -> None:
    with pytest.raises(layout.LayoutError, match="8 slots need"):
        layout.unpack_header(layout.pack_header(HEADER), size)


def test_the_struct_and_the_fields_describe_the_same_64_bytes() -> None:
    assert layout.SLOT.size == SLOT.itemsize == layout.SLOT_BYTES
    native = struct.Struct("@" + layout.SLOT_FIELDS)
    values = (1, -2, 3, -4, 5, -6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)
    assert native.pack(*values) == layout.SLOT.pack(*values)

    row = np.frombuffer(layout.SLOT.pack(*values), dtype=SLOT)[0]
    assert tuple(row[name].item() for name, _, _ in layout.FIELDS) == values
