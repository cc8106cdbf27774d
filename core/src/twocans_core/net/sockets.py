"""Addresses, and the calls that sockets of every kind share. Nothing here waits, but ``resolve``.

Only the modules of this folder touch sockets. The server drives its ``Channel``s by the
poller's callbacks; the client's probes wait for theirs through ``streams``.
"""

import contextlib
import errno
import ipaddress
import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twocans_core.kernel.errqueue import RECVERR
from twocans_core.kernel.stamps import RX_FLAGS, SO_TIMESTAMPING_NEW

__all__ = [
    "CAPACITY_ERRNOS",
    "EVERYTHING",
    "UNKNOWN",
    "Address",
    "HostError",
    "Kernel",
    "address_of",
    "ask",
    "begin_connect",
    "forget_icmp",
    "has_route",
    "keep_alive",
    "lacks_interface",
    "let_be_silent",
    "open_keeper",
    "open_named",
    "probe_silence",
    "resolve",
    "sockaddr_of",
    "stop_reading",
]

# What the machine, not the peer, lacks.
CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# How a kernel says that it does not know what it was asked for; so does a sandbox.
UNKNOWN = frozenset({errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOSYS})
# Of a call that sends nothing and waits for nothing, no path is the cause.
_NO_PATHS = frozenset({*UNKNOWN, errno.EPROTO, errno.EAFNOSUPPORT})
# What a kernel says at once, that has no way to any address like this one.
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

# A peer that vanished is noticed after 15 + 3 x 5 s in silence, or 30 s with data under way.
# Keepalive alone does not bound unacknowledged data, and the kernel's default is hours.
# Where both are set, TCP_USER_TIMEOUT decides for keepalive too, and not the count of probes
# (tcp(7)). So both say 30 s.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
_USER_TIMEOUT_MS = 30_000
# So early that a path that is cut in one direction shows in seconds which (docs/protocol.md,
# "Greeting"). It ends as late as above, also on a kernel without TCP_USER_TIMEOUT: 3 + 27 x 1 s.
_EARLY_KEEPALIVE = (
    (socket.TCP_KEEPIDLE, 3),
    (socket.TCP_KEEPINTVL, 1),
    (socket.TCP_KEEPCNT, 27),
)


class Address(NamedTuple):
    """Where to connect to: a literal IP address and a port.

    A link-local one has its interface, by name or number: ``fe80::1%eth0``.
    """

    host: str
    port: int

    @property
    def family(self) -> str:
        """``4`` or ``6``."""
        return "6" if ":" in self.host else "4"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class HostError(OSError):
    """This host cannot even try: its kernel or its addresses, not the path. See ``strerror``."""


class Kernel(NamedTuple):
    """Which features of the kernel to use.

    Normally all; switch one off to measure its cost, or to run without it.

    Attributes:
        stamps: Its timestamps of what is received and sent.
        tcp_info: Its counters of each connection (TCP_INFO).
    """

    stamps: bool = True
    tcp_info: bool = True


EVERYTHING = Kernel()


def stop_reading(sock: socket.socket) -> None:
    """Read, or accept, no more; a thread that waits for it is woken (Linux: EPOLLHUP)."""
    with contextlib.suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RD)


