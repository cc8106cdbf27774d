"""The only module that touches a socket.

Nothing here waits, but ``resolve``. The server drives its ``Channel``s by the poller's
callbacks; the client's probes wait for theirs through ``streams``.
"""

import array
import contextlib
import errno
import ipaddress
import logging
import os
import socket
import struct
from collections.abc import Callable
from typing import Any, NamedTuple

from twocans_core.kernel.stamps import (
    ANCILLARY_SIZE,
    RECORD_TX,
    RX_FLAGS,
    SO_TIMESTAMPING_NEW,
    TX_FLAGS,
    TX_FLAGS_BEFORE_6_2,
    Transmit,
    parse_rx,
    parse_tx,
)
from twocans_core.kernel.tcpinfo import TCP_INFO_SIZE, AcceptQueue, Counters, Limited, sent_in_vain

__all__ = [
    "CAPACITY_ERRNOS",
    "EVERYTHING",
    "READ_SIZE",
    "Address",
    "Channel",
    "HostError",
    "Kernel",
    "ListenError",
    "Listener",
    "Received",
    "address_of",
    "has_route",
    "keep_alive",
    "lacks_interface",
    "listen",
    "open_keeper",
    "resolve",
    "stop_reading",
]

log = logging.getLogger(__name__)

# What the machine, not the peer, lacks.
CAPACITY_ERRNOS = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})

# How a kernel says that it does not know what it was asked for; so does a sandbox.
_UNKNOWN = frozenset({errno.EINVAL, errno.ENOPROTOOPT, errno.EOPNOTSUPP, errno.ENOSYS})
# Of a call that sends nothing and waits for nothing, no path is the cause.
_NO_PATHS = frozenset({*_UNKNOWN, errno.EPROTO, errno.EAFNOSUPPORT})
# What a kernel says at once, that has no way to any address like this one.
_NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})

READ_SIZE = 64 * 1024
# One buffer for every read of the process: reads happen on the loop's thread, one at a time.
_BUFFER = bytearray(READ_SIZE)
_VIEW = memoryview(_BUFFER)
_STAMPS_KEPT = 64

# A peer that vanished is noticed after 15 + 3 x 5 s in silence, or 30 s with data under way.
# Keepalive alone does not bound unacknowledged data, and the kernel's default is hours.
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 15), (socket.TCP_KEEPINTVL, 5), (socket.TCP_KEEPCNT, 3))
_USER_TIMEOUT_MS = 30_000
# Unsent bytes that the kernel holds for us. Its own limit is megabytes, so a peer that never
# reads would cost that much, and it is charged to our memory limit.
_UNSENT_BYTES = 128 * 1024
# What the kernel may hold of an accepted connection in each direction; it doubles this, for its
# own book-keeping. Without it both buffers grow, by the far end's doing, to megabytes.
_BUFFER_BYTES = 128 * 1024


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


class Received(NamedTuple):
    """What one read returned.

    Attributes:
        data: The bytes; ``b""`` means that the peer sends no more.
        rx_ns: When the kernel received the segment that held the last of them, ns of
            CLOCK_REALTIME. None when the kernel gave no stamp; never 0.
        late: Whether they were only found by the last look after the deadline: they had
            arrived, and it was us who were late.
    """

    data: bytes
    rx_ns: int | None
    late: bool = False


class HostError(OSError):
    """This host cannot even try: its kernel or its addresses, not the path. See ``strerror``."""


class ListenError(OSError):
    """An address to listen on cannot be had. ``strerror`` says which, and why."""


class Kernel(NamedTuple):
    """What a kernel is asked for. All of it, but to see what it costs or to do without.

    Attributes:
        stamps: Its timestamps of what is received and sent.
        tcp_info: Its counters of each connection.
    """

    stamps: bool = True
    tcp_info: bool = True


EVERYTHING = Kernel()
_NO_TRANSMIT = Transmit(None, None)


