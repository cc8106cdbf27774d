"""One probe: connect, greet, exchange, close. Returns data; whatever happens is a result."""

import errno
import zlib
from collections.abc import Awaitable, Callable
from random import Random
from typing import NamedTuple, Protocol, TypeVar

from twocans_core.clock import SYSTEM_CLOCK, Clock
from twocans_core.errors import RemoteProtocolError
from twocans_core.messages import (
    Busy,
    Error,
    FollowUp,
    Goodbye,
    Hello,
    Identity,
    Message,
    Reply,
    Request,
    Welcome,
)
from twocans_core.session import ClientSession, State
from twocans_core.sockets import Address, Received
from twocans_core.streams import ByteStream, DeadlineExceeded

from .blame import excuse, reason_of
from .results import Exchange, ProbeResult, Reason, Stamps

__all__ = ["Attempt", "Dial", "Ended", "Plan", "Tools", "probe"]

MessageT = TypeVar("MessageT", Welcome, Reply, FollowUp, Goodbye)

# What a server may send beyond what it received (docs/protocol.md, "Bound").
_ALLOWANCE_BYTES = 4096


class Dial(Protocol):
    """Open a connection; ``streams.connect`` with its poller, or a test's fake."""

    def __call__(self, address: Address, *, deadline_ns: int) -> Awaitable[ByteStream]: ...


class Plan(NamedTuple):
    """What a probe is to do.

    Attributes:
        timeout_ns: For the whole of it.
        exchanges: How many; 0 ends after the greeting.
        payload_bytes: Of each request.
        payload: What to send instead of random bytes; ``payload_bytes`` is then ignored.
    """

    timeout_ns: int
    exchanges: int = 3
    payload_bytes: int = 64
    payload: bytes | None = None


class Tools(NamedTuple):
    """What a probe works with.

    Attributes:
        dial: Opens connections.
        identity: Who we are.
        rng: Draws payloads and connection ids.
        worst_lag_ns: The worst lag of our loop since a moment of CLOCK_MONOTONIC.
        clock: The clocks.
    """

    dial: Dial
    identity: Identity
    rng: Random
    worst_lag_ns: Callable[[int], int] = lambda _: 0
    clock: Clock = SYSTEM_CLOCK


async def probe(
    address: Address,
    plan: Plan,
    tools: Tools,
    *,
    intended_ns: int | None = None,
    attempt_type: "type[Attempt] | None" = None,
) -> ProbeResult:
    """Make one probe of one address.

    Args:
        address: Where to.
        plan: What to do.
        tools: What with.
        intended_ns: When the schedule wanted this to start, CLOCK_MONOTONIC; None: now.
        attempt_type: How to talk; protocol 1 unless said otherwise.

    Returns:
        The result. What a peer or a network does is in it; only cancellation and a bug of ours
        leave this function as an exception.
    """
    started_ns = tools.clock.mono_ns()
    result = ProbeResult(
        intended_ns=started_ns if intended_ns is None else intended_ns,
        started_ns=started_ns,
        started_real_ns=tools.clock.real_ns(),
        dialled=True,
    )
    await (attempt_type or Attempt)(address, plan, tools, result).run()
    result.ended_ns = tools.clock.mono_ns()
    result.worst_lag_ns = tools.worst_lag_ns(started_ns)
    excuse(result, plan.timeout_ns)
    return result


