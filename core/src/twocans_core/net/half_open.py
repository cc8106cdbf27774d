"""Connections whose SYN has come and whose handshake is not finished, by source.

A listener's own TCP_INFO does not tell them. The kernel does by sock_diag(7), to everybody, for
our network namespace; of ``/proc/net/tcp`` it would write every line.
"""

import contextlib
import socket
import struct
from collections import Counter
from collections.abc import Callable

__all__ = ["HalfOpen"]

# linux/netlink.h, linux/sock_diag.h, net/tcp_states.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x301
_DONE, _ERROR = 3, 2
_SYN_RECV = 3

# struct nlmsghdr; struct inet_diag_req_v2 up to the ports, and the rest of it; the first four
# bytes of struct inet_diag_msg, then ports and addresses.
_HEADER = struct.Struct("=IHHII")
_WHAT = struct.Struct("=BBBBI")
_WHERE = struct.Struct("!HH16s16s")
_REST = struct.Struct("=III")
_NO_COOKIE = 0xFFFF_FFFF
_MAPPED = bytes(10) + b"\xff\xff"

_READ_BYTES = 64 * 1024
# The kernel walks its whole table of connections for it: 1.8 ms for one of 262,144 entries.
_FRESH_NS = 1_000_000_000
# A flood of SYNs must not cost more than this, some 4 ms.
_MOST = 4_096


class HalfOpen:
    """Those of one listener, looked at when somebody asks, and once a second at most.

    Args:
        host: Its address, as ``Listener.address`` says it.
        port: Its port.
        mono_ns: CLOCK_MONOTONIC.
    """

    def __init__(self, host: str, port: int, mono_ns: Callable[[], int]) -> None:
        self._family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._port = port
        self._mono_ns = mono_ns
        self._due_ns = mono_ns()
        self._counts: Counter[str] | None = None

    def of(self, host: str) -> int | None:
        """Return how many there are from an address; None where the kernel does not say."""
        now_ns = self._mono_ns()
        if now_ns >= self._due_ns:
            self._due_ns = now_ns + _FRESH_NS
            self._counts = None
            with contextlib.suppress(OSError, struct.error):
                self._counts = _dump(self._family, self._port)
        return None if self._counts is None else self._counts[host.partition("%")[0]]


def _dump(family: int, port: int) -> Counter[str] | None:
    counts: Counter[str] = Counter()
    what = _WHAT.pack(family, socket.IPPROTO_TCP, 0, 0, 1 << _SYN_RECV)
    body = what + _WHERE.pack(port, 0, b"", b"") + _REST.pack(0, _NO_COOKIE, _NO_COOKIE)
    size = _HEADER.size + len(body)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as sock:
        # It is answered within the calls: nothing is waited for.
        sock.setblocking(False)
        sock.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body)
        while counts.total() < _MOST:
            data = memoryview(sock.recv(_READ_BYTES))
            while data:
                length, kind, *_ = _HEADER.unpack_from(data)
                if kind == _DONE:
                    return counts
                if kind == _ERROR:
                    return None
                _, _, _, peer = _WHERE.unpack_from(data, _HEADER.size + 4)
                counts[_host_of(family, peer)] += 1
                data = data[(length + 3) & ~3 :]
    return counts


def _host_of(family: int, packed: bytes) -> str:
    if family == socket.AF_INET:
        return socket.inet_ntop(socket.AF_INET, packed[:4])
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed)
