"""What lies in a socket's error queue: control messages to values. No I/O.

Constants from linux/errqueue.h and linux/in.h; Python has no names for them. An ICMP message gets
there while the socket connects, in IPv6 only if it asks for that (IPV6_RECVERR); no privilege is
needed.
"""

import ipaddress
import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = ["EXTENDED_ERROR", "RECVERR", "Ancillary", "Icmp", "parse_icmp"]

Ancillary = Iterable[tuple[int, int, bytes]]

RECVERR = {"4": (0, 11), "6": (41, 25)}
"""The option, and its control message, by family: (SOL_IP, IP_RECVERR), (SOL_IPV6, IPV6_RECVERR)"""

EXTENDED_ERROR = struct.Struct("=IBBBBII")
"""struct sock_extended_err: errno, origin, type, code, padding, info, data."""

_KINDS = frozenset(RECVERR.values())
_ORIGINS = (2, 3)  # SO_EE_ORIGIN_ICMP, SO_EE_ORIGIN_ICMP6
# The sender's struct sockaddr follows (SO_EE_OFFENDER): of each family where its address lies.
_ADDRESSES = {2: slice(4, 8), 10: slice(8, 24)}  # AF_INET, AF_INET6

# RFC 792, RFC 1812 5.2.7.1; RFC 4443 3. What a connection can be ended by, and no more.
_WORDS = {
    ("4", 3, 0): "network unreachable",
    ("4", 3, 1): "host unreachable",
    ("4", 3, 2): "protocol unreachable",
    ("4", 3, 3): "port unreachable",
    ("4", 3, 9): "network administratively prohibited",
    ("4", 3, 10): "host administratively prohibited",
    ("4", 3, 13): "administratively prohibited",
    ("4", 11, 0): "time to live exceeded",
    ("6", 1, 0): "no route to destination",
    ("6", 1, 1): "administratively prohibited",
    ("6", 1, 3): "address unreachable",
    ("6", 1, 4): "port unreachable",
    ("6", 1, 5): "source address failed policy",
    ("6", 1, 6): "reject route to destination",
    ("6", 3, 0): "hop limit exceeded",
}


class Icmp(NamedTuple):
    """An ICMP or ICMPv6 error about what we sent.

    Nobody vouches for it: whoever sees our SYN can send one in any router's name.

    Attributes:
        type: Its numbers differ by family; so do those of ``code``.
        code: What of that type.
        sender: Address of who sent it: the far end's, a router's, or our own. The last is our own
            kernel's word: a firewall rule of this host, or a neighbour that did not answer.
    """

    type: int
    code: int
    sender: str

    @property
    def family(self) -> str:
        """``4`` or ``6``, as ``Address.family``."""
        return "6" if ":" in self.sender else "4"

    def __str__(self) -> str:
        words = _WORDS.get((self.family, self.type, self.code))
        return f"{self.sender} says {words or f'ICMP type {self.type} code {self.code}'}"


def parse_icmp(ancillary: Ancillary) -> Icmp | None:
    """Return the ICMP message in one entry of the error queue, or None if it is no such."""
    for level, kind, data in ancillary:
        size = EXTENDED_ERROR.size
        if (level, kind) not in _KINDS or len(data) < size + 2:
            continue
        _, origin, icmp_type, code, _, _, _ = EXTENDED_ERROR.unpack_from(data)
        (family,) = struct.unpack_from("=H", data, size)
        address = data[size:][_ADDRESSES.get(family, slice(0))]
        if origin in _ORIGINS and len(address) in (4, 16):
            return Icmp(icmp_type, code, str(ipaddress.ip_address(address)))
    return None
