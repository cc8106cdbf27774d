"""The network's share of exchanges by the client, beside how long the wire had them. No I/O.

The wire has a packet from when it had read it until it had written it. The client's share begins
and ends at the network devices of the two hosts. So the difference holds, besides the error of the
client's figure, the hops beside the wire: the router's kernel, both TUN devices, and how long the
wire's process waited for a CPU before it read. It may be negative: the kernel that receives may
have its timestamp before the wire's write returns.

Left out are exchanges whose segments do not pass the wire under the client's port: behind a proxy,
or a NAT that chose another.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

from .packets import Fate, Packet

__all__ = ["Noted", "network_errors"]

_TCP = 6


class Noted(NamedTuple):
    """An exchange as the client has it; ns of CLOCK_REALTIME, which all namespaces share.

    Attributes:
        port: The client's.
        t1k: The end of the request left the client's kernel.
        t4k: The end of the reply reached it.
        network_ns: The network's share, both directions together.
    """

    port: int
    t1k: int
    t4k: int
    network_ns: int


def network_errors(
    noted: Iterable[Noted], packets: Iterable[Packet], port: int
) -> list[tuple[int, int]]:
    """Return (t1k, the client's share less the wire's) of each exchange that the wire carried.

    Args:
        noted: In which no segment was sent again.
        packets: The wire's log.
        port: The server's.
    """
    requests: dict[int, list[Packet]] = {}
    replies: dict[int, list[Packet]] = {}
    for one in sorted(packets, key=attrgetter("in_ns")):
        if _is_data(one) and port in (one.source_port, one.destination_port):
            is_request = one.destination_port == port
            near = one.source_port if is_request else one.destination_port
            (requests if is_request else replies).setdefault(near, []).append(one)
    errors = []
    for each in noted:
        true_ns = _transit_ns(each, requests.get(each.port, []), replies.get(each.port, []))
        if true_ns is not None:
            errors.append((each.t1k, each.network_ns - true_ns))
    return errors


def _is_data(packet: Packet) -> bool:
    """Whether it is the copy of a segment with data that its receiver took."""
    is_whole = packet.fate.arrived and packet.fate not in (Fate.DAMAGED, Fate.DUPLICATED)
    return packet.protocol == _TCP and packet.payload > 0 and is_whole


def _transit_ns(noted: Noted, requests: Sequence[Packet], replies: Sequence[Packet]) -> int | None:
    """How long the wire had the end of the request, and that of the reply."""
    first = bisect_left(requests, noted.t1k, key=attrgetter("in_ns"))
    last = bisect_right(replies, noted.t4k, key=attrgetter("in_ns")) - 1
    if first == len(requests) or last < 0:
        return None
    request, reply = requests[first], replies[last]
    if request.out_ns is None or reply.out_ns is None or reply.in_ns < request.in_ns:
        return None
    return (request.out_ns - request.in_ns) + (reply.out_ns - reply.in_ns)
