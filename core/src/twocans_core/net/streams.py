"""Streams: channels that can be waited for, with deadlines.

``ByteStream`` is the seam that probes are written against; tests put a scripted fake there.
"""

import asyncio
import errno
import select
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.kernel.errqueue import Icmp
from twocans_core.kernel.stamps import Transmit
from twocans_core.kernel.standing import Standing
from twocans_core.kernel.tcpinfo import Counters, Limited

from .channel import READ_SIZE, Channel, Received
from .poller import Poller
from .sockets import EVERYTHING, Address, Kernel

# What the kernel makes of an ICMPv6 "administratively prohibited". From connect() itself the same
# errors would be our own firewall's; here the answer came from outside.
_PROHIBITED = (errno.EACCES, errno.EPERM)

__all__ = ["ByteStream", "DeadlineExceeded", "Stream", "Unconnected", "connect"]

# A transmit timestamp is an edge too: EPOLLERR, and EPOLLOUT with it where we may send. It is no
# reason to read: it lies there until it is asked for. A broken connection always has EPOLLHUP.
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP
# While we connect nothing is stamped, and EPOLLERR is an ICMP message.
_DECIDED = _WRITABLE | select.EPOLLERR
# Nothing more comes after what is there: no later event would say so again.
_END = select.EPOLLRDHUP | select.EPOLLHUP


class DeadlineExceeded(Exception):
    """Our own timer ran out, and a last look at the socket found nothing.

    Not a ``TimeoutError``: that is also what the kernel's ETIMEDOUT raises.
    """


class Unconnected(NamedTuple):
    """What our kernel knew of a connection that never came to be.

    Attributes:
        standing: How it stood; with it, how many SYNs were lost.
        icmp: Who said no, if it was said by ICMP; None too where a reset came, or nothing.
    """

    standing: Standing
    icmp: Icmp | None


class ByteStream(Protocol):
    """An ordered, reliable, two-way stream of bytes, with deadlines and timestamps.

    Deadlines are ns of the clock that the stream was made with, CLOCK_MONOTONIC.
    """

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the kernel since the stream is connected."""

    async def receive(self, deadline_ns: int) -> Received:
        """Wait for bytes. Raises OSError, or DeadlineExceeded after one last look."""

    async def send_all(self, data: bytes, deadline_ns: int, *, stamped: bool = False) -> None:
        """Send every byte; ``take_transmit`` knows when, if timestamped.

        Raises:
            OSError: The connection is broken.
            DeadlineExceeded: The kernel did not take it all in time.
        """

    def take_transmit(self, end: int) -> Transmit:
        """As ``Channel.take_transmit``."""

    def counters(self) -> Counters:
        """As ``Channel.counters``."""

    def limited(self) -> Limited:
        """As ``Channel.limited``."""

    def send_buffer(self) -> int | None:
        """As ``Channel.send_buffer``."""

    def sent_in_vain(self) -> int | None:
        """As ``Channel.sent_in_vain``."""

    def standing(self) -> Standing:
        """As ``Channel.standing``."""

    def take_soft_error(self) -> int | None:
        """As ``Channel.take_soft_error``."""

    def local_address(self) -> tuple[str, int]:
        """Return our own end's address and port."""

    def end_output(self) -> None:
        """As ``Channel.end_output``."""

    def close(self) -> None:
        """Close at once. Never raises; safe to call twice."""


