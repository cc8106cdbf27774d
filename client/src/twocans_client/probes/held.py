"""The held connection: one a path, kept open, with an exchange now and then.

Fresh connections show what a path is like at the moment. A held one shows what was lost over
time, and what only befalls connections that live: state that a firewall or a balancer forgets,
a server that closes, a route that goes. So its ending is evidence, and is told with its reason.

After an ending it comes back with jitter: clients whose server restarted do not come at once.
"""

import asyncio
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twocans_client.evidence.blame import Circumstances, judge
from twocans_client.evidence.loss import Ledger, Segments
from twocans_client.evidence.results import Exchange, Reason, Silence
from twocans_core.kernel.tcpinfo import Limited
from twocans_core.net.sockets import Address
from twocans_core.net.streams import ByteStream, DeadlineExceeded
from twocans_core.protocol.messages import Identity, Welcome
from twocans_core.protocol.session import LAST_SEQUENCE

from .conversation import Conversation
from .endings import Backoff, Ending, joined
from .schedule import Schedule, phase_ns
from .tools import Tools
from .trouble import TROUBLE, reason_of_trouble

__all__ = ["Ending", "Held", "HeldPlan", "Observer"]

# TCP_USER_TIMEOUT of a held connection (sockets.py): past it the kernel gives up what nobody
# acknowledged, so a reply that is later than that comes only from a program that hung.
_PATIENCE_NS = 30_000_000_000
# A request of this payload is one segment wherever IPv6 runs: 1,280 bytes less 60 of headers.
_MAX_PAYLOAD = 1024
# A server with an idle limit below twice this cannot make us talk more often than that.
_SHORTEST_KEEPALIVE_NS = 500_000_000
_PARTING_NS = 1_000_000_000
_NO_ADDRESS_S = 1.0


class Observer(Protocol):
    """Who is told what a held connection shows. None of it may wait, or raise."""

    def exchanged(self, exchange: Exchange, tainted: str) -> None:
        """One exchange, complete: it is told with the next, or at the ending.

        The last before a sudden end has no ``t3k``, and so no split. ``tainted`` as in
        ``ProbeResult``.
        """

    def counted(self, segments: Segments) -> None:
        """What became of the segments since the last time."""

    def limited(self, limited: Limited) -> None:
        """For how long it was busy, and what it waited for, since the last time."""

    def ended(self, ending: Ending) -> None:
        """The connection is over. A new one follows, but for ``shutdown``."""


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


class _Life:
    """One connection: what is known of it while it lasts."""

    __slots__ = (
        *("address", "exchanges", "keepalive_ns", "ledger", "limits", "opened_ns", "parting"),
        *("schedule", "stream", "tainted", "talk", "tools", "well_ns"),
    )

    def __init__(self, address: Address, tools: Tools) -> None:
        self.address = address
        self.tools = tools
        self.stream: ByteStream | None = None
        self.talk: Conversation | None = None
        self.schedule: Schedule | None = None
        self.ledger = Ledger()
        self.limits = Limited(0, 0, 0)
        self.opened_ns = 0
        self.well_ns = tools.clock.mono_ns()  # when the far end was heard last, as it should be
        self.keepalive_ns = 0  # half the server's idle limit
        self.exchanges = 0
        self.tainted = ""  # the newest exchange
        self.parting = False

    @property
    def is_asking(self) -> bool:
        """Whether an answer is due."""
        return self.talk is None or self.talk.waiting_for is not Reason.OK

    @property
    def waiting_for(self) -> Reason:
        """What the kernel's giving up means: also of a connection that is silent, if watched."""
        if self.talk is None:
            return Reason.CONNECT_TIMEOUT
        return self.talk.waiting_for if self.is_asking else Reason.REPLY_TIMEOUT


