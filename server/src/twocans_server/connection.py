"""One connection, from accept to close: plain echo or a framed session.

A state machine that never waits. ``on_events`` and ``on_deadline`` do as much as may be done
now; everything that it knows of the world outside comes with ``Context``. What a peer or a network
does ends in a ``Report``, never in an exception.
"""

import enum
import errno
import select
import zlib
from collections.abc import Callable
from typing import NamedTuple, Protocol

from twocans_core.clock import Clock
from twocans_core.errors import RemoteProtocolError
from twocans_core.frames import MAGIC
from twocans_core.messages import (
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
from twocans_core.session import ServerSession, State
from twocans_core.sockets import Received
from twocans_core.tcpinfo import Counters

from .limits import ALLOWANCE_BYTES, Limits
from .metrics import ServerTally

__all__ = ["Connection", "Context", "Ending", "Kind", "Report"]

_LINGER_NS = 1_000_000_000
_LOBBY_NS = 1_000_000_000
# The slowest frame that is still served: its bytes at 64 KiB a second, on top of frame_s.
_SLOWEST_BYTES_PER_S = 64 * 1024
# A transmit stamp signals itself by these two. A broken connection signals more than them.
_STAMP_EVENTS = select.EPOLLERR | select.EPOLLOUT
_MOST_U32 = 0xFFFF_FFFF


class Kind(enum.StrEnum):
    """What a connection turned out to be. Values are metric labels: never rename them."""

    NEW = "new"
    PLAIN = "plain"
    FRAMED = "framed"


class Ending(enum.StrEnum):
    """How a connection ended. Values are metric labels: never rename them."""

    DONE = "done"
    """Framed: both sides said GOODBYE. Plain: the client ended, and had every byte back."""
    LEFT = "left"
    """The client went without a GOODBYE, or without reading what was due."""
    RESET = "reset"
    """The connection broke: a reset, or a time-out of the kernel."""
    BUSY = "busy"
    """No place: over a cap."""
    REFUSED = "refused"
    """The client broke the protocol."""
    SLOW = "slow"
    """A greeting or a frame took too long."""
    IDLE = "idle"
    """Nothing happened for too long."""
    STOPPED = "stopped"
    """The server stopped and could not wait any longer."""
    BUG = "bug"
    """An exception of ours."""


class Report(NamedTuple):
    """What happened on one connection.

    Attributes:
        kind: What it was.
        ending: How it ended.
        reason: A token that says more: the protocol error's, the errno's name, the cap's. ``""``
            where there is nothing to add.
        exchanges: Requests answered.
        client: Who it was; None when no HELLO came.
    """

    kind: Kind
    ending: Ending
    reason: str
    exchanges: int
    client: Identity | None


class Wire(Protocol):
    """What a connection needs of ``sockets.Channel``, whose docstrings hold."""

    @property
    def peer(self) -> tuple[str, int]: ...

    @property
    def sent_bytes(self) -> int: ...

    def stamp_transmits(self) -> bool: ...

    def receive(self) -> Received | None: ...

    def send(self, data: bytes | bytearray | memoryview) -> int: ...

    def take_tx_ns(self, end: int) -> int | None: ...

    def counters(self) -> Counters: ...

    def end_output(self) -> None: ...


class Context(NamedTuple):
    """What all connections of one server share.

    Attributes:
        limits: The limits in force.
        identity: Who the server is.
        tally: What it counts.
        clock: Its clocks.
        is_draining: Whether it is about to stop.
        again: Call the connection's ``on_turn`` in the loop's next turn.
        ended: The connection is over: forget it and close its channel.
    """

    limits: Limits
    identity: Identity
    tally: ServerTally
    clock: Clock
    is_draining: Callable[[], bool]
    again: Callable[["Connection"], None]
    ended: Callable[["Connection", Report], None]


class Connection:
    """One accepted connection.

    Args:
        wire: The socket. ``Context.ended`` is told when it is to be closed.
        context: What it shares with the others.
        refusal: The cap that it came over, or ``""``. It is then told so as soon as it shows
            which kind it is, and is not served.

    Attributes:
        deadline_ns: When ``on_deadline`` is due, ns of CLOCK_MONOTONIC. May move later at any
            time, without notice.
    """

    __slots__ = (
        *("_active_ns", "_begun_ns", "_context", "_eof", "_exchanges", "_lingers", "_out"),
        *("_over", "_queued", "_read_ns", "_received", "_refusal", "_replied", "_rx_ns"),
        *("_sent", "_session", "_t2k", "_verdict", "client", "deadline_ns", "kind", "wire"),
    )

    def __init__(self, wire: Wire, context: Context, refusal: str = "") -> None:
        self.wire = wire
        self.kind = Kind.NEW
        self.client: Identity | None = None
        self._context = context
        self._refusal = refusal
        self._session: ServerSession | None = None
        self._out: bytearray | None = None
        self._received = 0
        self._sent = 0
        self._exchanges = 0
        self._eof = False
        self._lingers = False
        self._over = False
        self._queued = False
        self._verdict = (Ending.LEFT, "")
        self._rx_ns: int | None = None
        self._read_ns = 0
        self._t2k: int | None = None
        # Where in the stream our last frame ended, and the t2k of what it answered.
        self._replied: tuple[int, int | None] = (0, None)
        # When the frame that is not whole yet began; 0 between two frames.
        self._begun_ns = 0
        context.tally.open[self.kind] += 1
        self._active_ns = context.clock.mono_ns()
        wait_ns = _LOBBY_NS if refusal else int(context.limits.idle_s * 1e9)
        self.deadline_ns = self._active_ns + wait_ns

    @property
    def idle_since_ns(self) -> int:
        """When the last byte moved, ns of CLOCK_MONOTONIC."""
        return self._active_ns

    @property
    def is_open_session(self) -> bool:
        """Whether a client is being served that a GOODBYE would reach."""
        session = self._session
        return session is not None and session.state is State.OPEN and not self._lingers

    # --- what may happen to it ------------------------------------------------------------

    def on_events(self, events: int) -> None:
        """Use what the socket is ready for, within one turn's budget."""
        if self._queued:
            return  # its turn comes, and uses what this event tells as well
        # A transmit stamp lies there until the next reply needs it.
        if self._out or events & ~_STAMP_EVENTS:
            self.on_turn()

    def on_turn(self) -> None:
        """Send and read what there is, within one turn's budget."""
        self._queued = False
        if self._over:
            return
        try:
            self._flush()
            self._serve()
        except OSError as error:
            self._break(error)

    def on_deadline(self) -> None:
        """Act on ``deadline_ns`` having passed."""
        if self._over:
            return
        if self._lingers:
            self._end(*self._verdict)
        elif self._refusal:
            self._end(Ending.BUSY, self._refusal)
        elif self._is_full() or self._frame_is_whole():
            self._hit("idle_s")
            self._part("idle", Ending.IDLE)
        else:
            self._hit("greeting_s" if self._is_greeting() else "frame_s")
            self._refuse("too_slow", Ending.SLOW)

    def announce_drain(self) -> None:
        """Tell an open session that the server is about to stop."""
        if self._session is not None and self.is_open_session and not self._over:
            try:
                self._write(self._session.goodbye("draining"))
            except OSError as error:
                self._break(error)

    def stop(self) -> None:
        """Say that the server stops, and give the client a moment to see it."""
        if not self._over and not self._lingers:
            self._part("draining", Ending.STOPPED)

    def cut_off(self) -> None:
        """End it now: the server waits no longer."""
        self.stop()
        self._end(*self._verdict)

    def fail(self) -> None:
        """End it because of a bug of ours."""
        if not self._over:
            self._end(Ending.BUG, "")

    # --- reading --------------------------------------------------------------------------

    def _serve(self) -> None:
        budget = self._context.limits.frames_per_turn
        while not self._over:
            if self._session is not None and not self._lingers:
                budget -= self._take_messages(self._session, budget)
            if self._over or self._is_full():
                return  # when there is room again, that is an event
            if budget <= 0:
                self._hit("frames_per_turn")
                self._queued = True
                self._context.again(self)
                return
            if self._eof:
                self._serve_eof()
                return
            received = self.wire.receive()
            if received is None:
                return
            budget -= self._take(received)

    def _serve_eof(self) -> None:
        """The client sends no more: what is still due is sent, and that is the end."""
        if not self._lingers:
            self._linger(Ending.DONE if self.kind is Kind.PLAIN else Ending.LEFT)
        elif not self._out:
            self._end(*self._verdict)

    def _take(self, received: Received) -> int:
        """Take in one read; returns what it costs of the turn's budget."""
        data = received.data
        self._active_ns = self._context.clock.mono_ns()
        self._received += len(data)
        self._context.tally.bytes_received += len(data)
        if not data:
            self._eof = True
            if self._session is not None and not self._lingers:
                self._session.feed(data)
            return 0
        if self._lingers:
            return 1  # it is over: whatever still comes is read away
        if self.kind is Kind.NEW and not self._take_first(data):
            return 0
        if self._session is not None:
            self._rx_ns = received.rx_ns
            self._read_ns = self._context.clock.real_ns()
            self._session.feed(data)
            return 1
        self._write(data)
        self._set_idle_deadline()
        return 1 + len(data) // 1024

    def _take_first(self, data: bytes) -> bool:
        """Let the first byte decide; False when the connection is over already."""
        if data[0] == MAGIC[0]:
            self._become(Kind.FRAMED)
            limits = self._context.limits
            self._session = ServerSession(
                max_greeting=limits.max_greeting_bytes, max_payload=limits.max_payload_bytes
            )
            # Switched on while nothing is unsent: ids then count from the first byte sent.
            self.wire.stamp_transmits()
            if not self._refusal:
                self.deadline_ns = self._active_ns + int(limits.greeting_s * 1e9)
            return True
        self._become(Kind.PLAIN)
        if self._refusal:
            self._end(Ending.BUSY, self._refusal)
            return False
        return True

    def _take_messages(self, session: ServerSession, budget: int) -> int:
        """Answer up to ``budget`` messages; returns how many."""
        taken = 0
        while taken < budget and not self._is_full():
            try:
                message = session.next_message()
            except RemoteProtocolError as error:
                self._refuse(error.reason)
                return taken
            if message is None:
                break
            taken += 1
            # The kernel stamps the end of a read. Only the frame that ends there has a stamp.
            self._t2k = None if session.decoder.buffered_bytes else self._rx_ns
            self._answer(session, message)
            if self._lingers or self._over:
                return taken
        self._set_session_deadline(session, taken)
        return taken

    # --- answering ------------------------------------------------------------------------

    def _answer(self, session: ServerSession, message: Message) -> None:
        match message:
            case Request():
                self._reply(session, message)
            case Hello():
                self._welcome(session, message)
            case Goodbye():
                follow_up = FollowUp(self._take_t3k(), self.wire.counters())
                self._write(session.farewell(follow_up))
                self._linger(Ending.DONE)
            case Error():
                self._context.tally.protocol_errors["from_client"] += 1
                self._end(Ending.REFUSED, message.reason)
            case _:  # pragma: no cover - the session lets nothing else through
                raise AssertionError(message)

    def _welcome(self, session: ServerSession, hello: Hello) -> None:
        context = self._context
        self.client = hello.identity
        if self._refusal:
            self._write(session.busy(self._refusal))
            self._linger(Ending.BUSY, self._refusal)
            return
        welcome = Welcome(
            identity=context.identity,
            connection=hello.connection,
            max_payload=min(context.limits.max_payload_bytes, _MOST_U32),
            idle_ms=min(int(context.limits.idle_s * 1000), _MOST_U32),
            draining=context.is_draining(),
            peer=self.wire.peer,
            t2k=self._t2k,
            t2u=self._read_ns,
            t3u=context.clock.real_ns(),
            counters=self.wire.counters(),
        )
        self._write(session.welcome(welcome))
        self._replied = (self._sent_end(), None)

    def _reply(self, session: ServerSession, request: Request) -> None:
        tally = self._context.tally
        crc = zlib.crc32(request.payload)
        if crc != request.crc:
            tally.damaged_requests += 1
        previous_t3k = self._take_t3k()
        counters = self.wire.counters()
        t3u = self._context.clock.real_ns()
        reply = Reply(request.payload, crc, self._t2k, self._read_ns, t3u, previous_t3k, counters)
        self._write(session.reply(reply))
        self._replied = (self._sent_end(), self._t2k)
        self._exchanges += 1
        tally.exchanges += 1
        if self._t2k is not None:
            tally.wakeup.observe(max(0, self._read_ns - self._t2k))

    def _take_t3k(self) -> int | None:
        """Return when our last frame reached the network device, if that is known by now."""
        end, t2k = self._replied
        t3k = self.wire.take_tx_ns(end)
        if t3k is not None and t2k is not None:
            self._context.tally.residence.observe(max(0, t3k - t2k))
        return t3k

    def _refuse(self, reason: str, ending: Ending = Ending.REFUSED) -> None:
        """Tell the client which rule it broke, and close."""
        self._context.tally.protocol_errors[reason] += 1
        if reason == "too_big":
            self._hit("max_greeting_bytes" if self.client is None else "max_payload_bytes")
        try:
            error = self._session.error(reason) if self._session is not None else b""
            if error:  # there is none for what was itself a client's ERROR
                self._write(error)
            self._linger(ending, reason)
        except OSError:
            self._end(ending, reason)

    def _part(self, reason: str, ending: Ending) -> None:
        """Say GOODBYE to a session, nothing to a plain client, and close."""
        try:
            if self._session is not None and self.is_open_session:
                self._write(self._session.goodbye(reason))
            if self._out:  # it does not read: there is nothing to wait for
                self._end(ending, "")
            self._linger(ending)
        except OSError:
            self._end(ending, "")

    # --- writing --------------------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        if self._sent + len(data) > self._received + ALLOWANCE_BYTES:
            self._context.tally.limit_hits["allowance"] += 1
            self._end(Ending.REFUSED, "allowance")
            return
        self._sent += len(data)
        self._context.tally.bytes_sent += len(data)
        was_full = self._is_full()
        if self._out:
            self._out += data
        else:
            count = self.wire.send(data)
            if count < len(data):
                self._out = bytearray(memoryview(data)[count:])
        if self._is_full() and not was_full:
            self._hit("max_buffered_bytes")

    def _flush(self) -> None:
        if not self._out:
            return
        count = self.wire.send(self._out)
        if count:
            self._active_ns = self._context.clock.mono_ns()
            if self.kind is Kind.PLAIN and not self._lingers:
                self._set_idle_deadline()
        del self._out[:count]
        if not self._out:
            self._out = None
            if self._lingers:
                self._finish_output()

    def _is_full(self) -> bool:
        # While it lingers, reading goes on whatever is unsent: the end must be seen.
        out = self._out
        return (
            out is not None
            and len(out) >= self._context.limits.max_buffered_bytes
            and not self._lingers
        )

    def _sent_end(self) -> int:
        return self.wire.sent_bytes + len(self._out or b"")

    # --- ending ---------------------------------------------------------------------------

    def _linger(self, ending: Ending, reason: str = "") -> None:
        """Send what is due, then FIN, then read to the end of the stream.

        Closing with unread bytes would send a reset, and that can overtake what is due.
        """
        if self._over:
            return
        self._lingers = True
        self._verdict = (ending, reason)
        wait_ns = _LINGER_NS
        if self._out:
            wait_ns = int(self._context.limits.idle_s * 1e9)
        self.deadline_ns = self._context.clock.mono_ns() + wait_ns
        if not self._out:
            self._finish_output()

    def _finish_output(self) -> None:
        self.wire.end_output()
        self.deadline_ns = self._context.clock.mono_ns() + _LINGER_NS
        if self._eof:
            self._end(*self._verdict)

    def _break(self, error: OSError) -> None:
        """The connection broke; a verdict that was there before stands, unless it was good."""
        if self._lingers and self._verdict[0] is not Ending.DONE:
            self._end(*self._verdict)
            return
        name = errno.errorcode.get(error.errno or 0, "unknown").lower()
        self._end(Ending.RESET, name)

    def _end(self, ending: Ending, reason: str) -> None:
        if self._over:
            return
        self._over = True
        if ending is Ending.DONE and self._out:
            ending = Ending.LEFT
        self._context.tally.open[self.kind] -= 1
        self._context.ended(self, Report(self.kind, ending, reason, self._exchanges, self.client))

    # --- deadlines ------------------------------------------------------------------------

    def _frame_is_whole(self) -> bool:
        session = self._session
        if session is None:
            return True
        return not self._is_greeting() and not session.decoder.buffered_bytes

    def _is_greeting(self) -> bool:
        return self._session is not None and self._session.state is State.GREETING

    def _set_idle_deadline(self) -> None:
        self.deadline_ns = self._active_ns + int(self._context.limits.idle_s * 1e9)

    def _set_session_deadline(self, session: ServerSession, taken: int) -> None:
        if session.state is State.GREETING or self._refusal:
            return  # set by the first byte, and nothing but a whole HELLO moves it
        decoder = session.decoder
        if not decoder.buffered_bytes or self._is_full():
            self._begun_ns = 0
            self._set_idle_deadline()
            return
        if taken or not self._begun_ns:
            self._begun_ns = self._active_ns
        # More bytes of the same frame do not move its deadline; what it declares does, once.
        size = decoder.buffered_bytes + decoder.missing_bytes
        allowed_s = self._context.limits.frame_s + size / _SLOWEST_BYTES_PER_S
        self.deadline_ns = self._begun_ns + int(allowed_s * 1e9)

    def _become(self, kind: Kind) -> None:
        self._context.tally.open[self.kind] -= 1
        self._context.tally.open[kind] += 1
        self.kind = kind

    def _hit(self, limit: str) -> None:
        self._context.tally.limit_hits[limit] += 1
