"""An AF_PACKET TPACKET_V3 ring: the kernel fills blocks, we read them in place and give them back.

Cost: none per packet here; the kernel copies `snap` bytes of each into the ring (about 0.1 us on the sender's or the
soft interrupt's time).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import mmap
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from collector.packet.block import LinkType
from collector.packet.live.bpf import Instruction, attachable
from collector.packet.live.tpacket import HEADER, SLACK, BlockError, LiveBlock, Records, block_records, read_records

_SOL_PACKET = 263
_ADD_MEMBERSHIP, _RX_RING, _STATISTICS, _VERSION, _TIMESTAMP, _FANOUT, _IGNORE_OUTGOING = 1, 5, 6, 10, 17, 18, 23
_TPACKET_V3 = 2
_MR_PROMISC = 1
_FANOUT_HASH, _FANOUT_UNIQUE, _FANOUT_IGNORE_OUTGOING = 0, 0x2000, 0x4000
NEW_GROUP = -1
_SO_ATTACH_FILTER, _SO_TIMESTAMPNS, _SO_LOCK_FILTER = 26, 35, 44
_RAW_HARDWARE = 1 << 6  # SOF_TIMESTAMPING_RAW_HARDWARE
_SIOCGIFNAME = 0x8910
_SIOCSHWTSTAMP, _SIOCGHWTSTAMP = 0x89B0, 0x89B1
_HWTSTAMP_FILTER_ALL = 1
_ETH_P_ALL = 0x0003
_STATUS = 8  # of a block, behind version and offset to priv
_USER = 1
_LOOPBACK = 772
_ARPHRD = {1: LinkType.ETHERNET, _LOOPBACK: LinkType.ETHERNET, 65534: LinkType.RAW, 519: LinkType.RAW}
# At a low rate a block is handed over every `retire_ms`, however little is in it: many small ones are more time.
BLOCK_BYTES = 1 << 18


@dataclass(frozen=True, slots=True)
class RingStatistics:
    """What the kernel counted since the last reading.

    `packets` passed the filter, the dropped ones included; `drops` found no room; `freezes` says how often the ring
    stood still because every block was full.
    """

    packets: int
    drops: int
    freezes: int


class PacketRing:
    """A ring on one interface. Not thread-safe.

    Args:
        interface: its name, in the network namespace of the calling thread.
        mib: memory, in blocks of 256 KiB. Unread, it holds what comes in `4 * mib * retire_ms` at a low rate.
        program: a classic BPF program; its return value is the snap length.
        retire_ms: after so long a block that is not full is handed over: how late a packet is seen at a low rate.
        promiscuous: also see frames for others.
        outgoing: also see what this host sends. On loopback every packet passes twice, so it is never seen there.
        fanout: rings of one group share the packets of an interface, whole flows together: NEW_GROUP makes
            one, whose number is then `group`; a number joins it.
        hardware: ask the NIC for times; where it has none the kernel's are taken.

    Raises OSError: PermissionError without CAP_NET_RAW, ENODEV for an unknown interface, ENOMEM for too large a ring.
    """

    def __init__(
        self,
        interface: str,
        *,
        number: int = 0,
        mib: int = 32,
        program: Sequence[Instruction] = (),
        retire_ms: int = 20,
        promiscuous: bool = False,
        outgoing: bool = True,
        fanout: int | None = None,
        hardware: bool = False,
    ) -> None:
        self.interface = interface
        self.number = number
        self.retire_ms = retire_ms
        self.hardware_problem = ""
        self._blocks = mib * ((1 << 20) // BLOCK_BYTES)
        self._next = 0
        self.damaged = 0
        self.group = 0
        self._index = index = socket.if_nametoindex(interface)
        loopback = _hardware_type(interface) == _LOOPBACK
        self.link = link_type(interface)
        # Protocol 0: nothing is delivered before the filter is on and the ring is there.
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
        try:
            self._set(_VERSION, _TPACKET_V3)
            if loopback or not outgoing:
                self._set(_IGNORE_OUTGOING, 1)
            if program:
                self._attach(program)
            if hardware:
                self.hardware_problem = self._ask_hardware(interface)
            # Times are then taken where the packet enters the stack, not when it is copied into the ring.
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            request = struct.pack(
                "7I", BLOCK_BYTES, self._blocks, 2048, self._blocks * (BLOCK_BYTES // 2048), retire_ms, 0, 0
            )
            self._socket.setsockopt(_SOL_PACKET, _RX_RING, request)
            self._map = mmap.mmap(self._socket.fileno(), self._blocks * BLOCK_BYTES, mmap.MAP_SHARED)
            self._data: NDArray[np.uint8] = np.frombuffer(self._map, dtype=np.uint8)
            self._status = self._data.view("<u4")
            self._spare: NDArray[np.uint8] = np.zeros(BLOCK_BYTES + SLACK, dtype=np.uint8)
            if promiscuous:
                self._socket.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, struct.pack("iHH8s", index, _MR_PROMISC, 0, b""))
            self._socket.bind((interface, _ETH_P_ALL))
            if fanout is not None:
                # A group of our own: with a number of our choice we might share another program's packets.
                new = fanout == NEW_GROUP
                flags = _FANOUT_HASH | (_FANOUT_UNIQUE if new else 0)
                flags |= _FANOUT_IGNORE_OUTGOING if loopback or not outgoing else 0  # a group has its own switch
                self._set(_FANOUT, (0 if new else fanout) | flags << 16)
                self.group = self._socket.getsockopt(_SOL_PACKET, _FANOUT) & 0xFFFF
        except BaseException:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """For poll(): readable when a block is full or retired."""
        return self._socket.fileno()

    def batches(self, packets: int = 8_192) -> Iterator[tuple[LiveBlock, list[NDArray[np.uint8]]]]:
        """What is ready, in pieces of about `packets` packets: whole blocks together, and the raw bytes of each block.

        Both are valid until the next piece is taken. At most one round of the ring, so that a busy link cannot keep
        the caller. A block that makes no sense is left out and counted in `damaged`.
        """
        left = self._blocks
        while left:
            records: list[Records] = []
            raw: list[NDArray[np.uint8]] = []
            data = self._data
            taken = count = 0
            try:
                while left and count < packets and data is self._data and self._is_ready(taken):
                    where, at, used = self._place((self._next + taken) % self._blocks)
                    if where is self._spare and records:
                        break  # another buffer: the next piece
                    taken += 1
                    left -= 1
                    try:
                        records.append(block_records(where, at, BLOCK_BYTES))
                    except BlockError:
                        self.damaged += 1
                        continue
                    data = where
                    raw.append(where[at : at + used])
                    count += len(records[-1].at)
                if not taken:
                    return
                if records:
                    yield from self._read(data, records, raw)
            finally:
                # x86 keeps the order of stores; the blocks are the kernel's from here on.
                for _ in range(taken):
                    self._status[(self._next * BLOCK_BYTES + _STATUS) // 4] = 0
                    self._next = (self._next + 1) % self._blocks

    def _read(
        self, data: NDArray[np.uint8], records: list[Records], raw: list[NDArray[np.uint8]]
    ) -> Iterator[tuple[LiveBlock, list[NDArray[np.uint8]]]]:
        try:
            piece = read_records(data, records, self.number, self.link)
        except BlockError:
            if len(records) == 1:
                self.damaged += 1
                return
            for one, bytes_of_it in zip(records, raw, strict=True):  # the sound ones of them
                yield from self._read(data, [one], [bytes_of_it])
        else:
            yield piece, raw

    def _is_ready(self, ahead: int) -> bool:
        number = (self._next + ahead) % self._blocks
        return bool(int(self._status[(number * BLOCK_BYTES + _STATUS) // 4]) & _USER)

    def _place(self, number: int) -> tuple[NDArray[np.uint8], int, int]:
        """The buffer a block is read in, where it starts there, and how many of its bytes are used."""
        start = number * BLOCK_BYTES
        used = max(HEADER, min(int(self._status[(start + 20) // 4]), BLOCK_BYTES))
        if number == self._blocks - 1 and used > BLOCK_BYTES - SLACK:
            # Nothing may be read behind the ring's last byte.
            self._spare[:BLOCK_BYTES] = self._data[start : start + BLOCK_BYTES]
            return self._spare, 0, used
        return self._data, start, used

    def statistics(self) -> RingStatistics:
        """What the kernel counted since the last call."""
        return RingStatistics(*struct.unpack("3I", self._socket.getsockopt(_SOL_PACKET, _STATISTICS, 12)))

    def is_gone(self) -> bool:
        """Whether the interface does not exist any more; one that is merely down is heard again when it is up."""
        import fcntl

        try:
            fcntl.ioctl(self._socket.fileno(), _SIOCGIFNAME, struct.pack("16xi20x", self._index))
        except OSError as error:
            return error.errno in (errno.ENODEV, errno.ENXIO)
        return False

    def close(self) -> None:
        """Give everything back. Blocks and arrays taken from the ring must not be used any more."""
        self._socket.close()
        self._data = self._status = np.empty(0, dtype=np.uint8)
        with contextlib.suppress(BufferError):  # somebody still holds a view: the mapping goes with the last of them
            self._map.close()

    def _set(self, option: int, value: int) -> None:
        self._socket.setsockopt(_SOL_PACKET, option, value)

    def _attach(self, program: Sequence[Instruction]) -> None:
        code = ctypes.create_string_buffer(attachable(program))
        head = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, head)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_LOCK_FILTER, 1)

    def _ask_hardware(self, interface: str) -> str:
        """Ask the NIC to stamp every packet; why it does not, or "". Needs CAP_NET_ADMIN unless it does so already."""
        import fcntl

        config = ctypes.create_string_buffer(struct.pack("3i", 0, 0, _HWTSTAMP_FILTER_ALL))
        request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(config))
        for call in (_SIOCSHWTSTAMP, _SIOCGHWTSTAMP):
            try:
                fcntl.ioctl(self._socket.fileno(), call, request)
            except OSError as error:
                problem = f"{interface} gives no hardware times ({os.strerror(error.errno or 0)})"
                continue
            if struct.unpack("3i", config.raw[:12])[2] == _HWTSTAMP_FILTER_ALL:
                self._set(_TIMESTAMP, _RAW_HARDWARE)
                return ""
            problem = f"{interface} stamps some packets only"
        return problem


def link_type(interface: str) -> int:
    """The `LinkType` of an interface. Raises OSError for one that is neither Ethernet nor raw IP, or is not there."""
    kind = _hardware_type(interface)
    if kind not in _ARPHRD:
        raise OSError(f"{interface} is neither Ethernet nor raw IP (hardware type {kind})")
    return int(_ARPHRD[kind])


def _hardware_type(interface: str) -> int:
    """ARPHRD type of an interface, asked of the socket layer: /sys/class/net does not follow network namespaces."""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        answer = fcntl.ioctl(probe.fileno(), 0x8927, struct.pack("16s16x", interface.encode()))  # SIOCGIFHWADDR
    return int(struct.unpack_from("H", answer, 16)[0])


def link_bits_s(interface: str) -> int | None:
    """Bits per second of a link, by ethtool's GSET ioctl; None where the driver does not say (loopback)."""
    import fcntl

    command = ctypes.create_string_buffer(struct.pack("I40x", 0x00000001), 44)  # ETHTOOL_GSET
    request = struct.pack("16sP16x", interface.encode(), ctypes.addressof(command))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            fcntl.ioctl(probe.fileno(), 0x8946, request)
    except OSError:
        return None
    low, high = struct.unpack_from("H", command.raw, 12)[0], struct.unpack_from("H", command.raw, 28)[0]
    speed = int(low | high << 16)
    return speed * 1_000_000 if speed not in (0, 0xFFFF, 0xFFFFFFFF) else None
