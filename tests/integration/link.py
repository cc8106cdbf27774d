"""A cable between two namespaces that does to packets what a test says.

Two TUN devices, one in each namespace, and a thread that carries every packet from one to the
other. What iptables cannot do, it can: deliver a packet twice, or let the next one overtake it.
"""

import contextlib
import enum
import fcntl
import os
import select
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .netns import Namespace, Pair, namespaces

__all__ = ["FORWARD", "REVERSE", "Fate", "Link", "is_syn", "linked", "payload_bytes"]

FORWARD, REVERSE = 0, 1

_TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x4004_54CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
# A packet that nothing overtakes goes on by itself.
_HELD_MS = 5


class Fate(enum.Enum):
    """What becomes of a packet."""

    PASS = enum.auto()
    DROP = enum.auto()
    TWICE = enum.auto()
    OVERTAKEN = enum.auto()
    """The next one on its way comes first; without any it is 5 ms late."""
    DAMAGED = enum.auto()
    """Its TCP checksum is wrong."""


class Link:
    """The cable.

    Attributes:
        decide: Says what becomes of a packet, from its direction and bytes. Called in the link's
            thread, in the order of arrival.
        count: Packets by direction and fate.
    """

    def __init__(self, client: int, server: int) -> None:
        self.decide: Callable[[int, bytes], Fate] = lambda _direction, _packet: Fate.PASS
        self.count: Counter[tuple[int, Fate]] = Counter()
        self._ends = (client, server)
        self._held: list[bytes | None] = [None, None]
        self._stop, self._stopper = os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut it."""
        os.close(self._stopper)
        self._thread.join()
        for fd in (*self._ends, self._stop):
            os.close(fd)

    def _carry(self) -> None:
        poller = select.poll()
        for fd in (*self._ends, self._stop):
            poller.register(fd, select.POLLIN)
        while True:
            ready = [fd for fd, _ in poller.poll(_HELD_MS if any(self._held) else None)]
            if self._stop in ready:
                return
            for direction in (FORWARD, REVERSE):
                if self._ends[direction] in ready:
                    self._take(direction, os.read(self._ends[direction], 65_535))
                elif not ready:
                    self._release(direction)

    def _take(self, direction: int, packet: bytes) -> None:
        fate = self.decide(direction, packet)
        self.count[direction, fate] += 1
        if fate is Fate.OVERTAKEN:
            self._release(direction)
            self._held[direction] = packet
            return
        if fate is Fate.DAMAGED:
            packet = _with_wrong_checksum(packet)
        for _ in range({Fate.DROP: 0, Fate.TWICE: 2}.get(fate, 1)):
            os.write(self._ends[1 - direction], packet)
        self._release(direction)

    def _release(self, direction: int) -> None:
        packet, self._held[direction] = self._held[direction], None
        if packet is not None:
            os.write(self._ends[1 - direction], packet)


def payload_bytes(packet: bytes) -> int:
    """Return how much TCP data an IPv4 packet carries; 0 if it is no such packet."""
    if packet[0] >> 4 != 4 or packet[9] != 6:
        return 0
    ip_header = (packet[0] & 15) * 4
    tcp_header = (packet[ip_header + 12] >> 4) * 4
    return int.from_bytes(packet[2:4]) - ip_header - tcp_header


def is_syn(packet: bytes) -> bool:
    """Whether an IPv4 packet is a SYN, and no SYN-ACK."""
    return packet[0] >> 4 == 4 and packet[9] == 6 and packet[(packet[0] & 15) * 4 + 13] & 18 == 2


def _with_wrong_checksum(packet: bytes) -> bytes:
    damaged, at = bytearray(packet), (packet[0] & 15) * 4 + 16
    damaged[at] ^= 0xFF
    return bytes(damaged)


@contextlib.contextmanager
def linked() -> Iterator[tuple[Pair, Link]]:
    """Make two namespaces with a link between them; skip the test where that cannot be."""
    if not _TUN.exists():
        pytest.skip(f"there is no {_TUN} here")
    with namespaces(cable=False) as pair, contextlib.ExitStack() as undo:
        fds = []
        for namespace, peer in ((pair.client, pair.server), (pair.server, pair.client)):
            fds.append(_open_tun(namespace))
            undo.callback(os.close, fds[-1])
            device = ["dev", namespace.device]
            namespace.run("ip", "address", "add", namespace.address, "peer", peer.address, *device)
            namespace.run("ip", "link", "set", namespace.device, "up")
        undo.pop_all()
        with contextlib.closing(Link(*fds)) as link:
            yield pair, link


def _open_tun(namespace: Namespace) -> int:
    with namespace.entered():
        fd = os.open(_TUN, os.O_RDWR | os.O_NONBLOCK)
        request = struct.pack("16sH22x", namespace.device.encode(), _IFF_TUN | _IFF_NO_PI)
        try:
            fcntl.ioctl(fd, _TUNSETIFF, request)
        except OSError:
            os.close(fd)
            raise
    return fd
