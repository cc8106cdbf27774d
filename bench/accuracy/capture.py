"""What a packet capture says of connections. No I/O: bytes in, times out.

A capture is a pcap file with nanosecond timestamps, as ``tcpdump --time-stamp-precision=nano -w``
writes it (draft-ietf-opsawg-pcap): Ethernet, IPv4, TCP (RFC 894, 791, 9293). The timestamps are ns
of CLOCK_REALTIME, made by the kernel at the packet tap: of a packet that leaves, before the driver
gets it; of one that arrives, the same timestamp of the buffer that SO_TIMESTAMPING reports.
"""

import socket
import struct
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

__all__ = ["Connection", "Endpoint", "Segment", "Turn", "connections", "read_pcap", "turns"]

Endpoint = tuple[str, int]

_NANOSECONDS = 0xA1B23C4D
_ETHERNET = 1
_FILE_HEADER_SIZE = 24
_SYN, _ACK = 0x02, 0x10


class Segment(NamedTuple):
    """One TCP segment.

    Attributes:
        ns: When the tap saw it, CLOCK_REALTIME.
        source: Address and port of the sender.
        target: Address and port of the receiver.
        sequence: Of its first byte.
        acknowledged: The next byte that the sender expects; no meaning without ACK.
        flags: The low eight.
        size: Bytes of data, from the IP header: also of those that the capture cut off.
    """

    ns: int
    source: Endpoint
    target: Endpoint
    sequence: int
    acknowledged: int
    flags: int
    size: int


def read_pcap(data: bytes) -> Iterator[Segment]:
    """Yield the TCP segments of a capture in its order; a record cut short by its end is left out.

    Raises:
        ValueError: It is no such capture.
    """
    for order in "<>":
        if data[:4] == struct.pack(order + "I", _NANOSECONDS):
            break
    else:
        raise ValueError("no pcap file with nanosecond stamps")
    link_type = struct.unpack_from(order + "I", data, 20)[0] & 0xFFFF
    if link_type != _ETHERNET:
        raise ValueError(f"link type {link_type} is not Ethernet")
    record = struct.Struct(order + "IIII")
    network = struct.Struct("!12xHBxH5xB2x4s4s")
    transport = struct.Struct("!HHIIBB")
    at = _FILE_HEADER_SIZE
    while at + record.size <= len(data):
        seconds, nanoseconds, captured, _ = record.unpack_from(data, at)
        at += record.size
        packet = data[at : at + captured]
        at += captured
        if len(packet) < captured or captured < network.size:
            continue
        kind, version, total, protocol, source, target = network.unpack_from(packet)
        tcp_at = 14 + 4 * (version & 15)
        if kind != 0x0800 or protocol != socket.IPPROTO_TCP or captured < tcp_at + transport.size:
            continue
        from_port, to_port, sequence, acknowledged, offset, flags = transport.unpack_from(
            packet, tcp_at
        )
        yield Segment(
            seconds * 1_000_000_000 + nanoseconds,
            (socket.inet_ntoa(source), from_port),
            (socket.inet_ntoa(target), to_port),
            sequence,
            acknowledged,
            flags,
            total + 14 - tcp_at - 4 * (offset >> 4),
        )


def _lists() -> defaultdict[int, list[Segment]]:
    return defaultdict(list)


