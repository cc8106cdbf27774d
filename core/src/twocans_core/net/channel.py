"""A connected TCP socket, its kernel timestamps and its counters. Nothing here waits."""

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Sequence
from typing import NamedTuple

from twocans_core.kernel.errqueue import Icmp, parse_icmp
from twocans_core.kernel.stamps import (
    ANCILLARY_SIZE,
    RECORD_TX,
    SO_TIMESTAMPING_NEW,
    TX_FLAGS,
    TX_FLAGS_BEFORE_6_2,
    Transmit,
    parse_rx,
    parse_tx,
)
from twocans_core.kernel.standing import Standing
from twocans_core.kernel.tcpinfo import TCP_INFO_SIZE, Counters, Limited, unanswered

from .sockets import (
    EVERYTHING,
    UNKNOWN,
    Address,
    Kernel,
    begin_connect,
    forget_icmp,
    let_be_silent,
    probe_silence,
)

__all__ = ["READ_SIZE", "Channel", "Received"]

log = logging.getLogger(__name__)

READ_SIZE = 64 * 1024
# One buffer for every read of the process: reads happen on the loop's thread, one at a time.
_BUFFER = bytearray(READ_SIZE)
_VIEW = memoryview(_BUFFER)
# A timestamp of a segment that is sent again may come after nobody asks for its id any more. So of
# those not asked for the oldest are forgotten, or a connection that lives for weeks would grow.
_STAMPS_KEPT = 64
# The first that the kernel obeys ends the connection, so more are hardly there.
_MOST_ICMP = 16


class Received(NamedTuple):
    """What one read returned.

    Attributes:
        data: The bytes; ``b""`` means that the peer sends no more.
        rx_ns: When the kernel received the segment that held the last of them, ns of
            CLOCK_REALTIME. None when the kernel gave no timestamp; never 0.
        late: Whether they were only found by the last look after the deadline: they had
            arrived, and it was us who were late.
    """

    data: bytes
    rx_ns: int | None
    late: bool = False


_NO_TRANSMIT = Transmit(None, None)


