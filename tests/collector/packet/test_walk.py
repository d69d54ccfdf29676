"""The chain of records is found as a plain walk finds it, whatever the guesses say."""

from __future__ import annotations

import struct

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.packet.walk import Chain, record_offsets


def plain(raw: bytes, start: int, end: int, chain: Chain) -> tuple[list[int], int]:
    found, at = [], start
    while at + chain.length_at + struct.calcsize(chain.length) <= end:
        (length,) = struct.unpack_from(chain.length, raw, at + chain.length_at)
        if not chain.believes(length) or at + length + chain.overhead > end:
            break
        found.append(at)
        at += length + chain.overhead
    return found, at


@settings(max_examples=50, deadline=None)
@given(
    st.randoms(use_true_random=False),
    st.sampled_from([Chain("<I", 8, 16, 0, 5_000), Chain(">I", 4, 0, 12, 5_000, 4), Chain(">H", 10, 0, 16, 60_000)]),
    st.sampled_from(["none", "true", "random", "wrong"]),
    st.integers(0, 40),
)
def test_guesses_never_change_the_answer(rnd, chain: Chain, guessing: str, cut: int) -> None:  # type: ignore[no-untyped-def]
    raw = bytearray(rnd.randbytes(7))
    starts = []
    wild = rnd.random() < 0.3
    for _ in range(rnd.choice([3, 400, 3000])):
        size = rnd.choice([0, 4, 64, 1000, 3000]) if wild else 64
        head = chain.length_at + struct.calcsize(chain.length)
        total = max(head, size + 16)
        total += -total % 4
        length = total - chain.overhead
        if rnd.random() < 0.0005:
            length = 1 << 31 if chain.length.endswith("I") else 65_535
        starts.append(len(raw))
        raw += bytes(chain.length_at) + struct.pack(chain.length, length) + rnd.randbytes(total - head)
    end = len(raw) - cut if cut < len(raw) - 7 else len(raw)
    guesses = {
        "none": None,
        "true": lambda low, high: next((s for s in starts if low <= s < high), -1),
        "random": lambda low, high: rnd.randrange(int(low), int(high)),
        "wrong": lambda low, high: next((s + 1 for s in starts if low <= s < high - 1), -1),
    }
    one = guesses[guessing]
    guess = one and (lambda low, high: np.array([one(a, b) for a, b in zip(low, high, strict=True)], dtype=np.int64))
    data = np.frombuffer(bytes(raw) + bytes(64), dtype=np.uint8)
    offsets, stop = record_offsets(data, 7, end, chain, guess)
    assert (offsets.tolist(), stop) == plain(bytes(raw), 7, end, chain)