class Stream:
    """A ``ByteStream`` over a ``Channel`` and a ``Poller``. Made by ``connect``."""

    def __init__(self, channel: Channel, poller: Poller, clock: Clock) -> None:
        self._channel = channel
        self.take_transmit = channel.take_transmit
        self.counters = channel.counters
        self.limited = channel.limited
        self.send_buffer = channel.send_buffer
        self.sent_in_vain = channel.sent_in_vain
        self.standing = channel.standing
        self.take_soft_error = channel.take_soft_error
        self.local_address = channel.local_address
        self.end_output = channel.end_output
        self._poller = poller
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[bool] | None = None
        self._wanted = 0
        # Deadlines are mostly the same one again and again, so its timer is kept.
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ns = 0
        self._readable = False
        self._ended = False
        self._closed = False
        poller.register(channel.fd, self._wake)

    @property
    def sent_bytes(self) -> int:
        return self._channel.sent_bytes

    async def receive(self, deadline_ns: int) -> Received:
        while True:
            while not self._readable:
                if not await self._changed(_READABLE, deadline_ns):
                    return self._look_again()
            # Edges come by way of the loop, whose turn this is: none is lost between a read that
            # found nothing and the wait.
            received = self._channel.receive()
            if received is not None:
                # A read that was not filled has emptied the socket; more is another event.
                self._readable = self._ended or len(received.data) >= READ_SIZE
                return received
            self._readable = False

    def _look_again(self) -> Received:
        received = self._channel.receive()
        if received is None:
            raise DeadlineExceeded
        return received._replace(late=True)

    async def send_all(self, data: bytes, deadline_ns: int, *, stamped: bool = False) -> None:
        send = self._send_stamped if stamped else self._channel.send
        count = send(data)
        if count == len(data):
            return
        rest = memoryview(data)[count:]
        # Only now: mostly the kernel takes all, and then room for output is of no interest.
        self._poller.watch_output(self._channel.fd, True)
        try:
            while rest := rest[send(rest) :]:
                if not await self._changed(_WRITABLE, deadline_ns):
                    raise DeadlineExceeded
        finally:
            if not self._closed:
                self._poller.watch_output(self._channel.fd, False)

    def _send_stamped(self, data: bytes | memoryview) -> int:
        return self._channel.send_stamped(data, queueing=True)

    async def finish_connect(self, deadline_ns: int) -> None:
        """Wait until the handshake is over. Raises OSError or DeadlineExceeded."""
        # Look, then wait: on loopback the handshake is mostly over before connect() returns.
        # Between look and wait the loop does not turn, so no edge is lost. After the deadline one
        # more look: it may be us who are late.
        late = False
        while not self._channel.is_connected():
            if late:
                raise DeadlineExceeded
            late = not await self._changed(_DECIDED, deadline_ns)
        self._poller.watch_output(self._channel.fd, False)

    def close(self) -> None:
        # The second time the descriptor's number may be another stream's.
        if not self._closed:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            self._poller.unregister(self._channel.fd)
            self._channel.close()

    async def _changed(self, wanted: int, deadline_ns: int) -> bool:
        """Wait for an edge with one of these events; False when the deadline came first."""
        if deadline_ns != self._timer_ns or self._timer is None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            remaining_ns = deadline_ns - self._clock.mono_ns()
            if remaining_ns <= 0:  # the caller looks at the socket once more before it gives up
                return False
            self._timer_ns = deadline_ns
            self._timer = self._loop.call_later(remaining_ns / 1e9, self._expire)
        self._wanted = wanted
        self._waiter = self._loop.create_future()
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _wake(self, events: int) -> None:
        if events & _READABLE:
            self._readable = True
            self._ended = self._ended or bool(events & _END)
        if events & self._wanted:
            self._go_on(True)

    def _expire(self) -> None:
        # It may fire while nobody waits. The next wait finds no timer and a deadline that has
        # passed.
        self._timer = None
        self._go_on(False)

    def _go_on(self, came: bool) -> None:
        # It is done already where a second event, the deadline or a cancellation came before the
        # task went on.
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(came)


async def connect(
    address: Address,
    *,
    poller: Poller,
    deadline_ns: int,
    clock: Clock = SYSTEM_CLOCK,
    kernel: Kernel = EVERYTHING,
    held: bool = False,
    local_ports: Sequence[int] = (),
    opened: Callable[[tuple[str, int]], None] = lambda _: None,
    failed: Callable[[Unconnected], None] = lambda _: None,
) -> Stream:
    """Open a TCP connection, with kernel timestamps in both directions where the kernel can.

    Args:
        address: Where to.
        poller: Of the running loop.
        deadline_ns: When to give up, on ``clock``'s CLOCK_MONOTONIC.
        clock: Of this and all later deadlines.
        kernel: What to ask the kernel for.
        held: See ``Channel.open``.
        local_ports: Likewise.
        opened: Called with our own address and port when the kernel has chosen them, before
            anybody has answered. Not called where the kernel refused at once: then no port was
            chosen, and nothing was sent.
        failed: Called after that with what the kernel knew, if the connection does not come to be.

    Returns:
        The stream, handshake done.

    Raises:
        OSError: What socket() or connect() said.
        DeadlineExceeded: No answer by then.
    """
    channel = Channel.open(address, kernel, held=held, local_ports=local_ports)
    try:
        stream = Stream(channel, poller, clock)
    except BaseException:
        channel.close()
        raise
    try:
        opened(stream.local_address())
        await stream.finish_connect(deadline_ns)
    except (DeadlineExceeded, OSError) as error:
        # Before the close: a closed socket knows nothing.
        failed(Unconnected(channel.standing(), channel.icmp()))
        stream.close()
        if isinstance(error, OSError) and error.errno in _PROHIBITED:
            raise OSError(errno.EHOSTUNREACH, "prohibited by somebody on the way") from error
        raise
    except BaseException:
        stream.close()
        raise
    return stream
