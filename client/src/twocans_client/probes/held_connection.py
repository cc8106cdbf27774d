"""One held connection: how it is opened, what happens on it, and how it ends.

Theory of operation. A life is: dial, greet, then rest and exchange in turn, then an ending.

*At rest* we listen and say nothing. Whatever comes then is news: a GOODBYE, a reset, the end of
the stream. The kernel keeps watch too (TCP_USER_TIMEOUT, keepalive), so that a path that died
in silence ends the rest as an error. *An exchange* starts at a slot of the schedule. Only then
is an answer due, do we ask the stall watch for attention, and does our patience have an end.

An ending is evidence, so it has a reason. It is judged from when the far end was last heard as it
should be (``_well_ns``), not from the newest request, because a stall of ours between two slots
makes a server end us as well. If it is we who end it we say GOODBYE, once, and wait a second at
most for the answer, which is one more cut; but not if a reply is still due, for then it counts
segments that we have not read.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from twocans_client.evidence.blame import Circumstances, judge
from twocans_client.evidence.results import Reason
from twocans_client.evidence.testimony import Question, Testimony, Unanswered
from twocans_core.kernel.standing import Standing
from twocans_core.net.sockets import Address
from twocans_core.net.streams import DeadlineExceeded, Unconnected
from twocans_core.protocol.messages import Features, Welcome
from twocans_core.protocol.session import LAST_SEQUENCE

from .accounts import Accounts, Observer
from .conversation import Conversation
from .endings import Ending, Life, joined
from .schedule import Schedule, phase_ns
from .tools import Tools
from .trouble import TROUBLE, direction_of_damage, reason_of_trouble
from .witness import ask_on

__all__ = ["FEW_ASKED", "Asked", "HeldConnection", "HeldPlan"]

FEW_ASKED = 4
"""Connections that may be asked about on a held one: 1,172 bytes in all."""

# TCP_USER_TIMEOUT of a held connection (sockets.py): past it the kernel gives up what nobody
# acknowledged, so a reply that is later than that comes only from a program that hung.
_PATIENCE_NS = 30_000_000_000
# A request of this payload is one segment wherever IPv6 runs: 1,280 bytes less 60 of headers.
_MAX_PAYLOAD = 1024
# A server with an idle limit below twice this cannot make us talk more often than that.
_SHORTEST_KEEPALIVE_NS = 500_000_000
_PARTING_NS = 1_000_000_000


class HeldPlan(NamedTuple):
    """What a held connection is to do.

    Attributes:
        interval_ns: From one exchange to the next.
        payload_bytes: Of each; more than 1,024 is 1,024.
        timeout_ns: To connect and be greeted.
        drain_grace_ns: How long a server's GOODBYE excuses its silence.
        patience_ns: How long an answer is waited for.
        grid_ns: See ``schedule.phase_ns``.
    """

    interval_ns: int
    payload_bytes: int
    timeout_ns: int
    drain_grace_ns: int
    patience_ns: int = _PATIENCE_NS
    grid_ns: int = 0


class Asked(NamedTuple):
    """A question for the witness (``witness.ask_on``), to be asked on a held connection.

    Attributes:
        questions: At most ``FEW_ASKED``, so that it fits into one segment, as all messages here.
        deadline_ns: When to give up, CLOCK_MONOTONIC.
        answer: Called with what came, if it was asked.
    """

    questions: tuple[Question, ...]
    deadline_ns: int
    answer: Callable[[Testimony | Unanswered], None]


class HeldConnection:
    """One connection of a path, from the dial to its ending. Made for one call of ``hold``.

    Args:
        name: Of the path: it decides when in the interval the exchanges are.
        address: Where to.
        where: Gives where it would go to now. Asked before every exchange: a held connection does
            not stay with an address that is no more.
        plan: What to do.
        tools: What with.
        observer: Who hears of it.
        excused_until_ns: Until when a GOODBYE on a connection before this one excuses silence,
            CLOCK_MONOTONIC.

    Attributes:
        excused_until_ns: The same, for the connection after this one.
        is_open: Whether it stands: greeted, and not ended.
        is_stopping: Whether a cancellation is to say GOODBYE first.
    """

    def __init__(
        self,
        name: str,
        address: Address,
        where: Callable[[], Address | None],
        plan: HeldPlan,
        tools: Tools,
        observer: Observer,
        *,
        excused_until_ns: int = 0,
    ) -> None:
        self.excused_until_ns = excused_until_ns
        self.is_open = False
        self.is_stopping = False
        self._name = name
        self._address = address
        self._where = where
        self._plan = plan
        self._payload_bytes = min(plan.payload_bytes, _MAX_PAYLOAD)
        self._tools = tools
        self._clock = tools.clock
        self._observer = observer
        self._accounts = Accounts(observer)
        # None of these is known before somebody answers.
        self._local: tuple[str, int] | None = None
        self._talk: Conversation | None = None
        self._schedule: Schedule | None = None
        self._probes_silence = self._is_witness = False
        self._question: Asked | None = None
        self._resting: asyncio.Timeout | None = None
        self._opened_ns = 0
        self._keepalive_ns = 0  # half the server's idle limit
        self._began_ns = self._clock.mono_ns()
        self._well_ns = self._began_ns  # when the far end was heard last, as it should be
        self._said_goodbye = False
        self._damaged_in = ""
        # What the ending is to say of the socket.
        self._errno: int | None = None
        self._unconnected: Unconnected | None = None

    async def hold(self) -> Ending:
        """Connect, and exchange for as long as it lasts; returns how it ended.

        Cancelled, it closes at once, or within a second if ``is_stopping``. Nothing that a peer or
        a network does leaves it as an exception.
        """
        reason, detail = Reason.INTERNAL_ERROR, ""
        try:
            reason, detail = await self._live()
            detail = joined(detail, await self._say_goodbye())
        except asyncio.CancelledError:
            reason = Reason.SHUTDOWN
            if self.is_stopping:
                detail = await self._say_goodbye()
            raise
        except TROUBLE as error:
            reason, detail = self._judge(error)
        finally:
            ending = self._end(reason, detail)
        return ending

    def ask(self, asked: Asked) -> bool:
        """Ask its server something, as soon as no other answer is due; False if it cannot.

        Args:
            asked: What. Of a question that was not asked before the next came nothing is heard.
        """
        if not self.is_open or not self._is_witness:
            return False
        self._question = asked
        if self._resting is not None:
            self._resting.reschedule(asyncio.get_running_loop().time())
        return True

    def look(self) -> Life | None:
        """Return how it stands now; None before it is connected. Asks the kernel."""
        talk = self._talk
        if talk is None:
            return None
        silence, now_ns = talk.silence, self._clock.mono_ns()
        return Life(
            connection=talk.connection,
            local=self._local,
            began_ns=self._began_ns,
            opened_ns=self._opened_ns or None,
            heard_ns=self._well_ns,
            asked_ns=None if silence is None else now_ns - silence.ns,
            probes_silence=self._probes_silence,
            server=self._accounts.server,
            asked=talk.asked,
            counters=talk.stream.counters(),
            cut=talk.cut,
            in_vain=talk.stream.sent_in_vain(),
            at_ns=now_ns,
        )

    async def _live(self) -> tuple[Reason, str]:
        """Connect, greet and exchange; returns why we leave."""
        deadline_ns = self._clock.mono_ns() + self._plan.timeout_ns
        with self._tools.attention:
            stream = await self._tools.dial(
                self._address,
                deadline_ns=deadline_ns,
                held=True,
                opened=self._note_local,
                failed=self._note_unconnected,
            )
            size = self._payload_bytes
            talk = Conversation(stream, self._tools, max_payload=size, deadline_ns=deadline_ns)
            self._talk = talk
            welcome = await talk.greet(Features.KEEPALIVE)
        schedule = self._open(talk, welcome)
        while not talk.draining:
            if self._where() != self._address:
                return Reason.OK, "its address is another now"
            if self._accounts.exchanges == LAST_SEQUENCE:
                return Reason.OK, "no sequence is left"
            if self._question is not None:
                await self._ask(talk, welcome)
            elif await self._rest(talk, schedule.next_ns):
                intended_ns, _, missed = schedule.take(self._clock.mono_ns())
                self._accounts.skipped(missed)
                if intended_ns is not None:
                    await self._exchange(talk)
        return Reason.DRAINING, ""

    async def _rest(self, talk: Conversation, until_ns: int) -> bool:
        """Listen until a moment of CLOCK_MONOTONIC; returns False if something came before."""
        resting = self._resting = asyncio.timeout(None)
        try:
            async with resting:
                await talk.wait(until_ns)  # no question, but a GOODBYE
            return False
        except DeadlineExceeded:
            return True
        except TimeoutError:  # the kernel's ETIMEDOUT is one too
            if not resting.expired():
                raise
            return False
        finally:
            self._resting = None

    async def _ask(self, talk: Conversation, welcome: Welcome) -> None:
        """Ask the witness what we were told to. No answer in time does not end us."""
        question, self._question = self._question, None
        if question is None:
            return
        asked, begun_ns = question, self._clock.mono_ns()
        talk.deadline_ns = asked.deadline_ns
        answer: Testimony | Unanswered
        try:
            with self._tools.attention:
                answer = await ask_on(talk, welcome, asked.questions, self._tools)
            self._well_ns = talk.read_ns
        except DeadlineExceeded:
            answer = Unanswered(Reason.REPLY_TIMEOUT, "", begun_ns, self._clock.mono_ns())
        asked.answer(answer)

    def _open(self, talk: Conversation, welcome: Welcome) -> Schedule:
        """Note that the connection stands; returns when to exchange."""
        self.is_open = True
        self._accounts.server = welcome.identity
        self._probes_silence = bool(welcome.features & Features.KEEPALIVE)
        self._is_witness = bool(welcome.features & Features.WITNESS)
        self._opened_ns = self._well_ns = talk.read_ns
        # Half of its limit, in ns: one exchange may be late, or lost and sent again, and it is
        # kept.
        self._keepalive_ns = max(welcome.idle_ms * 500_000, _SHORTEST_KEEPALIVE_NS)
        if not talk.draining:
            self.excused_until_ns = 0  # it came in the place of the one that left
        interval_ns = min(self._plan.interval_ns, self._keepalive_ns)
        name, grid_ns = self._tools.identity.name, self._plan.grid_ns
        phase = phase_ns(name, f"held {self._name}", interval_ns, grid_ns)
        self._schedule = Schedule(interval_ns, phase, talk.read_ns)
        return self._schedule

    async def _exchange(self, talk: Conversation) -> None:
        tools, begun_ns = self._tools, self._clock.mono_ns()
        talk.deadline_ns = begun_ns + self._plan.patience_ns
        with tools.attention:
            await talk.exchange(tools.rng.randbytes(self._payload_bytes), cut=True)
            tainted = tools.stalled_since(begun_ns).cause or ""
        self._well_ns = talk.read_ns
        self._accounts.answered(talk, tainted)

    async def _say_goodbye(self) -> str:
        """Say GOODBYE, if there is a session; returns what went wrong, for people."""
        talk = self._talk
        if talk is None or not self.is_open or self._said_goodbye:
            return ""
        # Noted before it is said: a cancellation in the middle of it comes here once more.
        self._said_goodbye = True
        was_asking = talk.waiting_for is not None
        if was_asking:
            # The FOLLOW_UP will speak of a reply that we have not seen.
            self._accounts.incomplete(talk)
        talk.deadline_ns = self._clock.mono_ns() + _PARTING_NS
        try:
            await talk.say_goodbye()
        except TROUBLE as error:
            return joined(*reason_of_trouble(error, talk.waiting_for))
        if not was_asking:
            self._accounts.cut(talk)
        return ""

    def _judge(self, error: Exception) -> tuple[Reason, str]:
        """Return whose doing it was that the connection failed, or ended while we held it."""
        talk, now_ns = self._talk, self._clock.mono_ns()
        self._errno = error.errno if isinstance(error, OSError) else None
        standing = self._standing()
        waiting_for = talk.waiting_for if talk is not None else Reason.CONNECT_TIMEOUT
        reason, detail = reason_of_trouble(error, waiting_for)
        if self._unconnected is not None and self._unconnected.icmp is not None:
            detail = joined(detail, str(self._unconnected.icmp))
        self._damaged_in = direction_of_damage(error)
        known = Circumstances(
            self._tools.stalled_since(self._well_ns),
            self._plan.patience_ns if self.is_open else self._plan.timeout_ns,
            self._keepalive_ns if self.is_open else None,
            (standing and standing.sent_in_vain) or 0,
            talk.silence if talk is not None else None,
            said_goodbye=(talk is not None and talk.draining) or now_ns < self.excused_until_ns,
        )
        reason, detail = judge(reason, detail, known)
        if talk is not None and self.is_open and reason is Reason.REPLY_TIMEOUT:
            detail = joined(detail, _resent(talk))
        return reason, detail

    def _note_local(self, local: tuple[str, int]) -> None:
        self._local = local

    def _note_unconnected(self, known: Unconnected) -> None:
        self._unconnected = known

    def _standing(self) -> Standing | None:
        if self._talk is not None:
            return self._talk.stream.standing()
        return self._unconnected.standing if self._unconnected is not None else None

    def _end(self, reason: Reason, detail: str) -> Ending:
        talk, now_ns = self._talk, self._clock.mono_ns()
        lasted_ns = now_ns - self._opened_ns if self.is_open else None
        self.is_open = False
        if self._schedule is not None:
            # Slots that became due since the last exchange, and had none.
            self._accounts.skipped(self._schedule.take(now_ns).scheduled)
        life, standing, soft_error = self.look(), self._standing(), None
        if talk is not None:
            limits = talk.stream.limited()  # a closed socket knows nothing any more
            soft_error = talk.stream.take_soft_error()
            talk.stream.close()
            self._accounts.limited(limits)
            if talk.draining:
                self.excused_until_ns = now_ns + self._plan.drain_grace_ns
            self._accounts.incomplete(talk)
        ending = Ending(
            reason,
            detail,
            lasted_ns,
            self._accounts.exchanges,
            self._address,
            self._local,
            self._errno,
            self._unconnected.icmp if self._unconnected is not None else None,
            soft_error,
            standing,
            life,
            self._damaged_in,
        )
        self._observer.ended(ending)
        return ending


def _resent(talk: Conversation) -> str:
    """Say whether it is the path that was silent, or the server's program."""
    now, before = talk.stream.counters().total_retrans, talk.counters.total_retrans
    if now is None or before is None:
        return ""
    return f"{now - before} segments sent again" if now > before else "nothing sent again"
