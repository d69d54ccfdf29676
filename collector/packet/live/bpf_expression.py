"""A small part of the pcap-filter language, compiled to classic BPF without a library.

    ip | ip6 | arp | tcp | udp | icmp | vlan [ID]
    [src|dst] host ADDRESS          [src|dst] net ADDRESS/BITS
    [tcp|udp] [src|dst] port N      [tcp|udp] [src|dst] portrange A-B
    less N | greater N              and, or, not, ( )

Meanings are those of pcap-filter(7), but `vlan` does not move the offsets of what follows: the kernel takes the outer
tag off before the filter sees the packet. Behind a second tag nothing is IP. What is beyond this can be compiled by
`tcpdump -ddd` and given as a program.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass

from collector.packet.block import LinkType
from collector.packet.live.bpf import (
    AND_K,
    JA,
    JEQ_K,
    JGE_K,
    JGT_K,
    JSET_K,
    LD_B_ABS,
    LD_H_ABS,
    LD_H_IND,
    LD_LEN,
    LD_W_ABS,
    LDX_MSH,
    RET_K,
    FilterError,
    Instruction,
    check,
)

MOST_WORDS = 500
_IP, _IP6, _ARP, _RARP = 0x0800, 0x86DD, 0x0806, 0x8035
_PROTOCOLS = {"tcp": (6, 6), "udp": (17, 17), "icmp": (1, None)}
_WITH_PORTS = (6, 17, 132)
_AD_VLAN_TAG, _AD_VLAN_PRESENT = 0xFFFFF000 + 44, 0xFFFFF000 + 48
_SYMBOL = re.compile(r"\s*(\(|\)|&&|\|\||!|[\w.:/\-]+)\s*")
_KEYWORDS = {"and", "or", "not", "(", ")"}


@dataclass(frozen=True, slots=True)
class _Test:
    """Loads, then one comparison."""

    loads: tuple[tuple[int, int], ...]
    code: int
    k: int


@dataclass(frozen=True, slots=True)
class _Both:
    left: _Node
    right: _Node


@dataclass(frozen=True, slots=True)
class _Either:
    left: _Node
    right: _Node


@dataclass(frozen=True, slots=True)
class _Not:
    inner: _Node


_Node = _Test | _Both | _Either | _Not


def compile_filter(expression: str, snap: int, link: int = LinkType.ETHERNET) -> list[Instruction]:
    """The program for `expression` on a link type (Ethernet or raw IP). Raises FilterError naming the word."""
    words = _words(expression)
    parser = _Parser(words, 14 if link == LinkType.ETHERNET else 0)
    tree = parser.whole()
    for far in (False, True):
        program = _generate(tree, snap, far)
        if program is not None:
            check(program)
            return program
    raise FilterError("the expression is too long")


def _words(expression: str) -> list[str]:
    words: list[str] = []
    at = 0
    text = expression.strip()
    while at < len(text):
        match = _SYMBOL.match(text, at)
        if match is None:
            raise FilterError(f"cannot read {text[at : at + 20]!r} at position {at}")
        words.append({"&&": "and", "||": "or", "!": "not"}.get(match[1], match[1]))
        at = match.end()
    if not words:
        raise FilterError("the expression is empty; leave the filter out to take everything")
    if len(words) > MOST_WORDS:
        raise FilterError(f"the expression has {len(words)} words, at most {MOST_WORDS} are taken")
    return words


class _Parser:
    """Recursive descent; `base` is where the IP header starts."""

    def __init__(self, words: list[str], base: int) -> None:
        self._words = words
        self._at = 0
        self._base = base
        self._depth = 0

    def whole(self) -> _Node:
        tree = self._either()
        if self._at < len(self._words):
            raise FilterError(f"did not expect {self._words[self._at]!r}")
        return tree

    def _either(self) -> _Node:
        left = self._both()
        while self._accept("or"):
            left = _Either(left, self._both())
        return left

    def _both(self) -> _Node:
        left = self._one()
        while self._accept("and"):
            left = _Both(left, self._one())
        return left

    def _one(self) -> _Node:
        self._depth += 1
        if self._depth > 50:
            raise FilterError("parentheses and `not` are nested more than 50 deep")
        try:
            if self._accept("not"):
                return _Not(self._one())
            if self._accept("("):
                inner = self._either()
                if not self._accept(")"):
                    raise FilterError("a parenthesis is not closed")
                return inner
            return self._primitive(self._next("a primitive such as `udp port 5000`"))
        finally:
            self._depth -= 1

    def _primitive(self, word: str) -> _Node:
        if word in ("ip", "ip6", "arp"):
            return self._ether({"ip": _IP, "ip6": _IP6, "arp": _ARP}[word])
        if word == "vlan":
            return self._vlan()
        if word in ("less", "greater"):
            length = self._number(self._next(f"a length after {word!r}"), 0xFFFFFFFF)
            test = _Test(((LD_LEN, 0),), JGT_K if word == "less" else JGE_K, length)
            return _Not(test) if word == "less" else test
        protocols: tuple[int, ...] = _WITH_PORTS
        said = ""
        if word in _PROTOCOLS:
            if word == "icmp" or self._peek() not in ("src", "dst", "port", "portrange"):
                return self._protocol(*_PROTOCOLS[word])
            protocols, said = (_PROTOCOLS[word][0],), word
            word = self._next("port")
        side = ""
        if word in ("src", "dst"):
            side = word
            word = self._next("host, net, port or portrange")
        if word in ("port", "portrange"):
            low, high = self._ports(word)
            return self._port(protocols, side, low, high)
        if word in ("host", "net") and not said:
            return self._address(self._next(f"an address after {word!r}"), side, word)
        raise FilterError(
            f"do not know {word!r}; this is a part of pcap-filter only: compile the rest with `tcpdump -ddd` "
            "and give it as `program`"
        )

    def _vlan(self) -> _Node:
        present = _Not(_Test(((LD_B_ABS, _AD_VLAN_PRESENT),), JEQ_K, 0))
        following = self._peek()
        if following is None or not following.isdigit():
            return present
        number = self._number(self._next("a VLAN"), 4095)
        return _Both(present, _Test(((LD_H_ABS, _AD_VLAN_TAG), (AND_K, 0xFFF)), JEQ_K, number))

    def _ether(self, kind: int) -> _Node:
        if self._base:
            return _Test(((LD_H_ABS, self._base - 2),), JEQ_K, kind)
        version = {_IP: 0x40, _IP6: 0x60}.get(kind, 0xFFFF)  # raw IP has no ARP: never equal
        return _Test(((LD_B_ABS, 0), (AND_K, 0xF0)), JEQ_K, version)

    def _protocol(self, four: int, six: int | None) -> _Node:
        base = self._base
        tree: _Node = _Both(self._ether(_IP), _Test(((LD_B_ABS, base + 9),), JEQ_K, four))
        if six is None:
            return tree
        direct = _Test(((LD_B_ABS, base + 6),), JEQ_K, six)
        fragment = _Both(_Test(((LD_B_ABS, base + 6),), JEQ_K, 44), _Test(((LD_B_ABS, base + 40),), JEQ_K, six))
        return _Either(_Both(self._ether(_IP6), _Either(direct, fragment)), tree)

    def _port(self, protocols: tuple[int, ...], side: str, low: int, high: int) -> _Node:
        base = self._base
        four, six = self._among(base + 9, protocols), self._among(base + 6, protocols)
        unfragmented = _Not(_Test(((LD_H_ABS, base + 6),), JSET_K, 0x1FFF))

        def ports(load: Callable[[int], tuple[tuple[int, int], ...]]) -> _Node:
            return _sides(side, lambda at: _within(load(at), low, high), 0, 2)

        over_four = ports(lambda at: ((LDX_MSH, base), (LD_H_IND, base + at)))
        over_six = ports(lambda at: ((LD_H_ABS, base + 40 + at),))
        return _Either(
            _Both(_Both(self._ether(_IP), four), _Both(unfragmented, over_four)),
            _Both(_Both(self._ether(_IP6), six), over_six),
        )

    def _among(self, at: int, values: tuple[int, ...]) -> _Node:
        tree: _Node = _Test(((LD_B_ABS, at),), JEQ_K, values[0])
        for value in values[1:]:
            tree = _Either(tree, _Test(((LD_B_ABS, at),), JEQ_K, value))
        return tree

    def _address(self, text: str, side: str, word: str) -> _Node:
        try:
            network = ipaddress.ip_network(ipaddress.ip_address(text) if word == "host" else text)
        except ValueError as error:
            raise FilterError(f"{word} {text!r}: {error}; names are not looked up") from None
        base = self._base
        if network.version == 6:
            return _Both(self._ether(_IP6), _sides(side, lambda at: _masked(base + at, network, 4), 8, 24))
        tree: _Node = _Both(self._ether(_IP), _sides(side, lambda at: _masked(base + at, network, 1), 12, 16))
        if base:
            in_arp = _sides(side, lambda at: _masked(base + at, network, 1), 14, 24)
            tree = _Either(tree, _Both(_Either(self._ether(_ARP), self._ether(_RARP)), in_arp))
        return tree

    def _ports(self, word: str) -> tuple[int, int]:
        text = self._next(f"a number after {word!r}")
        if word == "port":
            return self._number(text, 65_535), self._number(text, 65_535)
        low, dash, high = text.partition("-")
        if not dash:
            raise FilterError(f"portrange wants A-B, got {text!r}")
        first, last = self._number(low, 65_535), self._number(high, 65_535)
        if first > last:
            raise FilterError(f"portrange {text!r} ends before it starts")
        return first, last

    def _number(self, text: str, largest: int) -> int:
        if not text.isdecimal() or not text.isascii() or len(text) > 10 or int(text) > largest:
            raise FilterError(f"{text!r} is not a number up to {largest}; names of services are not looked up")
        return int(text)

    def _next(self, wanted: str) -> str:
        word = self._peek()
        if word is None or word in _KEYWORDS:
            raise FilterError(f"want {wanted}, got {word or 'the end'!r}")
        self._at += 1
        return word

    def _peek(self) -> str | None:
        return self._words[self._at] if self._at < len(self._words) else None

    def _accept(self, word: str) -> bool:
        if self._peek() == word:
            self._at += 1
            return True
        return False


def _sides(side: str, test: Callable[[int], _Node], source_at: int, target_at: int) -> _Node:
    if side == "src":
        return test(source_at)
    if side == "dst":
        return test(target_at)
    return _Either(test(source_at), test(target_at))


def _within(loads: tuple[tuple[int, int], ...], low: int, high: int) -> _Node:
    if low == high:
        return _Test(loads, JEQ_K, low)
    return _Both(_Test(loads, JGE_K, low), _Not(_Test(loads, JGT_K, high)))


def _masked(at: int, network: ipaddress.IPv4Network | ipaddress.IPv6Network, words: int) -> _Node:
    address, mask = int(network.network_address), int(network.netmask)
    tree: _Node | None = None
    for word in range(words):
        shift = 32 * (words - 1 - word)
        bits = mask >> shift & 0xFFFFFFFF
        if not bits and word:
            break
        loads: tuple[tuple[int, int], ...] = ((LD_W_ABS, at + 4 * word),)
        if bits != 0xFFFFFFFF:
            loads += ((AND_K, bits),)
        test = _Test(loads, JEQ_K, address >> shift & 0xFFFFFFFF)
        tree = test if tree is None else _Both(tree, test)
    assert tree is not None  # noqa: S101 - words is at least 1
    return tree


def _generate(tree: _Node, snap: int, far: bool) -> list[Instruction] | None:
    """Instructions with jumps resolved; None when a jump is longer than 255 and `far` is off.

    With `far`, every comparison is followed by two unconditional jumps, which reach everywhere.
    """
    code: list[tuple[int, int, int | None, int | None]] = []  # opcode, k, labels if true and false
    places: dict[int, int] = {}
    labels = iter(range(1 << 20))
    yes, no = next(labels), next(labels)

    def emit(node: _Node, true: int, false: int) -> None:
        if isinstance(node, _Not):
            emit(node.inner, false, true)
        elif isinstance(node, _Both | _Either):
            between = next(labels)
            emit(node.left, *((between, false) if isinstance(node, _Both) else (true, between)))
            places[between] = len(code)
            emit(node.right, true, false)
        else:
            code.extend((op, k, None, None) for op, k in node.loads)
            code.append((node.code, node.k, true, false))
            if far:
                code.extend([(JA, 0, true, None), (JA, 0, false, None)])

    emit(tree, yes, no)
    places[yes], places[no] = len(code), len(code) + 1
    program = []
    for at, (op, k, true, false) in enumerate(code):
        if true is None:
            program.append(Instruction(op, 0, 0, k))
        elif op == JA:
            program.append(Instruction(JA, 0, 0, places[true] - at - 1))
        elif far:
            program.append(Instruction(op, 0, 1, k))
        else:
            assert false is not None  # noqa: S101 - a comparison has both labels
            jt, jf = places[true] - at - 1, places[false] - at - 1
            if max(jt, jf) > 255:
                return None
            program.append(Instruction(op, jt, jf, k))
    return [*program, Instruction(RET_K, 0, 0, snap), Instruction(RET_K, 0, 0, 0)]