def begin_connect(
    address: Address, *, held: bool, local_ports: Sequence[int] = ()
) -> socket.socket:
    """Return a socket that has begun to connect. Arguments and errors as of ``Channel.open``.

    It keeps the ICMP messages that come, and who sent them, until ``forget_icmp``.
    """
    try:
        sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        raise _explained(error, address) from error
    try:
        # Nagle's algorithm (RFC 896) would keep a request back until the last one is acknowledged.
        ask(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if held:
            keep_alive(sock)
        if address.family == "6":
            # Those of IPv4 are kept unasked while a socket connects (tcp_v4_err, Linux 5.5), and
            # to ask and to take it back is 2 % of a probe.
            ask(sock, *RECVERR["6"], 1)
        _bind_one(sock, local_ports)
        refused = sock.connect_ex(sockaddr_of(address))
        if refused not in (0, errno.EINPROGRESS):
            raise _explained(OSError(refused, os.strerror(refused)), address)
    except BaseException:
        sock.close()
        raise
    return sock


def forget_icmp(sock: socket.socket) -> None:
    """Keep no ICMPv6 messages any more: the connection stands.

    From then on they would do harm. Where a socket asks for them, one such message ends the wait
    of an established connection as an error, which otherwise the kernel only notes while it sends
    again (tcp_v6_err, net/ipv6/tcp_ipv6.c; RFC 1122 4.2.3.9).
    """
    ask(sock, *RECVERR["6"], 0)


def _bind_one(sock: socket.socket, ports: Sequence[int]) -> None:
    """Bind to the first of these ports that is free; to none if none is: the kernel chooses."""
    for port in ports:
        with contextlib.suppress(OSError):  # in use, or not ours to have
            sock.bind(("", port))
            return


def keep_alive(sock: socket.socket) -> None:
    """Make a silent connection whose far end is gone fail within half a minute."""
    ask(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        ask(sock, socket.IPPROTO_TCP, option, value)
    ask(sock, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def let_be_silent(sock: socket.socket) -> None:
    """Have a socket that is kept alive send nothing in silence."""
    ask(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)


def probe_silence(sock: socket.socket) -> None:
    """Have a socket that is kept alive send probes after 3 s of silence, one a second."""
    for option, value in _EARLY_KEEPALIVE:
        ask(sock, socket.IPPROTO_TCP, option, value)


def open_keeper() -> Callable[[], None]:
    """Keep the kernel's receive timestamping switched on until the returned function is called.

    The kernel switches timestamping on with its first user and off with its last, a little
    later each time, and the first packets of a fresh connection go unstamped (7 to 12 % were
    seen). One idle socket that asks for timestamps is a user for the life of the process.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_NEW, RX_FLAGS)
    return sock.close


def open_named(name: str) -> Callable[[], None]:
    """Hold a name in this network namespace, which every process in it can see.

    Where it cannot be had nothing happens. Returns a function that lets it go.
    """
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(OSError):
        sock.bind(f"\0{name}")
    return sock.close


def resolve(host: str, port: int, family: str = "") -> list[Address]:
    """Look a name up as an application does (getaddrinfo). Blocks: call it in a thread.

    Args:
        host: The name.
        port: For the addresses.
        family: ``4`` or ``6``, to ask for no other; ``""`` for both.

    Returns:
        Every address, IPv4 and IPv6, in the resolver's order, each once; never empty.

    Raises:
        OSError: ``socket.gaierror`` with the resolver's code.
    """
    number = {"4": socket.AF_INET, "6": socket.AF_INET6}.get(family, socket.AF_UNSPEC)
    found = socket.getaddrinfo(host, port, number, socket.SOCK_STREAM)
    return list(dict.fromkeys(address_of(entry[4]) for entry in found))


def has_route(address: Address) -> bool:
    """Return whether our own kernel knows a way there, and an address to send from.

    Nothing is sent. In doubt, the answer is yes.
    """
    try:
        # connect() of a UDP socket looks up the route and the source address, and no more.
        with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
            sock.connect(sockaddr_of(address))
    except OSError as error:
        return error.errno not in _NO_ROUTE
    return True


def lacks_interface(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether the kernel needs an interface for it, and is given none."""
    return address.version == 6 and address.is_link_local and address.scope_id is None


def address_of(sockaddr: tuple[Any, ...]) -> Address:
    """Return what the socket module calls an address, with its interface if it has one."""
    host, port, *rest = sockaddr
    scope = rest[1] if rest else 0
    if not scope or "%" in host:
        return Address(str(host), port)
    try:
        return Address(f"{host}%{socket.if_indextoname(scope)}", port)
    except OSError:  # it has gone meanwhile
        return Address(f"{host}%{scope}", port)


def sockaddr_of(address: Address) -> tuple[Any, ...]:
    """Return what the socket module wants: it would put a scope in the host to 0."""
    host, _, scope = address.host.partition("%")
    if not scope:
        return tuple(address)
    try:
        number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    except OSError:
        raise OSError(errno.ENODEV, f"there is no interface {scope}") from None
    return host, address.port, 0, number


def ask(sock: socket.socket, level: int, option: int, value: int) -> None:
    """Set an option that a kernel may lack: what it is for is then not had, and all else is."""
    try:
        sock.setsockopt(level, option, value)
    except OSError as error:
        if error.errno not in UNKNOWN:
            raise


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in address.host else socket.AF_INET


def _explained(error: OSError, address: Address) -> OSError:
    """Say what socket() or connect() means by an error that has more than one meaning.

    A route and an address to send from are looked for before a port is, and likewise for UDP,
    which sends nothing here and has ports of its own.
    """
    if error.errno in (errno.EADDRNOTAVAIL, errno.EINVAL):
        with (
            contextlib.suppress(OSError),
            socket.socket(_family(address), socket.SOCK_DGRAM) as sock,
        ):
            if sock.connect_ex(sockaddr_of(address)) != error.errno:
                pass
            elif error.errno == errno.EADDRNOTAVAIL:
                text = f"this host has no IPv{address.family} address to send from"
                return HostError(error.errno, text)
            else:
                # Of fe80::1 without its interface, too.
                text = "a route of this host drops it (blackhole), or it names no interface"
                return OSError(errno.EHOSTUNREACH, text)
    if error.errno in _NO_PATHS:
        return HostError(error.errno, error.strerror)
    return error