class Channel:
    """A connected TCP socket that never waits, with its kernel timestamps and counters.

    Owns the socket and closes it. Every method but ``close`` may raise OSError.

    Args:
        sock: Connected, non-blocking.
        peer: The other end's address.
        kernel: What to ask the kernel for.
    """

    __slots__ = (
        "_kernel",
        "_queued_ns",
        "_sent",
        "_sock",
        "_stamps_are_due",
        "_tx_ns",
        "fd",
        "peer",
    )

    # The kernel refused to send what asked for a timestamp: nobody asks it again.
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
        self._stamps_are_due = False

    @classmethod
    def open(
        cls,
        address: Address,
        kernel: Kernel = EVERYTHING,
        *,
        held: bool = False,
        local_ports: Sequence[int] = (),
    ) -> "Channel":
        """Begin to connect; ``is_connected`` says when the handshake is over.

        Args:
            address: Where to.
            kernel: What to ask the kernel for. Timestamps are on at once, or before Linux 6.2 when
                ``is_connected`` says yes; for those of writes see ``stamp_transmits``.
            held: The connection is to outlive silence, so the kernel shall watch it.
            local_ports: The first that is free shall be ours; the kernel chooses if none is.
        """
        sock = begin_connect(address, held=held, local_ports=local_ports)
        channel = cls(sock, (address.host, address.port), kernel)
        try:
            # Refused before connect(), and for the first byte to be timestamped it must be now.
            # Before 6.2 ids would count from our SYN: then it is asked for once that is answered.
            channel._stamps_are_due = kernel.stamps and not channel._stamp(TX_FLAGS)
        except BaseException:
            channel.close()
            raise
        return channel

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the kernel since transmit timestamping was switched on."""
        return self._sent

    def stamp_transmits(self) -> bool:
        """Have the kernel timestamp reads, and those writes that ask for it.

        Call it when nothing is unsent. Returns False when this kernel cannot, or must not.
        """
        # A kernel refuses all flags if it does not know one (EINVAL). Without OPT_ID_TCP its ids
        # count from the first byte that is not acknowledged (sock_set_timestamping,
        # net/core/sock.c), which is the next to be sent only when nothing is unsent or under way.
        return self._kernel.stamps and (self._stamp(TX_FLAGS) or self._stamp(TX_FLAGS_BEFORE_6_2))

    def _stamp(self, flags: int) -> bool:
        with contextlib.suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPING_NEW, flags)
            self._sent, self._tx_ns = 0, None if Channel._is_refused else {}
            return True
        return False

    def receive(self) -> Received | None:
        """Read what is there, at most 64 KiB; None when nothing is."""
        try:
            # One read gives one timestamp, however many segments it takes: that of the last of them
            # (tcp_update_recv_tstamps, net/ipv4/tcp.c).
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
        """As ``send``, and have the kernel timestamp when the last byte of it leaves.

        Args:
            data: What to send.
            queueing: Whether to timestamp also when it reaches the queueing discipline.
        """
        if self._tx_ns is None:  # not switched on, or this kernel refused once
            return self.send(data)
        try:
            count = self._sock.sendmsg([data], RECORD_TX[queueing])
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in UNKNOWN:
                raise
            return self._send_after_refusal(data, error)
        self._sent += count
        # Mostly it has left by now. What is read here does not wake our loop as an event.
        self._collect_stamps(self._tx_ns, self._sent)
        return count

    def _send_after_refusal(self, data: bytes | bytearray | memoryview, refusal: OSError) -> int:
        """Send without asking for a timestamp, now and from now on: this kernel does not do it."""
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
        """Return when the timestamped write that ended at ``sent_bytes == end`` left; forget it.

        A timestamp that is not there (yet) is None.
        """
        stamps = self._tx_ns
        if stamps is None:
            return _NO_TRANSMIT
        identifier = (end - 1) & 0xFFFF_FFFF  # the last byte's offset (SOF_TIMESTAMPING_OPT_ID)
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

    def send_buffer(self) -> int | None:
        """Return what its send buffer holds, in bytes with the kernel's bookkeeping (SO_SNDBUF)."""
        with contextlib.suppress(OSError):
            return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
        return None

    def _tcp_info(self) -> bytes:
        """Return what the kernel reports; ``b""`` when it does not, or is not asked."""
        if self._kernel.tcp_info:
            with contextlib.suppress(OSError):
                return self._sock.getsockopt(socket.SOL_TCP, socket.TCP_INFO, TCP_INFO_SIZE)
        return b""

    def sent_in_vain(self) -> int | None:
        """Read how often in a row nothing answered what was sent, or sent again (TCP_INFO)."""
        return unanswered(self._tcp_info())

    def standing(self) -> Standing:
        """Read how it stands (TCP_INFO); after a failure too, until it is closed."""
        return Standing.parse(self._tcp_info())

    def icmp(self) -> Icmp | None:
        """Take the newest ICMP message that came while we connected; None if none did.

        After ``is_connected`` raised, not before: to read them clears the error that it raises.
        """
        newest = None
        for _ in range(_MOST_ICMP):
            try:
                _, ancillary, _, _ = self._sock.recvmsg(0, ANCILLARY_SIZE, socket.MSG_ERRQUEUE)
            except OSError:  # empty, or a kernel that has no such queue
                break
            newest = parse_icmp(ancillary) or newest
        return newest

    def take_soft_error(self) -> int | None:
        """Take what an ICMP message said of an established connection, as an errno; None: none did.

        The kernel notes it and goes on sending. To read it (SO_ERROR) clears it, and what broke the
        connection, if that was not raised yet.
        """
        with contextlib.suppress(OSError):
            return self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) or None
        return None

    def counted(self) -> tuple[Counters, int | None]:
        """Read the counters, and how often in a row nothing answered the kernel (TCP_INFO)."""
        raw = self._tcp_info()
        return Counters.parse(raw), unanswered(raw)

    def let_be_silent(self) -> None:
        """As ``sockets.let_be_silent``; on a connection that was accepted."""
        let_be_silent(self._sock)

    def probe_silence(self) -> None:
        """As ``sockets.probe_silence``; on a connection that was accepted."""
        probe_silence(self._sock)

    def is_connected(self) -> bool:
        """Return whether the handshake is over. Raises OSError when it failed."""
        # First, and once: to read SO_ERROR clears it (socket(7)), and getpeername() of a failed
        # connect() says nothing but ENOTCONN.
        error = self._sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise OSError(error, os.strerror(error))
        try:
            self._sock.getpeername()  # for SO_ERROR is 0 while the handshake goes on, too
        except OSError:
            return False
        if ":" in self.peer[0]:
            # Before anything is stamped: it empties the queue that timestamps wait in, too.
            forget_icmp(self._sock)
        if self._stamps_are_due:
            self._stamps_are_due = False
            self.stamp_transmits()
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
        """Read timestamps until that of the write that ended there is found, or none is left."""
        # The kernel's ids have 32 bits (ee_data, linux/errqueue.h); our offsets do not wrap.
        wanted = (end - 1) & 0xFFFF_FFFF
        while wanted not in stamps:
            try:
                # No room for data, as OPT_TSONLY sends none along. To read this queue never waits,
                # not even on a blocking socket (Documentation/networking/timestamping.rst).
                _, ancillary, _, _ = self._sock.recvmsg(0, ANCILLARY_SIZE, socket.MSG_ERRQUEUE)
            except OSError:  # empty, or a kernel that has no such queue
                return
            stamp = parse_tx(ancillary)
            if stamp is not None:
                # A segment that is sent again is timestamped again, under the same id. When it was
                # first sent is what counts: waiting for the second time is the network's doing.
                kept = self._queued_ns if stamp.queued else stamps
                if len(kept) >= _STAMPS_KEPT:
                    del kept[next(iter(kept))]
                kept.setdefault(stamp.offset, stamp.ns)
