"""Classic BPF programs: read from the text of `tcpdump -ddd`, checked, bound to a snap length, made ready to attach.

The rules are those of the kernel's bpf_check_classic (net/core/filter.c); the kernel checks again when it attaches.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple

MOST_INSTRUCTIONS = 4096
LARGEST_SNAP = 65_535

# Opcodes by name, as in <linux/bpf_common.h> and <linux/filter.h>.
LD_W_ABS, LD_H_ABS, LD_B_ABS = 0x20, 0x28, 0x30
LD_W_IND, LD_H_IND, LD_B_IND = 0x40, 0x48, 0x50
LD_IMM, LD_LEN, LD_MEM = 0x00, 0x80, 0x60
LDX_IMM, LDX_LEN, LDX_MEM, LDX_MSH = 0x01, 0x81, 0x61, 0xB1
ST, STX, TAX, TXA = 0x02, 0x03, 0x07, 0x87
JA, JEQ_K, JGT_K, JGE_K, JSET_K = 0x05, 0x15, 0x25, 0x35, 0x45
JEQ_X, JGT_X, JGE_X, JSET_X = 0x1D, 0x2D, 0x3D, 0x4D
RET_K, RET_A = 0x06, 0x16
AND_K = 0x54

_CONDITIONS = (JEQ_K, JGT_K, JGE_K, JSET_K, JEQ_X, JGT_X, JGE_X, JSET_X)
# add sub mul div mod and or xor lsh rsh with a constant and with X, neg
_ARITHMETIC = {0x04 | op | source for op in range(0x00, 0xB0, 0x10) for source in (0, 8)} - {0x8C}
_KNOWN = {
    *(LD_W_ABS, LD_H_ABS, LD_B_ABS, LD_W_IND, LD_H_IND, LD_B_IND, LD_IMM, LD_LEN, LD_MEM),
    *(LDX_IMM, LDX_LEN, LDX_MEM, LDX_MSH, ST, STX, TAX, TXA, JA, RET_K, RET_A),
    *_CONDITIONS,
    *_ARITHMETIC,
}
_MEMORY = (LD_MEM, LDX_MEM, ST, STX)
_DIVIDES, _SHIFTS = (0x34, 0x94), (0x64, 0x74)


class Instruction(NamedTuple):
    """One `struct sock_filter`: opcode, jumps if true and false (in instructions behind the next), constant."""

    code: int
    jt: int
    jf: int
    k: int


class FilterError(ValueError):
    """A filter cannot be used; the message says where and why."""


def from_text(text: str) -> list[Instruction]:
    """The program that `tcpdump -ddd` printed: a count, then `code jt jf k` per line. Raises FilterError."""
    lines = [line.strip() for line in text.replace(",", "\n").splitlines() if line.strip()]
    try:
        numbers = [[int(word) for word in line.split()] for line in lines]
    except ValueError:
        raise FilterError("a program is numbers only, as `tcpdump -ddd EXPRESSION` prints it") from None
    if not numbers or len(numbers[0]) != 1:
        raise FilterError("a program starts with the number of its instructions alone on a line (tcpdump -ddd)")
    if numbers[0][0] != len(numbers) - 1:
        raise FilterError(f"the program says {numbers[0][0]} instructions, {len(numbers) - 1} follow")
    for number, line in enumerate(numbers[1:]):
        if len(line) != 4 or not all(0 <= v < 1 << bits for v, bits in zip(line, (16, 8, 8, 32), strict=True)):
            raise FilterError(f"instruction {number}: want `code jt jf k`, got {' '.join(map(str, line))!r}")
    program = [Instruction(*line) for line in numbers[1:]]
    check(program)
    return program


def check(program: Sequence[Instruction]) -> None:
    """Raise FilterError, naming the instruction, for a program that the kernel would refuse or that never ends."""
    count = len(program)
    if not 1 <= count <= MOST_INSTRUCTIONS:
        raise FilterError(f"a program has 1 to {MOST_INSTRUCTIONS} instructions, this one {count}")
    for at, (code, jt, jf, k) in enumerate(program):
        left = count - at - 1
        if code not in _KNOWN:
            raise FilterError(f"instruction {at}: there is no opcode {code:#x}")
        if code == JA and k >= left:
            raise FilterError(f"instruction {at}: jumps {k} ahead, {left} instructions are left")
        if code in _CONDITIONS and max(jt, jf) >= left:
            raise FilterError(f"instruction {at}: jumps {max(jt, jf)} ahead, {left} instructions are left")
        if code in _MEMORY and k >= 16:
            raise FilterError(f"instruction {at}: memory has 16 words, not {k}")
        if code in _DIVIDES and k == 0:
            raise FilterError(f"instruction {at}: divides by 0")
        if code in _SHIFTS and k >= 32:
            raise FilterError(f"instruction {at}: shifts 32 bits by {k}")
    if program[-1].code not in (RET_K, RET_A):
        raise FilterError("the last instruction must return")


def with_snap(program: Sequence[Instruction], snap: int) -> list[Instruction]:
    """The same program taking at most `snap` bytes of each packet. Raises FilterError for a computed length."""
    if any(i.code == RET_A for i in program):
        raise FilterError("the program returns a computed length, which the snap length cannot bound")
    return [i._replace(k=min(i.k, snap)) if i.code == RET_K else i for i in program]


def everything(snap: int) -> list[Instruction]:
    """The program that takes `snap` bytes of every packet."""
    return [Instruction(RET_K, 0, 0, snap)]


def attachable(program: Sequence[Instruction]) -> bytes:
    """The program as an array of `struct sock_filter`. Raises FilterError for one that cannot run."""
    check(program)
    return b"".join(struct.pack("HBBI", *instruction) for instruction in program)
