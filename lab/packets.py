"""What the wire says became of each packet: its log, from records to values. No I/O."""

import enum
import functools
import socket
import struct
from typing import Any, NamedTuple

__all__ = ["DIRECTIONS", "RECORD_SIZE", "Fate", "Packet", "parse"]

DIRECTIONS = ("forward", "reverse")
"""From client to server, and back."""

# struct record of wire.c; addresses are in network order.
_RECORD = struct.Struct("<Qqq4s4sIIHHHHBBBB")
RECORD_SIZE = _RECORD.size


class Fate(enum.IntEnum):
    """What became of a packet; the numbers are those of wire.c."""

    PASSED = 0
    DUPLICATED = 1
    """The second copy of a packet that arrived."""
    REORDERED = 2
    """It was held back, so that later ones came first."""
    CORRUPTED = 3
    """A bit of its payload was flipped, and its checksum made right again."""
    DAMAGED = 4
    """A bit was flipped, and its checksum is wrong: the receiver's kernel drops it."""
    STRIPPED = 5
    """A TCP option was taken out."""
    FORGED = 6
    """The wire made it itself: an RST, or an ICMP message."""
    LOST = 16
    """By chance, one by one."""
    BURST = 17
    """By chance, in a burst."""
    QUEUE = 18
    """The queue before the bottleneck was full."""
    POLICED = 19
    """The token bucket was empty."""
    TOO_BIG = 20
    BLACKOUT = 21
    SYN = 22
    SYN_ACK = 23
    PORT = 24
    """Its client's port is one of those that do not get through."""
    NEW_CONNECTION = 25
    """A SYN, and the table of connections was full."""
    IDLE = 26
    """Its connection had been idle for too long."""
    RESET = 27
    """The wire answered it with RSTs to both ends."""
    ACK = 28
    """A lone acknowledgement, by chance."""
    UNDELIVERED = 31
    """The wire ended before its time came, or the device did not take it."""

    @property
    def arrived(self) -> bool:
        """Whether it came out at the other end."""
        return self < Fate.LOST


class Packet(NamedTuple):
    """One packet's way through the wire.

    Attributes:
        number: In order of arrival, over both directions; 0 of one that the wire forged.
        direction: "forward" is from client to server, "reverse" is back.
        in_ns: CLOCK_REALTIME when the wire had read it.
        out_ns: CLOCK_REALTIME when the wire had written it; None if it did not arrive.
        source: IPv4 address.
        source_port: 0 if it is neither TCP nor UDP.
        destination: IPv4 address.
        destination_port: As ``source_port``.
        protocol: IP's number: 6 is TCP.
        size: Bytes, IP header included.
        flags: TCP's, as in its header: FIN 1, SYN 2, RST 4, PSH 8, ACK 16.
        payload: Bytes of TCP or UDP data.
        seq: TCP's sequence number.
        ack: TCP's acknowledgement number.
        fate: What became of it.
    """

    number: int
    direction: str
    in_ns: int
    out_ns: int | None
    source: str
    source_port: int
    destination: str
    destination_port: int
    protocol: int
    size: int
    flags: int
    payload: int
    seq: int
    ack: int
    fate: Fate


def parse(records: bytes) -> list[Packet]:
    """Return the packets of whole records, in their order."""
    return [_packet(record) for record in _RECORD.iter_unpack(records)]


def _packet(record: tuple[Any, ...]) -> Packet:
    number, in_ns, out_ns, source, destination, seq, ack, *rest = record
    source_port, destination_port, size, payload, direction, protocol, flags, fate = rest
    return Packet(
        number,
        DIRECTIONS[direction],
        in_ns,
        out_ns or None,
        _address(source),
        source_port,
        _address(destination),
        destination_port,
        protocol,
        size,
        flags,
        payload,
        seq,
        ack,
        Fate(fate),
    )


@functools.lru_cache(1024)
def _address(packed: bytes) -> str:
    return socket.inet_ntoa(packed)