@dataclass(frozen=True)
class Connection:
    """One connection as one end's capture shows it.

    Attributes:
        client: Who sent the SYN.
        server: Who was asked.
        first_sequence: The SYN's.
        syns: When each SYN passed.
        syn_acks: When each SYN-ACK passed.
        forward: Segments with data from the client, by sequence number less the SYN's.
        reverse: Segments with data from the server, by their own sequence number.
    """

    client: Endpoint
    server: Endpoint
    first_sequence: int
    syns: list[int] = field(default_factory=list)
    syn_acks: list[int] = field(default_factory=list)
    forward: defaultdict[int, list[Segment]] = field(default_factory=_lists)
    reverse: defaultdict[int, list[Segment]] = field(default_factory=_lists)

    def offset(self, segment: Segment) -> int:
        """Return how far after the SYN a segment of the client's is, in sequence numbers."""
        return (segment.sequence - self.first_sequence) & 0xFFFF_FFFF

    @property
    def handshake_ns(self) -> int | None:
        """SYN to SYN-ACK; None unless there was exactly one of each."""
        if len(self.syns) == len(self.syn_acks) == 1:
            return self.syn_acks[0] - self.syns[0]
        return None


def connections(
    segments: Iterable[Segment],
) -> dict[tuple[Endpoint, Endpoint, int], Connection]:
    """Sort segments into connections, by client, server and the SYN's sequence number.

    Segments of connections whose SYN is not in the capture are left out.
    """
    found: dict[tuple[Endpoint, Endpoint, int], Connection] = {}
    newest: dict[tuple[Endpoint, Endpoint], Connection] = {}
    for segment in segments:
        ends = segment.source, segment.target
        if segment.flags & (_SYN | _ACK) == _SYN:
            key = (*ends, segment.sequence)
            newest[ends] = found.setdefault(key, Connection(*key))
            newest[ends].syns.append(segment.ns)
        elif ends in newest:
            if segment.size:
                newest[ends].forward[newest[ends].offset(segment)].append(segment)
        elif (mirrored := ends[::-1]) in newest:
            if segment.flags & _SYN:
                newest[mirrored].syn_acks.append(segment.ns)
            elif segment.size:
                newest[mirrored].reverse[segment.sequence].append(segment)
    return found


class Turn(NamedTuple):
    """One request and its reply, seen at both ends; ns of CLOCK_REALTIME.

    Attributes:
        request_out: The request leaves, at the client's end.
        request_in: It arrives, at the server's end.
        reply_out: The reply leaves, at the server's end.
        reply_in: It arrives, at the client's end.
    """

    request_out: int
    request_in: int
    reply_out: int
    reply_in: int

    @property
    def network_ns(self) -> int:
        """The time that neither host held it: both directions together."""
        return (self.reply_in - self.request_out) - (self.reply_out - self.request_in)


def turns(near: Connection, far: Connection) -> list[Turn | None]:
    """Pair requests with replies, one entry for each segment with data that the client sent.

    The reply to a request is the server's first segment with data that acknowledges it, and must
    acknowledge nothing after it. None stands for a turn that cannot serve as truth: a segment of
    it was sent twice, is missing at an end, or the server spoke before it had the request.

    Args:
        near: The connection in the capture of the client's end.
        far: The same in the capture of the server's end.
    """
    replies: dict[int, int] = {}
    for sequence in sorted(near.reverse, key=lambda number: near.reverse[number][0].ns):
        replies.setdefault(near.reverse[sequence][0].acknowledged, sequence)
    found: list[Turn | None] = []
    for offset in sorted(near.forward):
        first = near.forward[offset][0]
        end = (first.sequence + first.size) & 0xFFFF_FFFF
        reply = replies.get(end)
        request_out, request_in = _once(near.forward, far.forward, offset)
        reply_in, reply_out = _once(near.reverse, far.reverse, reply)
        if request_out and request_in and reply_out and reply_in:
            found.append(Turn(request_out, request_in, reply_out, reply_in))
        else:
            found.append(None)
    return found


def _once(
    near: dict[int, list[Segment]], far: dict[int, list[Segment]], key: int | None
) -> tuple[int, int] | tuple[None, None]:
    """Return when a segment passed each end, if it passed each exactly once, and unchanged."""
    here, yonder = (side.get(key, []) if key is not None else [] for side in (near, far))
    if len(here) == len(yonder) == 1 and here[0].size == yonder[0].size:
        return here[0].ns, yonder[0].ns
    return None, None
