"""The framed half of a connection: one client's session, and what its messages are answered with.

It never touches the socket except for timestamps and counters: bytes come in, answers go out.
"""

import zlib

from twocans_core.errors import RemoteProtocolError
from twocans_core.kernel.tcpinfo import Counters
from twocans_core.net.channel import Received
from twocans_core.protocol.messages import (
    Error,
    Features,
    FollowUp,
    Goodbye,
    Hello,
    Identity,
    Reply,
    Request,
    Welcome,
)
from twocans_core.protocol.session import ServerSession, State
from twocans_core.protocol.witness import Witness

from .context import Context, Wire
from .endings import Answer, Ending

__all__ = ["Conversation"]

# The slowest frame that is still served: its bytes at 64 KiB a second, on top of frame_s.
_SLOWEST_BYTES_PER_S = 64 * 1024
_MOST_U32 = 0xFFFF_FFFF


class Conversation:
    """One framed client.

    Args:
        wire: For its timestamps and counters.
        context: What all connections share.
        accepted_ns: When accept() returned it, ns of CLOCK_REALTIME.
        refusal: The cap that this client came over, or ``""``: its HELLO is answered with BUSY.

    Attributes:
        client: Who it is; None before its HELLO.
        connection: Its number in the HELLO, by which the client asks about it; 0 before.
        exchanges: Requests answered.
    """

    __slots__ = (
        "_accepted_ns", "_begun_ns", "_context", "_read_cpu_ns", "_read_ns", "_refusal", "_replied",
        "_rx_ns", "_sent_to", "_session", "_told_retrans", "_wire", "client",
        "connection", "exchanges",
    )  # fmt: skip

    def __init__(self, wire: Wire, context: Context, accepted_ns: int, refusal: str) -> None:
        limits = context.limits
        self.client: Identity | None = None
        self.connection = 0
        self.exchanges = 0
        self._wire = wire
        self._context = context
        self._accepted_ns = accepted_ns
        self._refusal = refusal
        self._session = ServerSession(
            max_greeting=limits.max_greeting_bytes, max_payload=limits.max_payload_bytes
        )
        self._rx_ns: int | None = None
        self._read_ns = 0
        # Our thread's CPU time at the read; None when what was read waited for the client since.
        self._read_cpu_ns: int | None = None
        # Where in the stream our last answer ended; of a reply, the t2k and t3u too.
        self._sent_to = 0
        self._replied: tuple[int | None, int] | None = None
        self._told_retrans: int | None = None
        # When the frame that is not whole yet began; 0 between two frames.
        self._begun_ns = 0
        # Switched on while nothing is unsent: ids then count from the first byte sent.
        wire.stamp_transmits()

    @property
    def is_open(self) -> bool:
        """Whether a GOODBYE would reach a client that is being served."""
        return self._session.state is State.OPEN

    @property
    def is_greeting(self) -> bool:
        """Whether the HELLO is not whole yet."""
        return self._session.state is State.GREETING

    @property
    def is_between_frames(self) -> bool:
        """Whether the client owes us nothing."""
        return not self.is_greeting and not self._session.decoder.buffered_bytes

    @property
    def held_bytes(self) -> int:
        """What of a frame that is not whole we hold."""
        return self._session.decoder.buffered_bytes

    def feed(self, received: Received) -> None:
        """Take in one read; ``b""`` is the end of the stream."""
        clock = self._context.clock
        self._rx_ns = received.rx_ns
        # The CPU time is read after the timestamp here and in a reply, so that its own cost, a
        # system call, cancels out of the stall.
        self._read_ns = clock.real_ns()
        self._read_cpu_ns = clock.cpu_ns()
        self._session.feed(received.data)

    def pause(self) -> None:
        """What was read and is not answered waits for the client to read: no stall of ours."""
        self._read_cpu_ns = None

    def next_answer(self) -> Answer | None:
        """Answer the next message; None when more bytes are needed.

        Call it before the next ``feed``: the timestamps of a read are those of its answers.
        """
        try:
            message = self._session.next_message()
        except RemoteProtocolError as error:
            ending = Ending.DAMAGED if error.reason == "damaged" else Ending.REFUSED
            return Answer(self.refuse(error.reason), ending, error.reason)
        match message:
            case None:
                return None
            case Request():
                return Answer(self._reply(message))
            case Hello():
                return self._welcome(message)
            case Witness() if self.client is not None:
                return self._testify(message, self.client.instance)
            case Goodbye():
                counters = self._wire.counters()
                self._told_retrans = counters.total_retrans
                # What overtook a damaged segment had it sent again at once, not 200 ms later.
                host = self._context.host(fresh=bool(counters.rcv_ooopack))
                follow_up = FollowUp(self._take_t3k(), counters, host)
                return Answer(self._session.farewell(follow_up), Ending.DONE)
            case Error("damaged"):
                return Answer(b"", Ending.DAMAGED, "from_client")
            case Error():
                self._context.tally.protocol_errors["from_client"] += 1
                return Answer(b"", Ending.REFUSED, message.reason)
            case _:  # pragma: no cover - the session lets nothing else through
                raise AssertionError(message)

    def answered(self, end: int) -> None:
        """The last answer ends at this offset of what the wire sends, for its timestamp."""
        self._sent_to = end

    def resent_since_told(self, counters: Counters) -> int:
        """Return how many segments were sent again since the FOLLOW_UP told of the others.

        They are the FOLLOW_UP itself and the FIN, and no client hears of them.
        """
        now, told = counters.total_retrans, self._told_retrans
        return 0 if now is None or told is None else now - told

    def refuse(self, reason: str) -> bytes:
        """Tell the client which rule it broke; ``b""`` for what was itself an ERROR."""
        tally = self._context.tally
        if reason == "damaged":
            tally.damaged_frames += 1
        else:
            tally.protocol_errors[reason] += 1
        if reason == "too_big":
            limit = "max_greeting_bytes" if self.client is None else "max_payload_bytes"
            tally.limit_hits[limit] += 1
        return self._session.error(reason)

    def goodbye(self, reason: str) -> bytes:
        """Announce the end."""
        return self._session.goodbye(reason)

    def deadline_ns(self, active_ns: int, *, fresh: bool, paused: bool) -> int | None:
        """Return when the frame that has begun must be whole; None between two frames.

        More bytes of the same frame do not move its deadline; what it declares does, once.

        Args:
            active_ns: When the last byte moved.
            fresh: Whether a frame was taken since the last call, so that this is another.
            paused: Whether it is us who do not read on: then nothing is due.
        """
        decoder = self._session.decoder
        if paused or not decoder.buffered_bytes:
            self._begun_ns = 0
            return None
        if fresh or not self._begun_ns:
            self._begun_ns = active_ns
        size = decoder.buffered_bytes + decoder.missing_bytes
        allowed_s = self._context.limits.frame_s + size / _SLOWEST_BYTES_PER_S
        return self._begun_ns + int(allowed_s * 1e9)

    @property
    def _t2k(self) -> int | None:
        # The kernel timestamps the end of a read. Only the frame that ends there has a timestamp.
        return None if self._session.decoder.buffered_bytes else self._rx_ns

    def _welcome(self, hello: Hello) -> Answer:
        self.client, self.connection = hello.identity, hello.connection
        self._context.records.greeted(self._wire.peer, hello.identity, hello.connection)
        if self._refusal:
            return Answer(self._session.busy(self._refusal), Ending.BUSY, self._refusal)
        context = self._context
        if context.tally.durations is not None:
            context.tally.durations.greeted(self._t2k, self._accepted_ns)
        host = context.host()
        features: int = Features.WITNESS | Features.of_options(context.options())
        if hello.features & Features.QUIET:
            self._wire.let_be_silent()
            features |= Features.QUIET
        elif hello.features & Features.KEEPALIVE:
            self._wire.probe_silence()
            features |= Features.KEEPALIVE
        welcome = Welcome(
            identity=context.identity,
            connection=hello.connection,
            max_payload=min(context.limits.max_payload_bytes, _MOST_U32),
            idle_ms=min(int(context.limits.idle_s * 1000), _MOST_U32),
            draining=context.is_draining(),
            peer=self._wire.peer,
            t2k=self._t2k,
            t2u=self._read_ns,
            t3u=context.clock.real_ns(),
            counters=self._wire.counters(),
            features=features,
            accepted=self._accepted_ns,
            host=host,
            age_ns=context.clock.boot_ns() - context.begun_ns,
        )
        return Answer(self._session.welcome(welcome))

    def _testify(self, question: Witness, asker: bytes) -> Answer:
        testimony = self._context.records.testify(question, asker, self._wire.peer[0])
        self._context.tally.testimonies += 1
        # Without a timestamp: the next reply is to tell when the reply before it left.
        return Answer(self._session.testimony(testimony), stamped=False)

    def _reply(self, request: Request) -> bytes:
        tally, clock = self._context.tally, self._context.clock
        crc = zlib.crc32(request.payload)
        if crc != request.crc:
            tally.damaged_requests += 1
        # The error queue and the counters are read before t3u: two system calls of our own work,
        # which are no part of the way out.
        previous_t3k = self._take_t3k()
        t2k, t2u = self._t2k, self._read_ns
        counters = self._wire.counters()
        t3u = clock.real_ns()
        stalled_ns = None
        if self._read_cpu_ns is not None:
            stalled_ns = max(0, t3u - t2u - (clock.cpu_ns() - self._read_cpu_ns))
        reply = Reply(request.payload, crc, t2k, t2u, t3u, previous_t3k, counters, stalled_ns)
        self._replied = (t2k, t3u)
        self.exchanges += 1
        tally.exchanges += 1
        if tally.durations is not None:
            tally.durations.replying(t2k, t2u, t3u, stalled_ns)
        return self._session.reply(reply)

    def _take_t3k(self) -> int | None:
        """Return when our last frame reached the network device, if that is known by now."""
        t3k = self._wire.take_tx_ns(self._sent_to)
        durations = self._context.tally.durations
        if t3k is not None and self._replied is not None and durations is not None:
            durations.left(*self._replied, t3k)
        return t3k
