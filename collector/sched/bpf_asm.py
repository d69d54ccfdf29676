"""A small assembler for eBPF: instructions with symbolic labels, turned into the bytes `bpf(BPF_PROG_LOAD)` takes.

It exists so that the agent needs no compiler, headers or BTF at run time: field offsets are known when the program is
assembled, because they are read from tracefs just before. Encoding: RFC 9669, sections 3 to 5.

    asm = Assembler() asm.load(8, R1, R1, 24)        # r1 = *(u64 *)(r1 + 24) asm.jump("==", R1, 0, "out")
    asm.label("out").mov(R0, 1).exit() asm.assemble()                 # bytes, 8 per instruction
"""

from __future__ import annotations

import struct
from typing import Final

R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, R10 = (f"r{n}" for n in range(11))

# An operand is a register by name or an immediate by value.
Operand = str | int

_SIZE: Final = {8: 0x18, 4: 0x00, 2: 0x08, 1: 0x10}
_ALU: Final = {"+": 0x00, "-": 0x10, "*": 0x20, "|": 0x40, "&": 0x50, "<<": 0x60, ">>": 0x70, "^": 0xA0, "=": 0xB0}
_JUMP: Final = {"==": 0x10, ">": 0x20, ">=": 0x30, "&": 0x40, "!=": 0x50, "<": 0xA0, "<=": 0xB0}
_JUMP_SIGNED: Final = {"s>=": 0x70, "s<": 0xC0}
_LDX, _ST, _STX, _JMP, _ALU64, _ALU32 = 0x61, 0x62, 0x63, 0x05, 0x07, 0x04
_FROM_REGISTER = 0x08
_LOAD_IMMEDIATE_64 = 0x18
_PSEUDO_MAP_FD, _PSEUDO_MAP_VALUE = 1, 2
MAX_INSTRUCTIONS = 4096  # what every kernel takes from an unprivileged-sized program; ours have a few hundred


class AssemblyError(ValueError):
    """A program that cannot be encoded: an unknown label, a jump too far, an immediate that does not fit."""


class Assembler:
    """Collects instructions; every method returns the assembler, so that short sequences read as one line."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str, int]] = []  # opcode, dst, src, offset or label, imm
        self._labels: dict[str, int] = {}
        self._fresh = 0

    def fresh(self, stem: str) -> str:
        """A label name that no other call returned, for sequences that are emitted more than once."""
        self._fresh += 1
        return f"{stem}.{self._fresh}"

    def label(self, name: str) -> Assembler:
        """Name the next instruction. Raises AssemblyError when the name is taken."""
        if name in self._labels:
            raise AssemblyError(f"label {name!r} is defined twice")
        self._labels[name] = len(self._code)
        return self

    def alu(self, op: str, dst: str, src: Operand) -> Assembler:
        """`dst op= src` on 64 bits; `op` is one of + - * | & << >> ^ =."""
        return self._operate(_ALU64 | _ALU[op], dst, src)

    def mov(self, dst: str, src: Operand) -> Assembler:
        """`dst = src`."""
        return self.alu("=", dst, src)

    def mov32(self, dst: str, src: Operand) -> Assembler:
        """`dst = (u32)src`: the upper half becomes zero."""
        return self._operate(_ALU32 | _ALU["="], dst, src)

    def load(self, size: int, dst: str, base: str, offset: int) -> Assembler:
        """`dst = *(size bytes *)(base + offset)`, zero-extended."""
        return self._emit(_LDX | _SIZE[size], _register(dst), _register(base), offset, 0)

    def store(self, size: int, base: str, offset: int, src: Operand) -> Assembler:
        """`*(size bytes *)(base + offset) = src`."""
        if isinstance(src, int):
            return self._emit(_ST | _SIZE[size], _register(base), 0, offset, src)
        return self._emit(_STX | _SIZE[size], _register(base), _register(src), offset, 0)

    def add_to(self, size: int, base: str, offset: int, amount: Operand, scratch: str) -> Assembler:
        """`*(base + offset) += amount` without a lock: for memory that one CPU alone writes."""
        return self.load(size, scratch, base, offset).alu("+", scratch, amount).store(size, base, offset, scratch)

    def jump(self, op: str, left: str, right: Operand, target: str) -> Assembler:
        """Go to `target` if `left op right`; `&` asks whether common bits are set, `s` marks signed comparison."""
        return self._operate(_JMP | (_JUMP | _JUMP_SIGNED)[op], left, right, target)

    def goto(self, target: str) -> Assembler:
        """Go to `target`."""
        return self._emit(_JMP, 0, 0, target, 0)

    def call(self, helper: int) -> Assembler:
        """Call a kernel helper: arguments in r1 to r5, result in r0, r1 to r5 lost."""
        return self._emit(_JMP | 0x80, 0, 0, 0, helper)

    def exit(self) -> Assembler:
        """Return r0."""
        return self._emit(_JMP | 0x90, 0, 0, 0, 0)

    def load_number(self, dst: str, value: int) -> Assembler:
        """`dst = value`, 64 bits."""
        return self._wide(dst, 0, value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF)

    def load_map(self, dst: str, fd: int) -> Assembler:
        """`dst = map`, as helpers take it."""
        return self._wide(dst, _PSEUDO_MAP_FD, fd, 0)

    def load_value(self, dst: str, fd: int) -> Assembler:
        """`dst = &map[0]`: the address of the only value of an array map, with no look-up and no null check."""
        return self._wide(dst, _PSEUDO_MAP_VALUE, fd, 0)

    def assemble(self) -> bytes:
        """The program. Raises AssemblyError naming the label or instruction that cannot be encoded."""
        if len(self._code) > MAX_INSTRUCTIONS:
            raise AssemblyError(f"{len(self._code)} instructions, at most {MAX_INSTRUCTIONS} are allowed")
        out = bytearray()
        for at, (opcode, dst, src, offset, imm) in enumerate(self._code):
            if isinstance(offset, str):
                if offset not in self._labels:
                    raise AssemblyError(f"instruction {at} jumps to the unknown label {offset!r}")
                offset = self._labels[offset] - at - 1
            try:
                out += struct.pack("<BBhI", opcode, src << 4 | dst, offset, imm & 0xFFFFFFFF)
            except struct.error as error:
                raise AssemblyError(f"instruction {at} (opcode {opcode:#x}, offset {offset}): {error}") from error
        return bytes(out)

    def _operate(self, opcode: int, dst: str, src: Operand, target: int | str = 0) -> Assembler:
        if isinstance(src, str):
            return self._emit(opcode | _FROM_REGISTER, _register(dst), _register(src), target, 0)
        if not -(1 << 31) <= src < 1 << 31:
            raise AssemblyError(f"immediate {src} does not fit 32 signed bits; load_number takes 64")
        return self._emit(opcode, _register(dst), 0, target, src)

    def _wide(self, dst: str, src: int, low: int, high: int) -> Assembler:
        return self._emit(_LOAD_IMMEDIATE_64, _register(dst), src, 0, low)._emit(0, 0, 0, 0, high)

    def _emit(self, opcode: int, dst: int, src: int, offset: int | str, imm: int) -> Assembler:
        self._code.append((opcode, dst, src, offset, imm))
        return self


def _register(name: str) -> int:
    number = int(name[1:]) if name[:1] == "r" and name[1:].isdigit() else -1
    if not 0 <= number <= 10:
        raise AssemblyError(f"{name!r} is not a register r0 to r10")
    return number
