"""One probe: connect, greet, exchange, close. Returns data; whatever happens is a result."""

import asyncio
from typing import NamedTuple

from twocans_client.evidence.results import ProbeResult, Reason, Unfinished, grown
from twocans_core.kernel.tcpinfo import Counters
from twocans_core.net.sockets import Address
from twocans_core.net.streams import ByteStream, DeadlineExceeded
from twocans_core.protocol.messages import Welcome

from .conversation import Conversation
from .tools import Tools
from .trouble import TROUBLE, direction_of_damage, reason_of_trouble

__all__ = ["Attempt", "Plan", "probe"]


class Plan(NamedTuple):
    """What a probe is to do.

    Attributes:
        timeout_ns: For the whole of it.
        exchanges: How many; 0 ends after the greeting.
        payload_bytes: Of each request.
        payload: What to send instead of random bytes; ``payload_bytes`` is then ignored.
    """

    timeout_ns: int
    exchanges: int = 1
    payload_bytes: int = 64
    payload: bytes | None = None


async def probe(
    address: Address,
    plan: Plan,
    tools: Tools,
    *,
    attempt_type: "type[Attempt] | None" = None,
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
        self._csum_errors = tools.host().csum_errors
        self.result.csum_errors = self._csum_errors
        self._phase, self._begun_ns = "connect", result.started_ns

    async def run(self) -> None:
        """Go through the phases until one ends it."""
        result = self.result
        talk: Conversation | None = None
        try:
            stream = await self._tools.dial(
                self.address, deadline_ns=self._deadline_ns, opened=self._note_local
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
            if isinstance(error, DeadlineExceeded) and error.counters is not None:
                result.retrans = error.counters.total_retrans
                result.sent_in_vain = error.sent_in_vain or 0
            elif talk is not None:
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

    def _note_unfinished(self) -> None:
        lasted_ns = self.clock.mono_ns() - self._begun_ns
        self.result.unfinished = Unfinished(self._phase, lasted_ns)

    def _note_connection(self, stream: ByteStream) -> Conversation:
        result, plan = self.result, self.plan
        # Before anything is read of the socket: that would be in it.
        result.connect_ns = self.clock.mono_ns() - result.started_ns
        size = plan.payload_bytes if plan.payload is None else len(plan.payload)
        deadline_ns = self._deadline_ns
        talk = Conversation(stream, self._tools, max_payload=size, deadline_ns=deadline_ns)
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
        if talk.cut is None:
            # No proper end, so no GOODBYE has read the counters: segments may have been sent again
            # since. Once the stream is closed nobody can ask any more.
            talk.take_counters()
            result.sent_in_vain = stream.sent_in_vain() or 0
        result.retrans = talk.counters.total_retrans
        result.ended = talk.counters if talk.cut is None else talk.cut.sent
        result.bye = talk.cut
        result.exchanges = talk.exchanges
        result.server_ended = talk.server_counters
        result.host_ended = talk.host_ended
        result.bytes_received = talk.bytes_received
        result.own_csum_errors = self._errors_since(result.server_greeted, talk)
        result.draining, result.late = talk.draining, talk.late

    def _errors_since(self, greeted: Counters | None, talk: Conversation) -> int | None:
        """Return how many segments with a wrong checksum may have been this connection's."""
        ended = talk.server_counters
        if self._csum_errors is None or greeted is None or ended is None:
            return None
        if ended.total_retrans == greeted.total_retrans:
            return 0  # a damaged segment is sent again
        # Where later segments provoked that it was at once: the last reading may be older.
        now = self._tools.host(fresh=bool(talk.counters.rcv_ooopack))
        return grown(self._csum_errors, now.csum_errors)

    async def converse(self, talk: Conversation) -> None:
        """What happens between the handshake and the end of the connection."""
        result, plan = self.result, self.plan
        self.begin("greet")
        welcome = await talk.greet()
        result.greet_ns = self.lasted_ns(talk)
        self._note_welcome(welcome, result.greet_ns)
        for _ in range(plan.exchanges):
            payload = plan.payload
            if payload is None:
                payload = self._tools.rng.randbytes(plan.payload_bytes)
            self.begin("exchange")
            reply = await talk.exchange(payload)
            if plan.payload is not None:
                result.reply = reply.payload
        self.begin("close")
        await talk.say_goodbye()
        result.close_ns = self.lasted_ns(talk)

    def _note_welcome(self, welcome: Welcome, greet_ns: int) -> None:
        result = self.result
        result.server = welcome.identity
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
