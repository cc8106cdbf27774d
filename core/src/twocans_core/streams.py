"""Streams: channels that can be waited for, with deadlines. No module here touches a socket.

``ByteStream`` is the seam that probes are written against; tests put a scripted fake there.
"""

import asyncio
import errno
import select
from typing import Protocol

from .clock import SYSTEM_CLOCK, Clock
from .poller import Poller
from .sockets import Address, Channel, Received
from .tcpinfo import NO_COUNTERS, Counters

# What the kernel makes of an ICMPv6 "administratively prohibited". From connect() itself the same
# errors would be our own firewall's; here the answer came from outside.
_PROHIBITED = (errno.EACCES, errno.EPERM)

__all__ = ["ByteStream", "DeadlineExceeded", "Stream", "connect"]

# A transmit stamp is an edge too: EPOLLERR, and EPOLLOUT with it where we may send. It is no
# reason to read: it lies there until it is asked for. A broken connection always has EPOLLHUP.
_READABLE = select.EPOLLIN | select.EPOLLRDHUP | select.EPOLLHUP
_WRITABLE = select.EPOLLOUT | select.EPOLLHUP


class DeadlineExceeded(Exception):
    """Our own timer ran out, and a last look at the socket found nothing.

    Not a ``TimeoutError``: that is also what the kernel's ETIMEDOUT raises.

    Attributes:
        counters: Of a connection that never came to be, so that its lost SYNs are counted.
    """

    counters: Counters | None = None


class ByteStream(Protocol):
    """An ordered, reliable, two-way stream of bytes, with deadlines and stamps.

    Deadlines are ns of the clock that the stream was made with, CLOCK_MONOTONIC.
    """

    @property
    def sent_bytes(self) -> int:
        """Bytes handed to the kernel since the stream is connected."""

    async def receive(self, deadline_ns: int) -> Received:
        """Wait for bytes. Raises OSError, or DeadlineExceeded after one last look."""

    async def send_all(self, data: bytes, deadline_ns: int) -> None:
        """Send every byte. Raises OSError or DeadlineExceeded."""

    def take_tx_ns(self, end: int) -> int | None:
        """As ``Channel.take_tx_ns``."""

    def counters(self) -> Counters:
        """As ``Channel.counters``; without the kernel's answer every field is None."""

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
        self._poller = poller
        self._clock = clock
        self._waiter: asyncio.Future[None] | None = None
        self._wanted = 0
        self._closed = False
        poller.register(channel.fd, self._wake)

    @property
    def sent_bytes(self) -> int:
        return self._channel.sent_bytes

    async def receive(self, deadline_ns: int) -> Received:
        late = False
        while (received := self._channel.receive()) is None:
            if late:
                raise DeadlineExceeded
            late = not await self._changed(_READABLE, deadline_ns)
        return received._replace(late=True) if late else received

    async def send_all(self, data: bytes, deadline_ns: int) -> None:
        rest = memoryview(data)
        while rest := rest[self._channel.send(rest) :]:
            if not await self._changed(_WRITABLE, deadline_ns):
                raise DeadlineExceeded

    async def finish_connect(self, deadline_ns: int) -> None:
        """Wait until the handshake is over. Raises OSError or DeadlineExceeded."""
        late = False
        while not self._channel.is_connected():
            if late:
                raise DeadlineExceeded
            late = not await self._changed(_WRITABLE, deadline_ns)

    def take_tx_ns(self, end: int) -> int | None:
        try:
            return self._channel.take_tx_ns(end)
        except OSError:
            return None

    def counters(self) -> Counters:
        try:
            return self._channel.counters()
        except OSError:
            return NO_COUNTERS

    def local_address(self) -> tuple[str, int]:
        return self._channel.local_address()

    def end_output(self) -> None:
        self._channel.end_output()

    def close(self) -> None:
        # The second time the descriptor's number may be another stream's.
        if not self._closed:
            self._closed = True
            self._poller.unregister(self._channel.fd)
            self._channel.close()

    async def _changed(self, wanted: int, deadline_ns: int) -> bool:
        """Wait for an edge with one of these events; False when the deadline came first."""
        loop = asyncio.get_running_loop()
        remaining_ns = deadline_ns - self._clock.mono_ns()
        if remaining_ns <= 0:
            return False
        self._wanted = wanted
        self._waiter = waiter = loop.create_future()
        timer = loop.call_later(remaining_ns / 1e9, _expire, waiter)
        try:
            await waiter
        except DeadlineExceeded:
            return False
        finally:
            timer.cancel()
            self._waiter = None
        return True

    def _wake(self, events: int) -> None:
        if events & self._wanted and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _expire(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_exception(DeadlineExceeded())


async def connect(
    address: Address, *, poller: Poller, deadline_ns: int, clock: Clock = SYSTEM_CLOCK
) -> Stream:
    """Open a TCP connection, with kernel stamps in both directions where the kernel can.

    Returns:
        The stream, handshake done.

    Raises:
        OSError: What socket() or connect() said.
        DeadlineExceeded: No answer by then.
    """
    channel = Channel.open(address)
    try:
        stream = Stream(channel, poller, clock)
    except BaseException:
        channel.close()
        raise
    try:
        await stream.finish_connect(deadline_ns)
    except DeadlineExceeded as late:
        late.counters = stream.counters()
        stream.close()
        raise
    except OSError as error:
        stream.close()
        if error.errno in _PROHIBITED:
            raise OSError(errno.EHOSTUNREACH, "prohibited by somebody on the way") from error
        raise
    except BaseException:
        stream.close()
        raise
    channel.stamp_transmits()
    return stream
