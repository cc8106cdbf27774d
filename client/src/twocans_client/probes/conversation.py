"""The client's side of one connection, from HELLO to the end of the stream.

Theory of operation. What an exchange measures is worth as much as the order in which it was read.

*User timestamps* are read next to the system call that they belong to, and nothing stands between:
``t1u`` right before send(), the two readings of our clocks right after recv(), before a byte is
parsed. What our own code takes is then in no part that is said to be the network's.

*Kernel timestamps* come late. Those of our request (``t1s``, ``t1k``) wait in the socket's error
queue by the time that its reply is there, so they are fetched then and never waited for. ``t4k``
came with the read, and is of the last segment in it: if more came than this reply, it is not the
reply's and is left out. ``t3k`` is made when the reply has left the server, so only the server's
next frame can carry it; until then the newest exchange is incomplete (``_complete``).

*Counters* are compared at cuts (``loss``). Ours are read right before the request, when nothing is
under way; theirs are in the reply; ours again after it was read. So everything that either end had
sent before the cut has arrived, or is lost. Each reading is a system call, and a fresh probe reads
only at connect and at GOODBYE, where everything that it ever sent is settled at once. A server
whose counters cannot be of this connection is not believed any more, for the rest of it.

*The end* is the server's: it closes first, after our GOODBYE, so that TIME_WAIT stays with it and
our port is free at once.
"""

import zlib
from typing import TypeVar

from twocans_client.evidence.loss import Cut
from twocans_client.evidence.results import Exchange, Reason, Silence
from twocans_client.evidence.split import Stamps
from twocans_core.kernel.tcpinfo import NO_COUNTERS, Counters, HostCounts
from twocans_core.net.channel import Received
from twocans_core.net.streams import ByteStream
from twocans_core.protocol.messages import (
    FollowUp,
    Goodbye,
    Hello,
    Reply,
    Request,
    Welcome,
)
from twocans_core.protocol.session import ALLOWANCE_BYTES, ClientSession, State
from twocans_core.protocol.witness import Testimony, Witness

from .tools import Tools
from .trouble import Ended, raise_unwanted

__all__ = ["Conversation"]

MessageT = TypeVar("MessageT", Welcome, Reply, FollowUp, Goodbye, Testimony)

# When it was that the server closed, by what was waited for.
_WHEN = {
    Reason.GREETING_TIMEOUT: "in greeting",
    Reason.REPLY_TIMEOUT: "in reply",
    Reason.CLOSE_TIMEOUT: "in close",
    None: "nothing was due",
}


