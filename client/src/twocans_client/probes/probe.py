"""One probe: connect, greet, exchange, close. Returns data; whatever happens is a result."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple

from twocans_client.evidence.results import ProbeResult, Reason, Unfinished, grown
from twocans_core.host.arrivals import NO_OWN_COUNTS
from twocans_core.kernel.tcpinfo import Counters
from twocans_core.net.sockets import Address
from twocans_core.net.streams import ByteStream, DeadlineExceeded, Unconnected
from twocans_core.protocol.frames import EXCHANGE_HEAD_SIZE, HEADER_SIZE
from twocans_core.protocol.messages import Features, Welcome

from .conversation import Conversation
from .endings import joined
from .tools import Tools
from .trouble import TROUBLE, direction_of_damage, reason_of_trouble

__all__ = [
    "MOST_SIZED_BYTES",
    "Attempt",
    "MakeAttempt",
    "Plan",
    "probe",
    "sized_payload",
]

MOST_SIZED_BYTES = 65_536
"""Of payload in a sized exchange. What servers take unless they are told otherwise."""
# Enough that most of them were lost for one reason, few enough for the first window of a
# connection: 10 segments (RFC 6928).
_SIZED_SEGMENTS = 8
# A tail so short passes wherever anything does. If it arrives and the segments before it do not, it
# was their size.
_TAIL_BYTES = 200
_FRAME_BYTES = HEADER_SIZE + EXCHANGE_HEAD_SIZE
# Of Ethernet, less headers with timestamps; where the kernel does not tell.
_COMMON_MSS = 1_448
# By then what was lost was sent again twice at least: after 0.2 s and 0.4 s, and two round trips.
_HANGS_S = 1.2
# Nothing is overtaken by more: the links that packets of one flow are spread over, or the queues of
# one card, differ by milliseconds.
_OVERTAKEN_NS = 50_000_000


def sized_payload(mss: int | None, limit: int) -> int:
    """Return the payload of a sized exchange: up to eight full segments and a short tail.

    Args:
        mss: Payload of a segment (``tcpi_snd_mss``), bytes; None: not known.
        limit: The server's, for a payload. Where it is less than a segment, this is the limit.
    """
    mss, limit = mss or _COMMON_MSS, min(limit, MOST_SIZED_BYTES)
    segments = min(_SIZED_SEGMENTS, (limit + _FRAME_BYTES - _TAIL_BYTES) // mss)
    return segments * mss + _TAIL_BYTES - _FRAME_BYTES if segments > 0 else limit


class Plan(NamedTuple):
    """What a probe is to do.

    Attributes:
        timeout_ns: For the whole of it.
        exchanges: How many; 0 ends after the greeting.
        payload_bytes: Of each request.
        sized: Whether to make a sized exchange after them: one that fills segments.
        payload: What to send instead of random bytes; ``payload_bytes`` is then ignored.
        local_ports: See ``streams.connect``.
    """

    timeout_ns: int
    exchanges: int = 1
    payload_bytes: int = 64
    payload: bytes | None = None
    local_ports: tuple[int, ...] = ()
    sized: bool = False


async def probe(
    address: Address,
    plan: Plan,
    tools: Tools,
    *,
    attempt_type: "MakeAttempt | None" = None,
    result: ProbeResult | None = None,
) -> ProbeResult:
    """Make one probe of one address.

    Args:
        address: Where to.
        plan: What to do.
        tools: What with.
        attempt_type: How to talk; protocol 1 unless said otherwise.
        result: Filled in instead of a new one: it knows when the schedule wanted this to start,
            and its owner has it also of a probe that is cancelled.

    Returns:
        The result, with the reason as it looks: ``blame.judge_probe`` is the caller's to ask.
        What a peer or a network does is in it; only cancellation and a bug of ours leave this
        function as an exception.
    """
    tools.host()  # takes longer than a connect on this host, so it must not be in its time
    started_ns = tools.clock.mono_ns()
    if result is None:
        result = ProbeResult(intended_ns=started_ns, started_ns=started_ns, started_real_ns=0)
    result.started_ns, result.started_real_ns = started_ns, tools.clock.real_ns()
    result.address, result.dialled, result.timeout_ns = address, True, plan.timeout_ns
    with tools.attention:
        try:
            await (attempt_type or Attempt)(address, plan, tools, result).run()
        finally:
            # Also of a probe that is cancelled or meets a bug: what it measured is in the result.
            result.ended_ns = tools.clock.mono_ns()
            result.stalled = tools.stalled_since(started_ns)
    return result


class Attempt:
    """One probe under way: what it holds between its phases."""

    def __init__(self, address: Address, plan: Plan, tools: Tools, result: ProbeResult) -> None:
        self.address = address
        self.plan = plan
        self.clock = tools.clock
        self.result = result
        self._tools = tools
        self._deadline_ns = result.started_ns + plan.timeout_ns
        self._counts = tools.host()
        result.csum_errors = self._counts.csum_errors
        self._phase, self._begun_ns = "connect", result.started_ns

    async def run(self) -> None:
        """Go through the phases until one ends it."""
        result = self.result
        talk: Conversation | None = None
        try:
            stream = await self._tools.dial(
                self.address,
                deadline_ns=self._deadline_ns,
                local_ports=self.plan.local_ports,
                opened=self._note_local,
                failed=self._note_unconnected,
            )
            try:
                talk = self._note_connection(stream)
                await self.converse(talk)
            finally:
                self._note_end(stream, talk)
                stream.close()
        except TROUBLE as error:
            waiting_for = talk.waiting_for if talk else Reason.CONNECT_TIMEOUT
            result.reason, result.detail = reason_of_trouble(error, waiting_for)
            result.damaged_in = direction_of_damage(error)
            result.errno = error.errno if isinstance(error, OSError) else None
            if result.icmp is not None:
                result.detail = joined(result.detail, str(result.icmp))
            if talk is not None:
                result.silence = talk.silence
            self._note_unfinished()
        except asyncio.CancelledError:
            result.reason = Reason.SHUTDOWN
            self._note_unfinished()
            raise

    def begin(self, phase: str) -> None:
        """Say which phase begins now."""
        self._phase, self._begun_ns = phase, self.clock.mono_ns()

    def lasted_ns(self, talk: Conversation) -> int:
        """Return how long the phase lasted: until the newest read, which ended it."""
        return talk.read_ns - self._begun_ns

    def _note_local(self, local: tuple[str, int]) -> None:
        self.result.local = local

    def _note_unconnected(self, known: Unconnected) -> None:
        result = self.result
        result.standing, result.icmp = known
        result.retrans = known.standing.total_retrans
        result.sent_in_vain = known.standing.sent_in_vain or 0
        # An answer of our own host comes within microseconds of the reading before.
        now = self._tools.host(fresh=True)
        result.own_undelivered = self._grown(self._counts.undelivered, now.undelivered)
        result.own_unsent = self._grown(self._counts.unsent, now.unsent)

    def _note_unfinished(self) -> None:
        lasted_ns = self.clock.mono_ns() - self._begun_ns
        self.result.unfinished = Unfinished(self._phase, lasted_ns)

    def _note_connection(self, stream: ByteStream) -> Conversation:
        result, plan = self.result, self.plan
        # Before anything is read of the socket: that would be in it.
        result.connect_ns = self.clock.mono_ns() - result.started_ns
        size = plan.payload_bytes if plan.payload is None else len(plan.payload)
        deadline_ns = self._deadline_ns
        talk = Conversation(
            stream,
            self._tools,
            max_payload=size,
            most_payload=MOST_SIZED_BYTES if plan.sized else 0,
            deadline_ns=deadline_ns,
        )
        counters = result.connected = talk.counters
        # The only sample so far is of SYN and SYN-ACK, and with a SYN sent again there is none.
        if counters.total_retrans == 0 and counters.rtt_us is not None:
            result.handshake_ns = counters.rtt_us * 1000
        return talk

    def _note_end(self, stream: ByteStream, talk: Conversation | None) -> None:
        result = self.result
        result.bytes_sent = stream.sent_bytes
        if talk is None:
            return
        result.connection = talk.connection
        if talk.cut is None:
            # No proper end, so no GOODBYE has read the counters: segments may have been sent again
            # since. Once the stream is closed nobody can ask any more.
            talk.take_counters()
            self._note_failure(stream, talk)
        elif talk.counters.total_retrans or _is_large(result.bytes_sent, talk.counters.snd_mss):
            result.standing = stream.standing()
        if _is_large(result.bytes_sent, talk.counters.snd_mss):
            result.limited = stream.limited()
            result.send_buffer = stream.send_buffer()
        result.retrans = talk.counters.total_retrans
        result.ended = talk.counters if talk.cut is None else talk.cut.sent
        result.bye = talk.cut
        if result.sized is not None:
            (result.sized,) = talk.exchanges
        elif not result.is_sized:
            result.exchanges = talk.exchanges
        result.server_ended = talk.server_counters
        result.host_ended = talk.host_ended
        result.bytes_received = talk.bytes_received
        result.own_csum_errors = self._errors_since(result.server_greeted, talk)
        result.draining, result.late = talk.draining, talk.late

    def _note_failure(self, stream: ByteStream, talk: Conversation) -> None:
        """Ask the kernel what it knows that nobody needs to know of a good probe."""
        result = self.result
        result.standing = stream.standing()
        result.sent_in_vain = result.standing.sent_in_vain or 0
        result.soft_error = stream.take_soft_error()
        now = self._tools.host()
        result.own_undelivered = self._grown(self._counts.undelivered, now.undelivered)
        if talk.waiting_for is Reason.REPLY_TIMEOUT:
            result.request_left = stream.take_transmit(stream.sent_bytes)

    def _errors_since(self, greeted: Counters | None, talk: Conversation) -> int | None:
        """Return how many segments with a wrong checksum may have been this connection's."""
        ended = talk.server_counters
        if self._counts is NO_OWN_COUNTS or greeted is None or ended is None:
            return None
        if ended.total_retrans == greeted.total_retrans:
            return 0  # a damaged segment is sent again
        # Where later segments provoked that it was at once: the last reading may be older.
        now = self._tools.host(fresh=bool(talk.counters.rcv_ooopack))
        return grown(self._counts.csum_errors, now.csum_errors)

    def _grown(self, before: int | None, now: int | None) -> int | None:
        """Return by how much a count of our host's IPv4 packets grew meanwhile."""
        if before is None or now is None or self.address.family != "4":
            return None
        return max(0, now - before)  # one that was on its way up at the first reading makes it less

    async def converse(self, talk: Conversation) -> None:
        """What happens between the handshake and the end of the connection."""
        result, plan = self.result, self.plan
        welcome = await self.greet(talk)
        for _ in range(plan.exchanges):
            payload = plan.payload
            if payload is None:
                payload = self._tools.rng.randbytes(plan.payload_bytes)
            self.begin("exchange")
            result.payload_bytes = len(payload)
            reply = await talk.exchange(payload)
            if plan.payload is not None:
                result.reply = reply.payload
        if plan.sized:
            await self._exchange_sized(talk, welcome.max_payload)
        await self.part(talk)

    async def greet(self, talk: Conversation) -> Welcome:
        """Be greeted, and keep what the server said."""
        self.begin("greet")
        welcome = await talk.greet()
        self.result.greet_ns = self.lasted_ns(talk)
        self._note_welcome(welcome, self.result.greet_ns)
        return welcome

    async def part(self, talk: Conversation) -> None:
        """Leave, when all is here that may still come."""
        if _is_large(talk.stream.sent_bytes, talk.counters.snd_mss):
            await self._await_overtaken(talk)
        self.begin("close")
        await talk.say_goodbye()
        self.result.close_ns = self.lasted_ns(talk)

    async def _exchange_sized(self, talk: Conversation, limit: int) -> None:
        """Exchange once more, as large as several segments, and keep it apart from the others.

        Args:
            talk: Greeted.
            limit: Of the server, for a payload.
        """
        result = self.result
        size = sized_payload(talk.counters.snd_mss, limit)
        # What was sent again until now was for the others, and from now on for this one.
        talk.take_counters()
        result.exchanges = list(talk.exchanges)
        result.payload_bytes, result.is_sized = size, True
        payload = self._tools.rng.randbytes(size)
        self.begin("sized")
        timer = asyncio.get_running_loop().call_later(_HANGS_S, self._note_hanging, talk)
        try:
            await talk.exchange(payload)
        finally:
            timer.cancel()
        # Its reply has completed the exchange before it; only FOLLOW_UP completes this one.
        *result.exchanges, result.sized = talk.exchanges
        talk.exchanges = [result.sized]

    async def _await_overtaken(self, talk: Conversation) -> None:
        """Wait for a segment that others overtook, if there may be one.

        TCP has sent it again, and the copy came first. The GOODBYE would come before it as well,
        and it would be counted as lost.
        """
        before, now = self.result.connected, talk.take_counters()
        has_resent = before is not None and now.total_retrans != before.total_retrans
        if has_resent or now.rcv_ooopack:
            until_ns = min(self.clock.mono_ns() + _OVERTAKEN_NS, self._deadline_ns)
            with contextlib.suppress(DeadlineExceeded):
                while True:
                    await talk.wait(until_ns)

    def _note_hanging(self, talk: Conversation) -> None:
        """Ask the kernel how it stands, long before the probe gives up."""
        self.result.standing = talk.stream.standing()
        self.result.ended = talk.stream.counters()

    def _note_welcome(self, welcome: Welcome, greet_ns: int) -> None:
        """Keep what the server said of itself, and of us."""
        result = self.result
        result.server = welcome.identity
        result.server_offers = Features.options_in(welcome.features)
        result.offers = self._tools.options()
        result.seen_as = welcome.peer
        result.server_greeted = welcome.counters
        result.host_greeted = welcome.host
        if welcome.age_ns is not None:
            # From before the HELLO, so too early by a round trip at most: one that began after a
            # GOODBYE even so surely did.
            result.server_began_ns = self._begun_ns - welcome.age_ns
        if welcome.accepted is not None and welcome.t2k is not None:
            # Longer than we have waited it cannot be: then its clock was stepped, or it lies.
            accept_ns = max(0, welcome.accepted - welcome.t2k)
            if accept_ns <= greet_ns + (result.connect_ns or 0):
                result.accept_ns = accept_ns


def _is_large(sent_bytes: int, mss: int | None) -> bool:
    """Whether it was more than one full segment, so that the path's MTU had to do with it."""
    return mss is not None and sent_bytes > mss


MakeAttempt = Callable[[Address, Plan, Tools, ProbeResult], Attempt]
"""How to talk: ``Attempt``, or what is made like one."""
