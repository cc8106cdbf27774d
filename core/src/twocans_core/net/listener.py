"""Listening TCP sockets, and what every connection they accept inherits. Nothing here waits."""

import array
import contextlib
import errno
import ipaddress
import socket
import struct

from twocans_core.kernel.stamps import RX_FLAGS, SO_TIMESTAMPING_NEW
from twocans_core.kernel.tcpinfo import TCP_INFO_SIZE, AcceptQueue

from .channel import Channel
from .sockets import (
    EVERYTHING,
    Address,
    Kernel,
    address_of,
    ask,
    keep_alive,
    lacks_interface,
    sockaddr_of,
)

__all__ = ["ListenError", "Listener", "listen"]

# Unsent bytes that the kernel holds for us. Its own limit is megabytes, so a peer that never
# reads would cost that much, and it is charged to our memory limit.
_UNSENT_BYTES = 128 * 1024
# What the kernel may hold of an accepted connection in each direction; it doubles this, for its
# own book-keeping. Without it both buffers grow, by the far end's doing, to megabytes.
_BUFFER_BYTES = 128 * 1024


class ListenError(OSError):
    """An address to listen on cannot be had. ``strerror`` says which, and why."""


class Listener:
    """A listening TCP socket, edge-triggered.

    Args:
        host: Address to bind. ``""`` and ``"::"`` mean every address of both families, by one
            socket; IPv4 alone where the host has no IPv6.
        port: 0 lets the kernel choose.
        backlog: Connections that may wait to be accepted; the kernel caps it at somaxconn.
        kernel: What to ask the kernel for, of every connection.

    Raises:
        ListenError: The address cannot be had.
    """

    def __init__(self, host: str, port: int, *, backlog: int, kernel: Kernel = EVERYTHING) -> None:
        self._sock = listen(host, port, backlog=backlog, stamps=kernel.stamps)
        self._kernel = kernel
        self.fd = self._sock.fileno()
        self.address = address_of(self._sock.getsockname())

    def accept(self) -> Channel | None:
        """Take the next connection; None when none waits. Raises OSError."""
        try:
            sock, peer = self._sock.accept()
        except BlockingIOError:
            return None
        sock.setblocking(False)  # accept(2) inherits no O_NONBLOCK
        return Channel(sock, (_plain_host(peer[0]), peer[1]), self._kernel)

    def accept_queue(self) -> AcceptQueue:
        """Return how many connections wait to be accepted, and how many may."""
        raw = self._sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        return AcceptQueue.parse(raw)

    def refuse_syns(self) -> None:
        """Drop new SYNs, so that the queue can be emptied before closing.

        Closing a listener resets the connections that wait in its queue: replies that were
        due would be lost. A client whose SYN is dropped sends it again a second later, to
        the next listener. Raises OSError: some kernels ask for CAP_NET_ADMIN.
        """
        # Classic BPF over the TCP header: load the flags, keep SYN and ACK, refuse a lone SYN.
        program = (
            (0x30, 0, 0, 13),  # A = packet[13]
            (0x54, 0, 0, 0x12),  # A &= SYN | ACK
            (0x15, 0, 1, 0x02),  # if A == SYN:
            (0x06, 0, 0, 0),  # drop
            (0x06, 0, 0, 0xFFFF_FFFF),  # keep
        )
        code = array.array("B", b"".join(struct.pack("=HBBI", *step) for step in program))
        so_attach_filter = 26
        fprog = struct.pack("HP", len(program), code.buffer_info()[0])
        # The kernel copies the program in this call, so ours need not outlive it.
        self._sock.setsockopt(socket.SOL_SOCKET, so_attach_filter, fprog)

    def close(self) -> None:
        """Close at once. Safe to call twice."""
        self._sock.close()


def listen(host: str, port: int, *, backlog: int, stamps: bool = False) -> socket.socket:
    """Return a listening, non-blocking socket. Arguments and errors as of ``Listener``."""
    try:
        return _listen(host, port, backlog, stamps)
    except OSError as error:
        text = f"cannot listen on {host or 'any address,'} port {port}: {error.strerror}"
        raise ListenError(error.errno, text) from error


def _listen(host: str, port: int, backlog: int, stamps: bool) -> socket.socket:
    sock = _bind(host, port)
    try:
        # Inherited by every accepted socket, as what follows.
        ask(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(sock)
        ask(sock, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        # Before listen(): the window scale in our SYN-ACK is chosen by the buffer's size (tcp(7),
        # RFC 7323 section 2.2), and cannot change later. A size that is set also ends the kernel's
        # own tuning of it.
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            ask(sock, socket.SOL_SOCKET, buffer, _BUFFER_BYTES)
        if stamps:
            # So that even the first segment of a connection is timestamped. Transmit timestamps
            # cannot be inherited: their ids are refused on a listener (EINVAL).
            with contextlib.suppress(OSError):  # Linux before 5.1: no timestamps, clock="user"
                sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_NEW, RX_FLAGS)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _bind(host: str, port: int) -> socket.socket:
    both = host in ("", "::")
    try:
        address = ipaddress.ip_address(host or "::")
    except ValueError:
        raise OSError(errno.EADDRNOTAVAIL, f"{host!r} is no IP address to listen on") from None
    if lacks_interface(address):
        raise OSError(errno.EINVAL, f"a link-local address needs its interface: {host}%eth0")
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    except OSError as error:
        if both and error.errno == errno.EAFNOSUPPORT:
            return _bind("0.0.0.0", port)  # noqa: S104 - "every address" was asked for
        raise
    try:
        # Else connections of our last life, in TIME_WAIT, keep the port for a minute.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # Said either way: what a host does by default is a sysctl (bindv6only, ipv6(7)).
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind(sockaddr_of(Address(str(address), port)))
    except OSError as error:
        sock.close()
        if both and error.errno == errno.EADDRNOTAVAIL:
            return _bind("0.0.0.0", port)  # noqa: S104 - as above, with IPv6 disabled
        raise
    return sock


def _plain_host(host: str) -> str:
    """Return an IPv4-mapped IPv6 address as the IPv4 address that it is."""
    return host.removeprefix("::ffff:") if "." in host else host