class Conversation:
    """What is said on one connection, step by step, and what was measured of it.

    Every step raises ``Ended``, OSError, RemoteProtocolError or, past ``deadline_ns``,
    DeadlineExceeded.

    Args:
        stream: Connected.
        tools: What to work with.
        max_payload: Largest payload that will be sent, in bytes.
        most_payload: Largest that will be sent to a server that takes it; 0: ``max_payload``.
        deadline_ns: Of every step, CLOCK_MONOTONIC. May be moved between two.

    Attributes:
        connection: The random number of our HELLO, by which the server remembers us; None before.
        waiting_for: What it means if nothing comes now; None while no answer is due.
        exchanges: Those answered, in order. The newest has its ``t3k``, and with it its split,
            only after the next step.
        counters: Ours, as read last; first right after connect.
        asked: Ours, right before the newest request, if a cut was asked for with it.
        cut: Both ends' counters at the newest exchange, if it was asked for, or at the end.
        server_counters: The server's, as it told last.
        host_ended: What the server's host counted, at the end.
        bytes_received: Handed to us by the kernel.
        late: Something was found only by the last look after a deadline: we were late.
        read_ns: When the newest read returned, CLOCK_MONOTONIC.
        read_real_ns: The same, CLOCK_REALTIME.
    """

    def __init__(
        self,
        stream: ByteStream,
        tools: Tools,
        *,
        max_payload: int,
        most_payload: int = 0,
        deadline_ns: int,
    ) -> None:
        self.stream = stream
        self.deadline_ns = deadline_ns
        self.connection: int | None = None
        self.waiting_for: Reason | None = None
        self.exchanges: list[Exchange] = []
        self.counters = stream.counters()
        self.asked: Counters | None = None
        self.cut: Cut | None = None
        self.server_counters: Counters | None = None
        self.host_ended: HostCounts | None = None
        self.bytes_received = 0
        self.late = False
        self.read_ns = self.read_real_ns = 0
        self._tools = tools
        self._clock = tools.clock
        self._max_payload = max_payload
        self._session = ClientSession(max_payload=max(max_payload, most_payload))
        self._asked_ns = 0
        self._testimonies_due = 0
        self._rx_ns: int | None = None  # the kernel's timestamp of the newest read
        self._is_believed = True  # the server's counters

    @property
    def draining(self) -> bool:
        """Whether the server said that it is about to stop."""
        return self._session.draining

    @property
    def silence(self) -> Silence | None:
        """The answer that is due now; None if none is."""
        if self.waiting_for is None:
            return None
        return Silence(self.waiting_for, self._clock.mono_ns() - self._asked_ns)

    def ask(self, waiting_for: Reason) -> None:
        """Note that from now on an answer is due, and what it means if it does not come."""
        self.waiting_for = waiting_for
        self._asked_ns = self._clock.mono_ns()

    async def greet(self, features: int = 0) -> Welcome:
        """Introduce ourselves, and say what we wish (``Features``)."""
        self.ask(Reason.GREETING_TIMEOUT)
        self.connection = self._tools.rng.getrandbits(64)
        hello = Hello(self._tools.identity, self.connection, features)
        await self.stream.send_all(self._session.hello(hello), self.deadline_ns)
        welcome = await self._next(Welcome)
        welcome = welcome._replace(counters=self._believed(welcome.counters))
        self.server_counters = welcome.counters
        if self._max_payload > welcome.max_payload:
            size = self._max_payload
            detail = f"payload of {size} bytes, the server takes {welcome.max_payload}"
            raise Ended(Reason.PROTOCOL_ERROR, detail)
        self.waiting_for = None
        return welcome

    async def exchange(self, payload: bytes, *, cut: bool = False) -> Reply:
        """Have one payload echoed, and see that it comes back whole.

        Args:
            payload: What to send.
            cut: Whether to take both ends' counters with it. Without, ``say_goodbye`` finds out
                whether we sent something again, but not in which exchange.
        """
        self.ask(Reason.REPLY_TIMEOUT)
        stream, clock = self.stream, self._clock
        data = self._session.request(Request.of(payload))
        sent = self.asked = stream.counters() if cut else None
        begun_ns, t1u = clock.mono_ns(), clock.real_ns()
        await stream.send_all(data, self.deadline_ns, stamped=True)
        end = stream.sent_bytes
        reply = await self._next(Reply)
        t1s, t1k = stream.take_transmit(end)
        # The kernel timestamps the end of a read. When more came after the reply, that is not it.
        t4k = None if self._session.decoder.buffered_bytes else self._rx_ns
        resent = self._settle(reply, sent)
        t2k, t2u, t3u, t4u = reply.t2k, reply.t2u, reply.t3u, self.read_real_ns
        stamps = Stamps(t1u, t1s, t1k, t2k, t2u, t3u, None, t4k, t4u, reply.stalled_ns)
        duration_ns = self.read_ns - begun_ns
        # A server may send a reply that nobody asked for. It then lay in the decoder, nothing was
        # read, and the newest read is older than the request.
        if duration_ns < 0:
            raise Ended(Reason.PROTOCOL_ERROR, "the reply came before its request")
        exchange = Exchange(self._session.sequence, duration_ns, stamps, resent=resent)
        _check_payload(payload, reply)
        self.exchanges.append(exchange)
        self.waiting_for = None
        return reply

    async def testify(self, question: Witness) -> Testimony:
        """Ask what the server saw. May be called again although the answer did not come in time."""
        self.ask(Reason.REPLY_TIMEOUT)
        await self.stream.send_all(self._session.witness(question), self.deadline_ns)
        self._testimonies_due += 1
        testimony = await self._next(Testimony)
        while self._testimonies_due:  # that was the answer to an earlier question, and late
            testimony = await self._next(Testimony)
        self.waiting_for = None
        return testimony

    async def say_goodbye(self) -> None:
        """Say GOODBYE and read to the end: the server closes first."""
        self.ask(Reason.CLOSE_TIMEOUT)
        sent = self.take_counters()
        await self.stream.send_all(self._session.goodbye(), self.deadline_ns)
        follow_up = await self._next(FollowUp)
        server = self._believed(follow_up.counters)
        self._complete(follow_up.t3k, server)
        self.server_counters = server
        self.host_ended = follow_up.host
        while self._session.state is not State.CLOSED:
            await self._next(Goodbye)
        if (await self.receive()).data or self._session.decoder.buffered_bytes:
            raise Ended(Reason.PROTOCOL_ERROR, "bytes after the end of the session")
        self.counters = self.stream.counters()
        self.cut = Cut(sent, server, self.counters)

    def take_counters(self) -> Counters:
        """Read our counters; if we have sent anything again, the exchanges so far know it."""
        before, self.counters = self.counters, self.stream.counters()
        if _has_resent(before, self.counters):
            self.exchanges = [each._replace(resent=True) for each in self.exchanges]
        return self.counters

    async def wait(self, until_ns: int) -> None:
        """Say nothing until a moment of CLOCK_MONOTONIC, but listen.

        Raises:
            DeadlineExceeded: Nothing happened, and the moment has come.
        """
        deadline_ns, self.deadline_ns = self.deadline_ns, until_ns
        try:
            if (await self._next(Goodbye)).reason == "idle":
                raise Ended(Reason.CLOSED_EARLY, "the server says idle")
        finally:
            self.deadline_ns = deadline_ns

    async def receive(self) -> Received:
        """Read once, count it, and note when it was."""
        received = await self.stream.receive(self.deadline_ns)
        self.read_ns, self.read_real_ns = self._clock.mono_ns(), self._clock.real_ns()
        self._rx_ns = received.rx_ns
        self.bytes_received += len(received.data)
        self.late = self.late or received.late
        return received

    def _believed(self, counters: Counters) -> Counters:
        """Return the server's counters; none any more once they were none of one connection."""
        most_bytes = self.stream.sent_bytes + ALLOWANCE_BYTES
        if not counters.can_follow(self.server_counters, most_bytes):
            self._is_believed = False
        return counters if self._is_believed else NO_COUNTERS

    def _settle(self, reply: Reply, sent: Counters | None) -> bool:
        """Take in the counters of a reply; returns whether we are known to have sent again.

        Args:
            reply: It.
            sent: Ours before the request; None where no cut is wanted.
        """
        server = self._believed(reply.counters)
        self._complete(reply.previous_t3k, server)
        self.server_counters = server
        if sent is None:
            return False
        self.counters = self.stream.counters()
        self.cut = Cut(sent, server, self.counters)
        return _has_resent(sent, self.counters)

    def _complete(self, t3k: int | None, server: Counters) -> None:
        """Add to the newest exchange what the server knew only after its reply."""
        if not self.exchanges or self.server_counters is None:
            return
        resent = _has_resent(self.server_counters, server)
        self.exchanges[-1] = self.exchanges[-1].completed(t3k, resent=resent)

    async def _next(self, wanted: type[MessageT]) -> MessageT:
        """Wait for a message of one type; GOODBYE draining may come before it."""
        session = self._session
        # Mostly nothing is there yet, and the decoder need not be asked.
        if not session.decoder.buffered_bytes:
            await self._read()
        while True:
            message = session.next_message()
            if message is None:
                await self._read()
            else:
                self._testimonies_due -= isinstance(message, Testimony)
                if isinstance(message, wanted):
                    return message
                raise_unwanted(message)

    async def _read(self) -> None:
        # A server that never stops talking would hold our loop and pass every deadline: while
        # there are bytes, nothing waits.
        if self.bytes_received > self.stream.sent_bytes + ALLOWANCE_BYTES:
            raise Ended(Reason.PROTOCOL_ERROR, "the server sends more than it may")
        received = await self.receive()
        self._session.feed(received.data)
        if not received.data and not self._session.decoder.buffered_bytes:
            raise Ended(Reason.CLOSED_EARLY, _WHEN[self.waiting_for])


def _has_resent(before: Counters, now: Counters) -> bool:
    """Whether a segment was sent again since then; a kernel that does not count has not."""
    counts = before.total_retrans, now.total_retrans
    return None not in counts and counts[0] != counts[1]


def _check_payload(sent: bytes, reply: Reply) -> None:
    """Compare the reply byte for byte, and say in which direction it was damaged."""
    if reply.payload == sent and reply.crc == zlib.crc32(sent):
        return
    direction = "reverse" if reply.crc != zlib.crc32(reply.payload) else "forward"
    pairs = zip(sent, reply.payload, strict=False)
    shared = min(len(sent), len(reply.payload))
    offset = next((at for at, (a, b) in enumerate(pairs) if a != b), shared)
    detail = f"{len(sent)} bytes sent, {len(reply.payload)} came back, first difference at {offset}"
    raise Ended(Reason.WRONG_BYTES, f"damaged in the {direction} direction: {detail}", direction)
