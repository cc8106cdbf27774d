"""The idle connections of a path: after how long a silence is a connection cut?

What sits between the two ends keeps state of each connection, and forgets it after some silence:
firewalls, NAT, balancers. The first request after that hangs or is reset, and no fresh connection
shows it, nor one that talks every ten seconds. So a few connections greet, exchange once, say
nothing for an age, and exchange once more. Which ages, ``evidence.idle.Ladder`` decides.

Neither end's kernel may break the silence: ours sends no keepalive probes on such a socket, and the
server is asked to send none (``Features.QUIET``). A server that does not know that sends one after
15 s, so there no age is longer than 12 s.

A failure is evidence only if all that was not silent did well: the held connection lived, and fresh
probes were good, up to one that began when the connection had to answer and went the same way. Else
it may have been the path, a restart, or a proxy that came or went.

Once an age is bad, a longer silence tells no more: who has been silent for as long is used at once.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twocans_client.evidence.blame import Circumstances, judge
from twocans_client.evidence.idle import IdleResult, Ladder, Way
from twocans_client.evidence.results import OUTCOMES, Outcome, Reason
from twocans_core.net.sockets import Address
from twocans_core.net.streams import DeadlineExceeded
from twocans_core.protocol.messages import Features, Welcome

from .conversation import Conversation
from .tools import Tools
from .trouble import TROUBLE, reason_of_trouble

__all__ = ["Idle", "IdleObserver", "IdlePlan"]

# One segment, as on a held connection.
_MAX_PAYLOAD = 1_024
# A server counts its idle limit from its own last byte to our next, and is not to be the one who
# ends it: it ends us by then at the latest.
_MARGIN_NS = 2_000_000_000
_MARGIN_SHARE = 0.05
# TCP_KEEPIDLE of a server that is not asked to be quiet is 15 s (``sockets``).
_UNASKED_NS = 12_000_000_000
# Seconds, from and to. After a failed beginning, and where there is nothing to try, a minute more
# or less costs nothing.
_FIRST_S = (0.5, 10.0)
_NEXT_S = (0.1, 1.0)
_LATER_S = (30.0, 90.0)
_LOOK_S = 0.2
_PARTING_NS = 1_000_000_000
# By so much a timer of the loop may be early, and then the age would not be the one that was bad.
_EARLY_NS = 1_000_000


class IdlePlan(NamedTuple):
    """What idle connections are to do.

    Attributes:
        connections: How many at once.
        payload_bytes: Of each exchange; more than 1,024 is 1,024.
        timeout_ns: To connect, be greeted and exchange; and again for the second exchange.
        control_ns: For so long after a failure the control is waited for.
    """

    connections: int
    payload_bytes: int
    timeout_ns: int
    control_ns: int


class IdleObserver(Protocol):
    """Who hears of them, and knows the path. No call may block or raise."""

    def affords_idle(self) -> bool:
        """Whether the path is well, and may spend what one connection costs: it is then spent."""

    def control_since(self, at_ns: int, way: Way, silent_ns: int) -> bool | None:
        """As ``Controls.since``."""

    def idled(self, result: IdleResult) -> None:
        """One has ended: it answered after its silence, or did not."""


class Idle:
    """One path's idle connections.

    Args:
        address: Gives where to connect to; None while that is not known.
        plan: What to do.
        tools: Gives what with, at every connection anew.
        observer: Who hears of all of them.

    Attributes:
        ladder: The ages that are known to be good or bad.
    """

    def __init__(
        self,
        address: Callable[[], Address | None],
        plan: IdlePlan,
        tools: Callable[[], Tools],
        observer: IdleObserver,
    ) -> None:
        self.ladder = Ladder()
        self._address = address
        self._plan = plan
        self._tools = tools
        self._observer = observer
        self._silent: dict[_Connection, int] = {}  # and their ages, while those tell anything
        self._task: asyncio.Task[None] | None = None
        self._stopping = False

    def stop(self) -> None:
        """Ask them to end: they say GOODBYE, and ``run`` returns within a second."""
        if not self._stopping:
            self._stopping = True
            if self._task is not None:
                self._task.cancel()

    async def run(self) -> None:
        """Keep them until stopped, in a task of its own.

        Nothing that a peer or a network does leaves it as an exception.
        """
        if self._stopping:
            return
        self._task = asyncio.current_task()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self._plan.connections):
                    group.create_task(self._again_and_again())
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            if self._task is not None:
                self._task.uncancel()  # asked to end, and it did: that is no cancellation

    async def _again_and_again(self) -> None:
        await self._pause(_FIRST_S)
        while True:
            address = self._address()
            if address is not None and self._observer.affords_idle():
                connection = _Connection(address, self._plan, self._tools())
                try:
                    result = await self._use(connection)
                finally:
                    connection.close()
            else:
                result = None
            if result is None:
                await self._pause(_LATER_S)
                continue
            self.ladder.take(result)
            self._hurry()
            self._observer.idled(result)
            await self._pause(_NEXT_S)

    def _hurry(self) -> None:
        """Let nobody be silent for longer than is known to be too long."""
        bracket = self.ladder.bracket()
        if bracket is None:
            return
        for connection, age_ns in list(self._silent.items()):
            if age_ns >= bracket.bad_ns:
                del self._silent[connection]
                connection.answer_by(bracket.bad_ns)

    async def _use(self, connection: "_Connection") -> IdleResult | None:
        """Return what became of a connection; None if it says nothing about silence."""
        limit_ns = await connection.begin()
        if limit_ns is None:
            return None
        self.ladder.limit(limit_ns)
        age_ns = self.ladder.next_age(self._silent.values())
        if age_ns is None:
            await connection.say_goodbye()
            return None
        self._silent[connection] = age_ns
        try:
            result = await connection.be_silent(age_ns)
        except asyncio.CancelledError:
            if self._stopping:
                await connection.say_goodbye()
            raise
        finally:
            self._silent.pop(connection, None)
        if result is None or OUTCOMES[result.reason] is not Outcome.FAIL:
            return result
        connection.close()
        control = await self._control(connection)
        # An address that has changed meanwhile: the server was leaving.
        return result._replace(control=control) if self._address() == connection.address else None

    async def _control(self, connection: "_Connection") -> bool | None:
        """Wait until it is known whether fresh probes were good when a connection failed."""
        clock = self._tools().clock
        until_ns = clock.mono_ns() + self._plan.control_ns
        while True:
            known = self._observer.control_since(
                connection.tested_ns, connection.way, connection.silent_ns
            )
            if known is not None or clock.mono_ns() >= until_ns:
                return known
            await asyncio.sleep(_LOOK_S)

    async def _pause(self, span_s: tuple[float, float]) -> None:
        await asyncio.sleep(self._tools().rng.uniform(*span_s))


class _Connection:
    """One idle connection.

    Attributes:
        address: Where it goes.
        way: How it went.
        silent_ns: When its silence began, CLOCK_MONOTONIC.
        tested_ns: When it had to answer after its silence, or failed in it; likewise.
    """

    def __init__(self, address: Address, plan: IdlePlan, tools: Tools) -> None:
        self.address = address
        self.way = Way(b"", "", "")
        self.silent_ns = 0
        self.tested_ns = 0
        self._plan = plan
        self._tools = tools
        self._clock = tools.clock
        self._started_ns = tools.clock.mono_ns()
        self._talk: Conversation | None = None
        self._local = ("", 0)
        self._patience: asyncio.Timeout | None = None
        self._idle_ns = 0  # the server's limit
        self._asked_ns: int | None = None  # the second exchange began
        self._is_leaving = False

    async def begin(self) -> int | None:
        """Connect, greet and exchange.

        Returns:
            The longest silence that makes sense here; None if it failed: of that the probes speak.
        """
        plan, tools = self._plan, self._tools
        deadline_ns = self._started_ns + plan.timeout_ns
        size = min(plan.payload_bytes, _MAX_PAYLOAD)
        try:
            with tools.attention:
                # Not held: then our kernel would send keepalive probes.
                stream = await tools.dial(
                    self.address, deadline_ns=deadline_ns, opened=self._note_local
                )
                talk = Conversation(stream, tools, max_payload=size, deadline_ns=deadline_ns)
                self._talk = talk
                welcome = await talk.greet(Features.QUIET)
                await talk.exchange(tools.rng.randbytes(size))
        except TROUBLE:
            return None
        self.way = Way.of(welcome.identity.instance, self._local, welcome.peer)
        self._idle_ns = welcome.idle_ms * 1_000_000
        return None if talk.draining else _longest_ns(welcome)

    async def be_silent(self, age_ns: int) -> IdleResult | None:
        """Say nothing for so long, or until ``answer_by``; then exchange once and leave.

        Returns:
            What became of it; None if the server was leaving, or had a right to end it.
        """
        talk, clock = self._talk, self._clock
        if talk is None:
            return None
        begun_ns, resent = clock.boot_ns(), talk.take_counters().total_retrans
        self.silent_ns = clock.mono_ns()
        reason, detail, aged_ns = Reason.OK, "", None
        try:
            if not await self._is_silent(talk, age_ns):
                return None  # only GOODBYE ends a silence without an error: it drains
            aged_ns = clock.boot_ns() - begun_ns
            await self._exchange(talk)
            await self.say_goodbye()
        except TROUBLE as error:
            reason, detail = self._judge(talk, error)
        if aged_ns is None:
            aged_ns = clock.boot_ns() - begun_ns
        if reason is not Reason.OK and aged_ns >= self._idle_ns - _MARGIN_NS // 2:
            return None  # our host slept, or the timer was late: the server may have ended it
        again = talk.stream.counters().total_retrans
        return IdleResult(
            aged_ns,
            reason,
            detail,
            talk.connection or 0,
            self._local,
            self._started_ns,
            clock.mono_ns(),
            retrans=None if again is None or resent is None else again - resent,
        )

    async def _is_silent(self, talk: Conversation, age_ns: int) -> bool:
        """Wait for the end of the silence; returns whether nothing was said before it."""
        patience = asyncio.timeout(None)
        try:
            async with patience:
                self._patience = patience
                await talk.wait(self.silent_ns + age_ns)
        except DeadlineExceeded:
            return True
        except TimeoutError:
            if not patience.expired():
                raise  # it is the kernel's ETIMEDOUT
            return True
        finally:
            self._patience = None
        return False

    def answer_by(self, age_ns: int) -> None:
        """Let a silence that lasts be no longer than this."""
        if self._patience is not None:
            left_ns = self.silent_ns + age_ns - self._clock.mono_ns()
            now_s = asyncio.get_running_loop().time()
            self._patience.reschedule(now_s + max(0, left_ns + _EARLY_NS) / 1e9)

    async def _exchange(self, talk: Conversation) -> None:
        tools = self._tools
        self.tested_ns = self._asked_ns = self._clock.mono_ns()
        talk.deadline_ns = self._asked_ns + self._plan.timeout_ns
        with tools.attention:
            size = min(self._plan.payload_bytes, _MAX_PAYLOAD)
            await talk.exchange(tools.rng.randbytes(size))

    def _judge(self, talk: Conversation, error: Exception) -> tuple[Reason, str]:
        reason, detail = reason_of_trouble(error, talk.waiting_for)
        if self._asked_ns is None:
            self.tested_ns = self._clock.mono_ns()
            # Nothing was due, so no stall of ours explains it.
            return judge(reason, detail, Circumstances(said_goodbye=talk.draining))
        known = Circumstances(
            self._tools.stalled_since(self._asked_ns),
            self._plan.timeout_ns,
            sent_in_vain=talk.stream.standing().sent_in_vain or 0,
            silence=talk.silence,
            said_goodbye=talk.draining,
        )
        return judge(reason, detail, known)

    async def say_goodbye(self) -> None:
        """Leave, once; what goes wrong with that says nothing about the silence."""
        talk, was_leaving = self._talk, self._is_leaving
        self._is_leaving = True
        if talk is not None and not was_leaving:
            talk.deadline_ns = self._clock.mono_ns() + _PARTING_NS
            with contextlib.suppress(*TROUBLE):
                await talk.say_goodbye()

    def close(self) -> None:
        """Close the socket, if there is one."""
        if self._talk is not None:
            self._talk.stream.close()

    def _note_local(self, local: tuple[str, int]) -> None:
        self._local = local


def _longest_ns(welcome: Welcome) -> int:
    """Return the longest silence that a server leaves undisturbed."""
    idle_ns = welcome.idle_ms * 1_000_000
    longest_ns = idle_ns - max(_MARGIN_NS, int(idle_ns * _MARGIN_SHARE))
    return longest_ns if welcome.features & Features.QUIET else min(longest_ns, _UNASKED_NS)