class Channel:
    """A connected TCP socket that never waits, with its kernel stamps and counters.

    Owns the socket and closes it. Every method but ``close`` may raise OSError.

    Args:
        sock: Connected, non-blocking.
        peer: The other end's address.
        kernel: What to ask the kernel for.
    """

    __slots__ = ("_kernel", "_queued_ns", "_sent", "_sock", "_tx_ns", "fd", "peer")

    # The kernel refused to send what asked for a stamp: nobody asks it again.
    _is_refused = False

    def __init__(
        self, sock: socket.socket, peer: tuple[str, int], kernel: Kernel = EVERYTHING
    ) -> None:
        self._sock = sock
        self._kernel = kernel
        self.fd = sock.fileno()
        self.peer = peer
        self._sent = 0
        self._tx_ns: dict[int, int] | None = None
        self._queued_ns: dict[int, int] = {}

    @classmethod
    def open(
        cls, address: Address, kernel: Kernel = EVERYTHING, *, held: bool = False
    ) -> "Channel":
        """Begin to connect; ``is_connected`` says when the handshake is over.

        Args:
            address: Where to.
            kernel: What to ask the kernel for. Receive stamps are on at once; for those of
                writes see ``stamp_transmits``.
            held: The connection is to outlive silence, so the kernel shall watch it.
        """
        try:
            sock = socket.socket(_family(address), socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        except OSError as error:
            raise _explained(error, address) from error
        try:
            _ask(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if held:
                keep_alive(sock)
            refused = sock.connect_ex(_sockaddr(address))
            if refused not in (0, errno.EINPROGRESS):
                raise _explained(OSError(refused, os.strerror(refused)), address)
            channel = cls(sock, (address.host, address.port), kernel)
            # Refused before connect(); from then on the kernel counts from the first byte.
            channel.stamp_transmits()
        except BaseException:
            sock.close()
            raise
        return channel

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the kernel since transmit stamping was switched on."""
        return self._sent

    def stamp_transmits(self) -> bool:
        """Have the kernel stamp reads, and those writes that ask for it.

        Call it when nothing is unsent. Returns False when this kernel cannot, or must not.
        """
        if not self._kernel.stamps:
            return False
        for flags in (TX_FLAGS, TX_FLAGS_BEFORE_6_2):
            with contextlib.suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_NEW, flags)
                self._sent, self._tx_ns = 0, None if Channel._is_refused else {}
                return True
        return False

    def receive(self) -> Received | None:
        """Read what is there, at most 64 KiB; None when nothing is."""
        try:
            count, ancillary, _, _ = self._sock.recvmsg_into([_BUFFER], ANCILLARY_SIZE)
        except BlockingIOError:
            return None
        return Received(bytes(_VIEW[:count]), parse_rx(ancillary) if ancillary else None)

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """Send what the kernel takes; returns how many bytes, 0 when it takes none now."""
        try:
            count = self._sock.send(data)
        except BlockingIOError:
            return 0
        self._sent += count
        return count

    def send_stamped(self, data: bytes | bytearray | memoryview, *, queueing: bool = False) -> int:
        """As ``send``, and have the kernel stamp when the last byte of it leaves.

        Args:
            data: What to send.
            queueing: Whether to stamp also when it reaches the queueing discipline.
        """
        if self._tx_ns is None:
            return self.send(data)
        try:
            count = self._sock.sendmsg([data], RECORD_TX[queueing])
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
            return self._send_after_refusal(data, error)
        self._sent += count
        # Mostly it has left by now. What is read here does not wake our loop as an event.
        self._collect_stamps(self._tx_ns, self._sent)
        return count

    def _send_after_refusal(self, data: bytes | bytearray | memoryview, refusal: OSError) -> int:
        """Send without asking for a stamp, now and from now on: this kernel does not do it."""
        try:
            count = self.send(data)
        except OSError:
            raise refusal from None  # it was the connection, not what was asked for
        self._tx_ns = None
        if not Channel._is_refused:
            Channel._is_refused = True
            fields = {"error.type": errno.errorcode.get(refusal.errno or 0, str(refusal))}
            log.warning("stamps_refused", extra=fields)
        return count

    def take_transmit(self, end: int) -> Transmit:
        """Return when the stamped write that ended at ``sent_bytes == end`` left; forget it.

        A stamp that is not there (yet) is None.
        """
        stamps = self._tx_ns
        if stamps is None:
            return _NO_TRANSMIT
        identifier = (end - 1) & 0xFFFF_FFFF
        if identifier not in stamps:
            self._collect_stamps(stamps, end)
        return Transmit(self._queued_ns.pop(identifier, None), stamps.pop(identifier, None))

    def take_tx_ns(self, end: int) -> int | None:
        """As ``take_transmit``, only when it reached the network device."""
        return self.take_transmit(end).left_ns

    def counters(self) -> Counters:
        """Read the kernel's counters of this connection (TCP_INFO)."""
        return Counters.parse(self._tcp_info())

    def limited(self) -> Limited:
        """Read for how long it was busy, and what it waited for (TCP_INFO)."""
        return Limited.parse(self._tcp_info())

    def _tcp_info(self) -> bytes:
        """Return what the kernel tells; nothing, ``b""``, when it does not, or is not to."""
        if self._kernel.tcp_info:
            with contextlib.suppress(OSError):
                return self._sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        return b""

    def sent_in_vain(self) -> int | None:
        """Read how often in a row nothing answered what was sent, or sent again (TCP_INFO)."""
        return sent_in_vain(self._tcp_info())

    def is_connected(self) -> bool:
        """Return whether the handshake is over. Raises OSError when it failed."""
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        try:
            self._sock.getpeername()
        except OSError:
            return False
        return True

    def local_address(self) -> tuple[str, int]:
        """Return our own end's address and port."""
        name = self._sock.getsockname()
        return name[0], name[1]

    def end_output(self) -> None:
        """Send FIN after everything sent so far; reading goes on."""
        with contextlib.suppress(OSError):  # the peer may be gone already
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close at once. Never raises; safe to call twice."""
        with contextlib.suppress(OSError):
            self._sock.close()

    def _collect_stamps(self, stamps: dict[int, int], end: int) -> None:
        """Read stamps until that of the write that ended there is found, or none is left."""
        wanted = (end - 1) & 0xFFFF_FFFF
        while wanted not in stamps:
            try:
                _, ancillary, _, _ = self._sock.recvmsg(0, ANCILLARY_SIZE, socket.MSG_ERRQUEUE)
            except OSError:  # empty, or a kernel that has no such queue
                return
            stamp = parse_tx(ancillary)
            if stamp is not None:
                # A segment that is sent again is stamped again, under the same id. When it was
                # first sent is what counts: waiting for the second time is the network's doing.
                kept = self._queued_ns if stamp.queued else stamps
                if len(kept) >= _STAMPS_KEPT:
                    del kept[next(iter(kept))]
                kept.setdefault(stamp.offset, stamp.ns)


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
        sock.setblocking(False)
        return Channel(sock, (_plain_host(peer[0]), peer[1]), self._kernel)

    def accept_queue(self) -> AcceptQueue:
        """Return how many connections wait to be accepted, and how many may."""
        raw = self._sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        return AcceptQueue.parse(raw)

    def refuse_syns(self) -> None:
        """Drop new SYNs, so that the queue can be emptied before closing.

        Closing a listener resets the connections that wait in its queue: replies that were
        due would be lost. A client whose SYN is dropped sends it again a second later, to
        whoever listens then. Raises OSError: some kernels ask for CAP_NET_ADMIN.
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


def stop_reading(sock: socket.socket) -> None:
    """Read, or accept, no more; whoever waits for it is woken (Linux: EPOLLHUP)."""
    with contextlib.suppress(OSError):  # closed already
        sock.shutdown(socket.SHUT_RD)


def _listen(host: str, port: int, backlog: int, stamps: bool) -> socket.socket:
    sock = _bind(host, port)
    try:
        # Inherited by every accepted socket, as what follows.
        _ask(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(sock)
        _ask(sock, socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _UNSENT_BYTES)
        for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            _ask(sock, socket.SOL_SOCKET, buffer, _BUFFER_BYTES)
        if stamps:
            # So that even the first segment of a connection is stamped. Transmit stamps cannot
            # be inherited: their ids are refused on a listener (EINVAL).
            with contextlib.suppress(OSError):  # Linux before 5.1: no stamps, clock="user"
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
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not both)
        sock.bind(_sockaddr(Address(str(address), port)))
    except OSError as error:
        sock.close()
        if both and error.errno == errno.EADDRNOTAVAIL:
            return _bind("0.0.0.0", port)  # noqa: S104 - as above, with IPv6 disabled
        raise
    return sock


def keep_alive(sock: socket.socket) -> None:
    """Make a silent connection whose far end is gone fail within half a minute."""
    _ask(sock, socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in _KEEPALIVE:
        _ask(sock, socket.IPPROTO_TCP, option, value)
    _ask(sock, socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _USER_TIMEOUT_MS)


def open_keeper() -> Callable[[], None]:
    """Keep the kernel's receive stamping switched on until the returned function is called.

    The kernel switches stamping on with its first user and off with its last, a little
    later each time, and the first packets of a fresh connection go unstamped (7 to 12 % were
    seen). One idle socket that asks for stamps is a user for the life of the process.
    """
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_NEW, RX_FLAGS)
    return sock.close


def open_named(name: str) -> Callable[[], None]:
    """Hold a name of this network namespace that whoever is in it can see, and need do no more.

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

    Nothing is sent. Where it cannot be told, the answer is yes.
    """
    try:
        with socket.socket(_family(address), socket.SOCK_DGRAM) as sock:
            sock.connect(_sockaddr(address))
    except OSError as error:
        return error.errno not in _NO_ROUTE
    return True


def lacks_interface(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Return whether the kernel needs to be told an interface, and is not."""
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


def _sockaddr(address: Address) -> tuple[Any, ...]:
    """Return what the socket module wants: it would put a scope in the host to 0."""
    host, _, scope = address.host.partition("%")
    if not scope:
        return tuple(address)
    try:
        number = int(scope) if scope.isdecimal() else socket.if_nametoindex(scope)
    except OSError:
        raise OSError(errno.ENODEV, f"there is no interface {scope}") from None
    return host, address.port, 0, number


def _ask(sock: socket.socket, level: int, option: int, value: int) -> None:
    """Set an option that a kernel may lack: what it is for is then not had, and all else is."""
    try:
        sock.setsockopt(level, option, value)
    except OSError as error:
        if error.errno not in _UNKNOWN:
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
            if sock.connect_ex(_sockaddr(address)) != error.errno:
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


def _plain_host(host: str) -> str:
    """Return an IPv4-mapped IPv6 address as the IPv4 address that it is."""
    return host.removeprefix("::ffff:") if "." in host else host