class Held:
    """One path's held connection, and the next one, and the next.

    Args:
        name: Of the path: it decides when in the interval the exchanges are.
        address: Gives where to connect to; None while that is not known. Asked before every
            exchange: a held connection does not stay with an address that is no more.
        plan: What to do.
        tools: Gives what with, at every connection anew.
        observer: Who is told.

    Attributes:
        since_real_ns: Since when the connection stands, CLOCK_REALTIME; 0 while there is none.
        server: Who greeted us last; behind a load balancer not always who answers the probes.
        skipped: Slots without an exchange, because an answer was due or we were late.
    """

    def __init__(
        self,
        name: str,
        address: Callable[[], Address | None],
        plan: HeldPlan,
        tools: Callable[[], Tools],
        observer: Observer,
    ) -> None:
        self.since_real_ns = 0
        self.server: Identity | None = None
        self.skipped = 0
        self._name = name
        self._address = address
        self._plan = plan._replace(payload_bytes=min(plan.payload_bytes, _MAX_PAYLOAD))
        self._tools = tools
        self._observer = observer
        self._backoff = Backoff()
        self._draining_until_ns = 0
        self._task: asyncio.Task[object] | None = None
        self._stopping = False

    @property
    def is_connected(self) -> bool:
        """Whether the connection stands: greeted, and not ended."""
        return self.since_real_ns != 0

    def stop(self) -> None:
        """Ask it to end: ``run`` says GOODBYE, and returns within a second."""
        if not self._stopping:
            self._stopping = True
            if self._task is not None:
                self._task.cancel()

    async def run(self) -> None:
        """Hold a connection until stopped, in a task of its own.

        Cancelled, it closes at once. Nothing that a peer or a network does leaves it as an
        exception.
        """
        self._task = asyncio.current_task()
        try:
            await self._pause(*self._backoff.first_s)
            while True:
                address = self._address()
                if address is None:
                    await self._pause(_NO_ADDRESS_S, _NO_ADDRESS_S)
                else:
                    await self._pause(*self._backoff.after_s(await self._hold(address)))
        except asyncio.CancelledError:
            if not self._stopping:
                raise
            if self._task is not None:
                self._task.uncancel()

    async def _pause(self, least_s: float, most_s: float) -> None:
        if self._stopping:
            raise asyncio.CancelledError
        await asyncio.sleep(self._tools().rng.uniform(least_s, most_s))

    async def _hold(self, address: Address) -> Ending:
        """Make one connection and hold it for as long as it lasts."""
        life = _Life(address, self._tools())
        reason, detail = Reason.INTERNAL_ERROR, ""
        try:
            reason, detail = await self._live(life)
            detail = joined(detail, await self._part(life))
        except asyncio.CancelledError:
            reason = Reason.SHUTDOWN
            if self._stopping:
                detail = await self._part(life)
            raise
        except TROUBLE as error:
            reason, detail = self._judge(life, error)
        finally:
            ending = self._end(life, reason, detail)
        return ending

    async def _live(self, life: _Life) -> tuple[Reason, str]:
        """Connect, greet and exchange; returns why we leave."""
        plan, clock = self._plan, life.tools.clock
        deadline_ns = clock.mono_ns() + plan.timeout_ns
        with life.tools.attention:
            stream = await life.tools.dial(life.address, deadline_ns=deadline_ns, held=True)
            life.stream = stream
            talk = life.talk = Conversation(
                stream,
                life.tools,
                max_payload=plan.payload_bytes,
                counters=stream.counters(),
                deadline_ns=deadline_ns,
            )
            schedule = self._open(life, talk, await talk.greet())
        while not talk.draining:
            if self._address() != life.address:
                return Reason.OK, "its address is another now"
            if life.exchanges == LAST_SEQUENCE:
                return Reason.OK, "no sequence is left"
            try:
                await talk.wait(schedule.next_ns)
            except DeadlineExceeded:
                intended_ns, _, missed = schedule.take(clock.mono_ns())
                self.skipped += missed
                if intended_ns is not None:
                    await self._exchange(life, talk)
        return Reason.DRAINING, ""

    def _open(self, life: _Life, talk: Conversation, welcome: Welcome) -> Schedule:
        """Note that the connection stands; returns when to exchange."""
        life.opened_ns = life.well_ns = talk.read_ns
        life.keepalive_ns = max(welcome.idle_ms * 500_000, _SHORTEST_KEEPALIVE_NS)
        self.since_real_ns = talk.read_real_ns
        self.server = welcome.identity
        if not talk.draining:
            self._draining_until_ns = 0
        interval_ns = min(self._plan.interval_ns, life.keepalive_ns)
        name, grid_ns = life.tools.identity.name, self._plan.grid_ns
        phase = phase_ns(name, f"held {self._name}", interval_ns, grid_ns)
        life.schedule = Schedule(interval_ns, phase, talk.read_ns)
        return life.schedule

    async def _exchange(self, life: _Life, talk: Conversation) -> None:
        tools = life.tools
        begun_ns = tools.clock.mono_ns()
        talk.deadline_ns = begun_ns + self._plan.patience_ns
        with tools.attention:
            await talk.exchange(tools.rng.randbytes(self._plan.payload_bytes), cut=True)
            tainted = tools.stalled_since(begun_ns).cause or ""
        life.well_ns = talk.read_ns
        life.exchanges += 1
        if len(talk.exchanges) > 1:
            self._observer.exchanged(talk.exchanges.pop(0), life.tainted)
        life.tainted = tainted
        self._account(life, talk)
        self._tell_limits(life, talk.stream.limited())

    def _account(self, life: _Life, talk: Conversation) -> None:
        if talk.draining:
            return  # the GOODBYE may have crossed our request: then the counters do not match
        segments = life.ledger.feed(talk.cut) if talk.cut is not None else None
        if segments is not None:
            self._observer.counted(segments)

    def _tell_limits(self, life: _Life, now: Limited) -> None:
        before = life.limits
        if now != before and None not in now:
            life.limits = now
            since = ((new or 0) - (old or 0) for new, old in zip(now, before, strict=True))
            self._observer.limited(Limited(*since))

    async def _part(self, life: _Life) -> str:
        """Say GOODBYE, if there is a session; returns what went wrong, for people."""
        talk = life.talk
        if talk is None or not life.opened_ns or life.parting:
            return ""
        life.parting = True
        was_asking = life.is_asking
        if was_asking:
            # The FOLLOW_UP will speak of a reply that we have not seen.
            self._tell_exchanges(life, talk)
        talk.deadline_ns = life.tools.clock.mono_ns() + _PARTING_NS
        try:
            await talk.say_goodbye()
        except TROUBLE as error:
            reason, detail = reason_of_trouble(error, talk.waiting_for)
            return joined(reason, detail)
        if not was_asking:
            self._account(life, talk)
        return ""

    def _judge(self, life: _Life, error: Exception) -> tuple[Reason, str]:
        """Return whose doing it was that a connection failed, or ended while we held it."""
        reason, detail = reason_of_trouble(error, life.waiting_for)
        now_ns, talk = life.tools.clock.mono_ns(), life.talk
        known = Circumstances(
            life.tools.stalled_since(life.well_ns),
            self._plan.patience_ns if life.opened_ns else self._plan.timeout_ns,
            life.keepalive_ns if life.opened_ns else None,
            _sent_in_vain(life, error),
            Silence(life.waiting_for, now_ns - talk.asked_ns) if talk and life.is_asking else None,
            said_goodbye=(talk is not None and talk.draining) or now_ns < self._draining_until_ns,
        )
        reason, detail = judge(reason, detail, known)
        if life.opened_ns and reason is Reason.REPLY_TIMEOUT:
            detail = joined(detail, _resent(life))
        return reason, detail

    def _end(self, life: _Life, reason: Reason, detail: str) -> Ending:
        now_ns = life.tools.clock.mono_ns()
        lasted_ns = now_ns - life.opened_ns if life.opened_ns else None
        self.since_real_ns = 0
        if life.schedule is not None:
            self.skipped += life.schedule.take(now_ns).scheduled
        if life.stream is not None:
            limits = life.stream.limited()
            life.stream.close()
            self._tell_limits(life, limits)
        if life.talk is not None:
            if life.talk.draining:
                self._draining_until_ns = now_ns + self._plan.drain_grace_ns
            self._tell_exchanges(life, life.talk)
        ending = Ending(reason, detail, lasted_ns, life.exchanges)
        self._observer.ended(ending)
        return ending

    def _tell_exchanges(self, life: _Life, talk: Conversation) -> None:
        for exchange in talk.exchanges:
            self._observer.exchanged(exchange, life.tainted)
        talk.exchanges.clear()


def _sent_in_vain(life: _Life, error: Exception) -> int:
    if life.stream is not None:
        return life.stream.sent_in_vain() or 0
    return (isinstance(error, DeadlineExceeded) and error.sent_in_vain) or 0


def _resent(life: _Life) -> str:
    """Say whether it is the path that was silent, or the server's program."""
    if life.talk is None or life.stream is None:
        return ""
    now, before = life.stream.counters().total_retrans, life.talk.counters.total_retrans
    if now is None or before is None:
        return ""
    return f"{now - before} segments sent again" if now > before else "nothing sent again"