class Ended(Exception):
    """The probe is over, for this reason."""

    def __init__(self, reason: Reason, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail


class Attempt:
    """One probe under way: what it holds between its phases."""

    def __init__(self, address: Address, plan: Plan, tools: Tools, result: ProbeResult) -> None:
        self.address = address
        self.plan = plan
        self.tools = tools
        self.clock = tools.clock
        self.result = result
        self.deadline_ns = result.started_ns + plan.timeout_ns
        self.timeout_reason = Reason.CONNECT_TIMEOUT
        self._size = plan.payload_bytes if plan.payload is None else len(plan.payload)
        self._session = ClientSession(max_payload=self._size)
        self.stream: ByteStream
        # Of the newest read: the kernel's stamp, and when we had it on both clocks.
        self._rx_ns: int | None = None
        self._read_real_ns = 0
        self._read_ns = 0

    async def run(self) -> None:
        """Go through the phases until one ends it."""
        result = self.result
        try:
            self.stream = await self.tools.dial(self.address, deadline_ns=self.deadline_ns)
            try:
                self._note_connection()
                await self.talk()
            finally:
                result.bytes_sent = self.stream.sent_bytes
                last = self.stream.counters()
                result.ended = result.ended or last
                result.retrans = last.total_retrans
                self.stream.close()
        except Ended as ended:
            result.reason, result.detail = ended.reason, ended.detail
        except DeadlineExceeded as late:
            result.reason = self.timeout_reason
            if late.counters is not None:
                result.retrans = late.counters.total_retrans
        except RemoteProtocolError as error:
            result.reason, result.detail = self._judge(error), str(error)
        except OSError as error:
            result.reason = reason_of(error, self.timeout_reason)
            result.detail = errno.errorcode.get(error.errno or 0, "") or str(error)
        result.draining = self._session.draining

    def _note_connection(self) -> None:
        result = self.result
        result.connect_ns = self.clock.mono_ns() - result.started_ns
        counters = result.connected = self.stream.counters()
        if counters.total_retrans == 0 and counters.rtt_us is not None:
            result.handshake_ns = counters.rtt_us * 1000
        result.local = self.stream.local_address()

    async def talk(self) -> None:
        """What happens between the handshake and the end of the connection."""
        await self._greet()
        for _ in range(self.plan.exchanges):
            await self._exchange()
        await self._close()

    async def _greet(self) -> None:
        self.timeout_reason = Reason.GREETING_TIMEOUT
        begun_ns = self.clock.mono_ns()
        hello = Hello(self.tools.identity, self.tools.rng.getrandbits(64))
        await self._send(self._session.hello(hello))
        welcome = await self._next(Welcome)
        result = self.result
        result.greet_ns = self._read_ns - begun_ns
        result.server = welcome.identity
        result.seen_as = welcome.peer
        result.server_greeted = welcome.counters
        if self._size > welcome.max_payload:
            detail = f"payload of {self._size} bytes, the server takes {welcome.max_payload}"
            raise Ended(Reason.PROTOCOL_ERROR, detail)

    async def _exchange(self) -> None:
        self.timeout_reason = Reason.REPLY_TIMEOUT
        payload = self.plan.payload
        if payload is None:
            payload = self.tools.rng.randbytes(self.plan.payload_bytes)
        data = self._session.request(Request.of(payload))
        begun_ns, t1u = self.clock.mono_ns(), self.clock.real_ns()
        await self._send(data)
        end = self.stream.sent_bytes
        reply = await self._next(Reply)
        # By now the request has left, so its stamp is there. The reply's own transmit stamp
        # comes with the next frame.
        t1k = self.stream.take_tx_ns(end)
        self._fill_in_t3k(reply.previous_t3k)
        # The kernel stamps the end of a read. When more came after the reply, that is not it.
        t4k = None if self._session.decoder.buffered_bytes else self._rx_ns
        stamps = Stamps(t1u, t1k, reply.t2k, reply.t2u, reply.t3u, None, t4k, self._read_real_ns)
        exchange = Exchange(self._session.sequence, self._read_ns - begun_ns, stamps)
        self.result.server_ended = reply.counters
        if self.plan.payload is not None:
            self.result.reply = reply.payload
        _check_payload(payload, reply)
        self.result.exchanges.append(exchange)

    async def _close(self) -> None:
        self.timeout_reason = Reason.CLOSE_TIMEOUT
        result = self.result
        # Nothing is under way: the one moment at which both ends' counters can be compared.
        result.ended = self.stream.counters()
        begun_ns = self.clock.mono_ns()
        await self._send(self._session.goodbye())
        follow_up = await self._next(FollowUp)
        self._fill_in_t3k(follow_up.t3k)
        result.server_ended = follow_up.counters
        while self._session.state is not State.CLOSED:
            await self._next(Goodbye)
        # The server closes first, which leaves TIME_WAIT with it and our port free.
        if (await self._receive()).data or self._session.decoder.buffered_bytes:
            raise Ended(Reason.PROTOCOL_ERROR, "bytes after the end of the session")
        result.close_ns = self._read_ns - begun_ns

    def _fill_in_t3k(self, t3k: int | None) -> None:
        exchanges = self.result.exchanges
        if exchanges and t3k is not None:
            last = exchanges[-1]
            exchanges[-1] = last._replace(stamps=last.stamps._replace(t3k=t3k))

    async def _send(self, data: bytes) -> None:
        await self.stream.send_all(data, self.deadline_ns)

    async def _next(self, wanted: type[MessageT]) -> MessageT:
        """Wait for a message of one type; GOODBYE draining may come before it."""
        while True:
            message = self._session.next_message()
            if message is None:
                await self._read()
            elif isinstance(message, wanted):
                return message
            else:
                _judge_unwanted(message)

    async def _read(self) -> None:
        # A server that never stops talking would hold our loop and pass every deadline: while
        # there are bytes, nothing waits.
        if self.result.bytes_received > self.stream.sent_bytes + _ALLOWANCE_BYTES:
            raise Ended(Reason.PROTOCOL_ERROR, "the server sends more than it may")
        received = await self._receive()
        self._session.feed(received.data)
        if not received.data and not self._session.decoder.buffered_bytes:
            raise Ended(Reason.CLOSED_EARLY, f"in {self.timeout_reason.removesuffix('_timeout')}")

    async def _receive(self) -> Received:
        """Read once, count it, and note when it was."""
        received = await self.stream.receive(self.deadline_ns)
        self._read_ns, self._read_real_ns = self.clock.mono_ns(), self.clock.real_ns()
        self._rx_ns = received.rx_ns
        self.result.bytes_received += len(received.data)
        self.result.late = self.result.late or received.late
        return received

    def _judge(self, error: RemoteProtocolError) -> Reason:
        if error.reason == "truncated":
            return Reason.CLOSED_EARLY
        if error.detail.startswith("HELLO"):
            # Our own HELLO came back: it is an echo server, but not one of ours.
            error.args = ("the far end only echoes; is it a twocans server? try --plain",)
        return Reason.PROTOCOL_ERROR


def _judge_unwanted(message: Message) -> None:
    match message:
        case Busy(reason):
            raise Ended(Reason.BUSY, reason)
        case Error(reason, lowest, highest):
            versions = f", speaks {lowest} to {highest}" if reason == "bad_version" else ""
            raise Ended(Reason.PROTOCOL_ERROR, f"the server says {reason}{versions}")
        case Goodbye("idle"):
            raise Ended(Reason.CLOSED_EARLY, "the server says idle")


def _check_payload(sent: bytes, reply: Reply) -> None:
    """Compare the reply byte for byte, and say on which way it was damaged."""
    if reply.payload == sent and reply.crc == zlib.crc32(sent):
        return
    way = "back" if reply.crc != zlib.crc32(reply.payload) else "there"
    pairs = zip(sent, reply.payload, strict=False)
    shared = min(len(sent), len(reply.payload))
    offset = next((at for at, (a, b) in enumerate(pairs) if a != b), shared)
    detail = f"{len(sent)} bytes sent, {len(reply.payload)} came back, first difference at {offset}"
    raise Ended(Reason.WRONG_BYTES, f"damaged on the way {way}: {detail}")
