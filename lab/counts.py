"""What the pair counted over a whole run, beside what the wire did. No I/O."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from .wire import Fate, Packet

__all__ = ["counted_by_pair", "counts_of", "lost_on_wire"]

_LOST = re.compile(
    r'^twocans_client_path_segments_total\{.*direction="(\w+)".*fate="lost".*\} (\S+)$',
    re.MULTILINE,
)
_DAMAGED = re.compile(
    r'^twocans_client_segments_total\{.*direction="(\w+)".*fate="damaged".*\} (\S+)$', re.MULTILINE
)
_FAILED = re.compile(
    r'^twocans_client_probes_total\{.*outcome="(?:fail|void)".*\} ([1-9]\S*)$', re.MULTILINE
)
_FIN, _SYN = 1, 2
_TCP = 6
_LONG_NS = 6_000_000_000
"""A probe and its goodbye are over by then."""
Connection = tuple[str, int]


def counts_of(page: str, packets: Sequence[Packet], port: int) -> dict[str, tuple[float, float]]:
    """Return (the pair's count, the wire's) of segments lost in each direction.

    Nothing if the two cannot be compared: a probe failed, so its connection is not counted; or a
    connection that is still open has lost something, which is counted later.

    Args:
        page: The client's metrics, when no connection had been begun or ended for a moment.
        packets: The wire's log.
        port: The server's.
    """
    mine = counted_by_pair(page)
    if _FAILED.search(page) or not mine:
        return {}
    theirs = lost_on_wire(packets, port)
    if theirs is None:
        return {}
    return {f"lost_{way}": (mine[way], theirs[way]) for way in mine}


def counted_by_pair(page: str) -> dict[str, float]:
    """Return the segments that were lost, or came damaged, by direction, over all paths.

    A kernel that verifies a segment before it counts it has not received a damaged one, and that is
    lost; one that counts first has, and that is damaged.
    """
    counted: dict[str, float] = {}
    for direction, value in _LOST.findall(page) + _DAMAGED.findall(page):
        counted[direction] = counted.get(direction, 0.0) + float(value)
    return counted


def lost_on_wire(packets: Sequence[Packet], port: int) -> dict[str, float] | None:
    """Return segments with data or SYN that did not arrive whole; None if some are not settled.

    Left out are the last data of a server, since no client learns how often that was sent, and
    connections that are no probes: those that ask the witness, the held one, and idle ones.
    """
    ours = [one for one in packets if one.protocol == _TCP and port in _ports(one)]
    ended = {_connection(one, port) for one in ours if one.flags & _FIN}
    questions = _no_probes(ours, port)
    last = _last_data(ours, port)
    lost = {"forward": 0.0, "reverse": 0.0}
    for one in ours:
        is_lost = not one.fate.arrived or one.fate is Fate.DAMAGED
        if not is_lost or not (one.payload or one.flags & _SYN):
            continue
        connection = _connection(one, port)
        if connection not in ended:
            return None
        is_last = one.direction == "reverse" and one.payload and one.seq == last.get(connection)
        if connection not in questions and not is_last:
            lost[one.direction] += 1
    return lost


def _no_probes(packets: Sequence[Packet], port: int) -> set[Connection]:
    """The connections whose first message is not as long as most are, and those that live long."""
    messages: dict[Connection, dict[int, int]] = {}
    for one in packets:
        if one.direction == "forward" and one.payload:
            messages.setdefault(_connection(one, port), {})[one.seq] = one.payload
    seconds = {}
    for connection, lengths in messages.items():
        first = next(iter(lengths))  # nothing else is sent before the greeting is answered
        seconds[connection] = lengths.get((first + lengths[first]) % 2**32)
    usual = Counter(seconds.values()).most_common(1)
    odd = {connection for connection, length in seconds.items() if length != usual[0][0]}
    return odd | _long_lived(packets, port)


def _long_lived(packets: Iterable[Packet], port: int) -> set[Connection]:
    """The held connection and its like."""
    begun: dict[Connection, int] = {}
    long = set()
    for one in packets:
        connection = _connection(one, port)
        if one.in_ns - begun.setdefault(connection, one.in_ns) > _LONG_NS:
            long.add(connection)
    return long


def _ports(packet: Packet) -> tuple[int, int]:
    return packet.source_port, packet.destination_port


def _connection(packet: Packet, port: int) -> Connection:
    """The client's end, which no two connections of one run share."""
    if packet.destination_port == port:
        return packet.source, packet.source_port
    return packet.destination, packet.destination_port


def _last_data(packets: Iterable[Packet], port: int) -> dict[Connection, int]:
    """The sequence number of the server's last segment with data, by connection."""
    last: dict[Connection, int] = {}
    for one in packets:
        if one.direction == "reverse" and one.payload:
            connection = _connection(one, port)
            before = last.setdefault(connection, one.seq)
            if (one.seq - before) % 2**32 < 2**31:
                last[connection] = one.seq
    return last
