from __future__ import annotations

import struct

import pytest

from collector.sched.bpf_asm import R0, R1, R2, R3, R10, Assembler, AssemblyError


@pytest.mark.parametrize(
    ("build", "expected"),
    [
        # Worked out by hand from the tables of RFC 9669, sections 3 to 5.
        (lambda a: a.mov(R0, 1), "b7 00 00 00 01 00 00 00"),
        (lambda a: a.mov(R1, R2), "bf 21 00 00 00 00 00 00"),
        (lambda a: a.mov32(R1, R2), "bc 21 00 00 00 00 00 00"),
        (lambda a: a.alu("+", R2, -8), "07 02 00 00 f8 ff ff ff"),
        (lambda a: a.alu(">>", R3, 32), "77 03 00 00 20 00 00 00"),
        (lambda a: a.load(8, R1, R1, 24), "79 11 18 00 00 00 00 00"),
        (lambda a: a.load(4, R0, R10, -4), "61 a0 fc ff 00 00 00 00"),
        (lambda a: a.load(2, R0, R1, 0), "69 10 00 00 00 00 00 00"),
        (lambda a: a.store(8, R10, -16, R1), "7b 1a f0 ff 00 00 00 00"),
        (lambda a: a.store(2, R10, -2, 7), "6a 0a fe ff 07 00 00 00"),
        (lambda a: a.load_map(R1, 5), "18 11 00 00 05 00 00 00 00 00 00 00 00 00 00 00"),
        (lambda a: a.load_value(R1, 5), "18 21 00 00 05 00 00 00 00 00 00 00 00 00 00 00"),
        (lambda a: a.load_number(R1, 0x1_0000_0002), "18 01 00 00 02 00 00 00 00 00 00 00 01 00 00 00"),
        (lambda a: a.call(130), "85 00 00 00 82 00 00 00"),
        (lambda a: a.exit(), "95 00 00 00 00 00 00 00"),
    ],
)
def test_instructions_are_encoded_as_the_standard_says(build, expected: str) -> None:
    asm = Assembler()
    build(asm)
    assert asm.assemble().hex(" ") == expected


def test_a_jump_counts_instructions_from_the_next_one_in_both_directions() -> None:
    asm = Assembler().label("top").jump("==", R1, 0, "end").mov(R0, 0).goto("top").label("end").exit()
    offsets = [struct.unpack_from("<h", asm.assemble(), 8 * n + 2)[0] for n in (0, 2)]
    assert offsets == [2, -3]


def test_a_wide_load_counts_as_two_instructions_for_a_jump() -> None:
    code = Assembler().goto("end").load_number(R1, 1 << 40).label("end").exit().assemble()
    assert struct.unpack_from("<h", code, 2)[0] == 2


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda a: a.goto("nowhere").assemble(), "unknown label 'nowhere'"),
        (lambda a: a.label("x").label("x"), "'x' is defined twice"),
        (lambda a: a.mov(R0, 1 << 31), "load_number takes 64"),
        (lambda a: a.mov("r11", 0), "'r11' is not a register"),
        (lambda a: a.load(8, R0, R1, 40_000).assemble(), "instruction 0"),
        (lambda a: [a.exit() for _ in range(4097)] and a.assemble(), "at most 4096"),
    ],
)
def test_what_cannot_be_encoded_is_named(build, message: str) -> None:
    with pytest.raises(AssemblyError, match=message):
        build(Assembler())
